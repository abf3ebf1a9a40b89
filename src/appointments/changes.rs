//! Changes: sent once, carried to their end whoever leaves, and followed by nobody reading what was before.

use tokio::time::{Instant, timeout_at};
use tracing::Instrument as _;

use super::{cache::Fetched, shared::Shared, subscriptions::Recheck};
use crate::{
    caller::Caller,
    model::{
        SharedAppointment,
        change::{Change, InputFault},
    },
    upstream::{answer::ChangeResponse, error::UpstreamError, resilience::call_policy::CallPermit},
};

/// What became of a change.
#[derive(Debug, Clone)]
pub enum Changed {
    /// It was made. The appointment as it now is, where the upstream showed it.
    To(Option<SharedAppointment>),
    /// It was not made, since the input is not accepted.
    Rejected(Vec<InputFault>),
}

impl Shared {
    /// Sends `change` as `caller`, once, and waits for the outcome until `deadline`.
    ///
    /// While it waits for its turn it can still be given up, and is not sent then. From there on it runs in a task of its
    /// own: a caller who leaves, or whose deadline passes, does not keep what was sent from being noted.
    pub(crate) async fn change(
        &self,
        caller: &Caller,
        change: Change,
        deadline: Instant,
    ) -> Result<Changed, UpstreamError> {
        // A free turn would be taken even now, and what is sent now has nobody who waits for its answer.
        if Instant::now() >= deadline {
            return Err(UpstreamError::DeadlinePassed);
        }
        let turn = timeout_at(deadline, self.upstream.change_permit(caller));
        let turn = turn.await.unwrap_or(Err(UpstreamError::DeadlinePassed))?;
        let (shared, caller) = (self.clone(), caller.clone());
        let task =
            tokio::spawn(async move { shared.carry_out(turn, &caller, change).await }.in_current_span());
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
        // From here on the change may take effect at any moment, so nobody is served a copy that was read before.
        let open = self.validity().open_change(caller.scope(), id, self.upstream.timeout());
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
                let known = appointment.as_ref().map(|appointment| appointment.id.0).or(id);
                // Where another change was open at the same time, nobody knows which of the two answers is the newer, so
                // neither is cached.
                let version = open.applied(known);
                if let Some(id) = known {
                    let answer = appointment.clone().zip(version).map(|(appointment, version)| {
                        let freshness = self.cache.freshness(caller, true, directives);
                        Fetched { appointment: Some(appointment), etag: None, version, freshness }
                    });
                    if let Some(Fetched { appointment, freshness, version, .. }) = &answer {
                        self.cache.store(caller, id, appointment.clone(), *freshness, version);
                    }
                    self.subscriptions.changed(caller, id, answer);
                }
                Ok(Changed::To(appointment))
            }
            Ok(ChangeResponse::Rejected(faults)) => {
                open.refused();
                Ok(Changed::Rejected(faults))
            }
            Err(error) => {
                let verdict = Verdict::of(&error);
                match verdict {
                    Verdict::MayHaveHappened => {
                        // Its answer was lost, but it may still be on its way.
                        open.unknown();
                        if let Some(id) = id {
                            self.subscriptions.changed(caller, id, None);
                        }
                    }
                    _ => open.refused(),
                }
                match (verdict, id) {
                    (Verdict::NotAccepted, _) => self.cache.revoke_everything(caller),
                    (Verdict::Refused, Some(id)) => {
                        self.cache.revoke(caller, id, Recheck::Now);
                    }
                    _ => {}
                }
                Err(error)
            }
        }
    }
}

/// What a failed change tells of the appointment.
#[derive(Clone, Copy)]
enum Verdict {
    /// It is what it was.
    NothingHappened,
    /// The caller's credential is not accepted.
    NotAccepted,
    /// It is not the caller's to change, or not what the caller took it for: gone, or in another state. No change was made,
    /// so others see it as they would without the attempt.
    Refused,
    /// The change may have been made.
    MayHaveHappened,
}

impl Verdict {
    fn of(error: &UpstreamError) -> Self {
        match error {
            // A request that the upstream found at fault (RFC 9110, section 15.5) was not carried out; of one that it was
            // tired of waiting for (408), nobody knows.
            UpstreamError::UnexpectedStatus { status: 400..=407 | 409..=499 } => Self::NothingHappened,
            UpstreamError::OutcomeUnknown(_)
            | UpstreamError::ChangeFailed { .. }
            | UpstreamError::UnexpectedStatus { .. }
            | UpstreamError::Lost => Self::MayHaveHappened,
            UpstreamError::Unauthenticated | UpstreamError::ServiceTokenRefused => Self::NotAccepted,
            UpstreamError::Forbidden | UpstreamError::NotFound | UpstreamError::Conflict => Self::Refused,
            UpstreamError::NoServiceToken(_)
            | UpstreamError::RateLimited { .. }
            | UpstreamError::Failed { .. }
            | UpstreamError::Unreachable(_)
            | UpstreamError::Broken(_)
            | UpstreamError::BreakerOpen { .. }
            | UpstreamError::AttemptTimeout
            | UpstreamError::DeadlinePassed
            | UpstreamError::Overloaded { .. }
            | UpstreamError::Exhausted { .. }
            | UpstreamError::TooLarge
            | UpstreamError::Invalid(_) => Self::NothingHappened,
        }
    }
}
