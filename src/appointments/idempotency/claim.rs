//! Records in use, and the claims of their changes.

use std::{fmt, sync::Arc};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{
    outcome::{Outcome, recorded},
    table::{ChangeState, RecordKey, RecordTable},
};
use crate::{appointments::changed::Changed, metrics::metrics, upstream::error::UpstreamError};

/// A record in use by an operation or by a change in flight.
pub(crate) struct RecordInUse {
    pub(super) records: Arc<RecordTable>,
    pub(super) key: RecordKey,
}

/// The next step of an operation that comes to a change.
pub(crate) enum Claim {
    /// Send the change.
    Send(ClaimedChange),
    /// The outcome is known.
    Known(Result<Changed, UpstreamError>),
}

/// A change that its holder sends. Dropped before it was [sent](Self::mark_sent), it is unsent again, and another operation
/// sends it. Dropped later without an outcome, its outcome is unknown.
pub(crate) struct ClaimedChange {
    record: RecordInUse,
    index: usize,
    is_sent: bool,
    is_settled: bool,
    /// Tells the operations that wait.
    error: watch::Sender<Option<UpstreamError>>,
}

impl RecordInUse {
    /// Claims the change of the root field `index`, or waits for its outcome until `deadline`.
    pub(crate) async fn claim(&self, index: usize, deadline: Instant) -> Claim {
        let mut has_waited = false;
        loop {
            let mut in_flight = match self.try_claim(index, has_waited) {
                Ok(claim) => return claim,
                Err(in_flight) => in_flight,
            };
            has_waited = true;
            // Closed without an error when the outcome is recorded, or the change is unsent again.
            let error = match timeout_at(deadline, in_flight.wait_for(Option::is_some)).await {
                Ok(Ok(error)) => error.clone(),
                Ok(Err(_)) => None,
                Err(_) if self.is_sent(index) => {
                    Some(UpstreamError::OutcomeUnknown("the deadline of the operation passed".into()))
                }
                Err(_) => Some(UpstreamError::DeadlinePassed),
            };
            if let Some(error) = error {
                metrics().idempotent_changes.count("joined");
                return Claim::Known(Err(error));
            }
        }
    }

    /// Whether the change of the root field `index` may have been made.
    fn is_sent(&self, index: usize) -> bool {
        let table = self.records.lock();
        let state = table.records.get(&self.key).and_then(|record| record.changes.get(index));
        !matches!(state, Some(ChangeState::Unsent | ChangeState::InFlight { is_sent: false, .. }))
    }

    /// # Errors
    /// The change is in flight.
    fn try_claim(
        &self,
        index: usize,
        has_waited: bool,
    ) -> Result<Claim, watch::Receiver<Option<UpstreamError>>> {
        let mut table = self.records.lock();
        // The record exists while it is in use, and equal requests have equally many root fields.
        let state = table.records.get_mut(&self.key).and_then(|record| record.changes.get_mut(index));
        let Some(state) = state else { return Ok(Claim::Known(Err(UpstreamError::Lost))) };
        match state {
            ChangeState::Recorded(outcome) => {
                metrics().idempotent_changes.count(if has_waited { "joined" } else { "replayed" });
                Ok(Claim::Known(outcome.clone().replay()))
            }
            ChangeState::InFlight { error, .. } => Err(error.clone()),
            ChangeState::Unsent => {
                let (error, in_flight) = watch::channel(None);
                *state = ChangeState::InFlight { error: in_flight, is_sent: false };
                // Its clone takes the lock.
                drop(table);
                let record = self.clone();
                Ok(Claim::Send(ClaimedChange { record, index, is_sent: false, is_settled: false, error }))
            }
        }
    }
}

impl Clone for RecordInUse {
    fn clone(&self) -> Self {
        if let Some(record) = self.records.lock().records.get_mut(&self.key) {
            record.users += 1;
        }
        Self { records: self.records.clone(), key: self.key }
    }
}

impl Drop for RecordInUse {
    fn drop(&mut self) {
        let mut table = self.records.lock();
        if let Some(record) = table.records.get_mut(&self.key) {
            record.users -= 1;
        }
        self.records.remove_unused(&mut table, self.key, Instant::now());
    }
}

impl ClaimedChange {
    /// Marks the change as sent: from here on, it may have been made.
    pub(crate) fn mark_sent(&mut self) {
        self.is_sent = true;
        let RecordInUse { records, key } = &self.record;
        let mut table = records.lock();
        let state = table.records.get_mut(key).and_then(|record| record.changes.get_mut(self.index));
        if let Some(ChangeState::InFlight { is_sent, .. }) = state {
            *is_sent = true;
        }
        metrics().idempotent_changes.count("sent");
    }

    /// Records the outcome. An outcome that is not recorded goes to the operations that wait for it.
    pub(crate) fn settle(mut self, outcome: &Result<Changed, UpstreamError>) {
        self.is_settled = true;
        let Self { record: RecordInUse { records, key }, index, error, .. } = &self;
        match recorded(outcome, &records.unknown) {
            Ok(outcome) => records.record(*key, *index, outcome),
            Err(failure) => {
                records.set_unsent(*key, *index);
                // Another operation may have more time.
                if !matches!(failure, UpstreamError::DeadlinePassed) {
                    error.send_replace(Some(failure));
                }
            }
        }
    }
}

impl Drop for ClaimedChange {
    fn drop(&mut self) {
        let Self { record: RecordInUse { records, key }, index, is_sent, is_settled, .. } = self;
        match (*is_settled, *is_sent) {
            (true, _) => {}
            (false, false) => records.set_unsent(*key, *index),
            (false, true) => {
                let unknown = UpstreamError::OutcomeUnknown(records.unknown.clone());
                records.record(*key, *index, Outcome::Failed(unknown));
            }
        }
    }
}

impl fmt::Debug for RecordInUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordInUse").finish_non_exhaustive()
    }
}
