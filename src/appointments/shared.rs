//! The caches, subscriptions and upstream client that all operations share.

use super::{
    cache::AppointmentCache,
    list::{ListCache, Pages},
    subscriptions::{Subscriptions, WatchRegistry},
};
use crate::{
    cache::validity::Validity,
    config::{cache::CacheConfig, live::LiveConfig},
    metrics::metrics,
    upstream::client::UpstreamClient,
};

/// What all operations of the process share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shared {
    pub(crate) cache: AppointmentCache,
    pub(crate) lists: ListCache,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) upstream: UpstreamClient,
}

impl Shared {
    /// Empty caches before `upstream`.
    pub fn new(cache: &CacheConfig, live: LiveConfig, upstream: UpstreamClient) -> Self {
        let validity = Validity::new();
        let pages = Pages::new(cache.list_size, cache.caller_share);
        let watches = WatchRegistry::new(live);
        let appointments =
            AppointmentCache::new(cache, validity, pages.clone(), watches.clone(), upstream.clone());
        Self {
            lists: ListCache::new(cache, pages, appointments.clone(), upstream.clone()),
            subscriptions: Subscriptions::new(watches, appointments.clone()),
            cache: appointments,
            upstream,
        }
    }

    pub(crate) fn validity(&self) -> &Validity {
        self.cache.validity()
    }

    /// Shows how much is kept, as of now, in the [metrics].
    pub fn observe(&self) {
        let (appointments, pages) = (self.cache.total(), self.lists.total());
        metrics().caches.set(&[("appointments", appointments), ("pages", pages)]);
    }
}
