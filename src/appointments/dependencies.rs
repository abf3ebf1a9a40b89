//! The dependencies of a finished response: the cache entries from which it was made.
//!
//! When an operation is over, its [reads](super::read_set) become [`Dependencies`], if all of them are cached. They are current
//! as long as each entry would still be served from the cache. Any event that ends an entry (its TTL, a revocation, a change, an
//! eviction) also ends the responses that were made from it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    appointment_cache::AppointmentResource,
    keys::AppointmentKey,
    page_cache::PageResource,
    read_set::ReadSet,
    served::{CachedLookup, Served},
    shared::Shared,
};
use crate::{
    cache::{read_through::EntryRef, representation::Representation, store::CacheEntry},
    caller::Scope,
    metrics::metrics,
};

/// The cache entries from which a response was made.
pub struct Dependencies {
    pub(crate) scope: Scope,
    appointments: Box<[EntryRef<AppointmentResource>]>,
    pages: Box<[EntryRef<PageResource>]>,
    /// How long all entries are fresh, counted from the end of the operation.
    pub(crate) fresh_for: Duration,
    /// When the entries were last counted as used, in milliseconds since `made`.
    touched: AtomicU64,
    made: Instant,
}

/// The minimum interval between LRU updates of the entries: frequent enough to prevent their eviction, and rare enough to cost
/// nothing.
const TOUCH: Duration = Duration::from_millis(50);

impl Dependencies {
    /// The dependencies of a response to `scope`; none unless all that was served is cached and fresh.
    pub(crate) fn of(reads: &ReadSet, scope: Scope, shared: &Shared) -> Option<Self> {
        if !reads.is_cacheable() {
            return None;
        }
        let now = Instant::now();
        let mut fresh_for = Duration::MAX;
        let mut appointments = Vec::new();
        for (id, outcome) in reads.outcomes().iter() {
            let served = outcome.as_ref().ok()?.as_ref();
            if served.is_some_and(|served| served.age.is_some()) {
                return None;
            }
            let key = AppointmentKey { scope, id: *id };
            let (entry, left) = shared.cache.entry(key, |cached| is_same(cached, served), now)?;
            fresh_for = fresh_for.min(left);
            appointments.push(entry);
        }
        let mut pages = Vec::new();
        for (key, page) in reads.pages().iter() {
            let (entry, left) = shared.pages.entry(*key, |cached| Arc::ptr_eq(cached, page), now)?;
            fresh_for = fresh_for.min(left);
            pages.push(entry);
        }
        let (appointments, pages) = (appointments.into(), pages.into());
        Some(Self { scope, appointments, pages, fresh_for, touched: AtomicU64::new(0), made: now })
    }

    /// Whether each entry would still be served. Counts as a use of them.
    pub(crate) fn is_current(&self, shared: &Shared) -> bool {
        let now = Instant::now();
        let is_current =
            shared.cache.are_current(&self.appointments, now) && shared.pages.are_current(&self.pages, now);
        if is_current {
            metrics().appointments.count_many("cache", self.appointments.len() as u64);
            self.touch(shared, now);
        }
        is_current
    }

    fn touch(&self, shared: &Shared, now: Instant) {
        let now = now.saturating_duration_since(self.made).as_millis() as u64;
        let touched = self.touched.load(Ordering::Relaxed);
        // One of several concurrent readers does it.
        let is_due = now.saturating_sub(touched) >= TOUCH.as_millis() as u64;
        if is_due && self.touched.compare_exchange(touched, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            shared.cache.touch(&self.appointments);
            shared.pages.touch(&self.pages);
        }
    }

    /// How long all entries stay fresh, counted from now.
    pub(crate) fn remaining_freshness(&self) -> Duration {
        self.fresh_for.saturating_sub(self.made.elapsed())
    }

    /// Whether the response depends on no entry.
    pub fn is_empty(&self) -> bool {
        self.appointments.is_empty() && self.pages.is_empty()
    }

    /// The bytes behind it, with the evicted entries that it keeps allocated.
    pub(crate) fn size(&self) -> usize {
        size_of_val(&*self.appointments)
            + size_of_val(&*self.pages)
            + (self.appointments.len() + self.pages.len()) * ENTRY
    }
}

/// The bytes of an evicted entry that its [`EntryRef`]s keep allocated.
const ENTRY: usize = size_of::<CacheEntry<Representation<CachedLookup>>>() + 16;

fn is_same(cached: &CachedLookup, served: Option<&Served>) -> bool {
    match (cached, served) {
        (Some(cached), Some(served)) => Arc::ptr_eq(cached, &served.appointment),
        (None, None) => true,
        _ => false,
    }
}

impl fmt::Debug for Dependencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dependencies").finish_non_exhaustive()
    }
}
