//! Messages that are not published yet: those for which nobody waits, and those that Redis did not take.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use super::message::{Event, RevokedSubject};
use crate::caller::Scope;

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
    /// The waiting revocations, which need not be published twice.
    revocations: HashSet<(Vec<Scope>, RevokedSubject)>,
    /// How many changes and revocations were dropped.
    dropped: u64,
}

/// Messages on their way to Redis. Those that are not [delivered](Self::delivered) wait again.
pub(super) struct Batch<'o> {
    outbox: &'o Outbox,
    pub(super) messages: Vec<Outgoing>,
}

impl Outbox {
    /// Adds a message. An observation is only added to half of the capacity, since the next one replaces it. If there is
    /// no room for a change or a revocation, the session has to end, and the next one begins a new epoch, which ends every
    /// copy of every replica.
    ///
    /// # Errors
    /// A change or a revocation was dropped.
    pub(super) fn push(&self, outgoing: Outgoing) -> Result<(), Overflow> {
        let mut waiting = self.lock();
        let waiting_messages = waiting.messages.len();
        match &outgoing.event {
            Event::Observed(_) if waiting_messages >= CAPACITY / 2 => return Ok(()),
            Event::Changed { .. } | Event::Revoked { .. } if waiting_messages >= CAPACITY => {
                waiting.dropped += 1;
                return Err(Overflow);
            }
            Event::Revoked { scopes, subject, .. }
                if !waiting.revocations.insert((scopes.clone(), *subject)) =>
            {
                return Ok(());
            }
            _ => {}
        }
        waiting.messages.push_back(outgoing);
        drop(waiting);
        self.arrived.notify_one();
        Ok(())
    }

    /// Drops the waiting observations, which are old by the time of the next session.
    pub(super) fn drop_observations(&self) {
        self.lock().messages.retain(|outgoing| !matches!(outgoing.event, Event::Observed(_)));
    }

    /// How many changes and revocations were dropped.
    pub(super) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// Forgets so many dropped messages: a new epoch stands for them.
    pub(super) fn forget_dropped(&self, count: u64) {
        self.lock().dropped -= count;
    }

    /// The first messages, `most` at most.
    pub(super) fn take(&self, most: usize) -> Batch<'_> {
        let mut waiting = self.lock();
        let count = most.min(waiting.messages.len());
        let messages: Vec<_> = waiting.messages.drain(..count).collect();
        for outgoing in &messages {
            if let Event::Revoked { scopes, subject, .. } = &outgoing.event {
                waiting.revocations.remove(&(scopes.clone(), *subject));
            }
        }
        Batch { outbox: self, messages }
    }

    /// Completes when a message has arrived since the last call.
    pub(super) async fn arrival(&self) {
        self.arrived.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Batch<'_> {
    /// The messages are published.
    pub(super) fn delivered(mut self) {
        self.messages.clear();
    }
}

impl Drop for Batch<'_> {
    /// Also if the publisher was cancelled. Published twice, a message ends the same copies.
    fn drop(&mut self) {
        let mut waiting = self.outbox.lock();
        for outgoing in self.messages.drain(..).rev() {
            // An old observation is of no use.
            if !matches!(outgoing.event, Event::Observed(_)) {
                waiting.messages.push_front(outgoing);
            }
        }
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::{Caller, ScopeKey};

    fn outgoing(event: Event) -> Outgoing {
        Outgoing { event, ends: SharedCopies::default(), _unpublished: None }
    }

    fn change() -> Outgoing {
        outgoing(Event::Changed { id: None, uncertain_for: None })
    }

    fn revocation(token: usize) -> Outgoing {
        let scopes = vec![Caller::with_token(&token.to_string(), &KEY.with(Clone::clone)).scope()];
        outgoing(Event::Revoked { scopes, subject: RevokedSubject::Everything, recheck: true })
    }

    thread_local! {
        static KEY: ScopeKey = ScopeKey::random();
    }

    #[test]
    fn a_batch_that_is_not_delivered_waits_again_in_order() {
        let outbox = Outbox::default();
        for token in 0..3 {
            outbox.push(revocation(token)).unwrap();
        }
        let first = outbox.take(2);
        assert_eq!(first.messages.len(), 2);
        let events: Vec<_> = first.messages.iter().map(|it| it.event.clone()).collect();
        drop(first);
        let again = outbox.take(2);
        assert!(again.messages.iter().map(|it| it.event.clone()).eq(events));
        again.delivered();
        assert_eq!(outbox.take(2).messages.len(), 1);
    }

    #[test]
    fn a_revocation_waits_once_and_an_overflow_is_counted() {
        let outbox = Outbox::default();
        for token in 0..CAPACITY {
            outbox.push(revocation(token)).unwrap();
            assert!(token + 1 == CAPACITY || outbox.push(revocation(token)).is_ok());
        }
        assert_eq!(outbox.dropped(), 0);
        assert!(outbox.push(change()).is_err() && outbox.push(revocation(CAPACITY)).is_err());
        assert_eq!(outbox.dropped(), 2);
        outbox.forget_dropped(2);
        assert_eq!(outbox.take(usize::MAX).messages.len(), CAPACITY);
        assert_eq!(outbox.dropped(), 0);
    }
}
