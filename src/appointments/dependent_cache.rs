//! A cache of values that were made from appointments, valid as long as their dependencies are current.

use std::{fmt, ops::Deref, sync::Arc, time::Duration};

use bytesize::ByteSize;

use super::{dependencies::Dependencies, shared::Shared};
use crate::{
    cache::{
        freshness::{Freshness, ReadPurpose},
        store::{self, CacheStore, Size},
        validity::{Guarded, Subject},
    },
    caller::{Caller, Scope},
};

/// Values that were made from appointments, each for one caller, bounded in bytes and with a quota for each caller.
pub struct DependentCache<V> {
    store: CacheStore<DependentKey, Arc<Dependent<V>>>,
    shared: Shared,
}

/// The key of a value. Hashes may collide; scopes do not.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct DependentKey {
    scope: Scope,
    hash: u64,
}

impl store::Key for DependentKey {
    fn scope(&self) -> Scope {
        self.scope
    }
}

/// A value with its dependencies.
struct Dependent<V> {
    value: V,
    dependencies: Arc<Dependencies>,
}

/// A cached value. Cheap to clone.
pub struct DependentValue<V>(Arc<Dependent<V>>);

impl<V> DependentValue<V> {
    /// How long all its dependencies stay fresh.
    pub fn fresh_for(&self) -> Duration {
        self.0.dependencies.remaining_freshness()
    }
}

impl<V> Deref for DependentValue<V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.0.value
    }
}

impl<V: Size> Size for Arc<Dependent<V>> {
    fn size(&self) -> usize {
        // With the reference counts of both `Arc`s.
        size_of::<Dependent<V>>()
            + size_of::<Dependencies>()
            + 32
            + self.value.size()
            + self.dependencies.size()
    }
}

impl<V: Size> DependentCache<V> {
    /// An empty cache of `size`, with a quota of `percent` for each caller, over the `shared` caches.
    pub fn new(size: ByteSize, percent: u8, shared: Shared) -> Self {
        Self { store: CacheStore::new(size, percent), shared }
    }

    /// The value of `caller` under `hash`, if it `matches` and its dependencies are current. Outdated values are evicted.
    pub fn get(
        &self,
        caller: &Caller,
        hash: u64,
        matches: impl FnOnce(&V) -> bool,
    ) -> Option<DependentValue<V>> {
        let key = DependentKey { scope: caller.scope(), hash };
        let entry = self.store.get(&key)?;
        let thing =
            self.shared.copies.validity.read(&entry, ReadPurpose::Fresh).map(|served| served.value)?;
        if !matches(&thing.value) {
            return None;
        }
        if !thing.dependencies.is_current(&self.shared) {
            self.store.remove_number(key, entry.number());
            return None;
        }
        Some(DependentValue(thing.clone()))
    }

    /// Stores `value` under `hash` for as long as its dependencies are current, and returns whether it did.
    pub fn insert(&self, hash: u64, value: V, dependencies: impl Into<Arc<Dependencies>>) -> bool {
        let dependencies = dependencies.into();
        let key = DependentKey { scope: dependencies.scope, hash };
        // Each read checks the sources; the lifetime ends unread entries.
        let freshness = Freshness::of(dependencies.fresh_for);
        let version = self.shared.copies.validity.start_read(key.scope, Subject::Derived);
        let copy = Guarded::new(Arc::new(Dependent { value, dependencies }), version, freshness);
        self.store.put(key, copy, || true)
    }

    /// Stores `value` under `hash` with the dependencies of `other`.
    pub fn insert_beside(&self, other: &DependentValue<V>, hash: u64, value: V) {
        self.insert(hash, value, other.0.dependencies.clone());
    }

    /// The number of values and their size in bytes.
    pub fn total(&self) -> (usize, u64) {
        self.store.total()
    }
}

impl<V> fmt::Debug for DependentValue<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DependentValue").finish_non_exhaustive()
    }
}

impl<V> fmt::Debug for DependentCache<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DependentCache").finish_non_exhaustive()
    }
}
