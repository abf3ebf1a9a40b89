//! Changes: sent once, carried to their end whoever leaves, and followed by nobody reading what was before.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tracing::Instrument as _;
use uuid::Uuid;

use super::{Shared, cache::Asked};
use crate::{
    caller::Caller,
    model::{Change, InputFault, SharedAppointment},
    upstream::{Applied, Keep, Turn, UpstreamError},
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
    pub(super) async fn change(
        &self,
        caller: &Caller,
        change: Change,
        deadline: Instant,
    ) -> Result<Changed, UpstreamError> {
        let turn = timeout_at(deadline, self.upstream.turn());
        let turn = turn.await.unwrap_or(Err(UpstreamError::DeadlinePassed))?;
        let (shared, caller) = (self.clone(), caller.clone());
        let task =
            tokio::spawn(async move { shared.carry_out(turn, &caller, change).await }.in_current_span());
        match timeout_at(deadline, task).await {
            Ok(outcome) => outcome.unwrap_or(Err(UpstreamError::OutcomeUnknown("the task ended".into()))),
            Err(_) => Err(UpstreamError::OutcomeUnknown("the deadline of the operation passed".into())),
        }
    }

    async fn carry_out(&self, turn: Turn, caller: &Caller, change: Change) -> Result<Changed, UpstreamError> {
        let id = match &change {
            Change::Create(_) => None,
            Change::Update(id, _) | Change::Cancel(id, _) => Some(id.0),
        };
        let started = Instant::now();
        let before = id.map(|id| self.cache.generations().of(id));
        let applied = self.upstream.change(turn, caller, &change).await;
        let duration_ms = started.elapsed().as_millis() as u64;
        match &applied {
            Ok(Applied::To { .. }) => tracing::debug!(?change, duration_ms, "changed"),
            Ok(Applied::Rejected(faults)) => {
                tracing::debug!(?change, faults = faults.len(), duration_ms, "rejected")
            }
            Err(error) => tracing::warn!(?change, %error, duration_ms, "change failed"),
        }
        match applied {
            Ok(Applied::To { appointment, keep }) => {
                let known = appointment.as_ref().map(|appointment| appointment.id.0).or(id);
                self.note(caller, known, before, appointment.as_ref(), keep);
                Ok(Changed::To(appointment))
            }
            Ok(Applied::Rejected(faults)) => Ok(Changed::Rejected(faults)),
            Err(error) => {
                if may_have_happened(&error) {
                    self.note(caller, id, before, None, Keep::Never);
                    self.note_again_later(caller.clone(), id);
                }
                Err(error)
            }
        }
    }

    /// Outdates everything from before the change, for every caller, shows it to those who watch, and remembers what it
    /// answered for the caller who made it.
    fn note(
        &self,
        caller: &Caller,
        id: Option<Uuid>,
        before: Option<u64>,
        now: Option<&SharedAppointment>,
        keep: Keep,
    ) {
        let Some(id) = id else { return self.cache.generations().advance_all() };
        let previous = self.cache.generations().advance(id);
        // Where another change ended while this one was under way, nobody knows which of the two answers is the newer.
        let is_alone = before.is_none_or(|before| before == previous);
        let now = now.filter(|_| is_alone);
        if let Some(now) = now {
            self.cache.keep(caller, id, Some(now.clone()), keep, Asked::after(previous));
        }
        self.live.changed(caller, id, now);
    }

    /// A change whose answer was lost may still be on its way: what is read meanwhile is outdated once more when it must
    /// have arrived.
    fn note_again_later(&self, caller: Caller, id: Option<Uuid>) {
        let shared = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(shared.upstream.timeout().max(Duration::from_secs(1))).await;
            shared.note(&caller, id, None, None, Keep::Never);
        });
    }
}

/// Whether an error leaves it open that the upstream made the change.
fn may_have_happened(error: &UpstreamError) -> bool {
    match error {
        UpstreamError::OutcomeUnknown(_)
        | UpstreamError::Failed { .. }
        | UpstreamError::UnexpectedStatus { .. }
        | UpstreamError::Lost => true,
        UpstreamError::Unauthenticated
        | UpstreamError::Forbidden
        | UpstreamError::NotFound
        | UpstreamError::Conflict
        | UpstreamError::RateLimited { .. }
        | UpstreamError::Unreachable(_)
        | UpstreamError::AttemptTimeout
        | UpstreamError::DeadlinePassed
        | UpstreamError::Overloaded
        | UpstreamError::TooLarge
        | UpstreamError::Invalid(_) => false,
    }
}
