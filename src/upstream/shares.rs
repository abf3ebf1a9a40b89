//! Who may have how much of what is bounded: places for calls, and slots for those that are made at once. Pure
//! bookkeeping: [`bulkhead`](super::bulkhead) waits.
//!
//! A caller may take a share, in percent, of what the others leave: so one caller alone has nearly everything, several
//! busy ones divide it among themselves, and something is always left for who comes next. (Switches share their buffers
//! so: the dynamic threshold of Choudhury and Hahne.) Calls that wait get one caller by caller, and each caller's
//! in the order in which they came.

use std::collections::{BTreeMap, HashMap};

use crate::caller::Scope;

/// A number that grows: whoever has the lower one came first.
pub(super) type Ticket = u64;

/// Places and slots, and who has them. `W` wakes who waits.
#[derive(Debug)]
pub(super) struct Shares<W> {
    /// How many calls may be made at once.
    most_slots: usize,
    /// How many calls there may be: those that are made, and those that wait.
    most_places: usize,
    /// The share of what the others leave that one caller may take, in percent.
    percent: usize,
    slots: usize,
    places: usize,
    /// Those who have anything: as many as there are places, at most.
    callers: HashMap<Scope, Holdings<W>>,
    /// Those of whom calls wait, in the order in which they are next.
    order: BTreeMap<Ticket, Scope>,
    next: Ticket,
}

/// What one caller has.
#[derive(Debug)]
struct Holdings<W> {
    slots: usize,
    places: usize,
    /// The calls that wait for a slot.
    waiting: BTreeMap<Ticket, W>,
    /// The caller's place in the order, while any wait.
    next: Ticket,
}

impl<W> Shares<W> {
    pub(super) fn new(most_slots: usize, most_places: usize, percent: usize) -> Self {
        Self {
            most_slots,
            most_places,
            percent,
            slots: 0,
            places: 0,
            callers: HashMap::new(),
            order: BTreeMap::new(),
            next: 0,
        }
    }

    /// Takes a place for a call; whether there was one.
    pub(super) fn enter(&mut self, scope: Scope) -> bool {
        let own = self.callers.get(&scope).map_or(0, |caller| caller.places);
        let is_free = self.may_take(self.most_places, self.places, own);
        if is_free {
            self.places += 1;
            let none = || Holdings { slots: 0, places: 0, waiting: BTreeMap::new(), next: 0 };
            self.callers.entry(scope).or_insert_with(none).places += 1;
        }
        is_free
    }

    /// Gives a place back.
    pub(super) fn leave(&mut self, scope: Scope) {
        self.places -= 1;
        if let Some(caller) = self.callers.get_mut(&scope) {
            caller.places -= 1;
        }
        self.tidy(scope);
    }

    /// Takes a slot for a call that has a place; whether there was one. Nobody of the same caller waits longer.
    pub(super) fn take(&mut self, scope: Scope) -> bool {
        let Some(caller) = self.callers.get(&scope) else { return false };
        let is_free = caller.waiting.is_empty() && self.may_take(self.most_slots, self.slots, caller.slots);
        if is_free {
            self.grant(scope);
        }
        is_free
    }

    /// Has a call wait that has a place and found no slot.
    pub(super) fn wait(&mut self, scope: Scope, wake: W) -> Ticket {
        self.next += 1;
        let ticket = self.next;
        if let Some(caller) = self.callers.get_mut(&scope) {
            if caller.waiting.is_empty() {
                caller.next = ticket;
                self.order.insert(ticket, scope);
            }
            caller.waiting.insert(ticket, wake);
        }
        ticket
    }

    /// Has a call wait no longer; whether it did. If it did not, it has a slot.
    pub(super) fn stop_waiting(&mut self, scope: Scope, ticket: Ticket) -> bool {
        let Some(caller) = self.callers.get_mut(&scope) else { return false };
        let was_waiting = caller.waiting.remove(&ticket).is_some();
        if was_waiting && caller.waiting.is_empty() {
            self.order.remove(&caller.next);
        }
        was_waiting
    }

    /// Gives a slot back; who has one now, and is to be woken.
    pub(super) fn give_back(&mut self, scope: Scope) -> Vec<W> {
        self.slots -= 1;
        if let Some(caller) = self.callers.get_mut(&scope) {
            caller.slots -= 1;
        }
        self.tidy(scope);
        std::iter::from_fn(|| self.next_slot()).collect()
    }

    /// Gives a slot to who is next of those who may have one.
    fn next_slot(&mut self) -> Option<W> {
        let may_have_one = |scope: &Scope| {
            let own = self.callers.get(scope).map_or(0, |caller| caller.slots);
            self.may_take(self.most_slots, self.slots, own)
        };
        let (place, scope) =
            self.order.iter().find(|(_, scope)| may_have_one(scope)).map(|it| (*it.0, *it.1))?;
        self.order.remove(&place);
        self.grant(scope);
        let caller = self.callers.get_mut(&scope)?;
        let (_, wake) = caller.waiting.pop_first()?;
        if !caller.waiting.is_empty() {
            self.next += 1;
            caller.next = self.next;
            self.order.insert(self.next, scope);
        }
        Some(wake)
    }

    fn grant(&mut self, scope: Scope) {
        self.slots += 1;
        if let Some(caller) = self.callers.get_mut(&scope) {
            caller.slots += 1;
        }
    }

