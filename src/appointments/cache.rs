//! The appointment cache: keyed by caller scope and id, bounded in bytes, with a single flight for each key.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::{Duration, Instant as StdInstant},
};

use tokio::time::{Instant, timeout_at};
use tracing::Instrument as _;
use uuid::Uuid;

use super::{
    list::Pages,
    served::{Outcome, Served},
    subscriptions::{Recheck, WatchRegistry},
};
use crate::cache::validity::{self, Guarded};
use crate::{
    cache::{
        freshness::{Freshness, StalePolicy, Use},
        single_flight::{Claim, SingleFlight},
        store::{self, CacheEntry, CacheStore, Size},
        validity::{ReadVersion, Resource, Validity},
    },
    caller::{Caller, Scope},
    config::cache::CacheConfig,
    metrics::metrics,
    model::SharedAppointment,
    upstream::{
        answer::AppointmentResponse,
        cache_control::CacheDirectives,
        client::UpstreamClient,
        deadline::Deadline,
        error::{Revocation, UpstreamError},
    },
};

/// The key of everything that is cached or shared: no two scopes have a key in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) scope: Scope,
    pub(crate) id: Uuid,
}

impl store::Key for Key {
    fn scope(&self) -> Scope {
        self.scope
    }
}

/// A cached value: an appointment, or its absence. Failures are not cached.
type CachedLookup = Option<SharedAppointment>;

impl Size for CachedLookup {
    fn size(&self) -> usize {
        self.as_ref().map_or(0, |appointment| appointment.size())
    }
}

/// An entry from which a response was made. It does not keep the entry alive.
pub(crate) struct Source {
    key: Key,
    entry: Weak<CacheEntry<CachedLookup>>,
}

/// The result of a read.
#[derive(Debug, Clone)]
pub(crate) struct Fetched {
    /// None if the upstream knows no appointment by that id.
    pub(crate) appointment: Option<SharedAppointment>,
    /// The validator for a conditional request.
    pub(crate) etag: Option<String>,
    /// When it was read.
    pub(crate) version: ReadVersion,
    /// How long it may be served from now.
    pub(crate) freshness: Freshness,
}

/// The last appointment that a poller has read, with its `ETag`.
pub(crate) type Validator = (String, SharedAppointment);

/// The appointment cache. Cheap to clone.
#[derive(Clone)]
pub(crate) struct AppointmentCache(Arc<Inner>);

struct Inner {
    store: CacheStore<Key, CachedLookup>,
    flights: SingleFlight<Key, Fetched>,
    validity: Validity,
    /// Evicted with the appointments that they show.
    pages: Pages,
    /// Told of revoked appointments.
    watches: WatchRegistry,
    upstream: UpstreamClient,
    ttl: Duration,
    absence_ttl: Duration,
    policy: StalePolicy,
}

impl AppointmentCache {
    /// An empty cache in front of `upstream`.
    pub(crate) fn new(
        config: &CacheConfig,
        validity: Validity,
        pages: Pages,
        watches: WatchRegistry,
        upstream: UpstreamClient,
    ) -> Self {
        Self(Arc::new(Inner {
            store: CacheStore::new(config.size, config.caller_share),
            flights: SingleFlight::new(validity.clone()),
            validity,
            pages,
            watches,
            upstream,
            ttl: config.ttl,
            absence_ttl: config.absence_ttl,
            policy: StalePolicy::of(config),
        }))
    }

    pub(crate) fn validity(&self) -> &Validity {
        &self.0.validity
    }

    pub(crate) fn watches(&self) -> &WatchRegistry {
        &self.0.watches
    }

    /// The number of entries and their size in bytes.
    pub(crate) fn total(&self) -> (usize, u64) {
        self.0.store.total()
    }

    /// Reads `id` for `caller`: from the cache, else from the call in flight, else from a new call. During an outage, and
    /// at the `deadline`, a stale entry is served within its bound. Dropping the future leaves the call to its other
    /// waiters.
    pub(crate) async fn get(&self, caller: &Caller, id: Uuid, deadline: Instant) -> Outcome {
        let key = Key { scope: caller.scope(), id };
        if let Some(served) = self.cached(&key, Use::WhileRevalidating) {
            if served.as_ref().is_some_and(|served| served.age.is_some()) {
                self.refresh(caller, id);
            }
            return Ok(served);
        }
        let claim = self.join(caller, id, deadline, || self.fresh(&key), None);
        let from = claim.label();
        let fetched = timeout_at(deadline, claim.outcome()).await;
        let fetched = fetched.unwrap_or(Err(UpstreamError::DeadlinePassed));
        if fetched.as_ref().is_err_and(UpstreamError::is_outage)
            && let Some(served) = self.cached(&key, Use::OnError)
        {
            return Ok(served);
        }
        metrics().appointments.count(from);
        fetched.map(|fetched| fetched.appointment.map(Served::now))
    }

