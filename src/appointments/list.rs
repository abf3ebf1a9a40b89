//! The list of appointments that a caller may see, a window of it at a time, over the pages of the upstream.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::{Duration, Instant as StdInstant},
};

use futures_util::future::try_join;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument as _;

use super::{cache::AppointmentCache, dependencies::Record};
use crate::{
    cache::{
        freshness::{Freshness, StalePolicy, Use},
        single_flight::{Claim, SingleFlight},
        store::{self, CacheEntry, CacheStore, Size, TAG},
        validity::{Guarded, ReadVersion, Resource, Served, Validity},
    },
    caller::{Caller, Scope},
    config::cache::CacheConfig,
    model::SharedAppointment,
    upstream::{
        answer::{Page, PageItem},
        client::UpstreamClient,
        deadline::Deadline,
        error::{Revocation, UpstreamError},
    },
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
    /// How old it is, where it is stale: as old as the oldest page that it is made of.
    pub age: Option<Duration>,
}

/// Where a window begins and how long it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowRequest {
    /// The first place, counted from 0.
    pub start: u64,
    /// How many at most.
    pub length: u32,
    /// The longest page that the upstream gives, as far as it is known.
    pub page_cap: Option<u32>,
}

/// The key of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    scope: Scope,
    page: u64,
    per_page: u32,
}

impl store::Key for Key {
    fn scope(&self) -> Scope {
        self.scope
    }
}

/// The cached pages.
pub(crate) type Pages = CacheStore<Key, Arc<Page>>;

impl Size for Arc<Page> {
    fn size(&self) -> usize {
        let item = |item: &Option<PageItem>| item.as_ref().map_or(0, |item| TAG + item.appointment.size());
        self.items.iter().map(|it| size_of_val(it) + item(it)).sum()
    }

    fn tags(&self) -> impl Iterator<Item = uuid::Uuid> {
        self.items.iter().flatten().map(|item| item.appointment.id.0)
    }
}

/// A page from which a response was made. It does not keep the page alive.
pub(crate) struct Source {
    key: Key,
    entry: Weak<CacheEntry<Arc<Page>>>,
}

/// A page from which a window is made, with its age if it is stale.
type Aged = (Arc<Page>, Option<Duration>);

/// The list cache: pages, for a short time. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ListCache(Arc<Inner>);

struct Inner {
    store: Pages,
    flights: SingleFlight<Key, Arc<Page>>,
    cache: AppointmentCache,
    upstream: UpstreamClient,
    ttl: Duration,
    policy: StalePolicy,
}

impl ListCache {
    /// A cache in front of `upstream` that stores pages in `store`, and the appointments on them in `cache`.
    pub(crate) fn new(
        config: &CacheConfig,
        store: Pages,
        cache: AppointmentCache,
        upstream: UpstreamClient,
    ) -> Self {
        let flights = SingleFlight::new(cache.validity().clone());
        let (ttl, policy) = (config.list_ttl, StalePolicy::of(config));
        Self(Arc::new(Inner { store, flights, cache, upstream, ttl, policy }))
    }

    /// The number of pages and their size in bytes.
    pub(crate) fn total(&self) -> (usize, u64) {
        self.0.store.total()
    }

    /// The window at `place`: one page upstream where it lies within a page, two at once where it does not; and once more
    /// where the upstream turns out to give shorter pages than were asked for. Pages that are not there by `deadline`, or that
    /// the upstream fails to give, are what they were until lately. What it is made of is noted in `record`.
    pub(crate) async fn window(
        &self,
        caller: &Caller,
        place: WindowRequest,
        deadline: Instant,
        record: &Record,
    ) -> Result<Window, UpstreamError> {
        let reader = Reader { lists: self, caller, deadline, record };
        let capped = match reader.window_or_place(place).await? {
            Ok(window) => return Ok(window),
            Err(capped) => capped,
        };
        let unsteady = UpstreamError::Invalid("its pages have no steady length");
        reader.window_or_place(capped).await?.map_err(|_| unsteady)
    }

