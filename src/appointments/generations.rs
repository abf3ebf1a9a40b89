//! When an appointment was last changed through this gateway, and when a caller was last refused something, so that
//! nothing from before is taken for current.

use std::{
    hash::BuildHasher as _,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use foldhash::quality::RandomState;
use uuid::Uuid;

use crate::caller::Scope;

/// Ids share counters, and so do callers, so that the memory is bounded (640 KiB) however many there are. A shared counter
/// only means that a change of one appointment has another one fetched anew, too.
const COUNTERS: usize = 1 << 14;

/// Counts the changes of each appointment, and of all together; and what each caller was refused.
#[derive(Debug)]
pub(super) struct Generations {
    by_id: Box<[Counter]>,
    all: Counter,
    by_caller: Box<[Refusals]>,
    /// Of one appointment, in answer to a change.
    by_caller_and_id: Box<[AtomicU64]>,
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
    /// What who asks had been refused by then.
    refusals: u64,
    rejections: u64,
    refusals_of_id: u64,
}

impl Asked {
    /// Of what is not asked for upstream, so that nothing outdates it.
    pub(super) fn now() -> Self {
        Self { at: Instant::now(), generation: 0, refusals: 0, rejections: 0, refusals_of_id: 0 }
    }
}

#[derive(Debug, Default)]
struct Counter {
    changes: AtomicU64,
    /// Until when a change whose outcome is unknown may still happen, in milliseconds.
    doubtful_until: AtomicU64,
}

/// What a caller was refused. What was asked for before may say otherwise, and is not kept.
#[derive(Debug, Default)]
struct Refusals {
    /// One thing or another: 401, 403 and 404.
    refusals: AtomicU64,
    /// Everything: 401.
    rejections: AtomicU64,
}

impl Generations {
    pub(super) fn new() -> Self {
        Self {
            by_id: (0..COUNTERS).map(|_| Counter::default()).collect(),
            all: Counter::default(),
            by_caller: (0..COUNTERS).map(|_| Refusals::default()).collect(),
            by_caller_and_id: (0..COUNTERS).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::default(),
            start: Instant::now(),
        }
    }

    /// The moment, to be noted before `id` is asked for on behalf of `scope`.
    pub(super) fn ask(&self, scope: Scope, id: Uuid) -> Asked {
        self.now(scope, Some(id), self.counter(id).load())
    }

    /// The moment, to be noted before a list is asked for.
    pub(super) fn ask_list(&self, scope: Scope) -> Asked {
        self.now(scope, None, self.all.load())
    }

    /// When `id` was asked for, which came with a list that was `asked` for.
    pub(super) fn listed(&self, id: Uuid, asked: Asked) -> Asked {
        Asked { generation: self.counter(id).load(), ..asked }
    }

    fn now(&self, scope: Scope, id: Option<Uuid>, generation: u64) -> Asked {
        let Refusals { refusals, rejections } = self.refusals(scope);
        Asked {
            at: Instant::now(),
            generation,
            refusals: refusals.load(Ordering::SeqCst),
            rejections: rejections.load(Ordering::SeqCst),
            refusals_of_id: id.map_or(0, |id| self.refusals_of(scope, id).load(Ordering::SeqCst)),
        }
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

    /// Whether `scope` was refused everything since it `asked`.
    pub(super) fn is_rejected(&self, scope: Scope, asked: Asked) -> bool {
        self.refusals(scope).rejections.load(Ordering::SeqCst) != asked.rejections
    }

    /// Whether `scope` was refused anything, which a list may show, since it `asked`.
    pub(super) fn is_refused(&self, scope: Scope, asked: Asked) -> bool {
        self.refusals(scope).refusals.load(Ordering::SeqCst) != asked.refusals
    }

    /// Whether a change of `id` was refused to `scope` since it `asked` for it.
    pub(super) fn is_refused_id(&self, scope: Scope, id: Uuid, asked: Asked) -> bool {
        self.refusals_of(scope, id).load(Ordering::SeqCst) != asked.refusals_of_id
    }

    /// Notes that a change of `id` was refused to `scope`: what it has asked for before may say otherwise.
    pub(super) fn refuse_id(&self, scope: Scope, id: Uuid) {
        self.refusals_of(scope, id).fetch_add(1, Ordering::SeqCst);
    }

    /// Notes that `scope` was refused something.
    pub(super) fn refuse(&self, scope: Scope) {
        self.refusals(scope).refusals.fetch_add(1, Ordering::SeqCst);
    }

    /// Notes that `scope` was refused everything.
    pub(super) fn reject(&self, scope: Scope) {
        self.refusals(scope).rejections.fetch_add(1, Ordering::SeqCst);
        self.refuse(scope);
    }

    /// Notes a change: all that was asked for before is outdated. Of an appointment that is not known by id, it outdates
    /// lists alone. Returns by what the answer of `scope`'s change itself is current: as if it had been asked for now.
    pub(super) fn advance(&self, scope: Scope, id: Option<Uuid>) -> Asked {
        // All first: who sees a change of an id sees it here too.
        self.all.changes.fetch_add(1, Ordering::SeqCst);
        let previous = id.map_or(0, |id| self.counter(id).changes.fetch_add(1, Ordering::SeqCst));
        self.now(scope, id, previous + 1)
    }

    /// Notes that a change may have happened, or may yet, for as long as `doubt`: what is asked for meanwhile is outdated
    /// as soon as it is there.
    pub(super) fn doubt(&self, scope: Scope, id: Option<Uuid>, doubt: Duration) {
        let until = self.milliseconds(Instant::now() + doubt) + 1;
        self.all.doubtful_until.fetch_max(until, Ordering::SeqCst);
        if let Some(id) = id {
            self.counter(id).doubtful_until.fetch_max(until, Ordering::SeqCst);
        }
        self.advance(scope, id);
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

    fn refusals_of(&self, scope: Scope, id: Uuid) -> &AtomicU64 {
        &self.by_caller_and_id[self.hasher.hash_one((scope, id)) as usize % COUNTERS]
    }

    fn refusals(&self, scope: Scope) -> &Refusals {
        &self.by_caller[self.hasher.hash_one(scope) as usize % COUNTERS]
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
    use crate::caller::{Caller, ScopeKey};

    fn scope() -> Scope {
        Caller::with_token("token", &ScopeKey::random()).scope()
    }

    #[test]
    fn a_change_outdates_what_was_asked_for_before_and_nothing_else() {
        let (generations, scope) = (Generations::new(), scope());
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let (asked, of_other, list) =
            (generations.ask(scope, one), generations.ask(scope, other), generations.ask_list(scope));
        let answer = generations.advance(scope, Some(one));
        assert!(generations.is_outdated(one, asked) && generations.is_list_outdated(list));
        assert!(
            !generations.is_outdated(one, answer)
                && !generations.is_outdated(one, generations.ask(scope, one))
        );
        // By chance the two may share a counter.
        assert!(
            !generations.is_outdated(other, of_other)
                || std::ptr::eq(generations.counter(one), generations.counter(other))
        );
        let asked = generations.ask(scope, one);
        generations.advance(scope, None);
        assert!(!generations.is_outdated(one, asked));
    }

    #[test]
    fn what_is_asked_for_in_doubt_is_outdated_until_the_doubt_is_over() {
        let (generations, scope) = (Generations::new(), scope());
        let id = Uuid::from_u128(1);
        generations.doubt(scope, Some(id), Duration::from_secs(60));
        assert!(generations.is_outdated(id, generations.ask(scope, id)));
        assert!(generations.is_list_outdated(generations.ask_list(scope)));
        let later = Asked { at: Instant::now() + Duration::from_secs(61), ..generations.ask(scope, id) };
        assert!(!generations.is_outdated(id, later));
    }

    #[test]
    fn a_refusal_outdates_what_was_asked_for_before() {
        let (generations, scope) = (Generations::new(), scope());
        let before = generations.ask(scope, Uuid::nil());
        generations.refuse(scope);
        assert!(generations.is_refused(scope, before) && !generations.is_rejected(scope, before));
        let between = generations.ask(scope, Uuid::nil());
        generations.reject(scope);
        assert!(generations.is_refused(scope, between) && generations.is_rejected(scope, between));
        let after = generations.ask_list(scope);
        assert!(!generations.is_refused(scope, after) && !generations.is_rejected(scope, after));
    }
}
