//! The list of appointments that a caller may see, a window of it at a time, over the pages of the upstream.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::{Duration, Instant as StdInstant},
};

use futures_util::future::try_join;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument as _;

use super::{
    cache::AppointmentCache,
    flight::{Flights, Joined},
    generations::Asked,
    kept::{self, Kept, Memory, Size, Staleness, Times},
    provenance::Record,
};
use crate::{
    caller::{Caller, Scope},
    config::CacheConfig,
    model::SharedAppointment,
    upstream::{Deadline, Page, Refused, UpstreamClient, UpstreamError},
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
pub struct Place {
    /// The first place, counted from 0.
    pub start: u64,
    /// How many at most.
    pub length: u32,
    /// The longest page that the upstream gives, as far as it is known.
    pub page_cap: Option<u32>,
}

/// What pages are kept under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    scope: Scope,
    page: u64,
    per_page: u32,
}

impl kept::Key for Key {
    fn scope(&self) -> Scope {
        self.scope
    }
}

/// The pages that are kept.
pub(super) type Pages = Memory<Key, Arc<Page>>;

impl Size for Arc<Page> {
    fn size(&self) -> usize {
        let item =
            |item: &Option<SharedAppointment>| item.as_ref().map_or(0, |appointment| appointment.size());
        self.items.iter().map(|it| size_of_val(it) + item(it)).sum()
    }
}

/// A page that an answer was made from. It does not keep it.
pub(super) struct Source {
    key: Key,
    kept: Weak<Kept<Arc<Page>>>,
}

/// A page as a window is made of it, with its age if it is stale.
type Aged = (Arc<Page>, Option<Duration>);

/// The pages that the process remembers, briefly. Cheap to clone.
#[derive(Clone)]
pub(super) struct ListCache(Arc<Inner>);

struct Inner {
    kept: Pages,
    flights: Flights<Key, Arc<Page>>,
    cache: AppointmentCache,
    upstream: UpstreamClient,
    ttl: Duration,
    staleness: Staleness,
}

impl ListCache {
    /// A cache before `upstream` that keeps `pages`, and what they show in `cache`.
    pub(super) fn new(
        config: &CacheConfig,
        pages: Pages,
        cache: AppointmentCache,
        upstream: UpstreamClient,
    ) -> Self {
        Self(Arc::new(Inner {
            kept: pages,
            flights: Flights::new(),
            cache,
            upstream,
            ttl: config.list_ttl,
            staleness: Staleness::of(config),
        }))
    }

    /// How many pages are kept, and how many bytes they take.
    pub(super) fn total(&self) -> (usize, u64) {
        self.0.kept.total()
    }

