//! The encoding of outcomes in the shared Redis.
//!
//! Replicas of two versions read each other's outcomes during an upgrade. So variants are only ever added, at the end. An
//! outcome that a replica cannot decode is unknown to it.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::outcome::Outcome;
use crate::{
    fleet::message::{decode, encode},
    model::change::InputFault,
    upstream::{error::UpstreamError, wire::change::known_message},
};

/// The longest encoding of an outcome. Only a long list of errors in the input exceeds it.
pub(super) const MAX_LENGTH: usize = 1024;

/// The reason in errors that have one. The real one went to the log of the replica that sent the change.
const REASON: &str = "see the log of the replica that sent the change";

#[derive(Serialize, Deserialize)]
enum StoredOutcome {
    Applied(Option<Uuid>),
    Rejected(Vec<StoredFault>),
    Failed(StoredError),
}

#[derive(Serialize, Deserialize)]
struct StoredFault {
    field: Option<Vec<String>>,
    message: String,
}

/// An error that is recorded.
#[derive(Serialize, Deserialize)]
enum StoredError {
    Forbidden,
    NotFound,
    Conflict,
    OutcomeUnknown,
    Failed { status: u16, retry_after: Option<Duration> },
    ChangeFailed { status: u16 },
    UnexpectedStatus { status: u16 },
    Broken,
    AttemptTimeout,
    Exhausted,
    TooLarge,
    Invalid,
    Lost,
}

/// Encodes `outcome`. None if the encoding is too long, or the error is none that is recorded.
pub(super) fn to_bytes(outcome: &Outcome) -> Option<Vec<u8>> {
    let stored = match outcome {
        Outcome::Applied(id) => StoredOutcome::Applied(*id),
        Outcome::Rejected(faults) => {
            let fault = |InputFault { field, message }: &InputFault| StoredFault {
                field: field.clone(),
                message: (*message).to_owned(),
            };
            StoredOutcome::Rejected(faults.iter().map(fault).collect())
        }
        Outcome::Failed(error) => StoredOutcome::Failed(StoredError::of(error)?),
    };
    Some(encode(&stored)).filter(|bytes| bytes.len() <= MAX_LENGTH)
}

/// The outcome that `bytes` encode, if they do.
pub(super) fn from_bytes(bytes: &[u8]) -> Option<Outcome> {
    Some(match decode(bytes)? {
        StoredOutcome::Applied(id) => Outcome::Applied(id),
        StoredOutcome::Rejected(faults) => {
            let fault =
                |StoredFault { field, message }| InputFault { field, message: known_message(&message) };
            Outcome::Rejected(faults.into_iter().map(fault).collect())
        }
        StoredOutcome::Failed(error) => Outcome::Failed(error.restore()),
    })
}

impl StoredError {
    fn of(error: &UpstreamError) -> Option<Self> {
        Some(match error {
            UpstreamError::Forbidden => Self::Forbidden,
            UpstreamError::NotFound => Self::NotFound,
            UpstreamError::Conflict => Self::Conflict,
            UpstreamError::OutcomeUnknown(_) => Self::OutcomeUnknown,
            UpstreamError::Failed { status, retry_after } => {
                Self::Failed { status: *status, retry_after: *retry_after }
            }
            UpstreamError::ChangeFailed { status } => Self::ChangeFailed { status: *status },
            UpstreamError::UnexpectedStatus { status } => Self::UnexpectedStatus { status: *status },
            UpstreamError::Broken(_) => Self::Broken,
            UpstreamError::AttemptTimeout => Self::AttemptTimeout,
            UpstreamError::Exhausted { is_sent: true } => Self::Exhausted,
            UpstreamError::TooLarge => Self::TooLarge,
            UpstreamError::Invalid(_) => Self::Invalid,
            UpstreamError::Lost => Self::Lost,
            // A repeat sends the change.
            UpstreamError::Unauthenticated
            | UpstreamError::NoServiceToken(_)
            | UpstreamError::ServiceTokenRefused
            | UpstreamError::RateLimited { .. }
            | UpstreamError::Unreachable(_)
            | UpstreamError::Unprocessed(_)
            | UpstreamError::BreakerOpen { .. }
            | UpstreamError::DeadlinePassed
            | UpstreamError::Overloaded { .. }
            | UpstreamError::Exhausted { is_sent: false }
            | UpstreamError::KeyOfOtherRequest => return None,
        })
    }

