//! The accounting of slots and permits per caller, without any waiting; [`fair_queue`](super) waits.
//!
//! A caller may hold a share, in percent, of the capacity that other callers leave. A single caller gets that share of
//! the whole capacity, several busy callers divide it, and some always remains for the next caller. (Switches manage
//! their buffers alike: the dynamic threshold of Choudhury and Hahne.) Permits go to callers in round-robin order, and
//! to the waiters of one caller in FIFO order.

use std::collections::{BTreeMap, HashMap};

/// The key of a caller.
pub trait CallerKey: Copy + Eq + std::hash::Hash {}

impl<K: Copy + Eq + std::hash::Hash> CallerKey for K {}

/// The bounds of a [`FairQueue`](super::FairQueue).
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The maximum number of permits.
    pub running: usize,
    /// The maximum number of waiting entries.
    pub waiting: usize,
    /// The share of one caller in both, in percent of the capacity that other callers leave; always at least one.
    pub caller_share: usize,
}

/// A position in the queue. Tickets increase over time.
pub(crate) type Ticket = u64;

/// Slots and permits by caller. `W` wakes a waiter.
#[derive(Debug)]
pub(crate) struct Ledger<K, W> {
    /// The maximum number of permits.
    max_permits: usize,
    /// The maximum number of slots, for running and waiting entries together.
    max_slots: usize,
    /// The share of one caller, in percent of the capacity that other callers leave.
    percent: usize,
    permits: usize,
    slots: usize,
    /// Callers with a slot or a permit. Thus bounded by the number of slots.
    callers: HashMap<K, CallerUsage<W>>,
    /// Callers with waiters, in round-robin order.
    order: BTreeMap<Ticket, K>,
    last_ticket: Ticket,
}

/// The slots, permits and waiters of one caller.
#[derive(Debug)]
struct CallerUsage<W> {
    permits: usize,
    slots: usize,
    /// Entries that wait for a permit.
    waiting: BTreeMap<Ticket, W>,
    /// The caller's position in the round-robin order. Valid while entries wait.
    position: Ticket,
}

