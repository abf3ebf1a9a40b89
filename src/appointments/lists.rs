//! The list of appointments that a caller may see, a window of it at a time, over the pages of the upstream.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::try_join;
use moka::sync::Cache;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::{
    cache::AppointmentCache,
    flight::Flights,
    generations::Asked,
    kept::{Kept, memory},
};
use crate::{
    caller::{Caller, Scope},
    config::CacheConfig,
    model::SharedAppointment,
    upstream::{Deadline, Page, UpstreamClient, UpstreamError},
};

/// A window of the list.
#[derive(Debug, Default)]
pub struct Window {
    /// The appointments with their places in the list, counted from 0.
    pub items: Vec<(u64, SharedAppointment)>,
    /// Whether the upstream sent something among them that is no appointment, which was left out.
    pub is_malformed: bool,
    /// The last place in the window, be there an appointment or something that was left out; none where it is empty.
    pub last: Option<u64>,
    /// Whether the list goes on behind the window.
    pub has_next: bool,
    /// How long the whole list is, where the upstream says so.
    pub total: Option<u64>,
    /// The longest page that the upstream gives, where that is shorter than what was asked for.
    pub page_cap: Option<u32>,
}

/// Where a window begins and how long it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The first place, counted from 0.
    pub start: u64,
    /// How many at most.
    pub length: u32,
    /// The longest page that the upstream gives, as far as it is known.
    pub page_cap: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    scope: Scope,
    page: u64,
    per_page: u32,
}

#[derive(Clone)]
struct Known {
    page: Arc<Page>,
    ttl: Duration,
    asked: Asked,
}

impl Kept for Known {
    fn ttl(&self) -> Duration {
        self.ttl
    }

    fn size(&self) -> usize {
        let item =
            |item: &Option<SharedAppointment>| item.as_ref().map_or(0, |appointment| appointment.size());
        self.page.items.iter().map(|it| size_of_val(it) + item(it)).sum()
    }
}

/// The pages that the process remembers, briefly. Cheap to clone.
#[derive(Clone)]
pub(super) struct ListCache(Arc<Inner>);

struct Inner {
    kept: Cache<Key, Known>,
    flights: Flights<Key, Arc<Page>>,
    cache: AppointmentCache,
    upstream: UpstreamClient,
    ttl: Duration,
}

impl ListCache {
    pub(super) fn new(config: &CacheConfig, cache: AppointmentCache, upstream: UpstreamClient) -> Self {
        Self(Arc::new(Inner {
            kept: memory(config.list_size),
            flights: Flights::new(),
            cache,
            upstream,
            ttl: config.list_ttl,
        }))
    }

    /// The window at `place`: one page upstream where it lies within a page, two at once where it does not; and once more
    /// where the upstream turns out to give shorter pages than were asked for.
    pub(super) async fn window(
        &self,
        caller: &Caller,
        place: Place,
        deadline: Instant,
    ) -> Result<Window, UpstreamError> {
        let capped = match self.window_or_place(caller, place, deadline).await? {
            Ok(window) => return Ok(window),
            Err(capped) => capped,
        };
        let unsteady = UpstreamError::Invalid("its pages have no steady length");
        self.window_or_place(caller, capped, deadline).await?.map_err(|_| unsteady)
    }

    /// The window at `place`, or the place to ask for instead, now that it is known how long pages are.
    async fn window_or_place(
        &self,
        caller: &Caller,
        place: Place,
        deadline: Instant,
    ) -> Result<Result<Window, Place>, UpstreamError> {
        let per_page = place.page_cap.map_or(place.length, |cap| place.length.min(cap)).max(1);
        let first = place.start / u64::from(per_page);
        let pages = if place.start.is_multiple_of(u64::from(per_page)) {
            Pages { first, head: self.page(caller, first, per_page, deadline).await?, tail: None }
        } else {
            let (head, tail) = try_join(
                self.page(caller, first, per_page, deadline),
                self.page(caller, first + 1, per_page, deadline),
            )
            .await?;
            Pages { first, head, tail: Some(tail) }
        };
        let real = pages.per_page(per_page);
        if real == per_page {
            return self.cut(caller, place, per_page, pages, deadline).await.map(Ok);
        }
        // The upstream gives shorter pages than were asked for, so these lie elsewhere. Where the window begins within
        // them all the same, they will do: there may then be less in it than asked for.
        let capped = Place { page_cap: Some(real), ..place };
        let (begin, end) =
            (first * u64::from(real), (first + 1 + u64::from(pages.tail.is_some())) * u64::from(real));
        if (begin..end).contains(&place.start) {
            self.cut(caller, capped, real, pages, deadline).await.map(Ok)
        } else {
            Ok(Err(capped))
        }
    }

