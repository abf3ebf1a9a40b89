//! Whether this replica has received everything that ends copies.
//!
//! A gateway that is alone trusts itself: there is one generation, and it never ends. In a fleet, a generation lasts as long
//! as no message was missed, and is trusted no longer than the lease of the replica.

use std::sync::atomic::{AtomicU64, Ordering};

/// The present generation, and how long it is trusted.
#[derive(Debug)]
pub(super) struct Trust {
    generation: AtomicU64,
    /// In milliseconds since the start of the process.
    until: AtomicU64,
}

impl Default for Trust {
    fn default() -> Self {
        Self { generation: AtomicU64::new(0), until: AtomicU64::new(u64::MAX) }
    }
}

impl Trust {
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Whether a read of the generation is trusted at the time `now`, in milliseconds since the start.
    pub(super) fn holds(&self, now: u64, started: u64) -> bool {
        let until = self.until.load(Ordering::SeqCst);
        now < until || started >= until
    }

    /// Begins a new generation, which is trusted until [`hold_until`](Self::hold_until) is called: a replica without a lease
    /// relies on its own changes and on the TTL.
    pub(super) fn renew(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.until.store(u64::MAX, Ordering::SeqCst);
    }

    pub(super) fn hold_until(&self, end: u64) {
        self.until.store(end, Ordering::SeqCst);
    }
}