impl<K: CallerKey, W> Ledger<K, W> {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            max_permits: bounds.running,
            max_slots: bounds.running + bounds.waiting,
            percent: bounds.caller_share,
            permits: 0,
            slots: 0,
            callers: HashMap::new(),
            order: BTreeMap::new(),
            last_ticket: 0,
        }
    }

    /// Takes a slot. Returns whether one was free.
    pub(crate) fn enter(&mut self, caller: K) -> bool {
        let own = self.callers.get(&caller).map_or(0, |usage| usage.slots);
        let is_free = self.may_take(self.max_slots, self.slots, own);
        if is_free {
            self.slots += 1;
            let unused = || CallerUsage { permits: 0, slots: 0, waiting: BTreeMap::new(), position: 0 };
            self.callers.entry(caller).or_insert_with(unused).slots += 1;
        }
        is_free
    }

    /// Releases a slot.
    pub(crate) fn leave(&mut self, caller: K) {
        self.slots -= 1;
        if let Some(usage) = self.callers.get_mut(&caller) {
            usage.slots -= 1;
        }
        self.remove_if_unused(caller);
    }

    /// Takes a permit for an entry with a slot. Returns whether one was free. An entry never overtakes waiters of the
    /// same caller.
    pub(crate) fn try_acquire(&mut self, caller: K) -> bool {
        let Some(usage) = self.callers.get(&caller) else { return false };
        let is_free =
            usage.waiting.is_empty() && self.may_take(self.max_permits, self.permits, usage.permits);
        if is_free {
            self.grant(caller);
        }
        is_free
    }

    /// Queues an entry with a slot for a permit.
    pub(crate) fn enqueue(&mut self, caller: K, wake: W) -> Ticket {
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        if let Some(usage) = self.callers.get_mut(&caller) {
            if usage.waiting.is_empty() {
                usage.position = ticket;
                self.order.insert(ticket, caller);
            }
            usage.waiting.insert(ticket, wake);
        }
        ticket
    }

    /// Cancels the wait of an entry. Returns false if the entry was granted a permit already.
    pub(crate) fn cancel(&mut self, caller: K, ticket: Ticket) -> bool {
        let Some(usage) = self.callers.get_mut(&caller) else { return false };
        let was_waiting = usage.waiting.remove(&ticket).is_some();
        if was_waiting && usage.waiting.is_empty() {
            self.order.remove(&usage.position);
        }
        was_waiting
    }

    /// Releases a permit. Returns the waiters with a new permit, to be woken.
    pub(crate) fn release(&mut self, caller: K) -> Vec<W> {
        self.permits -= 1;
        if let Some(usage) = self.callers.get_mut(&caller) {
            usage.permits -= 1;
        }
        self.remove_if_unused(caller);
        std::iter::from_fn(|| self.grant_next()).collect()
    }

    /// Grants a permit to the next eligible caller.
    fn grant_next(&mut self) -> Option<W> {
        let is_eligible = |caller: &K| {
            let own = self.callers.get(caller).map_or(0, |usage| usage.permits);
            self.may_take(self.max_permits, self.permits, own)
        };
        let (position, caller) =
            self.order.iter().find(|(_, caller)| is_eligible(caller)).map(|it| (*it.0, *it.1))?;
        self.order.remove(&position);
        self.grant(caller);
        let usage = self.callers.get_mut(&caller)?;
        let (_, wake) = usage.waiting.pop_first()?;
        if !usage.waiting.is_empty() {
            self.last_ticket += 1;
            usage.position = self.last_ticket;
            self.order.insert(self.last_ticket, caller);
        }
        Some(wake)
    }

    fn grant(&mut self, caller: K) {
        self.permits += 1;
        if let Some(usage) = self.callers.get_mut(&caller) {
            usage.permits += 1;
        }
    }

    /// Removes a caller without slots and permits.
    fn remove_if_unused(&mut self, caller: K) {
        if self.callers.get(&caller).is_some_and(|usage| usage.slots == 0 && usage.permits == 0) {
            self.callers.remove(&caller);
        }
    }

    /// Whether a caller with `own` of the `taken` units may take one more of `maximum`. A caller without any may always
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

    /// Takes a slot and, if one is free, a permit.
    fn call(ledger: &mut Ledger<usize, usize>, caller: usize, name: usize) -> &'static str {
        if !ledger.enter(caller) {
            return "rejected";
        }
        if ledger.try_acquire(caller) {
            return "runs";
        }
        ledger.enqueue(caller, name);
        "waits"
    }

    #[test]
    fn a_single_caller_leaves_room_for_another() {
        for (percent, expected) in [(90, (57, 922, 1021)), (50, (32, 512, 1456))] {
            let mut ledger = ledger(64, 1024, percent);
            let results = (0..2000).map(|name| call(&mut ledger, 0, name)).collect::<Vec<_>>();
            let count = |it| results.iter().filter(|result| **result == it).count();
            assert_eq!((count("runs"), count("waits"), count("rejected")), expected, "{percent}");
            assert_eq!(call(&mut ledger, 1, 0), "runs");
        }
    }

    #[test]
    fn several_noisy_callers_leave_room_for_another() {
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
    fn permits_go_round_robin_by_caller_and_fifo_within_a_caller() {
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
            let [name] = ledger.release(last)[..] else { panic!("one permit, one waiter") };
            ledger.leave(last);
            last = name / 10;
            order.push(name);
        }
        assert_eq!(order, [1, 11, 21, 2, 12, 22, 3, 13, 23]);
    }

    proptest! {
        /// In any order of arrivals, ends and cancellations of three callers: bounds hold, no permit stays unused while
        /// an eligible entry waits, and idle callers are removed.
        #[test]
        fn bounds_hold_and_no_permit_is_wasted(
            permits in 1..6_usize,
            waiting in 0..10_usize,
            percent in 1..=100_usize,
            events in prop::collection::vec((0..4_u8, 0..3_usize, 0..100_usize), 0..200),
        ) {
            let mut ledger = ledger(permits, waiting, percent);
            // The callers of running entries; the callers, tickets and names of waiting ones.
            let mut running = Vec::new();
            let mut queued: Vec<(usize, Ticket, usize)> = Vec::new();
            for (name, (event, caller, which)) in events.into_iter().enumerate() {
                match event {
                    0 | 1 => {
                        if ledger.enter(caller) {
                            if ledger.try_acquire(caller) {
                                running.push(caller);
                            } else {
                                queued.push((caller, ledger.enqueue(caller, name), name));
                            }
                        } else {
                            prop_assert!(ledger.callers.contains_key(&caller) || ledger.slots == permits + waiting);
                        }
                    }
                    2 if !running.is_empty() => {
                        let caller = running.swap_remove(which % running.len());
                        for woken in ledger.release(caller) {
                            let at = queued.iter().position(|(_, _, name)| *name == woken).unwrap();
                            let (caller, ticket, _) = queued.remove(at);
                            prop_assert!(!ledger.cancel(caller, ticket));
                            running.push(caller);
                        }
                        ledger.leave(caller);
                    }
                    3 if !queued.is_empty() => {
                        let (caller, ticket, _) = queued.swap_remove(which % queued.len());
                        prop_assert!(ledger.cancel(caller, ticket));
                        ledger.leave(caller);
                    }
                    _ => {}
                }
                prop_assert_eq!((ledger.permits, ledger.slots), (running.len(), running.len() + queued.len()));
                prop_assert!(ledger.permits <= permits && ledger.slots <= permits + waiting);
                for (caller, ..) in &queued {
                    let own = running.iter().filter(|it| *it == caller).count();
                    prop_assert!(!ledger.may_take(permits, ledger.permits, own), "no eligible entry waits");
                }
            }
            for (caller, ticket, _) in queued {
                ledger.cancel(caller, ticket);
                ledger.leave(caller);
            }
            for caller in running {
                ledger.release(caller);
                ledger.leave(caller);
            }
            prop_assert!(ledger.callers.is_empty() && ledger.order.is_empty());
        }
    }
}
