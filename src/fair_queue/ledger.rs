//! Who holds how many places and permits. Pure bookkeeping: [`fair_queue`](super) waits.
//!
//! A caller may take a share, in percent, of what the others leave: a lone caller has that share of everything, several
//! busy ones divide it among themselves, and something is left for the next one. (Switches share their buffers the same
//! way: the dynamic threshold of Choudhury and Hahne.) Waiters are granted permits caller by caller, and those of one
//! caller in the order in which they came.

use std::collections::{BTreeMap, HashMap};

/// What tells callers apart.
pub trait CallerKey: Copy + Eq + std::hash::Hash {}

impl<K: Copy + Eq + std::hash::Hash> CallerKey for K {}

/// The bounds of a [`FairQueue`].
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The most permits at once.
    pub running: usize,
    /// The most entries that wait beside those.
    pub waiting: usize,
    /// The share of one caller in both, in percent of what the other callers leave; always at least one.
    pub caller_share: usize,
}

/// A number that grows: the lower one came first.
pub(crate) type Ticket = u64;

/// Places and permits, and their holders. `W` wakes a waiter.
#[derive(Debug)]
pub(crate) struct Ledger<K, W> {
    /// How many permits there are.
    max_permits: usize,
    /// How many places there are: for entries with a permit, and for those that wait.
    max_places: usize,
    /// The share of what the others leave that one caller may take, in percent.
    percent: usize,
    permits: usize,
    places: usize,
    /// Callers that hold anything: at most as many as there are places.
    callers: HashMap<K, Holdings<W>>,
    /// Callers with waiters, in the order in which they are next.
    order: BTreeMap<Ticket, K>,
    next: Ticket,
}

/// What one caller holds.
#[derive(Debug)]
struct Holdings<W> {
    permits: usize,
    places: usize,
    /// Entries that wait for a permit.
    waiting: BTreeMap<Ticket, W>,
    /// The caller's position in the order, while any wait.
    next: Ticket,
}

