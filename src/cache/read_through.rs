//! A read-through cache of one kind of upstream resource: a fresh entry, else the call in flight for it, else a new call,
//! else (during an outage) a stale entry.
//!
//! A [`Resource`] says how it is keyed, fetched and revoked. Everything else is the same for all of them.
//!
//! A call is conditional if the cache has a copy with validators, fresh or expired, that no change or revocation has
//! ended. A 304 renews that copy without decoding: its value becomes the result of this read, with the version of this
//! read. Like any result, it is not stored if a change or a revocation happened while the call was in flight.

use std::{
    fmt,
    future::Future,
    sync::{Arc, Weak},
    time::{Duration, Instant as StdInstant},
};

use tokio::time::{Instant, timeout_at};
use tracing::Instrument as _;

use super::{
    freshness::{Freshness, ReadPurpose},
    representation::Representation,
    single_flight::{Claim, SingleFlight},
    store::{self, CacheEntry, CacheStore, Size},
    validity::{ReadVersion, Served, Subject, Validity},
};
use crate::{
    caller::Caller,
    upstream::{deadline::Deadline, error::UpstreamError, validators::Validators},
};

/// A kind of resource that is read from the upstream by key.
pub(crate) trait Resource: Send + Sync + 'static {
    /// The caller's scope and the address of the resource.
    type Key: store::Key;
    /// The cached value. Failures are not cached.
    type Value: Size + Clone;

    /// The changes and revocations that outdate a copy under `key`.
    fn subject(key: &Self::Key) -> Subject;

    /// Fetches the value under `key` for `caller` from the `source`. `last`, which has validators, makes a request to the
    /// upstream conditional.
    ///
    /// # Errors
    /// Any [`UpstreamError`] of the call.
    fn fetch(
        &self,
        caller: &Caller,
        key: Self::Key,
        version: ReadVersion,
        last: Option<Representation<Self::Value>>,
        source: Source,
        deadline: &Deadline,
    ) -> impl Future<Output = Result<Read<Self::Value>, UpstreamError>> + Send;

    /// Ends the copies that a read which failed with `error` revokes.
    fn revoke(&self, caller: &Caller, key: Self::Key, error: &UpstreamError);

    /// Logs the result of a fetch that took `duration`.
    fn log(key: &Self::Key, result: &Result<Read<Self::Value>, UpstreamError>, duration: Duration);

    /// Counts a lookup in the metrics.
    fn count(_lookup: Lookup) {}
}

/// How a reader got its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lookup {
    Fresh,
    Stale,
    /// From a call that was in flight.
    Coalesced,
    /// From the copy of another replica.
    Shared,
    NewCall,
}

/// The source of a read that the cache cannot serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A fresh copy of another replica, or else the upstream.
    Any,
    Upstream,
}

/// The result of a read.
#[derive(Debug, Clone)]
pub(crate) struct Read<V> {
    pub(crate) value: V,
    /// The validators for a conditional request.
    pub(crate) validators: Option<Arc<Validators>>,
    /// When it was read.
    pub(crate) version: ReadVersion,
    /// How long it may be served from now, or since another replica has read it.
    pub(crate) freshness: Freshness,
    /// How long ago another replica has read it; none for a read of this one.
    pub(crate) shared_age: Option<Duration>,
}

/// A value that is served.
#[derive(Debug, Clone)]
pub(crate) struct Cached<V> {
    pub(crate) value: V,
    /// How long ago it was stored, if it is stale.
    pub(crate) stale_age: Option<Duration>,
    /// Whether the upstream forbids storing copies, for clients too.
    pub(crate) forbids_storage: bool,
}

/// An entry from which a response was made. It does not keep the entry alive.
pub(crate) struct EntryRef<R: Resource> {
    key: R::Key,
    entry: Weak<CacheEntry<Representation<R::Value>>>,
}

/// A read-through cache. Cheap to clone.
pub(crate) struct ReadThrough<R: Resource>(Arc<Inner<R>>);

type Store<R> = CacheStore<<R as Resource>::Key, Representation<<R as Resource>::Value>>;

struct Inner<R: Resource> {
    resource: R,
    store: Store<R>,
    flights: SingleFlight<R::Key, Read<R::Value>>,
    validity: Validity,
}

impl<R: Resource> ReadThrough<R> {
    /// A cache of `resource` with its entries in `store`.
    pub(crate) fn new(resource: R, store: Store<R>, validity: Validity) -> Self {
        let flights = SingleFlight::new(validity.clone());
        Self(Arc::new(Inner { resource, store, flights, validity }))
    }

    pub(crate) fn resource(&self) -> &R {
        &self.0.resource
    }

