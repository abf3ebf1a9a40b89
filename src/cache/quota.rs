//! Who holds how much of a memory, and who gives way when it is full.
//!
//! One caller alone may fill it. When it is full, who holds the most gives up what it has held longest, if that is more
//! than its share (`cache.caller_share`): so whoever holds less than a share loses nothing to one who holds more, however
//! much that one asks for. Where nobody holds more than a share, what was not read for the longest time goes, whosesoever
//! it is.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::caller::Scope;

/// What each caller holds of a memory. As large as what is in it: the memory counts an entry's part in here as the
/// entry's ([`kept`](crate::cache::store)).
#[derive(Debug)]
pub(crate) struct Quotas<K> {
    holdings: Mutex<Holdings<K>>,
    room: u64,
    share: u64,
}

/// One thing that is held, by a number that it alone has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage<K> {
    pub(crate) key: K,
    pub(crate) number: u64,
}

#[derive(Debug)]
struct Holdings<K> {
    /// What each holds, oldest first.
    all: BTreeMap<(Scope, u64), (K, u32)>,
    bytes: u64,
    bytes_by_scope: HashMap<Scope, u64>,
    /// Those who hold more than a share, by how much: at most as many as there are shares.
    over: BTreeSet<(u64, Scope)>,
    last_number: u64,
}

impl<K: Copy> Quotas<K> {
    /// Of a memory with `room` for so many bytes, of which a share is so many percent.
    pub(crate) fn new(room: u64, percent: u8) -> Self {
        let holdings = Holdings {
            all: BTreeMap::new(),
            bytes: 0,
            bytes_by_scope: HashMap::new(),
            over: BTreeSet::new(),
            last_number: 0,
        };
        Self { holdings: Mutex::new(holdings), room, share: room / 100 * u64::from(percent) }
    }

    /// Notes that `scope` is to hold `bytes` more, under `key`. Returns it with its number, and what has to go so that
    /// there is room.
    pub(crate) fn take(&self, scope: Scope, key: K, bytes: u32) -> (Usage<K>, Vec<Usage<K>>) {
        let mut holdings = self.lock();
        holdings.last_number += 1;
        let number = holdings.last_number;
        holdings.all.insert((scope, number), (key, bytes));
        holdings.count(scope, i64::from(bytes), self.share);
        let mut leaving = Vec::new();
        while holdings.bytes > self.room {
            let Some(&(_, largest)) = holdings.over.last() else { break };
            let Some(oldest) = holdings.of(largest).next() else { break };
            holdings.remove(largest, oldest.number, self.share);
            leaving.push(oldest);
        }
        (Usage { key, number }, leaving)
    }

    /// Notes that `scope` does not hold it any more. Twice is as good as once.
    pub(crate) fn leave(&self, scope: Scope, number: u64) {
        self.lock().remove(scope, number, self.share);
    }

    /// Whether `scope` still holds the thing of that `number`.
    pub(crate) fn holds(&self, scope: Scope, number: u64) -> bool {
        self.lock().all.contains_key(&(scope, number))
    }

    /// The oldest of the things that `scope` holds, up to number `last`, and at most so `many`.
    pub(crate) fn of(&self, scope: Scope, last: u64, many: usize) -> Vec<Usage<K>> {
        self.lock().of(scope).take_while(|held| held.number <= last).take(many).collect()
    }

    /// The number of the thing that was taken last.
    pub(crate) fn last_number(&self) -> u64 {
        self.lock().last_number
    }

    /// How many things are held, and how many bytes they take.
    pub(crate) fn total(&self) -> (usize, u64) {
        let holdings = self.lock();
        (holdings.all.len(), holdings.bytes)
    }

    fn lock(&self) -> MutexGuard<'_, Holdings<K>> {
        // Nothing that runs under the lock leaves the holdings half changed.
        self.holdings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Copy> Holdings<K> {
    fn of(&self, scope: Scope) -> impl Iterator<Item = Usage<K>> {
        let all = self.all.range((scope, 0)..=(scope, u64::MAX));
        all.map(|(&(_, number), &(key, _))| Usage { key, number })
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
    fn one_alone_fills_it_and_gives_up_its_oldest() {
        let [one] = scopes();
        let shares = Quotas::new(1000, 10);
        for key in 0..10 {
            assert_eq!(shares.take(one, key, 100).1, []);
        }
        assert_eq!(keys(&shares.take(one, 10, 100).1), [0]);
        assert_eq!(keys(&shares.take(one, 11, 200).1), [1, 2]);
        assert_eq!(shares.total(), (9, 1000));
    }

    #[test]
    fn who_holds_the_most_gives_way_and_who_holds_less_than_a_share_never_does() {
        let [noisy, quiet, other] = scopes();
        let shares = Quotas::new(1000, 10);
        for key in 0..9 {
            shares.take(noisy, key, 100);
        }
        assert_eq!(shares.take(quiet, 100, 100).1, []);
        assert_eq!(keys(&shares.take(other, 200, 150).1), [0, 1]);
        for key in 9..100 {
            let leaving = shares.take(noisy, key, 50).1;
            assert!(leaving.iter().all(|held| held.key < 100));
        }
        assert_eq!(keys(&shares.of(quiet, u64::MAX, usize::MAX)), [100]);
        assert_eq!(keys(&shares.of(other, u64::MAX, usize::MAX)), [200]);
    }

    #[test]
    fn where_nobody_holds_more_than_a_share_nothing_is_said() {
        let scopes = scopes::<20>();
        let shares = Quotas::new(1000, 10);
        for (key, scope) in (0..).zip(scopes) {
            assert_eq!(shares.take(scope, key, 100).1, []);
        }
        assert_eq!(shares.total(), (20, 2000));
    }

    proptest! {
        #[test]
        fn what_is_counted_is_what_is_held(steps: Vec<(u8, bool, u16)>) {
            let scopes = scopes::<4>();
            let shares = Quotas::new(100_000, 20);
            let mut held = Vec::new();
            for (key, (who, comes, bytes)) in (0..).zip(steps) {
                let scope = scopes[usize::from(who % 4)];
                if comes {
                    let (new, leaving) = shares.take(scope, key, u32::from(bytes));
                    held.push((scope, new, u64::from(bytes)));
                    held.retain(|(_, held, _)| !leaving.contains(held));
                } else if !held.is_empty() {
                    let (scope, gone, _) = held.remove(usize::from(bytes) % held.len());
                    shares.leave(scope, gone.number);
                    shares.leave(scope, gone.number);
                }
                prop_assert_eq!(shares.total(), (held.len(), held.iter().map(|(_, _, bytes)| bytes).sum()));
                for scope in scopes {
                    let of: Vec<_> = held.iter().filter(|it| it.0 == scope).map(|it| it.1).collect();
                    prop_assert_eq!(shares.of(scope, u64::MAX, usize::MAX), of);
                }
            }
        }
    }
}
