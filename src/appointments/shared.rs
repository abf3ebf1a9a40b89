//! The caches, subscriptions and upstream client that all operations share.

use super::{
    appointment_cache::AppointmentCache, copies::Copies, idempotency::IdempotencyRecords,
    page_cache::PageCache, subscriptions::Subscriptions, watch_registry::WatchRegistry,
};
use crate::{
    config::{cache::CacheConfig, changes::ChangesConfig, live::LiveConfig},
    metrics::metrics,
    upstream::client::UpstreamClient,
};

/// The state that all operations of the process share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shared {
    pub(crate) cache: AppointmentCache,
    pub(crate) pages: PageCache,
    pub(crate) copies: Copies,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) upstream: UpstreamClient,
    pub(crate) idempotency: IdempotencyRecords,
}

impl Shared {
    /// Empty caches in front of `upstream`.
    pub fn new(
        cache: &CacheConfig,
        changes: &ChangesConfig,
        live: LiveConfig,
        upstream: UpstreamClient,
    ) -> Self {
        let watches = WatchRegistry::new(live);
        let copies = Copies::new(cache, watches.clone());
        let appointments = AppointmentCache::of_appointments(copies.clone(), upstream.clone());
        Self {
            pages: PageCache::of_pages(copies.clone(), upstream.clone()),
            subscriptions: Subscriptions::new(watches, appointments.clone()),
            idempotency: IdempotencyRecords::new(changes, cache.caller_share),
            cache: appointments,
            copies,
            upstream,
        }
    }

    /// Updates the [metrics] of the caches.
    pub fn observe(&self) {
        metrics().caches.set(&[
            ("appointments", self.cache.total()),
            ("pages", self.pages.total()),
            ("idempotency_records", self.idempotency.total()),
        ]);
    }
}
