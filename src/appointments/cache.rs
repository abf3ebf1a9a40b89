//! The cache of the process: keyed by caller scope and id, bounded in bytes, with one call in flight for each key.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use moka::{Expiry, sync::Cache};
use uuid::Uuid;

use super::{
    Outcome,
    flight::{Flights, Joined},
};
use crate::{
    caller::{Caller, Scope},
    config::CacheConfig,
    model::SharedAppointment,
    upstream::{Answer, UpstreamClient, UpstreamError},
};

/// What everything that is kept or shared goes by: no two callers have a key in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    scope: Scope,
    id: Uuid,
}

/// What is kept under a key: an appointment, or that there is none. Failures are not kept.
#[derive(Clone)]
struct Kept {
    appointment: Option<SharedAppointment>,
    ttl: Duration,
}

/// The appointments that the process remembers. Cheap to clone.
#[derive(Clone)]
pub struct AppointmentCache(Arc<Inner>);

struct Inner {
    kept: Cache<Key, Kept>,
    flights: Flights,
    upstream: UpstreamClient,
    ttl: Duration,
    absence_ttl: Duration,
}

impl AppointmentCache {
    /// An empty cache before `upstream`.
    pub fn new(config: &CacheConfig, upstream: UpstreamClient) -> Self {
        let kept = Cache::builder()
            .max_capacity(config.size.as_u64())
            .weigher(weight)
            .expire_after(UntilItsOwnTime)
            .build();
        Self(Arc::new(Inner {
            kept,
            flights: Flights::default(),
            upstream,
            ttl: config.ttl,
            absence_ttl: config.absence_ttl,
        }))
    }

    /// What is known of `id` for `caller`: what is kept, else what the call under way brings, else what a new call
    /// brings. Dropping the future leaves the call to the others who wait for it.
    pub async fn get(&self, caller: &Caller, id: Uuid) -> Outcome {
        let key = Key { scope: caller.scope(), id };
        if let Some(kept) = self.kept(&key) {
            return kept;
        }
        let joined: Joined = self.0.flights.join(
            key,
            || self.kept(&key),
            || {
                let (cache, caller) = (self.clone(), caller.clone());
                async move { cache.fetch(key, &caller).await }
            },
        );
        joined.outcome().await
    }

    fn kept(&self, key: &Key) -> Option<Outcome> {
        self.0.kept.get(key).map(|kept| Ok(kept.appointment))
    }

    /// Asks the upstream and keeps what it says, for as long as everyone allows.
    async fn fetch(&self, key: Key, caller: &Caller) -> Outcome {
        let started = Instant::now();
        let answer = self.0.upstream.appointment(caller, key.id).await;
        let duration_ms = started.elapsed().as_millis() as u64;
        match answer {
            Ok(Answer { appointment, keep }) => {
                tracing::debug!(appointment.id = %key.id, found = appointment.is_some(), duration_ms, "fetched");
                let ttl = keep.limit(if appointment.is_some() { self.0.ttl } else { self.0.absence_ttl });
                let ttl = caller.time_left().map_or(ttl, |left| ttl.min(left));
                if ttl.is_zero() {
                    self.0.kept.invalidate(&key);
                } else {
                    self.0.kept.insert(key, Kept { appointment: appointment.clone(), ttl });
                }
                Ok(appointment)
            }
            Err(error) => {
                tracing::warn!(appointment.id = %key.id, %error, duration_ms, "fetch failed");
                if matches!(error, UpstreamError::Unauthenticated | UpstreamError::Forbidden) {
                    self.0.kept.invalidate(&key);
                }
                Err(error)
            }
        }
    }
}

impl fmt::Debug for AppointmentCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppointmentCache").finish_non_exhaustive()
    }
}

/// The bytes that an entry costs, with what the cache itself spends on one: measured, see the README.
fn weight(_: &Key, kept: &Kept) -> u32 {
    const ENTRY: usize = size_of::<Key>() + size_of::<Kept>() + 256;
    let appointment = kept.appointment.as_ref().map_or(0, |appointment| appointment.size());
    u32::try_from(ENTRY + appointment).unwrap_or(u32::MAX)
}

/// Each entry brings its own time to live, and a newer entry under the same key a new one.
struct UntilItsOwnTime;

impl Expiry<Key, Kept> for UntilItsOwnTime {
    fn expire_after_create(&self, _: &Key, kept: &Kept, _: Instant) -> Option<Duration> {
        Some(kept.ttl)
    }

    fn expire_after_update(&self, _: &Key, kept: &Kept, _: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(kept.ttl)
    }
}
