//! One call under way for each key, shared by all who wait for it.
//!
//! A [`Flight`] lives as long as somebody waits: each waiter holds it, the table holds it weakly, and the last to let
//! go of it ends the call. So a waiter that leaves, also the first one, takes nothing from the others, and a call that
//! nobody waits for any more does not go on. It may be repeated until the [`Deadline`], which is the latest of theirs.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::{sync::watch, task::AbortHandle, time::Instant};

use crate::upstream::{Deadline, UpstreamError};

type Outcome<T> = Result<T, UpstreamError>;

/// The calls under way. As many as calls may be under way or wait: `upstream.max_concurrent + upstream.max_waiting`,
/// since a call beyond ends as soon as it begins.
pub(super) struct Flights<K: Key, T>(Arc<Table<K, T>>);

type Table<K, T> = Mutex<HashMap<K, Weak<Flight<K, T>>>>;

/// What calls go by.
pub(super) trait Key: Copy + Eq + Hash {}

impl<K: Copy + Eq + Hash> Key for K {}

/// A call under way.
pub(super) struct Flight<K: Key, T> {
    key: K,
    /// Of what it asks for, when it began: who asks after a change is not given what was asked for before.
    generation: u64,
    deadline: Deadline,
    outcome: watch::Receiver<Option<Outcome<T>>>,
    task: AbortHandle,
    table: Arc<Table<K, T>>,
}

impl<K: Key, T: Clone + Send + Sync + 'static> Flights<K, T> {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    /// Joins the call for `key` that is under way, or starts `call` in a task of its own. Who joins waits until `deadline`;
    /// one that has passed says that the call need not be repeated.
    ///
    /// `kept` is asked while nobody else can start or end a call: what it finds was stored by a call that has just
    /// landed, and is taken instead of a second one.
    pub(super) fn join<F>(
        &self,
        key: K,
        generation: u64,
        deadline: Instant,
        kept: impl FnOnce() -> Option<T>,
        call: impl FnOnce(Deadline) -> F,
    ) -> Joined<K, T>
    where
        F: Future<Output = Outcome<T>> + Send + 'static,
    {
        // Declared before the lock is taken, so let go of after: the last hold on a flight takes the lock as it goes.
        let under_way;
        let mut table = lock(&self.0);
        under_way = table.get(&key).and_then(Weak::upgrade);
        // Who holds on to a flight that has landed must not make later readers take its outcome for a fresh one.
        let is_current = |flight: &&Arc<Flight<K, T>>| {
            flight.generation == generation && flight.outcome.borrow().is_none()
        };
        if let Some(flight) = under_way.as_ref().filter(is_current) {
            flight.deadline.extend(deadline);
            return Joined::UnderWay(flight.clone());
        }
        if let Some(value) = kept() {
            return Joined::Kept(value);
        }
        let (landed, outcome) = watch::channel(None);
        let deadline = Deadline::new(deadline);
        let call = call(deadline.clone());
        let task = tokio::spawn(async move {
            let outcome = call.await;
            landed.send_replace(Some(outcome));
        });
        let task = task.abort_handle();
        let flight = Arc::new(Flight { key, generation, deadline, outcome, task, table: self.0.clone() });
        table.insert(key, Arc::downgrade(&flight));
        Joined::New(flight)
    }
}

fn lock<K: Key, T>(table: &Table<K, T>) -> MutexGuard<'_, HashMap<K, Weak<Flight<K, T>>>> {
    // Nothing that runs under the lock leaves the table half changed.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What [`Flights::join`] found.
pub(super) enum Joined<K: Key, T> {
    Kept(T),
    UnderWay(Arc<Flight<K, T>>),
    New(Arc<Flight<K, T>>),
}

impl<K: Key, T: Clone> Joined<K, T> {
    /// The word by which it is counted.
    pub(super) fn way(&self) -> &'static str {
        match self {
            Self::Kept(_) => "cache",
            Self::UnderWay(_) => "call_under_way",
            Self::New(_) => "new_call",
        }
    }

    /// The outcome, now or when the call has landed.
    pub(super) async fn outcome(self) -> Outcome<T> {
        match self {
            Self::Kept(value) => Ok(value),
            Self::UnderWay(flight) | Self::New(flight) => {
                let mut outcome = flight.outcome.clone();
                let landed = outcome.wait_for(Option::is_some).await;
                // The sender goes without a word only if the task panicked.
                landed.ok().and_then(|outcome| outcome.clone()).unwrap_or(Err(UpstreamError::Lost))
            }
        }
    }
}

impl<K: Key, T> Drop for Flight<K, T> {
    fn drop(&mut self) {
        self.task.abort();
        let mut table = lock(&self.table);
        // Another flight may have taken the place since.
        if table.get(&self.key).is_some_and(|flight| std::ptr::eq(flight.as_ptr(), self)) {
            table.remove(&self.key);
        }
    }
}

impl<K: Key, T> fmt::Debug for Flights<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").finish_non_exhaustive()
    }
}
