//! Changes: each is sent once, completes even if its client leaves, and ends the copies that were read before it.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};
use tracing::Instrument as _;
use uuid::Uuid;

use super::{
    changed::Changed,
    idempotency::{Claim, ClaimedChange, RecordInUse},
    keys::AppointmentKey,
    shared::Shared,
    watch_registry::Recheck,
};
use crate::{
    cache::read_through::Read,
    caller::Caller,
    fleet::{Unpublished, message::Event},
    model::change::Change,
    upstream::{error::UpstreamError, resilience::call_policy::CallPermit, response::ChangeResponse},
};

impl Shared {
    /// Sends `change` as `caller`, once, and waits for the outcome until `deadline`. With the `record` of an idempotency key
    /// and the index of a root field in it, the change is sent only if no earlier request has sent it.
    pub(crate) async fn change(
        &self,
        caller: &Caller,
        change: Change,
        record: Option<(&RecordInUse, usize)>,
        deadline: Instant,
    ) -> Result<Changed, UpstreamError> {
        let Some((record, index)) = record else {
            return self.send(caller, change, None, deadline).await;
        };
        match record.claim(index, deadline).await {
            Claim::Known(outcome) => outcome,
            Claim::Send(claimed) => self.send(caller, change, Some(claimed), deadline).await,
        }
    }

    /// Sends a change, and settles its claim.
    ///
    /// A change that waits for a permit can be cancelled. Once sent, it runs in a task of its own, so its outcome is recorded
    /// even if the client disconnects or the deadline passes.
    async fn send(
        &self,
        caller: &Caller,
        change: Change,
        claimed: Option<ClaimedChange>,
        deadline: Instant,
    ) -> Result<Changed, UpstreamError> {
        // A free permit would be taken even now, but nobody would wait for the outcome.
        if Instant::now() >= deadline {
            return Err(UpstreamError::DeadlinePassed);
        }
        let turn = timeout_at(deadline, self.upstream.change_permit(caller));
        let turn = match turn.await.unwrap_or(Err(UpstreamError::DeadlinePassed)) {
            Ok(turn) => turn,
            Err(error) => {
                let outcome = Err(error);
                if let Some(claimed) = claimed {
                    claimed.settle_everywhere(&outcome).await;
                }
                return outcome;
            }
        };
        let (shared, caller, mut claimed) = (self.clone(), caller.clone(), claimed);
        if let Some(claimed) = &mut claimed {
            claimed.mark_sent();
        }
        let sent = async move {
            let outcome = shared.carry_out(turn, &caller, change).await;
            if let Some(claimed) = claimed {
                claimed.settle_everywhere(&outcome).await;
            }
            outcome
        };
        let task = tokio::spawn(sent.in_current_span());
        match timeout_at(deadline, task).await {
            Ok(outcome) => outcome.unwrap_or(Err(UpstreamError::OutcomeUnknown("the task ended".into()))),
            Err(_) => Err(UpstreamError::OutcomeUnknown("the deadline of the operation passed".into())),
        }
    }

