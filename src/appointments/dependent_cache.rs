//! What was made from appointments, kept for as long as it would be made of the same ones.

use std::{fmt, ops::Deref, sync::Arc};

use bytesize::ByteSize;

use super::{dependencies::Dependencies, shared::Shared};
use crate::{
    cache::{
        freshness::{Freshness, Use},
        store::{self, CacheStore, Size},
        validity::{Guarded, Subject},
    },
    caller::{Caller, Scope},
};

/// Things that were made from appointments, each for one caller, in a memory with a bound in bytes and a share for each
/// caller.
pub struct DependentCache<V> {
    kept: CacheStore<ResponseKey, Arc<Dependent<V>>>,
    shared: Shared,
}

/// What they are kept under. Two things may have a hash in common, but no two callers have a key in common.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct ResponseKey {
    scope: Scope,
    hash: u64,
}

impl store::Key for ResponseKey {
    fn scope(&self) -> Scope {
        self.scope
    }
}

/// Something with what it was made from.
struct Dependent<V> {
    value: V,
    dependencies: Arc<Dependencies>,
}

/// Something that was made, as it is kept. Cheap to clone.
pub struct CachedResponse<V>(Arc<Dependent<V>>);

impl<V> Deref for CachedResponse<V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.0.value
    }
}

impl<V: Size> Size for Arc<Dependent<V>> {
    fn size(&self) -> usize {
        // With the counters of both shared ones.
        size_of::<Dependent<V>>()
            + size_of::<Dependencies>()
            + 32
            + self.value.size()
            + self.dependencies.size()
    }
}

impl<V: Size> DependentCache<V> {
    /// None yet, in a memory of `size` of which a share is so many `percent`, beside the `shared` ones that they are made
    /// from.
    pub fn new(size: ByteSize, percent: u8, shared: Shared) -> Self {
        Self { kept: CacheStore::new(size, percent), shared }
    }

    /// What is kept for `caller` under `hash`, if `is_it` says so, and if everything that it was made from is current;
    /// what is not is dropped.
    pub fn get(
        &self,
        caller: &Caller,
        hash: u64,
        is_it: impl FnOnce(&V) -> bool,
    ) -> Option<CachedResponse<V>> {
        let key = ResponseKey { scope: caller.scope(), hash };
        let entry = self.kept.get(&key)?;
        let thing = self.shared.copies.validity.read(&entry, Use::Fresh).map(|served| served.value)?;
        if !is_it(&thing.value) {
            return None;
        }
        if !thing.dependencies.is_current(&self.shared) {
            self.kept.remove_number(key, entry.number());
            return None;
        }
        Some(CachedResponse(thing.clone()))
    }

    /// Keeps `value` under `hash` for as long as what it was made from is current.
    pub fn keep(&self, hash: u64, value: V, dependencies: impl Into<Arc<Dependencies>>) {
        let dependencies = dependencies.into();
        let key = ResponseKey { scope: dependencies.scope, hash };
        // Each read checks the sources; the lifetime ends entries that nobody reads.
        let freshness = Freshness::of(dependencies.fresh_for);
        let version = self.shared.copies.validity.start_read(key.scope, Subject::Derived);
        let copy = Guarded::new(Arc::new(Dependent { value, dependencies }), version, freshness);
        self.kept.put(key, copy, || true);
    }

    /// Keeps `value` under `hash` as made from the same as `other`.
    pub fn keep_beside(&self, other: &CachedResponse<V>, hash: u64, value: V) {
        self.keep(hash, value, other.0.dependencies.clone());
    }

    /// How many there are, and how many bytes they take.
    pub fn total(&self) -> (usize, u64) {
        self.kept.total()
    }
}

impl<V> fmt::Debug for CachedResponse<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedResponse").finish_non_exhaustive()
    }
}

impl<V> fmt::Debug for DependentCache<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DependentCache").finish_non_exhaustive()
    }
}
