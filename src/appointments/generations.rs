//! When an appointment was last changed through this gateway, so that nothing from before is taken for current.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

use uuid::Uuid;

/// Ids share counters, so that the memory is bounded (128 KiB) however many ids are changed. A shared counter only means
/// that a change of one appointment has another one fetched anew, too.
const COUNTERS: usize = 1 << 14;

/// Counts the changes of each appointment, and of all together. Whoever reads an appointment notes the count
/// [before it asks](Generations::of); what it then brings is current as long as the count is the same.
#[derive(Debug)]
pub(super) struct Generations {
    by_id: Box<[AtomicU64]>,
    all: AtomicU64,
    hasher: RandomState,
}

impl Generations {
    pub(super) fn new() -> Self {
        Self {
            by_id: (0..COUNTERS).map(|_| AtomicU64::new(0)).collect(),
            all: AtomicU64::new(0),
            hasher: RandomState::new(),
        }
    }

    /// How often `id` was changed.
    pub(super) fn of(&self, id: Uuid) -> u64 {
        self.counter(id).load(Ordering::SeqCst)
    }

    /// How often anything was changed.
    pub(super) fn of_all(&self) -> u64 {
        self.all.load(Ordering::SeqCst)
    }

    /// Notes a change of `id`: all that was asked for before is outdated. Returns how often it was changed before.
    pub(super) fn advance(&self, id: Uuid) -> u64 {
        self.advance_all();
        self.counter(id).fetch_add(1, Ordering::SeqCst)
    }

    /// Notes a change of an appointment that is not known by id: it outdates lists alone.
    pub(super) fn advance_all(&self) {
        self.all.fetch_add(1, Ordering::SeqCst);
    }

    fn counter(&self, id: Uuid) -> &AtomicU64 {
        &self.by_id[self.hasher.hash_one(id) as usize % COUNTERS]
    }
}
