//! What was made from appointments, kept for as long as it would be made of the same ones.

use std::{fmt, ops::Deref, sync::Arc};

use bytesize::ByteSize;

use super::{dependencies::Provenance, shared::Shared};
use crate::{
    cache::{
        freshness::{Freshness, Use},
        store::{self, CacheStore, Size},
        validity::{Guarded, Resource},
    },
    caller::{Caller, Scope},
};

/// Things that were made from appointments, each for one caller, in a memory with a bound in bytes and a share for each
/// caller.
pub struct Derived<V> {
    kept: CacheStore<Key, Arc<Thing<V>>>,
    shared: Shared,
}

/// What they are kept under. Two things may have a hash in common, but no two callers have a key in common.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    scope: Scope,
    hash: u64,
}

impl store::Key for Key {
    fn scope(&self) -> Scope {
        self.scope
    }
}

/// Something with what it was made from.
struct Thing<V> {
    value: V,
    provenance: Arc<Provenance>,
}

/// Something that was made, as it is kept. Cheap to clone.
pub struct Made<V>(Arc<Thing<V>>);

impl<V> Deref for Made<V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.0.value
    }
}

impl<V: Size> Size for Arc<Thing<V>> {
    fn size(&self) -> usize {
        // With the counters of both shared ones.
        size_of::<Thing<V>>() + size_of::<Provenance>() + 32 + self.value.size() + self.provenance.size()
    }
}

impl<V: Size> Derived<V> {
    /// None yet, in a memory of `size` of which a share is so many `percent`, beside the `shared` ones that they are made
    /// from.
    pub fn new(size: ByteSize, percent: u8, shared: Shared) -> Self {
        Self { kept: CacheStore::new(size, percent), shared }
    }

    /// What is kept for `caller` under `hash`, if `is_it` says so, and if everything that it was made from is current;
    /// what is not is dropped.
    pub fn get(&self, caller: &Caller, hash: u64, is_it: impl FnOnce(&V) -> bool) -> Option<Made<V>> {
        let key = Key { scope: caller.scope(), hash };
        let entry = self.kept.get(&key)?;
        let thing = self.shared.validity().read(&entry, Use::Fresh).map(|served| served.value)?;
        if !is_it(&thing.value) {
            return None;
        }
        if !thing.provenance.is_current(&self.shared) {
            self.kept.remove_number(key, entry.number());
            return None;
        }
        Some(Made(thing.clone()))
    }

    /// Keeps `value` under `hash` for as long as what it was made from is current.
    pub fn keep(&self, hash: u64, value: V, provenance: impl Into<Arc<Provenance>>) {
        let provenance = provenance.into();
        let key = Key { scope: provenance.scope, hash };
        // Each read checks the sources; the lifetime ends entries that nobody reads.
        let freshness = Freshness::of(provenance.fresh_for);
        let version = self.shared.validity().start_read(key.scope, Resource::Derived);
        let copy = Guarded::new(Arc::new(Thing { value, provenance }), version, freshness);
        self.kept.put(key, copy, || true);
    }

    /// Keeps `value` under `hash` as made from the same as `other`.
    pub fn keep_beside(&self, other: &Made<V>, hash: u64, value: V) {
        self.keep(hash, value, other.0.provenance.clone());
    }

    /// How many there are, and how many bytes they take.
    pub fn total(&self) -> (usize, u64) {
        self.kept.total()
    }
}

impl<V> fmt::Debug for Made<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Made").finish_non_exhaustive()
    }
}

impl<V> fmt::Debug for Derived<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Derived").finish_non_exhaustive()
    }
}