    pub(crate) fn validity(&self) -> &Validity {
        &self.0.validity
    }

    /// The number of entries and their size in bytes.
    pub(crate) fn total(&self) -> (usize, u64) {
        self.0.store.total()
    }

    /// Reads `key` for `caller`: from the cache, else from the call in flight, else from a new call. During an outage, and
    /// at the `deadline`, a stale entry is served within its bound. Dropping the future leaves the call to its other
    /// waiters.
    ///
    /// # Errors
    /// Any [`UpstreamError`] of the call.
    pub(crate) async fn read(
        &self,
        caller: &Caller,
        key: R::Key,
        deadline: Instant,
    ) -> Result<Cached<R::Value>, UpstreamError> {
        if let Some(cached) = self.cached(&key, ReadPurpose::WhileRevalidating) {
            if cached.stale_age.is_some() {
                self.refresh(caller, key);
            }
            return Ok(cached);
        }
        let claim = self.join(caller, key, deadline, || self.fresh(&key), None, Source::Any);
        let read = timeout_at(deadline, claim.outcome()).await;
        let read = read.unwrap_or(Err(UpstreamError::DeadlinePassed));
        let is_shared = read.as_ref().is_ok_and(|read| read.shared_age.is_some());
        let lookup = match claim {
            Claim::Cached(_) => Lookup::Fresh,
            Claim::Joined(_) => Lookup::Coalesced,
            Claim::Started(_) if is_shared => Lookup::Shared,
            Claim::Started(_) => Lookup::NewCall,
        };
        if read.as_ref().is_err_and(UpstreamError::is_outage)
            && let Some(stale) = self.cached(&key, ReadPurpose::OnError)
        {
            if matches!(read, Err(UpstreamError::DeadlinePassed)) {
                // The client may have set the deadline. The call goes on, so that its outcome ends or renews the stale copy.
                claim.detach();
            }
            return Ok(stale);
        }
        R::count(lookup);
        read.map(|read| {
            let forbids_storage = read.freshness.forbids_storage();
            Cached { value: read.value, stale_age: None, forbids_storage }
        })
    }

    /// The fresh entry under `key`, if there is one.
    pub(crate) fn read_cached(&self, key: &R::Key) -> Option<R::Value> {
        self.cached(key, ReadPurpose::Fresh).map(|cached| cached.value)
    }

    /// Reads `key` as [`read`](Self::read) does, but never a stale entry.
    ///
    /// # Errors
    /// Any [`UpstreamError`] of the call.
    pub(crate) async fn read_fresh(
        &self,
        caller: &Caller,
        key: R::Key,
        deadline: Instant,
    ) -> Result<Read<R::Value>, UpstreamError> {
        // Looked up first of all: a reader of a fresh entry does not wait for a call in flight.
        if let Some(cached) = self.fresh(&key) {
            return Ok(cached);
        }
        self.join(caller, key, deadline, || self.fresh(&key), None, Source::Any).outcome().await
    }

    /// Reads `key` from the upstream, or joins the call in flight, even if the entry is fresh. Without an entry to
    /// revalidate, the request is conditional on the `last` read.
    ///
    /// # Errors
    /// Any [`UpstreamError`] of the call.
    pub(crate) async fn revalidate(
        &self,
        caller: &Caller,
        key: R::Key,
        deadline: Instant,
        last: Option<Read<R::Value>>,
    ) -> Result<Read<R::Value>, UpstreamError> {
        loop {
            let read =
                self.join(caller, key, deadline, || None, last.clone(), Source::Upstream).outcome().await;
            // A call that a reader has started may end with a copy of another replica.
            if !read.as_ref().is_ok_and(|read| read.shared_age.is_some()) {
                return read;
            }
        }
    }

    /// Stores the result of a read of this `version`, unless it is outdated or the entry is newer.
    pub(crate) fn store(&self, key: R::Key, read: &Read<R::Value>) {
        let copy = read.representation().into_copy(read.version.clone(), read.freshness);
        let copy = match read.shared_age {
            Some(age) => copy.of_age(age),
            None => copy,
        };
        self.0.store.put(key, copy, || self.0.validity.is_storable(&read.version));
    }

    /// The entry under `key`, and how much longer it is fresh as of `now`; none unless its value `matches`.
    pub(crate) fn entry(
        &self,
        key: R::Key,
        matches: impl FnOnce(&R::Value) -> bool,
        now: StdInstant,
    ) -> Option<(EntryRef<R>, Duration)> {
        let entry = self.0.store.get(&key)?;
        let is_match = matches(&self.0.validity.read(&entry, ReadPurpose::Fresh)?.value.value);
        let left = entry.fresh_for(now).filter(|_| is_match)?;
        Some((EntryRef { key, entry: Arc::downgrade(&entry) }, left))
    }

