//! A concurrency limit with a bounded fair queue (bulkhead).
//!
//! Each caller has a share of the permits and of the slots in the queue ([`ledger`]), so slow calls of one caller never
//! starve another. Used before operations and before calls to the upstream.
//!
//! A leaf module: users supply the key of a caller, the bounds and the gauges.

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
    /// Creates a queue with gauges of the permits in use and the waiting entries.
    pub fn new(bounds: Bounds, running: ActiveGauge, waiting: ActiveGauge) -> Self {
        Self(Arc::new(Inner { ledger: Mutex::new(Ledger::new(bounds)), running, waiting }))
    }

    /// Takes a slot for one call of `caller`. The call holds it across all its permits. Returns `None` if the queue or
    /// the caller's share of it is full.
    pub fn enter(&self, caller: K) -> Option<Arc<Entry<K>>> {
        self.ledger().enter(caller).then(|| Arc::new(Entry { queue: self.clone(), caller }))
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger<K, oneshot::Sender<()>>> {
        // A panic under the lock cannot leave the ledger inconsistent.
        self.0.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A slot in the queue. Released once it and its permits are dropped.
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
            if ledger.try_acquire(self.caller) { None } else { Some(ledger.enqueue(self.caller, wake)) }
        };
        if ticket.is_some() {
            let mut waiting = Waiter { entry: self, ticket, _counted: self.queue.0.waiting.enter() };
            // The ledger holds the sender until it grants the permit.
            let _ = woken.await;
            waiting.ticket = None;
        }
        self.granted_permit()
    }

    /// Takes a permit without waiting.
    pub fn try_permit(self: &Arc<Self>) -> Option<Permit<K>> {
        let is_free = self.queue.ledger().try_acquire(self.caller);
        is_free.then(|| self.granted_permit())
    }

    fn granted_permit(self: &Arc<Self>) -> Permit<K> {
        Permit { entry: self.clone(), _counted: self.queue.0.running.enter() }
    }
}

impl<K: CallerKey> Drop for Entry<K> {
    fn drop(&mut self) {
        self.queue.ledger().leave(self.caller);
    }
}

/// An entry that waits for its permit.
struct Waiter<'a, K: CallerKey> {
    entry: &'a Arc<Entry<K>>,
    /// `None` once the permit is granted.
    ticket: Option<Ticket>,
    _counted: ActiveGuard,
}

impl<K: CallerKey> Drop for Waiter<'_, K> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let was_waiting = self.entry.queue.ledger().cancel(self.entry.caller, ticket);
        if !was_waiting {
            // The permit was granted just before the cancellation: pass it on to the next waiter.
            drop(self.entry.granted_permit());
        }
    }
}

/// A permit to run. Released on drop.
pub struct Permit<K: CallerKey> {
    entry: Arc<Entry<K>>,
    _counted: ActiveGuard,
}

impl<K: CallerKey> Drop for Permit<K> {
    fn drop(&mut self) {
        let woken = self.entry.queue.ledger().release(self.entry.caller);
        for wake in woken {
            // A cancelled waiter passes its permit on.
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
