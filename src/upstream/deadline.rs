//! Until when a call that several wait for may be repeated.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The latest deadline of all who have come to wait for a call. Cheap to clone: who joins a call that is under way
/// extends the one deadline.
///
/// It binds what the call begins anew, a pause or another attempt; what is under way is bound by `upstream.timeout`, and
/// each waiter leaves at a deadline of its own.
#[derive(Debug, Clone)]
pub struct Deadline(Arc<Mutex<Instant>>);

impl Deadline {
    /// The deadline of the first who waits. One that has passed means that nobody wants the call repeated.
    pub fn new(at: Instant) -> Self {
        Self(Arc::new(Mutex::new(at)))
    }

    /// Somebody waits until `at`.
    pub fn extend(&self, at: Instant) {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *latest = at.max(*latest);
    }

    /// Whether somebody still waits once `pause` is over.
    pub(crate) fn outlasts(&self, pause: Duration) -> bool {
        let latest = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        latest.saturating_duration_since(Instant::now()) > pause
    }
}
