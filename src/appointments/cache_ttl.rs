//! How long appointments, absences and list pages may be served from the cache: the strictest of the configured TTL, the
//! upstream's `Cache-Control` and the expiry of the token ([`Freshness::new`]).

use std::time::Duration;

use crate::{
    cache::freshness::{Freshness, StalePolicy},
    caller::Caller,
    config::cache::CacheConfig,
    upstream::cache_control::CacheDirectives,
};

/// The configured TTLs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CacheTtl {
    /// `cache.ttl`
    appointment: Duration,
    /// `cache.absence_ttl`
    absence: Duration,
    /// `cache.list_ttl`
    page: Duration,
    stale: StalePolicy,
}

impl CacheTtl {
    pub(crate) fn new(config: &CacheConfig) -> Self {
        Self {
            appointment: config.ttl,
            absence: config.absence_ttl,
            page: config.list_ttl,
            stale: StalePolicy::of(config),
        }
    }

    /// The freshness of an appointment.
    pub(crate) fn of_appointment(&self, caller: &Caller, upstream: CacheDirectives) -> Freshness {
        Freshness::new(self.appointment, self.stale, upstream, caller)
    }

    /// The freshness of the absence of an appointment, which is never served stale.
    pub(crate) fn of_absence(&self, caller: &Caller, upstream: CacheDirectives) -> Freshness {
        Freshness::new(self.absence, StalePolicy::NEVER, upstream, caller)
    }

    /// The freshness of a page of the list.
    pub(crate) fn of_page(&self, caller: &Caller, upstream: CacheDirectives) -> Freshness {
        Freshness::new(self.page, self.stale, upstream, caller)
    }
}