    async fn carry_out(
        &self,
        turn: CallPermit,
        caller: &Caller,
        change: Change,
    ) -> Result<Changed, UpstreamError> {
        let id = match &change {
            Change::Create(_) => None,
            Change::Update(id, _) | Change::Cancel(id, _) => Some(id.0),
        };
        let started = Instant::now();
        // From here on the change may take effect at any moment, so copies that were read before are no longer served.
        let open = self.copies.validity.open_change(caller.scope(), id, self.upstream.timeout());
        let applied = self.upstream.change(turn, caller, &change).await;
        let duration_ms = started.elapsed().as_millis() as u64;
        match &applied {
            Ok(ChangeResponse::Applied { .. }) => tracing::debug!(?change, duration_ms, "changed"),
            Ok(ChangeResponse::Rejected(faults)) => {
                tracing::debug!(?change, faults = faults.len(), duration_ms, "rejected")
            }
            Err(error) if error.is_caused_by_caller() => {
                tracing::debug!(?change, %error, duration_ms, "change failed")
            }
            Err(error) => tracing::warn!(?change, %error, duration_ms, "change failed"),
        }
        match applied {
            Ok(ChangeResponse::Applied { appointment, directives }) => {
                self.copies.shared.note_accepted(caller);
                let known = appointment.as_ref().map(|appointment| appointment.id.0).or(id);
                // If another change was open at the same time, the newer of the two answers is unknown, so
                // neither is cached.
                let unpublished = self.unpublished(known);
                let version = open.applied(known);
                let answer = known.and_then(|id| {
                    let answer = appointment.clone().zip(version).map(|(appointment, version)| {
                        let freshness = self.copies.ttl.of_appointment(caller, directives);
                        let value = Some(appointment);
                        Read { value, validators: None, version, freshness, shared_age: None }
                    });
                    if let Some(read) = &answer {
                        self.cache.store(AppointmentKey { scope: caller.scope(), id }, read);
                    }
                    answer
                });
                // Before subscribers see the change: their next read, through any replica, shows it too.
                self.publish_change(known, None, unpublished).await;
                if let Some(id) = known {
                    self.subscriptions.changed(caller, id, answer);
                }
                Ok(Changed::To(appointment))
            }
            Ok(ChangeResponse::Rejected(faults)) => {
                open.refused();
                Ok(Changed::Rejected(faults))
            }
            Err(error) => {
                let effect = CacheEffect::of(&error);
                match effect {
                    CacheEffect::MarkUncertain => {
                        // The answer was lost, but the change may still take effect.
                        let unpublished = self.unpublished(id);
                        open.unknown();
                        self.publish_change(id, Some(self.upstream.timeout()), unpublished).await;
                        if let Some(id) = id {
                            self.subscriptions.changed(caller, id, None);
                        }
                    }
                    _ => open.refused(),
                }
                match (effect, id) {
                    (CacheEffect::RevokeScope, _) => self.copies.revoke_everything(caller),
                    (CacheEffect::RevokeAppointment, Some(id)) => {
                        self.copies.revoke(caller, id, Recheck::Now);
                    }
                    _ => {}
                }
                Err(error)
            }
        }
    }

    /// Counts a change as unpublished, as long as the guard exists.
    fn unpublished(&self, id: Option<Uuid>) -> Unpublished {
        let is_configured = self.fleet.is_configured();
        is_configured.then(|| Arc::new(self.copies.validity.unpublished(id)) as Arc<dyn Send + Sync>)
    }

    /// Ends the copies of the other replicas, and waits until they have confirmed it: from then on, each of them shows the
    /// change.
    async fn publish_change(
        &self,
        id: Option<Uuid>,
        uncertain_for: Option<Duration>,
        unpublished: Unpublished,
    ) {
        if self.fleet.is_configured() {
            let event = Event::Changed { id, uncertain_for };
            self.fleet.publish(event, self.copies.shared.ended_by_change(id), unpublished).await;
        }
    }
}

/// The effect of a failed change on cached copies.
#[derive(Clone, Copy)]
enum CacheEffect {
    /// The appointment is unchanged.
    None,
    /// The caller's credential is not accepted.
    RevokeScope,
    /// The caller may not change the appointment, or its copy is outdated: the appointment is gone, or in another state. Only
    /// the caller's copies end.
    RevokeAppointment,
    /// The change may have been made.
    MarkUncertain,
}

impl CacheEffect {
    fn of(error: &UpstreamError) -> Self {
        match error {
            _ if error.is_client_error() => Self::None,
            UpstreamError::OutcomeUnknown(_)
            | UpstreamError::ChangeFailed { .. }
            | UpstreamError::UnexpectedStatus { .. }
            | UpstreamError::Lost => Self::MarkUncertain,
            UpstreamError::Unauthenticated | UpstreamError::ServiceTokenRefused => Self::RevokeScope,
            UpstreamError::Forbidden | UpstreamError::NotFound | UpstreamError::Conflict => {
                Self::RevokeAppointment
            }
            UpstreamError::NoServiceToken(_)
            | UpstreamError::RateLimited { .. }
            | UpstreamError::Failed { .. }
            | UpstreamError::Unreachable(_)
            | UpstreamError::Unprocessed(_)
            | UpstreamError::Broken(_)
            | UpstreamError::BreakerOpen { .. }
            | UpstreamError::AttemptTimeout
            | UpstreamError::DeadlinePassed
            | UpstreamError::Overloaded { .. }
            | UpstreamError::Exhausted { .. }
            | UpstreamError::TooLarge
            | UpstreamError::KeyOfOtherRequest
            | UpstreamError::Invalid(_) => Self::None,
        }
    }
}