    /// The entry of `page`, and how much longer it is fresh as of `now`; none if another page is cached.
    pub(crate) fn source(&self, key: &Key, page: &Arc<Page>, now: StdInstant) -> Option<(Source, Duration)> {
        let entry = self.0.store.get(key)?;
        let cached = self.validity().read(&entry, Use::Fresh)?.value;
        let left = entry.fresh_for(now).filter(|_| Arc::ptr_eq(cached, page))?;
        Some((Source { key: *key, entry: Arc::downgrade(&entry) }, left))
    }

    /// Whether each of `sources` would be served from the cache.
    pub(crate) fn are_current(&self, sources: &[Source], now: StdInstant) -> bool {
        sources.iter().all(|Source { entry, .. }| {
            let entry = entry.upgrade();
            entry.is_some_and(|entry| self.validity().read_at(&entry, Use::Fresh, now).is_some())
        })
    }

    /// Counts each of `sources` as recently used.
    pub(crate) fn touch(&self, sources: &[Source]) {
        for source in sources {
            self.0.store.get(&source.key);
        }
    }

    fn validity(&self) -> &Validity {
        self.0.cache.validity()
    }

    /// Reads a page in the background, unless a call for it is in flight.
    fn refresh(&self, caller: &Caller, key: Key) {
        // The next reader starts another refresh, so the call need not be retried.
        let claim = self.join(caller, key, Instant::now());
        if matches!(claim, Claim::Started(_)) {
            // A call without waiters is cancelled.
            tokio::spawn(claim.outcome());
        }
    }

    fn join(&self, caller: &Caller, key: Key, deadline: Instant) -> Claim<Key, Arc<Page>> {
        let version = self.validity().start_read(key.scope, Resource::List);
        let fresh = || self.cached(&key, Use::Fresh).map(|(page, _)| page);
        self.0.flights.join(key, version, deadline, fresh, |version, deadline| {
            let (lists, caller) = (self.clone(), caller.clone());
            async move { lists.fetch(&caller, key, version, &deadline).await }.in_current_span()
        })
    }

    /// The cached page under `key`, if it may be put to this `purpose`.
    fn cached(&self, key: &Key, purpose: Use) -> Option<Aged> {
        let entry = self.0.store.get(key)?;
        let Served { value, stale_age } = self.validity().read(&entry, purpose)?;
        Some((value.clone(), stale_age))
    }

    async fn fetch(
        &self,
        caller: &Caller,
        key: Key,
        version: ReadVersion,
        deadline: &Deadline,
    ) -> Result<Arc<Page>, UpstreamError> {
        let page = self.0.upstream.page(caller, key.page + 1, key.per_page, deadline).await;
        let duration_ms = version.started.elapsed().as_millis() as u64;
        let page = match page {
            Ok(page) => Arc::new(page),
            Err(error) => {
                tracing::debug!(list.page = key.page + 1, %error, duration_ms, "fetch failed");
                match error.revocation() {
                    Revocation::Everything => self.0.cache.revoke_everything(caller),
                    Revocation::Resource => self.0.cache.revoke_list(caller),
                    Revocation::Nothing => {}
                }
                return Err(error);
            }
        };
        tracing::debug!(list.page = key.page + 1, items = page.items.len(), duration_ms, "fetched");
        // An item that lacks a member serves the list only: it does not say what the whole appointment is.
        for item in page.items.iter().flatten().filter(|item| item.is_complete) {
            self.0.cache.store_listed(caller, &item.appointment, page.directives, &version);
        }
        let freshness = Freshness::new(self.0.ttl, self.0.policy, page.directives, caller);
        let copy = Guarded::new(page.clone(), version.clone(), freshness);
        self.0.store.put(key, copy, || self.validity().is_storable(&version));
        Ok(page)
    }
}

