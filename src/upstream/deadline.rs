//! The shared deadline of a coalesced call.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The latest deadline among the waiters of a call. Cheap to clone: a request that joins a call in flight extends the
/// same deadline.
///
/// It bounds new steps of the call, such as a pause or a retry. An attempt in flight is bounded by `upstream.timeout`,
/// and each waiter also leaves at its own deadline.
#[derive(Debug, Clone)]
pub struct Deadline(Arc<Mutex<Instant>>);

impl Deadline {
    /// The deadline of the first waiter. A past deadline prevents retries.
    pub fn new(at: Instant) -> Self {
        Self(Arc::new(Mutex::new(at)))
    }

    /// Extends the deadline to `at`, if that is later.
    pub fn extend(&self, at: Instant) {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *latest = at.max(*latest);
    }

    /// Whether a waiter is left after `pause`.
    pub(crate) fn outlasts(&self, pause: Duration) -> bool {
        let latest = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        latest.saturating_duration_since(Instant::now()) > pause
    }
}