    /// Whether each of `entries` would be served from the cache.
    pub(crate) fn are_current(&self, entries: &[EntryRef<R>], now: StdInstant) -> bool {
        entries.iter().all(|EntryRef { entry, .. }| {
            let entry = entry.upgrade();
            entry.is_some_and(|entry| self.0.validity.read_at(&entry, ReadPurpose::Fresh, now).is_some())
        })
    }

    /// Counts each of `entries` as recently used.
    pub(crate) fn touch(&self, entries: &[EntryRef<R>]) {
        for entry in entries {
            self.0.store.get(&entry.key);
        }
    }

    /// Reads `key` in the background, unless a call for it is in flight.
    fn refresh(&self, caller: &Caller, key: R::Key) {
        // The next reader starts another refresh, so the call need not be retried.
        let claim = self.join(caller, key, Instant::now(), || self.fresh(&key), None, Source::Any);
        claim.detach();
    }

    fn join(
        &self,
        caller: &Caller,
        key: R::Key,
        deadline: Instant,
        cached: impl FnOnce() -> Option<Read<R::Value>>,
        last: Option<Read<R::Value>>,
        source: Source,
    ) -> Claim<R::Key, Read<R::Value>> {
        let version = self.0.validity.start_read(store::Key::scope(&key), R::subject(&key));
        self.0.flights.join(key, version, deadline, cached, |version, deadline| {
            let (cache, caller) = (self.clone(), caller.clone());
            async move { cache.fetch(&caller, key, version, last, source, &deadline).await }.in_current_span()
        })
    }

    fn fresh(&self, key: &R::Key) -> Option<Read<R::Value>> {
        let entry = self.0.store.get(key)?;
        let Representation { value, validators } =
            self.0.validity.read(&entry, ReadPurpose::Fresh)?.value.clone();
        let freshness = Freshness::of(entry.fresh_for(StdInstant::now())?);
        let version = entry.version().clone();
        Some(Read { value, validators, version, freshness, shared_age: None })
    }

    /// The entry under `key`, if it may be put to this `purpose`.
    fn cached(&self, key: &R::Key, purpose: ReadPurpose) -> Option<Cached<R::Value>> {
        let entry = self.0.store.get(key)?;
        let Served { value, stale_age } = self.0.validity.read(&entry, purpose)?;
        R::count(if stale_age.is_some() { Lookup::Stale } else { Lookup::Fresh });
        Some(Cached { value: value.value.clone(), stale_age, forbids_storage: false })
    }

    /// The copy to revalidate: the entry under `key`, or else the `last` read. It has validators, and is valid except
    /// for its age.
    fn revalidation_candidate(
        &self,
        key: &R::Key,
        last: Option<Read<R::Value>>,
    ) -> Option<Representation<R::Value>> {
        let Inner { store, validity, .. } = &*self.0;
        let of_entry = store.get(key).and_then(|entry| {
            let served = validity.read(&entry, ReadPurpose::Revalidate)?;
            served.value.validators.is_some().then(|| served.value.clone())
        });
        of_entry.or_else(|| {
            let last =
                last.filter(|read| read.validators.is_some() && validity.is_storable(&read.version))?;
            Some(last.representation())
        })
    }

    async fn fetch(
        &self,
        caller: &Caller,
        key: R::Key,
        version: ReadVersion,
        last: Option<Read<R::Value>>,
        source: Source,
        deadline: &Deadline,
    ) -> Result<Read<R::Value>, UpstreamError> {
        let started = version.started;
        // After `version` was taken: a change before the look-up ends the copy, and a later one outdates the version.
        let last = self.revalidation_candidate(&key, last);
        let read = self.0.resource.fetch(caller, key, version, last, source, deadline).await;
        R::log(&key, &read, started.elapsed());
        match &read {
            Ok(read) => {
                self.store(key, read);
            }
            Err(error) => {
                self.0.resource.revoke(caller, key, error);
            }
        }
        read
    }
}

impl<V: Clone> Read<V> {
    fn representation(&self) -> Representation<V> {
        Representation { value: self.value.clone(), validators: self.validators.clone() }
    }
}

impl Lookup {
    /// The metric label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Fresh => "cache",
            Self::Stale => "stale",
            Self::Coalesced => "call_under_way",
            Self::Shared => "shared_cache",
            Self::NewCall => "new_call",
        }
    }
}

impl<R: Resource> Clone for ReadThrough<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<R: Resource> fmt::Debug for ReadThrough<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadThrough").finish_non_exhaustive()
    }
}
