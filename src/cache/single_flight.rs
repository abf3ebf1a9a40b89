//! Single flight: one call in flight for each key. Readers that may see its result coalesce on it.
//!
//! A call runs in a task of its own. A waiter that leaves, even the first one, does not affect the others; when the
//! last one has left, the call is cancelled. It may be retried until the [`Deadline`], the latest of its waiters'.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    hash::Hash,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{sync::watch, task::AbortHandle, time::Instant};

use super::validity::{ReadVersion, Validity};
use crate::upstream::{deadline::Deadline, error::UpstreamError};

type Outcome<T> = Result<T, UpstreamError>;

/// The calls in flight: as many as may be in flight or wait (`upstream.max_concurrent + upstream.max_waiting`), since a
/// call beyond fails as soon as it starts.
pub(crate) struct SingleFlight<K: Key, T> {
    validity: Validity,
    table: Arc<Table<K, T>>,
}

type Table<K, T> = Mutex<HashMap<K, Weak<Flight<K, T>>>>;

/// The key of a call.
pub(crate) trait Key: Copy + Eq + Hash {}

impl<K: Copy + Eq + Hash> Key for K {}

/// A call in flight.
pub(crate) struct Flight<K: Key, T> {
    key: K,
    version: ReadVersion,
    deadline: Deadline,
    outcome: watch::Receiver<Option<Outcome<T>>>,
    task: AbortHandle,
    /// Whether a task waits for the outcome, so that the call needs no other waiter.
    is_detached: AtomicBool,
    table: Arc<Table<K, T>>,
}

impl<K: Key, T: Clone + Send + Sync + 'static> SingleFlight<K, T> {
    /// Shares calls as `validity` permits.
    pub(crate) fn new(validity: Validity) -> Self {
        Self { validity, table: Arc::default() }
    }

    /// Joins the call for `key`, if it is in flight and nothing has happened since it started that a read of this `version`
    /// must see; otherwise starts `call`. The waiter waits until `deadline`; one in the past means that the call need not
    /// be retried for it.
    ///
    /// `cached` is asked while no other call can start or end: it finds the result of a call that has just ended.
    pub(crate) fn join<F>(
        &self,
        key: K,
        version: ReadVersion,
        deadline: Instant,
        cached: impl FnOnce() -> Option<T>,
        call: impl FnOnce(ReadVersion, Deadline) -> F,
    ) -> Claim<K, T>
    where
        F: Future<Output = Outcome<T>> + Send + 'static,
    {
        // Declared before the lock is taken, thus dropped after it: the last holder of a flight takes the lock.
        let in_flight;
        let mut table = lock(&self.table);
        in_flight = table.get(&key).and_then(Weak::upgrade);
        // A completed flight may still be held by its waiters; later readers must not join it.
        let is_joinable = |flight: &&Arc<Flight<K, T>>| {
            flight.outcome.borrow().is_none() && self.validity.is_current(&flight.version)
        };
        if let Some(flight) = in_flight.as_ref().filter(is_joinable) {
            flight.deadline.extend(deadline);
            return Claim::Joined(flight.clone());
        }
        if let Some(value) = cached() {
            return Claim::Cached(value);
        }
        let (landed, outcome) = watch::channel(None);
        let deadline = Deadline::new(deadline);
        let call = call(version.clone(), deadline.clone());
        let task = tokio::spawn(async move {
            let outcome = call.await;
            landed.send_replace(Some(outcome));
        });
        let task = task.abort_handle();
        let (is_detached, table_of_calls) = (AtomicBool::new(false), self.table.clone());
        let flight =
            Arc::new(Flight { key, version, deadline, outcome, task, is_detached, table: table_of_calls });
        table.insert(key, Arc::downgrade(&flight));
        Claim::Started(flight)
    }
}

fn lock<K: Key, T>(table: &Table<K, T>) -> MutexGuard<'_, HashMap<K, Weak<Flight<K, T>>>> {
    // Nothing that runs under the lock leaves the table half changed.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How [`SingleFlight::join`] serves a reader.
pub(crate) enum Claim<K: Key, T> {
    Cached(T),
    Joined(Arc<Flight<K, T>>),
    Started(Arc<Flight<K, T>>),
}

impl<K: Key, T: Clone> Claim<K, T> {
    /// The outcome, now or when the call has landed.
    pub(crate) async fn outcome(&self) -> Outcome<T> {
        match self {
            Self::Cached(value) => Ok(value.clone()),
            Self::Joined(flight) | Self::Started(flight) => {
                let mut outcome = flight.outcome.clone();
                let landed = outcome.wait_for(Option::is_some).await;
                // The sender is dropped without an outcome only if the task panicked.
                landed.ok().and_then(|outcome| outcome.clone()).unwrap_or(Err(UpstreamError::Lost))
            }
        }
    }
}

impl<K: Key + Send + Sync + 'static, T: Clone + Send + Sync + 'static> Claim<K, T> {
    /// Lets the call go on without waiters. At most one task per call does so.
    pub(crate) fn detach(self) {
        if let Self::Joined(flight) | Self::Started(flight) = &self
            && !flight.is_detached.swap(true, Ordering::Relaxed)
        {
            tokio::spawn(async move { self.outcome().await });
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

impl<K: Key, T> fmt::Debug for SingleFlight<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleFlight").finish_non_exhaustive()
    }
}