impl<K: CallerKey, W> Ledger<K, W> {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            max_permits: bounds.running,
            max_places: bounds.running + bounds.waiting,
            percent: bounds.caller_share,
            permits: 0,
            places: 0,
            callers: HashMap::new(),
            order: BTreeMap::new(),
            next: 0,
        }
    }

    /// Takes a place; whether there was one.
    pub(crate) fn enter(&mut self, caller: K) -> bool {
        let own = self.callers.get(&caller).map_or(0, |held| held.places);
        let is_free = self.may_take(self.max_places, self.places, own);
        if is_free {
            self.places += 1;
            let none = || Holdings { permits: 0, places: 0, waiting: BTreeMap::new(), next: 0 };
            self.callers.entry(caller).or_insert_with(none).places += 1;
        }
        is_free
    }

    /// Gives a place back.
    pub(crate) fn leave(&mut self, caller: K) {
        self.places -= 1;
        if let Some(held) = self.callers.get_mut(&caller) {
            held.places -= 1;
        }
        self.tidy(caller);
    }

    /// Takes a permit for an entry that has a place; whether there was one. It never overtakes waiters of the same caller.
    pub(crate) fn take(&mut self, caller: K) -> bool {
        let Some(held) = self.callers.get(&caller) else { return false };
        let is_free = held.waiting.is_empty() && self.may_take(self.max_permits, self.permits, held.permits);
        if is_free {
            self.grant(caller);
        }
        is_free
    }

    /// Has an entry wait that has a place and found no permit.
    pub(crate) fn wait(&mut self, caller: K, wake: W) -> Ticket {
        self.next += 1;
        let ticket = self.next;
        if let Some(held) = self.callers.get_mut(&caller) {
            if held.waiting.is_empty() {
                held.next = ticket;
                self.order.insert(ticket, caller);
            }
            held.waiting.insert(ticket, wake);
        }
        ticket
    }

    /// Ends the wait of an entry; whether it did wait. If it did not, it has a permit.
    pub(crate) fn stop_waiting(&mut self, caller: K, ticket: Ticket) -> bool {
        let Some(held) = self.callers.get_mut(&caller) else { return false };
        let was_waiting = held.waiting.remove(&ticket).is_some();
        if was_waiting && held.waiting.is_empty() {
            self.order.remove(&held.next);
        }
        was_waiting
    }

    /// Gives a permit back; the waiters that have one now, to be woken.
    pub(crate) fn give_back(&mut self, caller: K) -> Vec<W> {
        self.permits -= 1;
        if let Some(held) = self.callers.get_mut(&caller) {
            held.permits -= 1;
        }
        self.tidy(caller);
        std::iter::from_fn(|| self.grant_next()).collect()
    }

    /// Grants a permit to the next caller in line that may have one.
    fn grant_next(&mut self) -> Option<W> {
        let may_have_one = |caller: &K| {
            let own = self.callers.get(caller).map_or(0, |held| held.permits);
            self.may_take(self.max_permits, self.permits, own)
        };
        let (position, caller) =
            self.order.iter().find(|(_, caller)| may_have_one(caller)).map(|it| (*it.0, *it.1))?;
        self.order.remove(&position);
        self.grant(caller);
        let held = self.callers.get_mut(&caller)?;
        let (_, wake) = held.waiting.pop_first()?;
        if !held.waiting.is_empty() {
            self.next += 1;
            held.next = self.next;
            self.order.insert(self.next, caller);
        }
        Some(wake)
    }

    fn grant(&mut self, caller: K) {
        self.permits += 1;
        if let Some(held) = self.callers.get_mut(&caller) {
            held.permits += 1;
        }
    }

    /// Forgets a caller that holds nothing any more.
    fn tidy(&mut self, caller: K) {
        if self.callers.get(&caller).is_some_and(|held| held.places == 0 && held.permits == 0) {
            self.callers.remove(&caller);
        }
    }

    /// Whether a caller that holds `own` of the `taken` may take one more of `maximum`. A caller that holds none may always
    /// take a free one.
    fn may_take(&self, maximum: usize, taken: usize, own: usize) -> bool {
        let left_by_others = maximum - (taken - own);
        taken < maximum && own < (left_by_others * self.percent / 100).max(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ledger(running: usize, waiting: usize, caller_share: usize) -> Ledger<usize, usize> {
        Ledger::new(Bounds { running, waiting, caller_share })
    }

    /// Takes a place and, if one is free, a permit.
    fn call(ledger: &mut Ledger<usize, usize>, caller: usize, name: usize) -> &'static str {
        if !ledger.enter(caller) {
            return "refused";
        }
        if ledger.take(caller) {
            return "runs";
        }
        ledger.wait(caller, name);
        "waits"
    }

    #[test]
    fn a_lone_caller_has_its_share_and_another_finds_room_at_once() {
        for (percent, expected) in [(90, (57, 922, 1021)), (50, (32, 512, 1456))] {
            let mut ledger = ledger(64, 1024, percent);
            let results = (0..2000).map(|name| call(&mut ledger, 0, name)).collect::<Vec<_>>();
            let count = |it| results.iter().filter(|result| **result == it).count();
            assert_eq!((count("runs"), count("waits"), count("refused")), expected, "{percent}");
            assert_eq!(call(&mut ledger, 1, 0), "runs");
        }
    }

    #[test]
    fn beside_several_noisy_callers_one_more_finds_room() {
        for (percent, most) in [(90, 7), (50, 50)] {
            for noisy in 1..=most {
                let mut ledger = ledger(64, 1024, percent);
                for name in 0..1000 {
                    for caller in 0..noisy {
                        call(&mut ledger, caller, name);
                    }
                }
                assert!(ledger.permits < 64, "{percent}: {noisy}");
                assert_eq!(call(&mut ledger, noisy, 0), "runs", "{percent}: {noisy}");
            }
        }
    }

    #[test]
    fn permits_go_from_caller_to_caller_and_each_callers_waiters_keep_their_order() {
        let mut ledger = ledger(1, 99, 100);
        assert_eq!(call(&mut ledger, 0, 0), "runs");
        for (caller, names) in [(0, [1, 2, 3]), (1, [11, 12, 13]), (2, [21, 22, 23])] {
            for name in names {
                assert_eq!(call(&mut ledger, caller, name), "waits");
            }
        }
        let mut order = Vec::new();
        let mut last = 0;
        for _ in 0..9 {
            let [name] = ledger.give_back(last)[..] else { panic!("one permit, one waiter") };
            ledger.leave(last);
            last = name / 10;
            order.push(name);
        }
        assert_eq!(order, [1, 11, 21, 2, 12, 22, 3, 13, 23]);
    }

    proptest! {
        /// In any order of entries, ends and departures of three callers: bounds hold, no permit stays unused that a waiter
        /// may have, and nothing is left of callers that are gone.
        #[test]
        fn bounds_hold_and_no_permit_is_wasted(
            permits in 1..6_usize,
            waiting in 0..10_usize,
            percent in 1..=100_usize,
            events in prop::collection::vec((0..4_u8, 0..3_usize, 0..100_usize), 0..200),
        ) {
            let mut ledger = ledger(permits, waiting, percent);
            // The callers of what runs; the callers, tickets and names of what waits.
            let mut running = Vec::new();
            let mut queued: Vec<(usize, Ticket, usize)> = Vec::new();
            for (name, (event, caller, which)) in events.into_iter().enumerate() {
                match event {
                    0 | 1 => {
                        if ledger.enter(caller) {
                            if ledger.take(caller) {
                                running.push(caller);
                            } else {
                                queued.push((caller, ledger.wait(caller, name), name));
                            }
                        } else {
                            prop_assert!(ledger.callers.contains_key(&caller) || ledger.places == permits + waiting);
                        }
                    }
                    2 if !running.is_empty() => {
                        let caller = running.swap_remove(which % running.len());
                        for woken in ledger.give_back(caller) {
                            let at = queued.iter().position(|(_, _, name)| *name == woken).unwrap();
                            let (caller, ticket, _) = queued.remove(at);
                            prop_assert!(!ledger.stop_waiting(caller, ticket));
                            running.push(caller);
                        }
                        ledger.leave(caller);
                    }
                    3 if !queued.is_empty() => {
                        let (caller, ticket, _) = queued.swap_remove(which % queued.len());
                        prop_assert!(ledger.stop_waiting(caller, ticket));
                        ledger.leave(caller);
                    }
                    _ => {}
                }
                prop_assert_eq!((ledger.permits, ledger.places), (running.len(), running.len() + queued.len()));
                prop_assert!(ledger.permits <= permits && ledger.places <= permits + waiting);
                for (caller, ..) in &queued {
                    let own = running.iter().filter(|it| *it == caller).count();
                    prop_assert!(!ledger.may_take(permits, ledger.permits, own), "a waiter waits for nothing");
                }
            }
            for (caller, ticket, _) in queued {
                ledger.stop_waiting(caller, ticket);
                ledger.leave(caller);
            }
            for caller in running {
                ledger.give_back(caller);
                ledger.leave(caller);
            }
            prop_assert!(ledger.callers.is_empty() && ledger.order.is_empty());
        }
    }
}
