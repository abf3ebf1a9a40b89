//! The appointments that the process remembers: keyed by caller scope and id, bounded in bytes, with one call in flight
//! for each key.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::{Duration, Instant as StdInstant},
};

use tokio::time::{Instant, timeout_at};
use tracing::Instrument as _;
use uuid::Uuid;

use super::{
    Outcome, Served,
    flight::{Flights, Joined},
    generations::{Asked, Generations},
    kept::{self, Kept, Memory, Size, Staleness, Times},
    lists::Pages,
};
use crate::{
    caller::{Caller, Scope},
    config::CacheConfig,
    metrics::metrics,
    model::SharedAppointment,
    upstream::{Answer, Deadline, Keep, Refused, UpstreamClient, UpstreamError},
};

/// What everything that is kept or shared goes by: no two callers have a key in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) scope: Scope,
    pub(super) id: Uuid,
}

impl kept::Key for Key {
    fn scope(&self) -> Scope {
        self.scope
    }
}

/// What is kept under a key: an appointment, or that there is none. Failures are not kept.
type Known = Option<SharedAppointment>;

impl Size for Known {
    fn size(&self) -> usize {
        self.as_ref().map_or(0, |appointment| appointment.size())
    }
}

/// Something kept that an answer was made from. It does not keep it.
pub(super) struct Source {
    key: Key,
    kept: Weak<Kept<Known>>,
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
    kept: Memory<Key, Known>,
    flights: Flights<Key, Fetched>,
    generations: Generations,
    /// To be forgotten where they show what is refused.
    pages: Pages,
    upstream: UpstreamClient,
    ttl: Duration,
    absence_ttl: Duration,
    staleness: Staleness,
}

impl AppointmentCache {
    /// An empty cache before `upstream`, beside `pages`.
    pub(super) fn new(config: &CacheConfig, pages: Pages, upstream: UpstreamClient) -> Self {
        Self(Arc::new(Inner {
            kept: Memory::new(config.size, config.caller_share),
            flights: Flights::new(),
            generations: Generations::new(),
            pages,
            upstream,
            ttl: config.ttl,
            absence_ttl: config.absence_ttl,
            staleness: Staleness::of(config),
        }))
    }

    pub(super) fn generations(&self) -> &Generations {
        &self.0.generations
    }

    /// How many are kept, and how many bytes they take.
    pub(super) fn total(&self) -> (usize, u64) {
        self.0.kept.total()
    }

    /// What is known of `id` for `caller`: what is kept, else what the call under way brings, else what a new call
    /// brings; and where that fails since the upstream does, or is not there by `deadline`, what was kept until lately.
    /// Dropping the future leaves the call to the others who wait for it.
    pub(super) async fn get(&self, caller: &Caller, id: Uuid, deadline: Instant) -> Outcome {
        let key = Key { scope: caller.scope(), id };
        if let Some(kept) = self.kept(&key).filter(|kept| kept.may_be_served_meanwhile()) {
            if !kept.is_fresh() {
                self.refresh(caller, id);
            }
            return Ok(served(&kept));
        }
        let joined = self.join(caller, id, deadline, || self.fresh(&key), None);
        let from = joined.way();
        let fetched = timeout_at(deadline, joined.outcome()).await;
        let fetched = fetched.unwrap_or(Err(UpstreamError::DeadlinePassed));
        if fetched.as_ref().is_err_and(UpstreamError::is_outage)
            && let Some(kept) = self.kept(&key).filter(|kept| kept.may_stand_in_for_an_error())
        {
            return Ok(served(&kept));
        }
        metrics().appointments.count(from);
        fetched.map(|fetched| fetched.appointment.map(Served::now))
    }

    /// What is kept of `id` for `caller` and fresh: none where it has to be asked for.
    pub(super) fn get_fresh(&self, caller: &Caller, id: Uuid) -> Option<Option<Served>> {
        let kept = self.kept(&Key { scope: caller.scope(), id }).filter(|kept| kept.is_fresh())?;
        Some(served(&kept))
    }

    /// What is kept of `id` for `scope`, and how much longer it is fresh as of `now`; none where that is something else than
    /// what was `served`.
    pub(super) fn source(
        &self,
        scope: Scope,
        id: Uuid,
        served: Option<&Served>,
        now: StdInstant,
    ) -> Option<(Source, Duration)> {
        let key = Key { scope, id };
        let kept = self.kept(&key)?;
        let is_same = match (&kept.value, served) {
            (Some(kept), Some(served)) => Arc::ptr_eq(kept, &served.appointment),
            (None, None) => true,
            _ => false,
        };
        let left = kept.fresh_for(now).filter(|_| is_same)?;
        Some((Source { key, kept: Arc::downgrade(&kept) }, left))
    }

    /// Whether each of `sources` is what would be served.
    pub(super) fn are_current(&self, sources: &[Source], now: StdInstant) -> bool {
        sources.iter().all(|Source { key, kept }| {
            let kept = kept.upgrade().filter(|kept| kept.is_there(now));
            kept.is_some_and(|kept| !self.0.generations.is_outdated(key.id, kept.asked))
        })
    }

    /// Counts each of `sources` as read.
    pub(super) fn touch(&self, sources: &[Source]) {
        for source in sources {
            self.0.kept.get(&source.key);
        }
    }

