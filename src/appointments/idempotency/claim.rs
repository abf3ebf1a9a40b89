//! Records in use, and the claims of their changes.

use std::{fmt, sync::Arc};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use uuid::Uuid;

use super::{
    KeyRefusal,
    fleet_claims::{FleetClaim, FleetRecord},
    outcome::{Outcome, recorded},
    table::{ChangeState, RecordKey, RecordTable},
};
use crate::{appointments::changed::Changed, metrics::metrics, upstream::error::UpstreamError};

/// A record in use by an operation or by a change in flight.
pub(crate) struct RecordInUse {
    pub(super) records: Arc<RecordTable>,
    pub(super) key: RecordKey,
    /// The record in the Redis of the fleet. None for a gateway that is alone.
    pub(super) shared: Option<Arc<FleetRecord>>,
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
    /// The name of the claim in the fleet, from the moment at which it may be there until it is settled.
    token: Option<Uuid>,
    /// Tells the operations that wait.
    error: watch::Sender<Option<UpstreamError>>,
}

impl RecordInUse {
    /// Checks whether the request may use the record in the fleet. A record with outcomes of all its changes needs none.
    ///
    /// # Errors
    /// The reason to refuse the request. Nothing was sent for it.
    pub(crate) async fn check_fleet(&self) -> Result<(), KeyRefusal> {
        match &self.shared {
            Some(shared) if self.records.has_unsent(self.key) => shared.check().await,
            _ => Ok(()),
        }
    }

    /// Claims the change of the root field `index`, or waits for its outcome until `deadline`.
    pub(crate) async fn claim(&self, index: usize, deadline: Instant) -> Claim {
        let mut has_waited = false;
        loop {
            let mut in_flight = match self.try_claim(index, has_waited) {
                Ok(Claim::Send(claimed)) => return claimed.claim_in_fleet(has_waited, deadline).await,
                Ok(known) => return known,
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
                let claimed =
                    ClaimedChange { record, index, is_sent: false, is_settled: false, token: None, error };
                Ok(Claim::Send(claimed))
            }
        }
    }
}

impl Clone for RecordInUse {
    fn clone(&self) -> Self {
        if let Some(record) = self.records.lock().records.get_mut(&self.key) {
            record.users += 1;
        }
        Self { records: self.records.clone(), key: self.key, shared: self.shared.clone() }
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
    /// Claims the change in the fleet, or waits for its outcome on another replica until `deadline`.
    async fn claim_in_fleet(mut self, has_waited: bool, deadline: Instant) -> Claim {
        let Some(shared) = self.record.shared.clone() else { return Claim::Send(self) };
        let (records, key) = (self.record.records.clone(), self.record.key);
        let (index, token) = (self.index, Uuid::new_v4());
        // From now on, a drop withdraws the claim.
        self.token = Some(token);
        let mut has_waited = has_waited;
        let wait = || {
            has_waited = true;
            records.set_sent(key, index, true);
        };
        let unknown = |reason: &str| UpstreamError::OutcomeUnknown(reason.into());
        let error = match shared.claim(index, token, deadline, wait).await {
            FleetClaim::Claimed => {
                records.set_sent(key, index, false);
                return Claim::Send(self);
            }
            FleetClaim::Unavailable => {
                metrics().idempotent_changes.count("unclaimed");
                return Claim::Send(self);
            }
            FleetClaim::Known(Some(outcome), remaining) => {
                metrics().idempotent_changes.count(if has_waited { "joined" } else { "replayed" });
                (self.token, self.is_settled) = (None, true);
                records.record(key, index, outcome.clone(), remaining);
                return Claim::Known(outcome.replay());
            }
            FleetClaim::Known(None, _) => unknown("this replica cannot read the outcome"),
            FleetClaim::Left => unknown("the replica that sent the change has left the fleet"),
            // Others may have more time, and the last look may have claimed the change.
            FleetClaim::InFlight => {
                return Claim::Known(Err(unknown("the deadline of the operation passed")));
            }
            FleetClaim::OtherRequest => {
                metrics().idempotent_changes.count("mismatch");
                UpstreamError::KeyOfOtherRequest
            }
        };
        self.token = None;
        self.error.send_replace(Some(error.clone()));
        Claim::Known(Err(error))
    }

    /// Marks the change as sent: from here on, it may have been made.
    pub(crate) fn mark_sent(&mut self) {
        self.is_sent = true;
        let RecordInUse { records, key, .. } = &self.record;
        records.set_sent(*key, self.index, true);
        metrics().idempotent_changes.count("sent");
    }

    /// Records the outcome in the fleet and on this replica. An outcome that is not recorded goes to the operations that wait
    /// for it.
    pub(crate) async fn settle_everywhere(mut self, outcome: &Result<Changed, UpstreamError>) {
        // First there: a client that has its answer finds the outcome at each replica.
        if let (Some(shared), Some(token)) = (self.record.shared.clone(), self.token) {
            let outcome = recorded(outcome, &self.record.records.unknown).ok();
            shared.settle(self.index, token, outcome.as_ref()).await;
            self.token = None;
        }
        self.settle(outcome);
    }

    /// Records the outcome on this replica.
    pub(super) fn settle(mut self, outcome: &Result<Changed, UpstreamError>) {
        self.is_settled = true;
        let Self { record: RecordInUse { records, key, .. }, index, error, .. } = &self;
        match recorded(outcome, &records.unknown) {
            Ok(outcome) => records.record(*key, *index, outcome, records.ttl),
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
        let Self { record: RecordInUse { records, key, shared }, index, is_sent, is_settled, token, .. } =
            self;
        let unknown = || Outcome::Failed(UpstreamError::OutcomeUnknown(records.unknown.clone()));
        let outcome = is_sent.then(unknown);
        if let (Some(shared), Some(token)) = (shared, token.take()) {
            shared.clone().settle_soon(*index, token, outcome.as_ref());
        }
        match outcome {
            _ if *is_settled => {}
            None => records.set_unsent(*key, *index),
            Some(unknown) => records.record(*key, *index, unknown, records.ttl),
        }
    }
}

impl fmt::Debug for RecordInUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordInUse").finish_non_exhaustive()
    }
}
