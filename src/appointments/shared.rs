//! The caches, subscriptions and upstream client that all operations share.

use super::{
    appointment_cache::AppointmentCache, copies::Copies, fleet_receiver::receiver,
    idempotency::IdempotencyRecords, page_cache::PageCache, subscriptions::Subscriptions,
    watch_registry::WatchRegistry,
};
use crate::{
    config::{cache::CacheConfig, changes::ChangesConfig, live::LiveConfig, shared::SharedConfig},
    fleet::Fleet,
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
    pub(crate) fleet: Fleet,
}

impl Shared {
    /// Empty caches in front of `upstream`, of a replica of `fleet`.
    pub fn new(
        cache: &CacheConfig,
        changes: &ChangesConfig,
        live: LiveConfig,
        upstream: UpstreamClient,
        fleet: Fleet,
    ) -> Self {
        let watches = WatchRegistry::new(live);
        let copies = Copies::new(cache, watches.clone(), fleet.clone());
        let appointments = AppointmentCache::of_appointments(copies.clone(), upstream.clone());
        Self {
            pages: PageCache::of_pages(copies.clone(), upstream.clone()),
            subscriptions: Subscriptions::new(watches, appointments.clone()),
            idempotency: IdempotencyRecords::new(changes, cache.caller_share)
                .with_fleet(&fleet, upstream.timeout()),
            cache: appointments,
            copies,
            upstream,
            fleet,
        }
    }

    /// Joins the fleet in the background.
    ///
    /// # Errors
    /// A text for the operator, if TLS cannot be set up.
    pub fn join_fleet(&self, config: &SharedConfig) -> Result<(), String> {
        self.fleet.start(config, receiver(&self.copies, &self.subscriptions))
    }

    /// Leaves the fleet, at the end of the process.
    pub async fn leave_fleet(&self) {
        self.fleet.leave().await;
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
