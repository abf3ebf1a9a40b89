//! The failed reads of one operation, logged as one line for each cause.
//!
//! An operation can fail once for each appointment that it requests. A line for each failure would let any client flood the
//! log.

use std::{
    mem,
    sync::{Mutex, PoisonError},
};

use uuid::Uuid;

use crate::upstream::error::UpstreamError;

/// Collects failures until it is dropped at the end of the operation.
#[derive(Debug, Default)]
pub(crate) struct Failures(Mutex<Vec<Failure>>);

/// All failures of one cause.
#[derive(Debug)]
struct Failure {
    error: UpstreamError,
    count: usize,
    /// The first appointment that failed; none for the list.
    id: Option<Uuid>,
}

impl Failures {
    pub(crate) fn note(&self, id: Option<Uuid>, error: &UpstreamError) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |failure: &&mut Failure| mem::discriminant(&failure.error) == mem::discriminant(error);
        match failures.iter_mut().find(is_same) {
            Some(failure) => failure.count += 1,
            None => failures.push(Failure { error: error.clone(), count: 1, id }),
        }
    }
}

impl Drop for Failures {
    fn drop(&mut self) {
        let failures = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        for Failure { error, count, id } in failures.drain(..) {
            let id = id.map(tracing::field::display);
            // Any caller can cause errors of its own as often as it likes.
            if error.is_caused_by_caller() {
                tracing::debug!(failures = count, appointment.id = id, %error, "reads failed");
            } else {
                tracing::warn!(failures = count, appointment.id = id, %error, "reads failed");
            }
        }
    }
}
