//! The recorded outcomes of changes.

use std::sync::Arc;

use uuid::Uuid;

use crate::{appointments::changed::Changed, model::change::InputFault, upstream::error::UpstreamError};

/// A recorded outcome.
#[derive(Clone)]
pub(super) enum Outcome {
    /// The change was made; with the id of the appointment, if the upstream returned it.
    Applied(Option<Uuid>),
    Rejected(Arc<[InputFault]>),
    Failed(UpstreamError),
}

/// The outcome of a change as it is recorded.
///
/// # Errors
/// The error of a change that was certainly not made, for a reason that may pass. A repeat sends it.
pub(super) fn recorded(
    outcome: &Result<Changed, UpstreamError>,
    unknown: &Arc<str>,
) -> Result<Outcome, UpstreamError> {
    let error = match outcome {
        Ok(Changed::To(appointment)) => {
            return Ok(Outcome::Applied(appointment.as_ref().map(|appointment| appointment.id.0)));
        }
        Ok(Changed::Earlier(id)) => return Ok(Outcome::Applied(*id)),
        Ok(Changed::Rejected(faults)) => return Ok(Outcome::Rejected(faults.as_slice().into())),
        Err(error) => error.clone(),
    };
    match error {
        UpstreamError::OutcomeUnknown(_) => {
            Ok(Outcome::Failed(UpstreamError::OutcomeUnknown(unknown.clone())))
        }
        // Definite, or the change may have been made.
        UpstreamError::Forbidden
        | UpstreamError::NotFound
        | UpstreamError::Conflict
        | UpstreamError::ChangeFailed { .. }
        | UpstreamError::Failed { .. }
        | UpstreamError::UnexpectedStatus { .. }
        | UpstreamError::Broken(_)
        | UpstreamError::AttemptTimeout
        | UpstreamError::Exhausted { is_sent: true }
        | UpstreamError::TooLarge
        | UpstreamError::Invalid(_)
        | UpstreamError::Lost => Ok(Outcome::Failed(error)),
        UpstreamError::Unauthenticated
        | UpstreamError::NoServiceToken(_)
        | UpstreamError::ServiceTokenRefused
        | UpstreamError::RateLimited { .. }
        | UpstreamError::Unreachable(_)
        | UpstreamError::Unprocessed(_)
        | UpstreamError::BreakerOpen { .. }
        | UpstreamError::DeadlinePassed
        | UpstreamError::Overloaded { .. }
        | UpstreamError::KeyOfOtherRequest
        | UpstreamError::Exhausted { is_sent: false } => Err(error),
    }
}

impl Outcome {
    pub(super) fn replay(self) -> Result<Changed, UpstreamError> {
        match self {
            Self::Applied(id) => Ok(Changed::Earlier(id)),
            Self::Rejected(faults) => Ok(Changed::Rejected(faults.to_vec())),
            Self::Failed(error) => Err(error),
        }
    }

    /// Whether the upstream has rejected the change, as it would reject a repeat.
    pub(super) fn is_rejection(&self) -> bool {
        let Self::Failed(error) = self else { return false };
        matches!(
            error,
            UpstreamError::Forbidden
                | UpstreamError::NotFound
                | UpstreamError::Conflict
                | UpstreamError::UnexpectedStatus { status: 400..=499 }
        )
    }

    /// Heap bytes in use.
    pub(super) fn size(&self) -> usize {
        let names = |fault: &InputFault| {
            let names = fault.field.iter().flatten();
            names.map(|name| size_of::<String>() + name.len() + 16).sum::<usize>()
        };
        match self {
            Self::Rejected(faults) => faults.iter().map(|fault| size_of_val(fault) + names(fault)).sum(),
            Self::Applied(_) | Self::Failed(_) => 0,
        }
    }
}