    /// The fresh cached value of `id` for `caller`, if there is one.
    pub(crate) fn get_fresh(&self, caller: &Caller, id: Uuid) -> Option<Option<Served>> {
        self.cached(&Key { scope: caller.scope(), id }, Use::Fresh)
    }

    /// The entry from which `served` came, and how much longer it is fresh as of `now`; none if that is not the entry now.
    pub(crate) fn source(
        &self,
        scope: Scope,
        id: Uuid,
        served: Option<&Served>,
        now: StdInstant,
    ) -> Option<(Source, Duration)> {
        let key = Key { scope, id };
        let entry = self.0.store.get(&key)?;
        let is_same = match (self.0.validity.read(&entry, Use::Fresh)?.value, served) {
            (Some(cached), Some(served)) => Arc::ptr_eq(cached, &served.appointment),
            (None, None) => true,
            _ => false,
        };
        let left = entry.fresh_for(now).filter(|_| is_same)?;
        Some((Source { key, entry: Arc::downgrade(&entry) }, left))
    }

    /// Whether each of `sources` would be served from the cache.
    pub(crate) fn are_current(&self, sources: &[Source], now: StdInstant) -> bool {
        sources.iter().all(|Source { entry, .. }| {
            let entry = entry.upgrade();
            entry.is_some_and(|entry| self.0.validity.read_at(&entry, Use::Fresh, now).is_some())
        })
    }

    /// Counts each of `sources` as recently used.
    pub(crate) fn touch(&self, sources: &[Source]) {
        for source in sources {
            self.0.store.get(&source.key);
        }
    }

    /// Reads `id` as [`get`](Self::get) does, but never a stale entry.
    pub(crate) async fn current(
        &self,
        caller: &Caller,
        id: Uuid,
        deadline: Instant,
    ) -> Result<Fetched, UpstreamError> {
        let key = Key { scope: caller.scope(), id };
        // First of all: a reader of a fresh entry does not wait for a call in flight.
        if let Some(cached) = self.fresh(&key) {
            return Ok(cached);
        }
        self.join(caller, id, deadline, || self.fresh(&key), None).outcome().await
    }

    /// Reads `id` from the upstream, whatever is cached; a call in flight will do. `last` makes the request conditional.
    pub(crate) async fn revalidate(
        &self,
        caller: &Caller,
        id: Uuid,
        deadline: Instant,
        last: Option<Validator>,
    ) -> Result<Fetched, UpstreamError> {
        self.join(caller, id, deadline, || None, last).outcome().await
    }

    /// Reads `id` in the background, unless a call for it is in flight.
    fn refresh(&self, caller: &Caller, id: Uuid) {
        let key = Key { scope: caller.scope(), id };
        // The next reader starts another refresh, so the call need not be retried.
        let claim = self.join(caller, id, Instant::now(), || self.fresh(&key), None);
        if matches!(claim, Claim::Started(_)) {
            // A call without waiters is cancelled.
            tokio::spawn(claim.outcome());
        }
    }

    fn join(
        &self,
        caller: &Caller,
        id: Uuid,
        deadline: Instant,
        cached: impl FnOnce() -> Option<Fetched>,
        last: Option<Validator>,
    ) -> Claim<Key, Fetched> {
        let key = Key { scope: caller.scope(), id };
        let version = self.0.validity.start_read(key.scope, Resource::Appointment(id));
        self.0.flights.join(key, version, deadline, cached, |version, deadline| {
            let (cache, caller) = (self.clone(), caller.clone());
            async move { cache.fetch(&caller, id, version, last, &deadline).await }.in_current_span()
        })
    }

    /// How long an appointment, or its absence, may be served.
    pub(crate) fn freshness(
        &self,
        caller: &Caller,
        appointment: bool,
        upstream: CacheDirectives,
    ) -> Freshness {
        match appointment {
            true => Freshness::new(self.0.ttl, self.0.policy, upstream, caller),
            false => Freshness::new(self.0.absence_ttl, StalePolicy::NEVER, upstream, caller),
        }
    }

    /// Stores the result of a read of this `version`, unless it is outdated or the entry is newer.
    pub(crate) fn store(
        &self,
        caller: &Caller,
        id: Uuid,
        appointment: Option<SharedAppointment>,
        freshness: Freshness,
        version: &ReadVersion,
    ) {
        let key = Key { scope: caller.scope(), id };
        let copy = Guarded::new(appointment, version.clone(), freshness);
        self.0.store.put(key, copy, || self.0.validity.is_storable(version));
    }