    /// Forgets a caller who has nothing any more.
    fn tidy(&mut self, scope: Scope) {
        if self.callers.get(&scope).is_some_and(|caller| caller.places == 0 && caller.slots == 0) {
            self.callers.remove(&scope);
        }
    }

    /// Whether one more of `most` may be taken, of which `taken` are, `own` of them by who asks. One may always be taken
    /// by who has none.
    fn may_take(&self, most: usize, taken: usize, own: usize) -> bool {
        let left_by_others = most - (taken - own);
        taken < most && own < (left_by_others * self.percent / 100).max(1)
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

    /// Takes a place and, as far as there is one, a slot.
    fn call(shares: &mut Shares<usize>, scope: Scope, name: usize) -> &'static str {
        if !shares.enter(scope) {
            return "refused";
        }
        if shares.take(scope) {
            return "made";
        }
        shares.wait(scope, name);
        "waits"
    }

    #[test]
    fn one_caller_alone_has_nearly_everything_and_another_finds_room_at_once() {
        let [noisy, quiet] = scopes();
        let mut shares = Shares::new(64, 64 + 1024, 90);
        let made = (0..2000).map(|name| call(&mut shares, noisy, name)).collect::<Vec<_>>();
        let count = |it| made.iter().filter(|made| **made == it).count();
        assert_eq!((count("made"), count("waits"), count("refused")), (57, 922, 1021));
        assert_eq!(call(&mut shares, quiet, 0), "made");
    }

    #[test]
    fn however_many_are_noisy_one_more_finds_room() {
        for noisy in 1..8 {
            let all: [_; 9] = scopes();
            let mut shares = Shares::new(64, 64 + 1024, 90);
            for name in 0..1000 {
                for scope in &all[..noisy] {
                    call(&mut shares, *scope, name);
                }
            }
            assert!(shares.slots < 64, "{noisy}");
            assert_eq!(call(&mut shares, all[8], 0), "made", "{noisy}");
        }
    }

    #[test]
    fn turns_go_from_caller_to_caller_and_each_callers_calls_keep_their_order() {
        let [one, two, three] = scopes();
        let mut shares = Shares::new(1, 100, 100);
        assert_eq!(call(&mut shares, one, 0), "made");
        for (scope, names) in [(one, [1, 2, 3]), (two, [11, 12, 13]), (three, [21, 22, 23])] {
            for name in names {
                assert_eq!(call(&mut shares, scope, name), "waits");
            }
        }
        let mut order = Vec::new();
        let mut last = one;
        for _ in 0..9 {
            let [name] = shares.give_back(last)[..] else { panic!("one slot, one call") };
            shares.leave(last);
            last = match name {
                ..10 => one,
                10..20 => two,
                _ => three,
            };
            order.push(name);
        }
        assert_eq!(order, [1, 11, 21, 2, 12, 22, 3, 13, 23]);
    }

    proptest! {
        /// In any order of calls, ends and departures of three callers: bounds hold, no slot is left unused that somebody
        /// who waits may have, and nothing is left of those who are gone.
        #[test]
        fn bounds_hold_and_no_slot_is_wasted(
            slots in 1..6_usize,
            waiting in 0..10_usize,
            percent in 1..=100_usize,
            events in prop::collection::vec((0..4_u8, 0..3_usize, 0..100_usize), 0..200),
        ) {
            let callers: [_; 3] = scopes();
            let mut shares = Shares::new(slots, slots + waiting, percent);
            // Calls that are made, and calls that wait, by the caller.
            let mut made = Vec::new();
            let mut queued: Vec<(Scope, Ticket, usize)> = Vec::new();
            for (name, (event, caller, which)) in events.into_iter().enumerate() {
                let scope = callers[caller];
                match event {
                    0 | 1 => {
                        if shares.enter(scope) {
                            if shares.take(scope) {
                                made.push(scope);
                            } else {
                                queued.push((scope, shares.wait(scope, name), name));
                            }
                        } else {
                            prop_assert!(shares.callers.contains_key(&scope) || shares.places == slots + waiting);
                        }
                    }
                    2 if !made.is_empty() => {
                        let scope = made.swap_remove(which % made.len());
                        for woken in shares.give_back(scope) {
                            let at = queued.iter().position(|(_, _, name)| *name == woken).unwrap();
                            let (scope, ticket, _) = queued.remove(at);
                            prop_assert!(!shares.stop_waiting(scope, ticket));
                            made.push(scope);
                        }
                        shares.leave(scope);
                    }
                    3 if !queued.is_empty() => {
                        let (scope, ticket, _) = queued.swap_remove(which % queued.len());
                        prop_assert!(shares.stop_waiting(scope, ticket));
                        shares.leave(scope);
                    }
                    _ => {}
                }
                prop_assert_eq!((shares.slots, shares.places), (made.len(), made.len() + queued.len()));
                prop_assert!(shares.slots <= slots && shares.places <= slots + waiting);
                for (scope, ..) in &queued {
                    let own = made.iter().filter(|it| *it == scope).count();
                    prop_assert!(!shares.may_take(slots, shares.slots, own), "somebody waits for nothing");
                }
            }
            for (scope, ticket, _) in queued {
                shares.stop_waiting(scope, ticket);
                shares.leave(scope);
            }
            for scope in made {
                shares.give_back(scope);
                shares.leave(scope);
            }
            prop_assert!(shares.callers.is_empty() && shares.order.is_empty());
        }
    }
}