    fn restore(self) -> UpstreamError {
        let reason = || Arc::from(REASON);
        match self {
            Self::Forbidden => UpstreamError::Forbidden,
            Self::NotFound => UpstreamError::NotFound,
            Self::Conflict => UpstreamError::Conflict,
            Self::OutcomeUnknown => UpstreamError::OutcomeUnknown(reason()),
            Self::Failed { status, retry_after } => UpstreamError::Failed { status, retry_after },
            Self::ChangeFailed { status } => UpstreamError::ChangeFailed { status },
            Self::UnexpectedStatus { status } => UpstreamError::UnexpectedStatus { status },
            Self::Broken => UpstreamError::Broken(reason()),
            Self::AttemptTimeout => UpstreamError::AttemptTimeout,
            Self::Exhausted => UpstreamError::Exhausted { is_sent: true },
            Self::TooLarge => UpstreamError::TooLarge,
            Self::Invalid => UpstreamError::Invalid(REASON),
            Self::Lost => UpstreamError::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{appointments::idempotency::outcome::recorded, error::limit::Limit};

    fn errors() -> Vec<UpstreamError> {
        let text = || Arc::<str>::from("Philomena at host.internal");
        vec![
            UpstreamError::Unauthenticated,
            UpstreamError::NoServiceToken(text()),
            UpstreamError::ServiceTokenRefused,
            UpstreamError::Forbidden,
            UpstreamError::NotFound,
            UpstreamError::Conflict,
            UpstreamError::OutcomeUnknown(text()),
            UpstreamError::RateLimited { retry_after: None },
            UpstreamError::Failed { status: 503, retry_after: Some(Duration::from_millis(1500)) },
            UpstreamError::ChangeFailed { status: 502 },
            UpstreamError::UnexpectedStatus { status: 418 },
            UpstreamError::Unreachable(text()),
            UpstreamError::Unprocessed(text()),
            UpstreamError::Broken(text()),
            UpstreamError::BreakerOpen { retry_after: Duration::ZERO },
            UpstreamError::AttemptTimeout,
            UpstreamError::DeadlinePassed,
            UpstreamError::Overloaded { limit: Limit::UpstreamQueue },
            UpstreamError::Exhausted { is_sent: true },
            UpstreamError::Exhausted { is_sent: false },
            UpstreamError::TooLarge,
            UpstreamError::Invalid("Philomena"),
            UpstreamError::Lost,
            UpstreamError::KeyOfOtherRequest,
        ]
    }

    /// A client sees the error, and not the reason.
    fn as_seen(error: &UpstreamError) -> String {
        let error = crate::error::ApiError::from(error.clone());
        format!("{:?} {} {:?}", error.code(), error.message(), error.extensions())
    }

    #[test]
    fn each_recorded_error_is_encoded_without_its_reason() {
        for error in errors() {
            let is_recorded = recorded(&Err(error.clone()), &"unknown".into()).is_ok();
            let bytes = to_bytes(&Outcome::Failed(error.clone()));
            assert_eq!(bytes.is_some(), is_recorded, "{error:?}");
            let Some(bytes) = bytes else { continue };
            assert!(!String::from_utf8_lossy(&bytes).contains("Philomena"), "{error:?}");
            let Some(Outcome::Failed(restored)) = from_bytes(&bytes) else { panic!("{error:?}") };
            assert_eq!(std::mem::discriminant(&restored), std::mem::discriminant(&error));
            assert_eq!(as_seen(&restored), as_seen(&error));
        }
    }

    #[test]
    fn a_long_list_of_faults_is_not_encoded() {
        let fault = InputFault {
            field: Some(vec!["claimant".to_owned(), "email".to_owned()]),
            message: known_message("Must be an e-mail address."),
        };
        let faults = |count| Outcome::Rejected(vec![fault.clone(); count].into());
        let bytes = to_bytes(&faults(15)).expect("as many as an input has");
        assert!(
            matches!(from_bytes(&bytes), Some(Outcome::Rejected(again)) if *again == vec![fault.clone(); 15])
        );
        assert!(to_bytes(&faults(100)).is_none());
    }

    proptest! {
        #[test]
        fn any_applied_or_rejected_change_is_restored(
            id: Option<u128>, faults in prop::collection::vec((any::<Option<Vec<String>>>(), 0..3_usize), 0..5),
        ) {
            let id = id.map(Uuid::from_u128);
            let bytes = to_bytes(&Outcome::Applied(id)).unwrap();
            prop_assert!(matches!(from_bytes(&bytes), Some(Outcome::Applied(again)) if again == id));
            let messages = ["This field is required.", "Must be a date.", "The appointments service rejected this value."];
            let fault = |(field, message): (_, usize)| InputFault { field, message: messages[message] };
            let faults: Vec<_> = faults.into_iter().map(fault).collect();
            if let Some(bytes) = to_bytes(&Outcome::Rejected(faults.as_slice().into())) {
                prop_assert!(matches!(from_bytes(&bytes), Some(Outcome::Rejected(again)) if *again == *faults));
            }
        }

        #[test]
        fn foreign_bytes_never_panic(bytes: Vec<u8>) {
            let _ = from_bytes(&bytes);
        }
    }
}
