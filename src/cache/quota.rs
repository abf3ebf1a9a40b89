//! Cache quotas per caller, and the order of eviction.
//!
//! One caller alone may fill the cache. When it is full, the caller that holds the most loses its oldest entries, if it holds
//! more than its quota (`cache.caller_share`). A caller below its quota loses nothing to one above it, however much that one
//! requests. If no caller is above its quota, the least recently used entry of all callers is evicted.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::caller::Scope;

/// The usage of each caller. It grows with the entries of the cache, which count its memory as their own
/// ([`store`](crate::cache::store)).
#[derive(Debug)]
pub(crate) struct Quotas<K> {
    usage: Mutex<UsageTable<K>>,
    capacity: u64,
    share: u64,
}

/// A held entry. No two entries of a cache ever have the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage<K> {
    pub(crate) key: K,
    pub(crate) number: u64,
}

#[derive(Debug)]
struct UsageTable<K> {
    /// The entries of each caller, oldest first.
    all: BTreeMap<(Scope, u64), (K, u32)>,
    bytes: u64,
    bytes_by_scope: HashMap<Scope, u64>,
    /// Callers above their quota, by the bytes that they hold.
    over: BTreeSet<(u64, Scope)>,
    last_number: u64,
}

impl<K: Copy> Quotas<K> {
    /// Quotas of `percent` each in a cache of `capacity` bytes.
    pub(crate) fn new(capacity: u64, percent: u8) -> Self {
        let usage = UsageTable {
            all: BTreeMap::new(),
            bytes: 0,
            bytes_by_scope: HashMap::new(),
            over: BTreeSet::new(),
            last_number: 0,
        };
        Self { usage: Mutex::new(usage), capacity, share: capacity / 100 * u64::from(percent) }
    }

    /// Records an entry of `bytes` under `key` for `scope`. Returns it with its number, and the entries to evict to make room.
    pub(crate) fn take(&self, scope: Scope, key: K, bytes: u32) -> (Usage<K>, Vec<Usage<K>>) {
        let mut usage = self.lock();
        usage.last_number += 1;
        let number = usage.last_number;
        usage.all.insert((scope, number), (key, bytes));
        usage.count(scope, i64::from(bytes), self.share);
        let mut evicted = Vec::new();
        while usage.bytes > self.capacity {
            let Some(&(_, largest)) = usage.over.last() else { break };
            let Some(oldest) = usage.of(largest).next() else { break };
            usage.remove(largest, oldest.number, self.share);
            evicted.push(oldest);
        }
        (Usage { key, number }, evicted)
    }

    /// Records an entry of `bytes` under `key` for `scope` without evicting another, if there is room for it: see
    /// [`UsageTable::has_room`].
    pub(crate) fn try_take(&self, scope: Scope, key: K, bytes: u32) -> Option<Usage<K>> {
        let mut usage = self.lock();
        if !usage.has_room(scope, bytes, self.capacity, self.share) {
            return None;
        }
        usage.last_number += 1;
        let number = usage.last_number;
        usage.all.insert((scope, number), (key, bytes));
        usage.count(scope, i64::from(bytes), self.share);
        Some(Usage { key, number })
    }

    /// Adds `more` bytes to the entry of that `number`, if there is room for them. Returns whether there was.
    pub(crate) fn try_grow(&self, scope: Scope, number: u64, more: u32) -> bool {
        let mut usage = self.lock();
        if !usage.has_room(scope, more, self.capacity, self.share) {
            return false;
        }
        let Some((_, bytes)) = usage.all.get_mut(&(scope, number)) else { return false };
        *bytes = bytes.saturating_add(more);
        usage.count(scope, i64::from(more), self.share);
        true
    }

    /// Releases the entry of that `number`. Idempotent.
    pub(crate) fn leave(&self, scope: Scope, number: u64) {
        self.lock().remove(scope, number, self.share);
    }

    /// Whether `scope` still holds the entry of that `number`.
    pub(crate) fn holds(&self, scope: Scope, number: u64) -> bool {
        self.lock().all.contains_key(&(scope, number))
    }

    /// The oldest entries of `scope`, up to number `last`, and at most `many`.
    pub(crate) fn of(&self, scope: Scope, last: u64, many: usize) -> Vec<Usage<K>> {
        self.lock().of(scope).take_while(|held| held.number <= last).take(many).collect()
    }

    /// The number of the latest entry.
    pub(crate) fn last_number(&self) -> u64 {
        self.lock().last_number
    }

    /// The number of entries and their size in bytes.
    pub(crate) fn total(&self) -> (usize, u64) {
        let usage = self.lock();
        (usage.all.len(), usage.bytes)
    }