    /// The window at `place`: one page upstream where it lies within a page, two at once where it does not; and once more
    /// where the upstream turns out to give shorter pages than were asked for. Pages that are not there by `deadline`, or that
    /// the upstream fails to give, are what they were until lately. What it is made of is noted in `record`.
    pub(super) async fn window(
        &self,
        caller: &Caller,
        place: Place,
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

    /// What is kept of `page`, and how much longer it is fresh as of `now`; none where something else is kept.
    pub(super) fn source(&self, key: &Key, page: &Arc<Page>, now: StdInstant) -> Option<(Source, Duration)> {
        let kept = self.kept(key).filter(|kept| Arc::ptr_eq(&kept.value, page))?;
        let left = kept.fresh_for(now)?;
        Some((Source { key: *key, kept: Arc::downgrade(&kept) }, left))
    }

    /// Whether each of `sources` is what would be served.
    pub(super) fn are_current(&self, sources: &[Source], now: StdInstant) -> bool {
        sources.iter().all(|Source { kept, .. }| {
            let kept = kept.upgrade().filter(|kept| kept.is_there(now));
            kept.is_some_and(|kept| !self.0.cache.generations().is_list_outdated(kept.asked))
        })
    }

    /// Counts each of `sources` as read.
    pub(super) fn touch(&self, sources: &[Source]) {
        for source in sources {
            self.0.kept.get(&source.key);
        }
    }

    /// Has a page asked for while nobody waits for it, unless a call for it is under way.
    fn refresh(&self, caller: &Caller, key: Key) {
        // Whoever asks next has it asked for anew, so the call need not be repeated.
        let joined = self.join(caller, key, Instant::now());
        if matches!(joined, Joined::New(_)) {
            // Somebody has to hold on to a call, or it ends. That one fails is logged where it does.
            tokio::spawn(joined.outcome());
        }
    }

    fn join(&self, caller: &Caller, key: Key, deadline: Instant) -> Joined<Key, Arc<Page>> {
        let asked = self.0.cache.generations().ask_list(key.scope);
        let call = |deadline| {
            let (lists, caller) = (self.clone(), caller.clone());
            async move { lists.fetch(&caller, key, asked, &deadline).await }.in_current_span()
        };
        self.0.flights.join(key, asked.generation, deadline, || self.fresh(&key), call)
    }

    fn fresh(&self, key: &Key) -> Option<Arc<Page>> {
        self.kept(key).filter(|kept| kept.is_fresh()).map(|kept| kept.value.clone())
    }

    /// What is kept and not outdated by any change, fresh or not.
    fn kept(&self, key: &Key) -> Option<Arc<Kept<Arc<Page>>>> {
        self.0.kept.get(key).filter(|kept| !self.0.cache.generations().is_list_outdated(kept.asked))
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
                match error.refused() {
                    Refused::Everything => self.0.cache.revoke_all(caller),
                    Refused::This => self.0.cache.revoke_list(caller),
                    Refused::Nothing => {}
                }
                return Err(error);
            }
        };
        tracing::debug!(list.page = key.page + 1, items = page.items.len(), duration_ms, "fetched");
        for appointment in page.items.iter().flatten() {
            self.0.cache.keep_listed(caller, appointment, page.keep, asked);
        }
        let times = Times::new(self.0.ttl, self.0.staleness, page.keep, caller);
        let generations = self.0.cache.generations();
        // What a change or a refusal has outdated on its way must not take the place of what was asked for since.
        self.0.kept.put(key, Kept::new(page.clone(), asked, times), || {
            !generations.is_list_outdated(asked) && !generations.is_refused(key.scope, asked)
        });
        Ok(page)
    }
}

/// What is kept, with its age if it is stale.
fn aged(kept: &Kept<Arc<Page>>) -> Aged {
    let age = kept.stale_age();
    (kept.value.clone(), age)
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
    async fn window_or_place(&self, place: Place) -> Result<Result<Window, Place>, UpstreamError> {
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
        let capped = Place { page_cap: Some(real), ..place };
        let (begin, end) =
            (first * u64::from(real), (first + 1 + u64::from(pages.tail.is_some())) * u64::from(real));
        if (begin..end).contains(&place.start) {
            self.cut(capped, real, pages).await.map(Ok)
        } else {
            Ok(Err(capped))
        }
    }

    async fn cut(&self, place: Place, per_page: u32, pages: Run) -> Result<Window, UpstreamError> {
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
            !self.page(pages.first + 1, per_page).await?.0.items.is_empty()
        };
        Ok(window)
    }

    /// Page `page`, counted from 0.
    async fn page(&self, page: u64, per_page: u32) -> Result<Aged, UpstreamError> {
        let key = Key { scope: self.caller.scope(), page, per_page };
        let page = self.page_of(key).await;
        match &page {
            Ok((page, None)) => self.record.note_page(key, page),
            Ok((_, Some(_))) | Err(_) => self.record.note_what_is_not_kept(),
        }
        page
    }

    async fn page_of(&self, key: Key) -> Result<Aged, UpstreamError> {
        let Self { lists, caller, deadline, .. } = *self;
        if let Some(kept) = lists.kept(&key).filter(|kept| kept.may_be_served_meanwhile()) {
            if !kept.is_fresh() {
                lists.refresh(caller, key);
            }
            return Ok(aged(&kept));
        }
        let page = lists.join(caller, key, deadline).outcome();
        let page = timeout_at(deadline, page).await.unwrap_or(Err(UpstreamError::DeadlinePassed));
        if page.as_ref().is_err_and(UpstreamError::is_outage)
            && let Some(kept) = lists.kept(&key).filter(|kept| kept.may_stand_in_for_an_error())
        {
            return Ok(aged(&kept));
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
