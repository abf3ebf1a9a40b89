//! A cache store: entries bounded in bytes, each with its own lifetime, and with a [`quota`](super::quota) for each caller.
//!
//! [`Validity`](crate::cache::validity::Validity) decides whether an entry may be served.

use std::{
    collections::BTreeMap,
    fmt,
    hash::{BuildHasher as _, Hash},
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytesize::ByteSize;
use foldhash::quality::RandomState;
use moka::{Expiry, notification::RemovalCause, policy::EvictionPolicy, sync::Cache};
use uuid::Uuid;

use super::{
    quota::{Quotas, Usage},
    validity::Guarded,
};
use crate::{caller::Scope, metrics::metrics};

/// The key of an entry.
pub(crate) trait Key: Copy + Eq + Hash + Send + Sync + 'static {
    /// The caller scope to which the entry belongs.
    fn scope(&self) -> Scope;
}

/// A value that can be stored.
pub trait Size: Send + Sync + 'static {
    /// The bytes that it takes beside itself.
    fn size(&self) -> usize;

    /// The appointments by which its entry can be evicted, beside its key.
    fn tags(&self) -> impl Iterator<Item = Uuid> {
        std::iter::empty()
    }
}

/// A copy in a store.
#[derive(Debug)]
pub(crate) struct CacheEntry<V> {
    copy: Guarded<V>,
    /// Distinguishes the entry from all others that this store has ever held.
    number: u64,
}

impl<V> CacheEntry<V> {
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

impl<V> Deref for CacheEntry<V> {
    type Target = Guarded<V>;

    fn deref(&self) -> &Guarded<V> {
        &self.copy
    }
}

/// The bytes that an entry takes beside itself and its value, as measured: its node in moka, its two places in queues, its
/// timer, its place in the [quota](Quotas), and the state of its scope.
const ENTRY: usize = 700;

/// The bytes that a tag takes, as measured.
pub(crate) const TAG: usize = 96;

/// How many entries of a scope are evicted at once; the rest is evicted in the background.
const EVICTED_AT_ONCE: usize = 1024;

/// Keys share locks.
const LOCKS: usize = 64;

/// A cache store. Cheap to clone.
pub(crate) struct CacheStore<K, V> {
    /// Hashed with a random seed: clients that choose keys cannot make them collide.
    entries: Cache<K, Arc<CacheEntry<V>>, RandomState>,
    quotas: Arc<Quotas<K>>,
    tags: Arc<Tags<K>>,
    locks: Arc<[Mutex<()>]>,
    hasher: RandomState,
    size: u64,
}

impl<K: Key, V: Size> CacheStore<K, V> {
    /// An empty store of `size`, with a quota of `percent` for each caller.
    pub(crate) fn new(size: ByteSize, percent: u8) -> Self {
        // A little less than all, since moka evicts a little later.
        let size = size.as_u64();
        let room = size - size / 64;
        let quotas = Arc::new(Quotas::new(room, percent));
        let tags = Arc::new(Tags::default());
        let entries = Cache::builder()
            .max_capacity(size)
            .weigher(|_: &K, entry: &Arc<CacheEntry<V>>| weight::<K, V>(entry))
            .expire_after(ByLifetime)
            // LRU, not LFU: frequently read entries are fetched again frequently, and callers come and go.
            .eviction_policy(EvictionPolicy::lru())
            .eviction_listener({
                let (quotas, tags) = (quotas.clone(), tags.clone());
                move |key: Arc<K>, entry: Arc<CacheEntry<V>>, cause| {
                    // moka runs this before the call returns that removes an entry.
                    entry.evict();
                    quotas.leave(key.scope(), entry.number);
                    entry.account(|value| tags.remove(*key, entry.number, value));
                    match cause {
                        RemovalCause::Expired => metrics().evictions.count("time"),
                        RemovalCause::Size => metrics().evictions.count("room"),
                        RemovalCause::Explicit | RemovalCause::Replaced => {}
                    }
                }
            })
            .build_with_hasher(RandomState::default());
        let locks = (0..LOCKS).map(|_| Mutex::default()).collect();
        Self { entries, quotas, tags, locks, hasher: RandomState::default(), size }
    }

    pub(crate) fn get(&self, key: &K) -> Option<Arc<CacheEntry<V>>> {
        self.entries.get(key)
    }

    /// Stores `copy` for its lifetime unless the existing entry is newer or `is_storable` returns false, and returns whether
    /// it did. Evicts entries that are over their callers' quotas to make room.
    pub(crate) fn put(&self, key: K, copy: Guarded<V>, is_storable: impl Fn() -> bool) -> bool {
        let mut entry = CacheEntry { copy, number: 0 };
        let bytes = weight::<K, V>(&entry);
        let started = entry.version().started;
        if !entry.freshness().is_storable() || u64::from(bytes) > self.size {
            self.remove_if(key, |there| there.version().started <= started && is_storable());
            return false;
        }
        let (held, evicted) = self.quotas.take(key.scope(), key, bytes);
        for held in evicted {
            metrics().evictions.count("share");
            self.remove_number(held.key, held.number);
        }
        entry.number = held.number;
        // Tagged first: an eviction by tag that comes too early for the entry makes `is_storable` say no.
        entry.account(|value| self.tags.add(key, held.number, value));
        let _lock = self.lock_key(&key);
        let is_newer = self.entries.get(&key).is_some_and(|there| there.version().started > started);
        // Checked under the lock, for which an eviction waits. An entry may have lost its place before it was there: to one of
        // the same caller, or because it is larger than the quota.
        if is_newer || !is_storable() || !self.quotas.holds(key.scope(), held.number) {
            self.quotas.leave(key.scope(), held.number);
            entry.account(|value| self.tags.remove(key, held.number, value));
            return false;
        }
        self.entries.insert(key, Arc::new(entry));
        true
    }