/// Reads the list as one operation of one caller.
struct Reader<'a> {
    lists: &'a ListCache,
    caller: &'a Caller,
    deadline: Instant,
    record: &'a Record,
}

impl Reader<'_> {
    /// The window at `place`, or the place to ask for instead, now that it is known how long pages are.
    async fn window_or_place(
        &self,
        place: WindowRequest,
    ) -> Result<Result<Window, WindowRequest>, UpstreamError> {
        let per_page = place.page_cap.map_or(place.length, |cap| place.length.min(cap)).max(1);
        let first = place.start / u64::from(per_page);
        let pages = if place.start.is_multiple_of(u64::from(per_page)) {
            let (head, age) = self.page(first, per_page).await?;
            Run { first, head, tail: None, age }
        } else {
            let ((head, age), (tail, age_of_tail)) =
                try_join(self.page(first, per_page), self.page(first + 1, per_page)).await?;
            Run { first, head, tail: Some(tail), age: age.max(age_of_tail) }
        };
        let real = pages.per_page(per_page);
        if real == per_page {
            return self.cut(place, per_page, pages).await.map(Ok);
        }
        // The upstream gives shorter pages than were asked for, so these lie elsewhere. Where the window begins within
        // them all the same, they will do: there may then be less in it than asked for.
        let capped = WindowRequest { page_cap: Some(real), ..place };
        let (begin, end) =
            (first * u64::from(real), (first + 1 + u64::from(pages.tail.is_some())) * u64::from(real));
        if (begin..end).contains(&place.start) {
            self.cut(capped, real, pages).await.map(Ok)
        } else {
            Ok(Err(capped))
        }
    }

    async fn cut(&self, place: WindowRequest, per_page: u32, pages: Run) -> Result<Window, UpstreamError> {
        let begin = pages.first * u64::from(per_page);
        let wanted = place.start..place.start + u64::from(place.length);
        let all = pages.head.items.iter().chain(pages.tail.iter().flat_map(|tail| &tail.items));
        let mut window = Window {
            total: pages.last().total,
            page_cap: place.page_cap,
            age: pages.age,
            ..Window::default()
        };
        let mut end = begin;
        for (position, item) in (begin..).zip(all) {
            end = position + 1;
            if wanted.contains(&position) {
                window.last = Some(position);
                match item {
                    Some(item) => window.items.push((position, item.appointment.clone())),
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
            !self.page(pages.first + 1, per_page).await?.0.items.is_empty()
        };
        Ok(window)
    }

    /// Page `page`, counted from 0.
    async fn page(&self, page: u64, per_page: u32) -> Result<Aged, UpstreamError> {
        let key = Key { scope: self.caller.scope(), page, per_page };
        let page = self.read(key).await;
        match &page {
            Ok((page, None)) => self.record.note_page(key, page),
            Ok((_, Some(_))) | Err(_) => self.record.mark_uncacheable(),
        }
        page
    }

    async fn read(&self, key: Key) -> Result<Aged, UpstreamError> {
        let Self { lists, caller, deadline, .. } = *self;
        if let Some((page, stale_age)) = lists.cached(&key, Use::WhileRevalidating) {
            if stale_age.is_some() {
                lists.refresh(caller, key);
            }
            return Ok((page, stale_age));
        }
        let page = lists.join(caller, key, deadline).outcome();
        let page = timeout_at(deadline, page).await.unwrap_or(Err(UpstreamError::DeadlinePassed));
        if page.as_ref().is_err_and(UpstreamError::is_outage)
            && let Some(stale) = lists.cached(&key, Use::OnError)
        {
            return Ok(stale);
        }
        page.map(|page| (page, None))
    }
}

/// The pages in which a window lies.
struct Run {
    /// The head's number, counted from 0.
    first: u64,
    head: Arc<Page>,
    tail: Option<Arc<Page>>,
    /// Of the older of those that are stale.
    age: Option<Duration>,
}

impl Run {
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
