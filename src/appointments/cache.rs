//! The appointments that the process remembers: keyed by caller scope and id, bounded in bytes, with one call in flight
//! for each key.

use std::{fmt, sync::Arc, time::Duration};

use moka::{ops::compute::Op, sync::Cache};
use tokio::time::Instant;
use tracing::Instrument as _;
use uuid::Uuid;

use super::{
    Outcome,
    flight::Flights,
    generations::{Asked, Generations},
    kept::{Kept, memory},
};
use crate::{
    caller::{Caller, Scope},
    config::CacheConfig,
    model::SharedAppointment,
    upstream::{Answer, Deadline, Keep, UpstreamClient, UpstreamError},
};

/// What everything that is kept or shared goes by: no two callers have a key in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) scope: Scope,
    pub(super) id: Uuid,
}

/// What is kept under a key: an appointment, or that there is none. Failures are not kept.
#[derive(Clone)]
struct Known {
    appointment: Option<SharedAppointment>,
    ttl: Duration,
    asked: Asked,
}

impl Kept for Known {
    fn ttl(&self) -> Duration {
        self.ttl
    }

    fn size(&self) -> usize {
        self.appointment.as_ref().map_or(0, |appointment| appointment.size())
    }
}

/// What a call has brought.
#[derive(Debug, Clone)]
pub(super) struct Fetched {
    /// None where there is no appointment by that id.
    pub(super) appointment: Option<SharedAppointment>,
    /// What to send to be told only of changes.
    pub(super) etag: Option<String>,
}

/// The appointments that the process remembers. Cheap to clone.
#[derive(Clone)]
pub(super) struct AppointmentCache(Arc<Inner>);

struct Inner {
    kept: Cache<Key, Known>,
    flights: Flights<Key, Fetched>,
    generations: Generations,
    upstream: UpstreamClient,
    ttl: Duration,
    absence_ttl: Duration,
}

impl AppointmentCache {
    /// An empty cache before `upstream`.
    pub(super) fn new(config: &CacheConfig, upstream: UpstreamClient) -> Self {
        Self(Arc::new(Inner {
            kept: memory(config.size),
            flights: Flights::new(),
            generations: Generations::new(),
            upstream,
            ttl: config.ttl,
            absence_ttl: config.absence_ttl,
        }))
    }

    pub(super) fn generations(&self) -> &Generations {
        &self.0.generations
    }

    /// What is known of `id` for `caller`: what is kept, else what the call under way brings, else what a new call
    /// brings, which is repeated until `deadline` where that may help. Dropping the future leaves the call to the others who
    /// wait for it.
    pub(super) async fn get(&self, caller: &Caller, id: Uuid, deadline: Instant) -> Outcome {
        let key = Key { scope: caller.scope(), id };
        if let Some(kept) = self.kept(&key) {
            return Ok(kept);
        }
        let kept = || self.kept(&key).map(|appointment| Fetched { appointment, etag: None });
        self.join(caller, id, deadline, kept, None).await.map(|fetched| fetched.appointment)
    }

    /// What the upstream says now, whatever is kept; what the call under way brings will do. `known` is what was seen
    /// last, with its `ETag`.
    pub(super) async fn look(
        &self,
        caller: &Caller,
        id: Uuid,
        deadline: Instant,
        known: Option<(String, SharedAppointment)>,
    ) -> Result<Fetched, UpstreamError> {
        self.join(caller, id, deadline, || None, known).await
    }

    async fn join(
        &self,
        caller: &Caller,
        id: Uuid,
        deadline: Instant,
        kept: impl FnOnce() -> Option<Fetched>,
        known: Option<(String, SharedAppointment)>,
    ) -> Result<Fetched, UpstreamError> {
        let key = Key { scope: caller.scope(), id };
        let asked = self.0.generations.ask(id);
        let joined = self.0.flights.join(key, asked.generation, deadline, kept, |deadline| {
            let (cache, caller) = (self.clone(), caller.clone());
            async move { cache.fetch(&caller, id, asked, known, &deadline).await }.in_current_span()
        });
        joined.outcome().await
    }

    /// Remembers what the upstream said when it was `asked`, for as long as everyone allows, unless something newer is
    /// known.
    pub(super) fn keep(
        &self,
        caller: &Caller,
        id: Uuid,
        appointment: Option<SharedAppointment>,
        keep: Keep,
        asked: Asked,
    ) {
        let key = Key { scope: caller.scope(), id };
        let ttl = keep.limit(if appointment.is_some() { self.0.ttl } else { self.0.absence_ttl });
        let ttl = caller.time_left().map_or(ttl, |left| ttl.min(left));
        if self.0.generations.is_outdated(id, asked) {
            return;
        }
        self.0.kept.entry(key).and_compute_with(|known| match known {
            Some(known) if known.value().asked.at > asked.at => Op::Nop,
            _ if ttl.is_zero() => Op::Remove,
            _ => Op::Put(Known { appointment, ttl, asked }),
        });
    }

    /// Remembers an appointment that came with a list that was `asked` for.
    pub(super) fn keep_listed(
        &self,
        caller: &Caller,
        appointment: &SharedAppointment,
        keep: Keep,
        asked: Asked,
    ) {
        let id = appointment.id.0;
        // In this order: a change counts for all before it counts for its id, so if it is not seen in the second look,
        // it was not in the first.
        let of_id = Asked { at: asked.at, ..self.0.generations.ask(id) };
        if !self.0.generations.is_list_outdated(asked) {
            self.keep(caller, id, Some(appointment.clone()), keep, of_id);
        }
    }

    /// Forgets what is kept for `caller`, who may not see it any more.
    pub(super) fn revoke(&self, caller: &Caller, id: Uuid) {
        self.0.kept.invalidate(&Key { scope: caller.scope(), id });
    }

    fn kept(&self, key: &Key) -> Option<Option<SharedAppointment>> {
        let kept = self.0.kept.get(key)?;
        (!self.0.generations.is_outdated(key.id, kept.asked)).then_some(kept.appointment)
    }

    async fn fetch(
        &self,
        caller: &Caller,
        id: Uuid,
        asked: Asked,
        known: Option<(String, SharedAppointment)>,
        deadline: &Deadline,
    ) -> Result<Fetched, UpstreamError> {
        let etag = known.as_ref().map(|(etag, _)| etag.as_str());
        let answer = self.0.upstream.appointment(caller, id, etag, deadline).await;
        let duration_ms = asked.at.elapsed().as_millis() as u64;
        match answer {
            Ok(Answer { appointment, is_unchanged, etag, keep }) => {
                let (appointment, etag) = match known {
                    Some((etag, appointment)) if is_unchanged => (Some(appointment), Some(etag)),
                    _ => (appointment, etag),
                };
                tracing::debug!(appointment.id = %id, found = appointment.is_some(), duration_ms, "fetched");
                self.keep(caller, id, appointment.clone(), keep, asked);
                Ok(Fetched { appointment, etag })
            }
            Err(error) => {
                tracing::warn!(appointment.id = %id, %error, duration_ms, "fetch failed");
                if matches!(error, UpstreamError::Unauthenticated | UpstreamError::Forbidden) {
                    self.revoke(caller, id);
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
