//! One call under way for each key, shared by all who wait for it.
//!
//! A [`Flight`] lives as long as somebody waits: each waiter holds it, the table holds it weakly, and the last to let
//! go of it ends the call. So a waiter that leaves, also the first one, takes nothing from the others, and a call that
//! nobody waits for any more does not go on.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::{sync::watch, task::AbortHandle};

use super::{Outcome, cache::Key};
use crate::upstream::UpstreamError;

/// The calls under way. As many as calls may be under way or wait: `upstream.max_concurrent + upstream.max_waiting`,
/// since a call beyond ends as soon as it begins.
#[derive(Debug, Clone, Default)]
pub(super) struct Flights(Arc<Mutex<HashMap<Key, Weak<Flight>>>>);

/// A call under way.
#[derive(Debug)]
pub(super) struct Flight {
    key: Key,
    outcome: watch::Receiver<Option<Outcome>>,
    task: AbortHandle,
    table: Flights,
}

impl Flights {
    /// Joins the call for `key` that is under way, or starts `call` in a task of its own.
    ///
    /// `kept` is asked while nobody else can start or end a call: what it finds was stored by a call that has just
    /// landed, and is taken instead of a second one.
    pub(super) fn join<F>(
        &self,
        key: Key,
        kept: impl FnOnce() -> Option<Outcome>,
        call: impl FnOnce() -> F,
    ) -> Joined
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        // Declared before the lock is taken, so let go of after: the last hold on a flight takes the lock as it goes.
        let under_way;
        let mut table = self.lock();
        under_way = table.get(&key).and_then(Weak::upgrade);
        // Who holds on to a flight that has landed must not make later readers take its outcome for a fresh one.
        if let Some(flight) = under_way.as_ref().filter(|flight| flight.outcome.borrow().is_none()) {
            return Joined::Flight(flight.clone());
        }
        if let Some(outcome) = kept() {
            return Joined::Kept(outcome);
        }
        let (landed, outcome) = watch::channel(None);
        let call = call();
        let task = tokio::spawn(async move {
            let outcome = call.await;
            landed.send_replace(Some(outcome));
        });
        let flight = Arc::new(Flight { key, outcome, task: task.abort_handle(), table: self.clone() });
        table.insert(key, Arc::downgrade(&flight));
        Joined::Flight(flight)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Weak<Flight>>> {
        // Nothing that runs under the lock leaves the table half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What [`Flights::join`] found.
pub(super) enum Joined {
    Kept(Outcome),
    Flight(Arc<Flight>),
}

impl Joined {
    /// The outcome, now or when the call has landed.
    pub(super) async fn outcome(self) -> Outcome {
        match self {
            Self::Kept(outcome) => outcome,
            Self::Flight(flight) => {
                let mut outcome = flight.outcome.clone();
                let landed = outcome.wait_for(Option::is_some).await;
                // The sender goes without a word only if the task panicked.
                landed.ok().and_then(|outcome| outcome.clone()).unwrap_or(Err(UpstreamError::Lost))
            }
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.task.abort();
        let mut table = self.table.lock();
        // Another flight may have taken the place since.
        if table.get(&self.key).is_some_and(|flight| std::ptr::eq(flight.as_ptr(), self)) {
            table.remove(&self.key);
        }
    }
}
