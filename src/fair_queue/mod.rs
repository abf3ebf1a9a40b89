//! A concurrency limit with a bounded, fair queue before it.
//!
//! Each caller has a share of both the permits and the places in the queue (`ledger`), so no number of slow calls of one
//! caller keeps another from being served. A leaf: the key of a caller, the bounds and the gauges are the user's.

pub mod ledger;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use self::ledger::{Bounds, CallerKey, Ledger, Ticket};
use crate::metrics::{ActiveGauge, ActiveGuard};

/// A concurrency limit with a fair queue. Cheap to clone.
pub struct FairQueue<K: CallerKey>(Arc<Inner<K>>);

struct Inner<K> {
    ledger: Mutex<Ledger<K, oneshot::Sender<()>>>,
    running: ActiveGauge,
    waiting: ActiveGauge,
}

impl<K: CallerKey> FairQueue<K> {
    /// A queue within `bounds`, with gauges for what runs and what waits.
    pub fn new(bounds: Bounds, running: ActiveGauge, waiting: ActiveGauge) -> Self {
        Self(Arc::new(Inner { ledger: Mutex::new(Ledger::new(bounds)), running, waiting }))
    }

    /// A place in the queue for one call of `caller`, held through all the permits that it takes one after the other; none
    /// where the queue, or this caller's share of it, is full.
    pub fn enter(&self, caller: K) -> Option<Arc<Entry<K>>> {
        self.ledger().enter(caller).then(|| Arc::new(Entry { queue: self.clone(), caller }))
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger<K, oneshot::Sender<()>>> {
        // Nothing that runs under the lock leaves the ledger half changed.
        self.0.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the queue, until it and its permit are dropped.
pub struct Entry<K: CallerKey> {
    queue: FairQueue<K>,
    caller: K,
}

impl<K: CallerKey> Entry<K> {
    /// Waits for a permit.
    pub async fn permit(self: &Arc<Self>) -> Permit<K> {
        let (wake, woken) = oneshot::channel();
        let ticket = {
            let mut ledger = self.queue.ledger();
            if ledger.take(self.caller) { None } else { Some(ledger.wait(self.caller, wake)) }
        };
        if ticket.is_some() {
            let mut waiting = Waiting { entry: self, ticket, _counted: self.queue.0.waiting.enter() };
            // The sender is used when there is a permit, and is not dropped while this waits.
            let _ = woken.await;
            waiting.ticket = None;
        }
        self.granted()
    }

    /// A permit, if one is free now.
    pub fn try_permit(self: &Arc<Self>) -> Option<Permit<K>> {
        let is_free = self.queue.ledger().take(self.caller);
        is_free.then(|| self.granted())
    }

    fn granted(self: &Arc<Self>) -> Permit<K> {
        Permit { entry: self.clone(), _counted: self.queue.0.running.enter() }
    }
}

impl<K: CallerKey> Drop for Entry<K> {
    fn drop(&mut self) {
        self.queue.ledger().leave(self.caller);
    }
}

/// An entry that waits for its permit.
struct Waiting<'a, K: CallerKey> {
    entry: &'a Arc<Entry<K>>,
    /// None once it has the permit.
    ticket: Option<Ticket>,
    _counted: ActiveGuard,
}

impl<K: CallerKey> Drop for Waiting<'_, K> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let was_waiting = self.entry.queue.ledger().stop_waiting(self.entry.caller, ticket);
        if !was_waiting {
            // It left in the moment in which it was granted a permit: the next in line gets it.
            drop(self.entry.granted());
        }
    }
}

/// The right to run, until it is dropped.
pub struct Permit<K: CallerKey> {
    entry: Arc<Entry<K>>,
    _counted: ActiveGuard,
}

impl<K: CallerKey> Drop for Permit<K> {
    fn drop(&mut self) {
        let woken = self.entry.queue.ledger().give_back(self.entry.caller);
        for wake in woken {
            // A waiter that has left passes its permit on.
            let _ = wake.send(());
        }
    }
}

impl<K: CallerKey> Clone for FairQueue<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: CallerKey> fmt::Debug for FairQueue<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FairQueue").finish_non_exhaustive()
    }
}

impl<K: CallerKey> fmt::Debug for Entry<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").finish_non_exhaustive()
    }
}

impl<K: CallerKey> fmt::Debug for Permit<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}
