//! Messages that are not published yet: those for which nobody waits, and those that Redis did not take.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use super::message::Event;

/// How many messages wait at most.
const CAPACITY: usize = 1024;

/// Too many messages wait.
#[derive(Debug)]
pub(super) struct Overflow;

/// Tells that a change is not published yet. Dropped when it is.
pub(crate) type Unpublished = Option<Arc<dyn Send + Sync>>;

/// A message to publish.
pub(super) struct Outgoing {
    pub(super) event: Event,
    pub(super) ends: SharedCopies,
    /// Held for its drop.
    pub(super) _unpublished: Unpublished,
}

/// The copies in Redis that end with a message, by the names of their keys.
#[derive(Debug, Default)]
pub(crate) struct SharedCopies {
    /// Without this key there is nothing to end, and nothing is published.
    pub(crate) only_with: Option<Vec<u8>>,
    /// Keys to delete.
    pub(crate) deleted: Vec<Vec<u8>>,
    /// Keys that keep the number of the message for [`TOMBSTONE`], so that reads from before are not stored any more.
    pub(crate) numbered: Vec<Vec<u8>>,
    /// Hashes, each with a field to delete.
    pub(crate) fields: Vec<(Vec<u8>, Vec<u8>)>,
}

/// How long the number of a message is kept. No read takes longer.
pub(crate) const TOMBSTONE: Duration = Duration::from_secs(600);

/// The waiting messages, in order.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<Outgoing>,
    has_overflowed: bool,
}

impl Outbox {
    /// Adds a message. Beyond the capacity all are dropped: then a [new epoch](Self::take_overflow) ends every copy of
    /// every replica.
    ///
    /// # Errors
    /// The capacity is exceeded, so the session has to end.
    pub(super) fn push(&self, outgoing: Outgoing) -> Result<(), Overflow> {
        let mut waiting = self.lock();
        if waiting.messages.len() >= CAPACITY {
            waiting.has_overflowed = true;
        }
        if waiting.has_overflowed {
            waiting.messages.clear();
            return Err(Overflow);
        }
        waiting.messages.push_back(outgoing);
        drop(waiting);
        self.arrived.notify_one();
        Ok(())
    }

    /// Whether half of the capacity is taken: the rest is for messages that must not be lost.
    pub(super) fn is_crowded(&self) -> bool {
        self.lock().messages.len() >= CAPACITY / 2
    }

    /// Whether messages were dropped since the last call.
    pub(super) fn take_overflow(&self) -> bool {
        std::mem::take(&mut self.lock().has_overflowed)
    }

    /// Notes again that messages were dropped.
    pub(super) fn set_overflow(&self) {
        self.lock().has_overflowed = true;
    }

    /// Puts messages back that could not be published.
    pub(super) fn put_back(&self, batch: Vec<Outgoing>) {
        let mut waiting = self.lock();
        for outgoing in batch.into_iter().rev() {
            waiting.messages.push_front(outgoing);
        }
    }

    /// The first messages, `most` at most.
    pub(super) fn take(&self, most: usize) -> Vec<Outgoing> {
        let mut waiting = self.lock();
        let count = most.min(waiting.messages.len());
        waiting.messages.drain(..count).collect()
    }

    /// Completes when a message has arrived since the last call.
    pub(super) async fn arrival(&self) {
        self.arrived.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").finish_non_exhaustive()
    }
}