    /// Stores an appointment from a page of the list that was read at `page`.
    pub(crate) fn store_listed(
        &self,
        caller: &Caller,
        appointment: &SharedAppointment,
        upstream: CacheDirectives,
        page: &ReadVersion,
    ) {
        let (scope, id) = (caller.scope(), appointment.id.0);
        let validity = &self.0.validity;
        // In this order: a change counts for all appointments before it counts for its own, so one that the first does not
        // show, the second does.
        let version = validity.of_item(page, id);
        let freshness = self.freshness(caller, true, upstream);
        let copy = Guarded::new(Some(appointment.clone()), version.clone(), freshness);
        let is_storable = || validity.is_storable(page) && validity.is_storable(&version);
        self.0.store.put(Key { scope, id }, copy, is_storable);
    }

    /// Ends all copies of `id`, which the upstream has withdrawn from `caller`, and of the pages that show it. `recheck` says
    /// whether those who watch it are to ask for themselves.
    pub(crate) fn revoke(&self, caller: &Caller, id: Uuid, recheck: Recheck) {
        self.0.validity.revoke(caller.scope(), id);
        self.evict(caller.scope(), id, recheck);
    }

    fn evict(&self, scope: Scope, id: Uuid, recheck: Recheck) {
        let key = Key { scope, id };
        self.0.store.evict(key);
        self.0.pages.evict_tagged(scope, id);
        self.0.watches.revoke(key, recheck);
    }

    /// Ends all pages of `caller`.
    pub(crate) fn revoke_list(&self, caller: &Caller) {
        self.0.validity.revoke_list(caller.scope());
        self.0.pages.evict_scope(caller.scope());
    }

    /// Ends all copies of `caller`, whose credential is not accepted any more.
    pub(crate) fn revoke_everything(&self, caller: &Caller) {
        let scope = caller.scope();
        self.0.validity.revoke_everything(scope);
        self.0.watches.reject(scope);
        self.0.store.evict_scope(scope);
        self.0.pages.evict_scope(scope);
    }

    fn fresh(&self, key: &Key) -> Option<Fetched> {
        let entry = self.0.store.get(key)?;
        let appointment = self.0.validity.read(&entry, Use::Fresh)?.value.clone();
        let freshness = Freshness::of(entry.fresh_for(StdInstant::now())?);
        Some(Fetched { appointment, etag: None, version: entry.version().clone(), freshness })
    }

    /// The cached value under `key`, if it may be put to this `purpose`.
    fn cached(&self, key: &Key, purpose: Use) -> Option<Option<Served>> {
        let entry = self.0.store.get(key)?;
        let validity::Served { value, stale_age } = self.0.validity.read(&entry, purpose)?;
        metrics().appointments.count(if stale_age.is_some() { "stale" } else { "cache" });
        Some(value.clone().map(|appointment| Served { appointment, age: stale_age }))
    }

    async fn fetch(
        &self,
        caller: &Caller,
        id: Uuid,
        version: ReadVersion,
        last: Option<Validator>,
        deadline: &Deadline,
    ) -> Result<Fetched, UpstreamError> {
        let etag = last.as_ref().map(|(etag, _)| etag.as_str());
        let answer = self.0.upstream.appointment(caller, id, etag, deadline).await;
        let duration_ms = version.started.elapsed().as_millis() as u64;
        match answer {
            Ok(AppointmentResponse { appointment, is_unchanged, etag, directives }) => {
                let (appointment, etag) = match last {
                    Some((etag, appointment)) if is_unchanged => (Some(appointment), Some(etag)),
                    _ => (appointment, etag),
                };
                tracing::debug!(appointment.id = %id, found = appointment.is_some(), duration_ms, "fetched");
                let version = match appointment {
                    Some(_) => version,
                    None => {
                        let absent = self.0.validity.found_absent(&version, id);
                        self.evict(caller.scope(), id, Recheck::Now);
                        absent
                    }
                };
                let freshness = self.freshness(caller, appointment.is_some(), directives);
                self.store(caller, id, appointment.clone(), freshness, &version);
                Ok(Fetched { appointment, etag, version, freshness })
            }
            Err(error) => {
                tracing::debug!(appointment.id = %id, %error, duration_ms, "fetch failed");
                match error.revocation() {
                    Revocation::Everything => self.revoke_everything(caller),
                    Revocation::Resource if error.is_final() => self.revoke(caller, id, Recheck::Now),
                    Revocation::Resource => self.revoke(caller, id, Recheck::Later),
                    Revocation::Nothing => {}
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