    fn lock(&self) -> MutexGuard<'_, UsageTable<K>> {
        // Nothing that runs under the lock leaves the usage half changed.
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Copy> UsageTable<K> {
    fn of(&self, scope: Scope) -> impl Iterator<Item = Usage<K>> {
        let all = self.all.range((scope, 0)..=(scope, u64::MAX));
        all.map(|(&(_, number), &(key, _))| Usage { key, number })
    }

    /// Whether `scope` may use `more` bytes without an eviction: as much as its share, and beyond it no more than stays free.
    /// So a single caller gets half of all, and several have room left for others.
    fn has_room(&self, scope: Scope, more: u32, capacity: u64, share: u64) -> bool {
        let Some(free) = capacity.checked_sub(self.bytes + u64::from(more)) else { return false };
        let held = self.bytes_by_scope.get(&scope).copied().unwrap_or_default();
        held + u64::from(more) <= share.max(free)
    }

    fn remove(&mut self, scope: Scope, number: u64, share: u64) {
        if let Some((_, bytes)) = self.all.remove(&(scope, number)) {
            self.count(scope, -i64::from(bytes), share);
        }
    }

    fn count(&mut self, scope: Scope, change: i64, share: u64) {
        self.bytes = self.bytes.saturating_add_signed(change);
        let held = self.bytes_by_scope.entry(scope).or_default();
        let before = std::mem::replace(held, held.saturating_add_signed(change));
        let now = *held;
        if now == 0 {
            self.bytes_by_scope.remove(&scope);
        }
        if before > share {
            self.over.remove(&(before, scope));
        }
        if now > share {
            self.over.insert((now, scope));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::caller::{Caller, ScopeKey};

    fn scopes<const N: usize>() -> [Scope; N] {
        let key = ScopeKey::random();
        std::array::from_fn(|n| Caller::with_token(&n.to_string(), &key).scope())
    }

    fn keys(held: &[Usage<u32>]) -> Vec<u32> {
        held.iter().map(|held| held.key).collect()
    }

    #[test]
    fn a_single_caller_fills_the_cache_and_loses_its_oldest() {
        let [one] = scopes();
        let quotas = Quotas::new(1000, 10);
        for key in 0..10 {
            assert_eq!(quotas.take(one, key, 100).1, []);
        }
        assert_eq!(keys(&quotas.take(one, 10, 100).1), [0]);
        assert_eq!(keys(&quotas.take(one, 11, 200).1), [1, 2]);
        assert_eq!(quotas.total(), (9, 1000));
    }

    #[test]
    fn the_largest_holder_is_evicted_first() {
        let [noisy, quiet, other] = scopes();
        let quotas = Quotas::new(1000, 10);
        for key in 0..9 {
            quotas.take(noisy, key, 100);
        }
        assert_eq!(quotas.take(quiet, 100, 100).1, []);
        assert_eq!(keys(&quotas.take(other, 200, 150).1), [0, 1]);
        for key in 9..100 {
            let evicted = quotas.take(noisy, key, 50).1;
            assert!(evicted.iter().all(|held| held.key < 100));
        }
        assert_eq!(keys(&quotas.of(quiet, u64::MAX, usize::MAX)), [100]);
        assert_eq!(keys(&quotas.of(other, u64::MAX, usize::MAX)), [200]);
    }

    #[test]
    fn callers_below_their_quota_evict_nobody() {
        let scopes = scopes::<20>();
        let quotas = Quotas::new(1000, 10);
        for (key, scope) in (0..).zip(scopes) {
            assert_eq!(quotas.take(scope, key, 100).1, []);
        }
        assert_eq!(quotas.total(), (20, 2000));
    }

    #[test]
    fn without_eviction_a_caller_leaves_as_much_free_as_it_holds() {
        let [noisy, other, quiet] = scopes();
        let quotas = Quotas::new(1000, 10);
        let fill = |scope| (0..).take_while(|key| quotas.try_take(scope, *key, 10).is_some()).count();
        assert_eq!(fill(noisy), 50);
        assert_eq!(fill(other), 25);
        assert_eq!(fill(quiet), 12);
        assert_eq!((fill(noisy), fill(other)), (0, 0));
        for scope in scopes::<2>() {
            assert!(fill(scope) > 0, "others find room");
        }
        let held = quotas.of(noisy, u64::MAX, usize::MAX);
        assert_eq!(held.len(), 50, "nothing is evicted");
        quotas.leave(noisy, held[0].number);
        assert!(!quotas.try_grow(noisy, held[1].number, 10), "others have taken the free part");
    }

    #[test]
    fn without_eviction_each_caller_has_its_share_until_all_is_taken() {
        let scopes = scopes::<11>();
        let quotas = Quotas::new(1000, 10);
        for (key, scope) in (0..).zip(&scopes[..10]) {
            let held = quotas.try_take(*scope, key, 60).expect("room");
            assert!(quotas.try_grow(*scope, held.number, 40));
        }
        assert_eq!(quotas.total(), (10, 1000));
        assert_eq!(quotas.try_take(scopes[10], 10, 1), None);
        assert!(!quotas.try_grow(scopes[0], 1, 1));
    }

    proptest! {
        #[test]
        fn totals_equal_the_held_entries(steps: Vec<(u8, bool, u16)>) {
            let scopes = scopes::<4>();
            let quotas = Quotas::new(100_000, 20);
            let mut held = Vec::new();
            for (key, (who, comes, bytes)) in (0..).zip(steps) {
                let scope = scopes[usize::from(who % 4)];
                if comes {
                    let (new, evicted) = quotas.take(scope, key, u32::from(bytes));
                    held.push((scope, new, u64::from(bytes)));
                    held.retain(|(_, held, _)| !evicted.contains(held));
                } else if !held.is_empty() {
                    let (scope, gone, _) = held.remove(usize::from(bytes) % held.len());
                    quotas.leave(scope, gone.number);
                    quotas.leave(scope, gone.number);
                }
                prop_assert_eq!(quotas.total(), (held.len(), held.iter().map(|(_, _, bytes)| bytes).sum()));
                for scope in scopes {
                    let of: Vec<_> = held.iter().filter(|it| it.0 == scope).map(|it| it.1).collect();
                    prop_assert_eq!(quotas.of(scope, u64::MAX, usize::MAX), of);
                }
            }
        }
    }
}
