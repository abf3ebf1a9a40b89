//! How many calls are made at once and how many wait, and that no caller takes all of it ([`shares`](super::shares)).

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use super::{
    error::UpstreamError,
    shares::{Shares, Ticket},
};
use crate::{
    caller::Scope,
    metrics::{Counted, metrics},
};

/// Places for calls, and slots to make them in. Cheap to clone.
#[derive(Clone)]
pub(super) struct Bulkhead(Arc<Mutex<Shares<oneshot::Sender<()>>>>);

impl Bulkhead {
    /// `most_slots` calls are made at once, `most_waiting` wait, and `percent` of what the others leave is one caller's.
    pub(super) fn new(most_slots: usize, most_waiting: usize, percent: usize) -> Self {
        Self(Arc::new(Mutex::new(Shares::new(most_slots, most_slots + most_waiting, percent))))
    }

    /// A place for a call, which it has to its end, through all its attempts and the pauses between them.
    ///
    /// # Errors
    /// [`UpstreamError::Overloaded`] where there is none, or none for this caller.
    pub(super) fn enter(&self, scope: Scope) -> Result<Arc<Place>, UpstreamError> {
        let is_free = self.lock().enter(scope);
        is_free
            .then(|| Arc::new(Place { bulkhead: self.clone(), scope }))
            .ok_or(UpstreamError::Overloaded { limit: "upstream.max_waiting" })
    }

    fn lock(&self) -> MutexGuard<'_, Shares<oneshot::Sender<()>>> {
        // Nothing that runs under the lock leaves the shares half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place for one call, until it and its slot are dropped.
#[derive(Debug)]
pub(super) struct Place {
    bulkhead: Bulkhead,
    scope: Scope,
}

impl Place {
    /// Waits for a slot to make the call in.
    pub(super) async fn slot(self: &Arc<Self>) -> Slot {
        let (wake, woken) = oneshot::channel();
        let ticket = {
            let mut shares = self.bulkhead.lock();
            if shares.take(self.scope) { None } else { Some(shares.wait(self.scope, wake)) }
        };
        if ticket.is_some() {
            let mut waiting = Waiting::new(self, ticket);
            // The sender is used when there is a slot, and does not go while this waits.
            let _ = woken.await;
            waiting.ticket = None;
        }
        self.taken()
    }

    /// A slot, if there is one.
    pub(super) fn slot_now(self: &Arc<Self>) -> Option<Slot> {
        let is_free = self.bulkhead.lock().take(self.scope);
        is_free.then(|| self.taken())
    }

    fn taken(self: &Arc<Self>) -> Slot {
        Slot { place: self.clone(), _counted: metrics().upstream_under_way.one() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.bulkhead.lock().leave(self.scope);
    }
}

/// A call that waits for its slot.
struct Waiting<'a> {
    place: &'a Arc<Place>,
    /// None once it has it.
    ticket: Option<Ticket>,
    _counted: Counted,
}

impl<'a> Waiting<'a> {
    fn new(place: &'a Arc<Place>, ticket: Option<Ticket>) -> Self {
        Self { place, ticket, _counted: metrics().upstream_waiting.one() }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let was_waiting = self.place.bulkhead.lock().stop_waiting(self.place.scope, ticket);
        if !was_waiting {
            // It left in the moment in which it was given a slot: the next one has it.
            drop(self.place.taken());
        }
    }
}

/// A slot that a call is made in, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    place: Arc<Place>,
    _counted: Counted,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let woken = self.place.bulkhead.lock().give_back(self.place.scope);
        for wake in woken {
            // Who has left gives the slot on.
            let _ = wake.send(());
        }
    }
}

impl fmt::Debug for Bulkhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bulkhead").finish_non_exhaustive()
    }
}
