//! When an appointment was last changed through this gateway, so that nothing from before is taken for current.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use uuid::Uuid;

/// Ids share counters, so that the memory is bounded (256 KiB) however many ids are changed. A shared counter only means
/// that a change of one appointment has another one fetched anew, too.
const COUNTERS: usize = 1 << 14;

/// Counts the changes of each appointment, and of all together.
#[derive(Debug)]
pub(super) struct Generations {
    by_id: Box<[Counter]>,
    all: Counter,
    hasher: RandomState,
    /// What doubts are counted from.
    start: Instant,
}

/// When something was asked for. What the answer says was so at that moment or later, and it is current as long as
/// nothing was changed since.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) at: Instant,
    pub(super) generation: u64,
}

#[derive(Debug, Default)]
struct Counter {
    changes: AtomicU64,
    /// Until when a change whose outcome is unknown may still happen, in milliseconds.
    doubtful_until: AtomicU64,
}

impl Generations {
    pub(super) fn new() -> Self {
        Self {
            by_id: (0..COUNTERS).map(|_| Counter::default()).collect(),
            all: Counter::default(),
            hasher: RandomState::new(),
            start: Instant::now(),
        }
    }

    /// The moment, to be noted before `id` is asked for.
    pub(super) fn ask(&self, id: Uuid) -> Asked {
        Asked { at: Instant::now(), generation: self.counter(id).load() }
    }

    /// The moment, to be noted before a list is asked for.
    pub(super) fn ask_list(&self) -> Asked {
        Asked { at: Instant::now(), generation: self.all.load() }
    }

    /// Whether `id` was, or may have been, changed since it was `asked` for.
    pub(super) fn is_outdated(&self, id: Uuid, asked: Asked) -> bool {
        self.is_after(self.counter(id), asked)
    }

    /// Whether `id` is known to have been changed since it was `asked` for.
    pub(super) fn is_changed(&self, id: Uuid, asked: Asked) -> bool {
        self.counter(id).load() != asked.generation
    }

    /// Whether anything was, or may have been, changed since a list was `asked` for.
    pub(super) fn is_list_outdated(&self, asked: Asked) -> bool {
        self.is_after(&self.all, asked)
    }

    /// Notes a change: all that was asked for before is outdated. Of an appointment that is not known by id, it outdates
    /// lists alone. Returns by what the answer of the change itself is current: as if it had been asked for now.
    pub(super) fn advance(&self, id: Option<Uuid>) -> Asked {
        // All first: who sees a change of an id sees it here too.
        self.all.changes.fetch_add(1, Ordering::SeqCst);
        let previous = id.map_or(0, |id| self.counter(id).changes.fetch_add(1, Ordering::SeqCst));
        Asked { at: Instant::now(), generation: previous + 1 }
    }

    /// Notes that a change may have happened, or may yet, for as long as `doubt`: what is asked for meanwhile is outdated
    /// as soon as it is there.
    pub(super) fn doubt(&self, id: Option<Uuid>, doubt: Duration) {
        let until = self.milliseconds(Instant::now() + doubt) + 1;
        self.all.doubtful_until.fetch_max(until, Ordering::SeqCst);
        if let Some(id) = id {
            self.counter(id).doubtful_until.fetch_max(until, Ordering::SeqCst);
        }
        self.advance(id);
    }

    fn is_after(&self, counter: &Counter, asked: Asked) -> bool {
        counter.load() != asked.generation
            || self.milliseconds(asked.at) < counter.doubtful_until.load(Ordering::SeqCst)
    }

    fn milliseconds(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.start).as_millis() as u64
    }

    fn counter(&self, id: Uuid) -> &Counter {
        &self.by_id[self.hasher.hash_one(id) as usize % COUNTERS]
    }
}

impl Counter {
    fn load(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_outdates_what_was_asked_for_before_and_nothing_else() {
        let generations = Generations::new();
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let (asked, of_other, list) = (generations.ask(one), generations.ask(other), generations.ask_list());
        let answer = generations.advance(Some(one));
        assert!(generations.is_outdated(one, asked) && generations.is_list_outdated(list));
        assert!(!generations.is_outdated(one, answer) && !generations.is_outdated(one, generations.ask(one)));
        // By chance the two may share a counter.
        assert!(
            !generations.is_outdated(other, of_other)
                || std::ptr::eq(generations.counter(one), generations.counter(other))
        );
        let asked = generations.ask(one);
        generations.advance(None);
        assert!(!generations.is_outdated(one, asked));
    }

    #[test]
    fn what_is_asked_for_in_doubt_is_outdated_until_the_doubt_is_over() {
        let generations = Generations::new();
        let id = Uuid::from_u128(1);
        generations.doubt(Some(id), Duration::from_secs(60));
        assert!(generations.is_outdated(id, generations.ask(id)));
        assert!(generations.is_list_outdated(generations.ask_list()));
        let later = Asked { at: Instant::now() + Duration::from_secs(61), ..generations.ask(id) };
        assert!(!generations.is_outdated(id, later));
    }
}