    /// Evicts a revoked entry.
    pub(crate) fn evict(&self, key: K) {
        if self.remove_if(key, |_| true) {
            metrics().evictions.count("refusal");
        }
    }

    /// Evicts the entry of that `number`, unless another has taken its place.
    pub(crate) fn remove_number(&self, key: K, number: u64) -> bool {
        self.remove_if(key, |there| there.number == number)
    }

    /// Evicts the revoked entries of `scope` that have the tag `id`.
    pub(crate) fn evict_tagged(&self, scope: Scope, id: Uuid) {
        for held in self.tags.of(scope, id) {
            if self.remove_number(held.key, held.number) {
                metrics().evictions.count("refusal");
            }
        }
    }

    /// Evicts all entries of `scope`, which were revoked: a bounded number at once, and the rest in the background.
    pub(crate) fn evict_scope(&self, scope: Scope)
    where
        V: Sync,
    {
        let last = self.quotas.last_number();
        if !self.evict_some(scope, last) {
            return;
        }
        let store = self.clone();
        tokio::spawn(async move {
            while store.evict_some(scope, last) {
                tokio::task::yield_now().await;
            }
        });
    }

    /// Evicts some entries of `scope` up to number `last`; returns whether there may be more.
    fn evict_some(&self, scope: Scope, last: u64) -> bool {
        let some = self.quotas.of(scope, last, EVICTED_AT_ONCE);
        for held in &some {
            // First, so that an entry that is about to be stored is not.
            self.quotas.leave(scope, held.number);
            if self.remove_number(held.key, held.number) {
                metrics().evictions.count("refusal");
            }
        }
        some.len() == EVICTED_AT_ONCE
    }

    /// The number of entries and their size in bytes.
    pub(crate) fn total(&self) -> (usize, u64) {
        self.quotas.total()
    }

    /// Removes the entry under `key` if `should_remove`; returns whether it did.
    fn remove_if(&self, key: K, should_remove: impl FnOnce(&CacheEntry<V>) -> bool) -> bool {
        let _lock = self.lock_key(&key);
        let goes = self.entries.get(&key).is_some_and(|there| should_remove(&there));
        if goes {
            self.entries.invalidate(&key);
        }
        goes
    }

    /// Locks `key` for a read-modify-write. (moka can do that too, in several microseconds.) Code under the lock never takes
    /// another of these locks.
    fn lock_key(&self, key: &K) -> MutexGuard<'_, ()> {
        let lock = self.hasher.hash_one(key) as usize % LOCKS;
        self.locks[lock].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The entries by tag.
struct Tags<K>(Mutex<BTreeMap<(Scope, Uuid, u64), K>>);

impl<K: Key> Tags<K> {
    fn add(&self, key: K, number: u64, value: &impl Size) {
        // Most values have no tags, and need no lock.
        let mut tags = value.tags().peekable();
        if tags.peek().is_some() {
            self.lock().extend(tags.map(|id| ((key.scope(), id, number), key)));
        }
    }

    fn remove(&self, key: K, number: u64, value: &impl Size) {
        let mut tags = value.tags().peekable();
        if tags.peek().is_some() {
            let mut all = self.lock();
            for id in tags {
                all.remove(&(key.scope(), id, number));
            }
        }
    }

    fn of(&self, scope: Scope, id: Uuid) -> Vec<Usage<K>> {
        let all = self.lock();
        let tagged = all.range((scope, id, 0)..=(scope, id, u64::MAX));
        tagged.map(|(&(_, _, number), &key)| Usage { key, number }).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Scope, Uuid, u64), K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K> Default for Tags<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

fn weight<K: Key, V: Size>(entry: &CacheEntry<V>) -> u32 {
    let size = size_of::<(K, CacheEntry<V>)>() + ENTRY + entry.account(V::size);
    u32::try_from(size).unwrap_or(u32::MAX)
}

impl<K, V> Clone for CacheStore<K, V> {
    fn clone(&self) -> Self {
        let Self { entries, quotas, tags, locks, hasher, size } = self;
        Self {
            entries: entries.clone(),
            quotas: quotas.clone(),
            tags: tags.clone(),
            locks: locks.clone(),
            hasher: hasher.clone(),
            size: *size,
        }
    }
}

impl<K, V> fmt::Debug for CacheStore<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheStore").finish_non_exhaustive()
    }
}

struct ByLifetime;

impl<K, V> Expiry<K, Arc<CacheEntry<V>>> for ByLifetime {
    fn expire_after_create(&self, _: &K, entry: &Arc<CacheEntry<V>>, _: Instant) -> Option<Duration> {
        Some(entry.freshness().lifetime())
    }

    fn expire_after_update(
        &self,
        _: &K,
        entry: &Arc<CacheEntry<V>>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.freshness().lifetime())
    }
}