    /// As [`get`](Self::get), but nothing that is not known to be so. A call is repeated until `deadline` where that may
    /// help.
    pub(super) async fn current(
        &self,
        caller: &Caller,
        id: Uuid,
        deadline: Instant,
    ) -> Result<Option<SharedAppointment>, UpstreamError> {
        let key = Key { scope: caller.scope(), id };
        // First of all: what is known is not to wait for a call that is under way.
        if let Some(kept) = self.fresh(&key) {
            return Ok(kept.appointment);
        }
        let joined = self.join(caller, id, deadline, || self.fresh(&key), None);
        joined.outcome().await.map(|fetched| fetched.appointment)
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
        self.join(caller, id, deadline, || None, known).outcome().await
    }

    /// Has `id` asked for while nobody waits for it, unless a call for it is under way.
    fn refresh(&self, caller: &Caller, id: Uuid) {
        let key = Key { scope: caller.scope(), id };
        // Whoever asks next has it asked for anew, so the call need not be repeated.
        let joined = self.join(caller, id, Instant::now(), || self.fresh(&key), None);
        if matches!(joined, Joined::New(_)) {
            // Somebody has to hold on to a call, or it ends. That one fails is logged where it does.
            tokio::spawn(joined.outcome());
        }
    }

    fn join(
        &self,
        caller: &Caller,
        id: Uuid,
        deadline: Instant,
        kept: impl FnOnce() -> Option<Fetched>,
        known: Option<(String, SharedAppointment)>,
    ) -> Joined<Key, Fetched> {
        let key = Key { scope: caller.scope(), id };
        let asked = self.0.generations.ask(key.scope, id);
        self.0.flights.join(key, asked.generation, deadline, kept, |deadline| {
            let (cache, caller) = (self.clone(), caller.clone());
            async move { cache.fetch(&caller, id, asked, known, &deadline).await }.in_current_span()
        })
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
        let times = match appointment {
            Some(_) => Times::new(self.0.ttl, self.0.staleness, keep, caller),
            None => Times::new(self.0.absence_ttl, Staleness::NONE, keep, caller),
        };
        let generations = &self.0.generations;
        self.0.kept.put(key, Kept::new(appointment, asked, times), || {
            !generations.is_outdated(id, asked)
                && !generations.is_rejected(key.scope, asked)
                && !generations.is_refused_id(key.scope, id, asked)
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
        let (scope, id) = (caller.scope(), appointment.id.0);
        // In this order: a change counts for all before it counts for its id, so if it is not seen in the second look,
        // it was not in the first.
        let of_id = self.0.generations.listed(id, asked);
        let key = Key { scope, id };
        let times = Times::new(self.0.ttl, self.0.staleness, keep, caller);
        let generations = &self.0.generations;
        self.0.kept.put(key, Kept::new(Some(appointment.clone()), of_id, times), || {
            !generations.is_list_outdated(asked)
                && !generations.is_refused(scope, asked)
                && !generations.is_outdated(id, of_id)
        });
    }

    /// Forgets what is kept for `caller` of an appointment that it may not see any more: `id`, and the pages of the list
    /// that show it.
    pub(super) fn revoke(&self, caller: &Caller, id: Uuid) {
        let scope = caller.scope();
        self.0.generations.refuse(scope);
        self.0.kept.forget_one(Key { scope, id });
        self.0.pages.forget_where(scope, |page| page.shows(id));
    }

    /// As [`revoke`](Self::revoke), where a change of it was refused: what is under way is not kept either.
    pub(super) fn revoke_changed(&self, caller: &Caller, id: Uuid) {
        self.0.generations.refuse_id(caller.scope(), id);
        self.revoke(caller, id);
    }

    /// Forgets the pages that are kept for `caller`, who may not see the list any more.
    pub(super) fn revoke_list(&self, caller: &Caller) {
        self.0.generations.refuse(caller.scope());
        self.0.pages.forget(caller.scope());
    }

    /// Forgets everything that is kept for `caller`, whose credential is not accepted any more.
    pub(super) fn revoke_all(&self, caller: &Caller) {
        let scope = caller.scope();
        self.0.generations.reject(scope);
        self.0.kept.forget(scope);
        self.0.pages.forget(scope);
    }

    fn fresh(&self, key: &Key) -> Option<Fetched> {
        let kept = self.kept(key).filter(|kept| kept.is_fresh())?;
        Some(Fetched { appointment: kept.value.clone(), etag: None })
    }

    /// What is kept and was not changed since, fresh or not.
    fn kept(&self, key: &Key) -> Option<Arc<Kept<Known>>> {
        self.0.kept.get(key).filter(|kept| !self.0.generations.is_outdated(key.id, kept.asked))
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
                if appointment.is_none() {
                    self.revoke(caller, id);
                }
                self.keep(caller, id, appointment.clone(), keep, asked);
                Ok(Fetched { appointment, etag })
            }
            Err(error) => {
                tracing::warn!(appointment.id = %id, %error, duration_ms, "fetch failed");
                match error.refused() {
                    Refused::Everything => self.revoke_all(caller),
                    Refused::This => self.revoke(caller, id),
                    Refused::Nothing => {}
                }
                Err(error)
            }
        }
    }
}

/// What is kept, with its age if it is stale. That there is none is never kept beyond its time.
fn served(kept: &Kept<Known>) -> Option<Served> {
    let age = kept.stale_age();
    metrics().appointments.count(if age.is_some() { "stale" } else { "cache" });
    kept.value.clone().map(|appointment| Served { appointment, age })
}

impl fmt::Debug for AppointmentCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppointmentCache").finish_non_exhaustive()
    }
}
