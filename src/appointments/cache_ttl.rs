//! How long appointments, absences and list pages may be served from the cache: the strictest of the configured TTL, the
//! upstream's `Cache-Control` and the expiry of the token ([`Freshness::new`]).

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    cache::freshness::{Freshness, StalePolicy},
    caller::Caller,
    config::cache::CacheConfig,
    upstream::cache_control::CacheDirectives,
};

/// The configured TTLs. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct CacheTtl {
    /// `cache.ttl`
    appointment: Duration,
    /// `cache.absence_ttl`
    absence: Duration,
    /// `cache.list_ttl`
    page: Duration,
    stale: StalePolicy,
    /// The bound on all TTLs during an outage of the shared Redis, in milliseconds (`shared.on_outage`).
    bound: Arc<AtomicU64>,
}

impl CacheTtl {
    pub(crate) fn new(config: &CacheConfig) -> Self {
        Self {
            appointment: config.ttl,
            absence: config.absence_ttl,
            page: config.list_ttl,
            stale: StalePolicy::of(config),
            bound: Arc::new(AtomicU64::new(u64::MAX)),
        }
    }

    /// Bounds all TTLs of reads from now on.
    pub(crate) fn set_bound(&self, bound: Option<Duration>) {
        let milliseconds = bound.map_or(u64::MAX, |bound| bound.as_millis() as u64);
        self.bound.store(milliseconds, Ordering::SeqCst);
    }

    /// A TTL and a policy within the bound.
    fn bounded(&self, ttl: Duration, stale: StalePolicy) -> (Duration, StalePolicy) {
        match self.bound.load(Ordering::SeqCst) {
            u64::MAX => (ttl, stale),
            bound => (ttl.min(Duration::from_millis(bound)), stale.only_revalidated()),
        }
    }

    /// The freshness of a copy with this TTL and policy.
    fn freshness(
        &self,
        ttl: Duration,
        stale: StalePolicy,
        caller: &Caller,
        upstream: CacheDirectives,
    ) -> Freshness {
        let (ttl, stale) = self.bounded(ttl, stale);
        Freshness::new(ttl, stale, upstream, caller)
    }

    /// The freshness of an appointment.
    pub(crate) fn of_appointment(&self, caller: &Caller, upstream: CacheDirectives) -> Freshness {
        self.freshness(self.appointment, self.stale, caller, upstream)
    }

    /// The freshness of an appointment that another replica has read `age` ago.
    pub(crate) fn of_shared_copy(&self, caller: &Caller, freshness: Freshness, age: Duration) -> Freshness {
        let (ttl, stale) = self.bounded(self.appointment, self.stale);
        freshness.of_shared_copy(age, ttl, stale, caller)
    }

    /// How long a copy of an appointment exists at most.
    pub(crate) fn longest_of_appointments(&self) -> Duration {
        self.appointment + self.stale.longest()
    }

    /// How long any copy exists at most.
    pub(crate) fn longest(&self) -> Duration {
        self.appointment.max(self.page).max(self.absence) + self.stale.longest()
    }

    /// The freshness of the absence of an appointment, which is never served stale.
    pub(crate) fn of_absence(&self, caller: &Caller, upstream: CacheDirectives) -> Freshness {
        self.freshness(self.absence, StalePolicy::NEVER, caller, upstream)
    }

    /// The freshness of a page of the list.
    pub(crate) fn of_page(&self, caller: &Caller, upstream: CacheDirectives) -> Freshness {
        self.freshness(self.page, self.stale, caller, upstream)
    }
}