    async fn cut(
        &self,
        caller: &Caller,
        place: Place,
        per_page: u32,
        pages: Pages,
        deadline: Instant,
    ) -> Result<Window, UpstreamError> {
        let begin = pages.first * u64::from(per_page);
        let wanted = place.start..place.start + u64::from(place.length);
        let all = pages.head.items.iter().chain(pages.tail.iter().flat_map(|tail| &tail.items));
        let mut window = Window { total: pages.last().total, page_cap: place.page_cap, ..Window::default() };
        let mut end = begin;
        for (position, item) in (begin..).zip(all) {
            end = position + 1;
            if wanted.contains(&position) {
                window.last = Some(position);
                match item {
                    Some(appointment) => window.items.push((position, appointment.clone())),
                    None => window.is_malformed = true,
                }
            }
        }
        window.has_next = if end > wanted.end {
            true
        } else if pages.last().items.is_empty() {
            // Nothing is behind it, whatever it says of the rest: there would be no cursor to go on with.
            false
        } else if let Some(total) = window.total {
            end < total
        } else if let Some(has_next) = pages.last().has_next {
            has_next
        } else if pages.last().items.len() < per_page as usize {
            false
        } else if pages.tail.is_some() {
            // Two full pages hold more than the window, so the list was cut short by a cap: it goes on.
            true
        } else {
            // The upstream does not say, and the page is full: only the next page can tell, which will be asked for next
            // anyway.
            !self.page(caller, pages.first + 1, per_page, deadline).await?.items.is_empty()
        };
        Ok(window)
    }

    /// Page `page`, counted from 0.
    async fn page(
        &self,
        caller: &Caller,
        page: u64,
        per_page: u32,
        deadline: Instant,
    ) -> Result<Arc<Page>, UpstreamError> {
        let key = Key { scope: caller.scope(), page, per_page };
        if let Some(kept) = self.kept(&key) {
            return Ok(kept);
        }
        let asked = self.0.cache.generations().ask_list();
        let joined = self.0.flights.join(
            key,
            asked.generation,
            deadline,
            || self.kept(&key),
            |deadline| {
                let (lists, caller) = (self.clone(), caller.clone());
                async move { lists.fetch(&caller, key, asked, &deadline).await }.in_current_span()
            },
        );
        joined.outcome().await
    }

    fn kept(&self, key: &Key) -> Option<Arc<Page>> {
        let kept = self.0.kept.get(key)?;
        (!self.0.cache.generations().is_list_outdated(kept.asked)).then_some(kept.page)
    }

    async fn fetch(
        &self,
        caller: &Caller,
        key: Key,
        asked: Asked,
        deadline: &Deadline,
    ) -> Result<Arc<Page>, UpstreamError> {
        let page = self.0.upstream.page(caller, key.page + 1, key.per_page, deadline).await;
        let duration_ms = asked.at.elapsed().as_millis() as u64;
        let page = match page {
            Ok(page) => Arc::new(page),
            Err(error) => {
                tracing::warn!(list.page = key.page + 1, %error, duration_ms, "fetch failed");
                return Err(error);
            }
        };
        tracing::debug!(list.page = key.page + 1, items = page.items.len(), duration_ms, "fetched");
        for appointment in page.items.iter().flatten() {
            self.0.cache.keep_listed(caller, appointment, page.keep, asked);
        }
        let ttl = page.keep.limit(self.0.ttl);
        let ttl = caller.time_left().map_or(ttl, |left| ttl.min(left));
        // What a change has outdated on its way must not take the place of what was asked for since.
        let is_current = !self.0.cache.generations().is_list_outdated(asked);
        if is_current && !ttl.is_zero() {
            self.0.kept.insert(key, Known { page: page.clone(), ttl, asked });
        }
        Ok(page)
    }
}

/// The pages in which a window lies.
struct Pages {
    /// The head's number, counted from 0.
    first: u64,
    head: Arc<Page>,
    tail: Option<Arc<Page>>,
}

impl Pages {
    fn last(&self) -> &Page {
        self.tail.as_deref().unwrap_or(&self.head)
    }

    /// How long the pages really are: what the upstream says, if that is less than was asked for.
    fn per_page(&self, asked: u32) -> u32 {
        self.head.per_page.map_or(asked, |real| real.clamp(1, asked))
    }
}

impl fmt::Debug for ListCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListCache").finish_non_exhaustive()
    }
}
