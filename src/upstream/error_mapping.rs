//! The translation of upstream errors into client errors: error codes, messages and `Retry-After`, a 429 included.

use super::error::UpstreamError;
use crate::error::{
    ApiError,
    limit::{Limit, LimitExceeded},
};

/// The only place where an upstream error becomes a client error.
impl From<UpstreamError> for ApiError {
    fn from(error: UpstreamError) -> Self {
        match error {
            UpstreamError::Unauthenticated => Self::Unauthenticated(
                "The appointments service rejected the token: it is invalid or has expired. Send a new token.".into(),
            ),
            // The caller's credential is valid, so these are not `UNAUTHENTICATED`.
            UpstreamError::NoServiceToken(_) => Self::IdentityUnavailable(
                "The gateway could not get its own token for the appointments service. Retry later.".into(),
            ),
            UpstreamError::ServiceTokenRefused => Self::IdentityUnavailable(
                "The appointments service rejected the gateway's own token. Report this to the gateway's operator."
                    .into(),
            ),
            UpstreamError::Forbidden => Self::Forbidden,
            UpstreamError::NotFound => Self::NotFound,
            UpstreamError::Conflict => Self::Conflict,
            UpstreamError::OutcomeUnknown(_) => Self::OutcomeUnknown,
            UpstreamError::RateLimited { retry_after } => Self::RateLimited { retry_after },
            UpstreamError::Failed { retry_after, .. } => Self::UpstreamUnavailable { retry_after },
            UpstreamError::BreakerOpen { retry_after } => {
                Self::UpstreamUnavailable { retry_after: Some(retry_after) }
            }
            UpstreamError::Unreachable(_) | UpstreamError::Unprocessed(_) | UpstreamError::Broken(_) => {
                Self::UpstreamUnavailable { retry_after: None }
            }
            UpstreamError::ChangeFailed { .. } => Self::ChangeFailed,
            UpstreamError::AttemptTimeout | UpstreamError::DeadlinePassed => Self::UpstreamTimeout,
            UpstreamError::UnexpectedStatus { .. } | UpstreamError::TooLarge | UpstreamError::Invalid(_) => {
                Self::UpstreamInvalidResponse(
                    "The appointments service sent an invalid response. Report this to the gateway's operator.",
                )
            }
            UpstreamError::Overloaded { limit } => LimitExceeded::at_capacity(limit),
            UpstreamError::Exhausted { .. } => LimitExceeded::at_capacity(Limit::SystemResources),
            UpstreamError::KeyOfOtherRequest => Self::key_of_other_request(),
            UpstreamError::Lost => Self::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_upstream_error_has_its_code() {
        let wait = Some(Duration::from_millis(1500));
        for (fault, code) in [
            (UpstreamError::Unauthenticated, "UNAUTHENTICATED"),
            (UpstreamError::NoServiceToken("host.internal".into()), "UPSTREAM_UNAVAILABLE"),
            (UpstreamError::ServiceTokenRefused, "UPSTREAM_UNAVAILABLE"),
            (UpstreamError::Forbidden, "FORBIDDEN"),
            (UpstreamError::NotFound, "NOT_FOUND"),
            (UpstreamError::Conflict, "CONFLICT"),
            (UpstreamError::OutcomeUnknown("host.internal".into()), "OUTCOME_UNKNOWN"),
            (UpstreamError::RateLimited { retry_after: wait }, "RATE_LIMITED"),
            (UpstreamError::Failed { status: 503, retry_after: wait }, "UPSTREAM_UNAVAILABLE"),
            (UpstreamError::Unreachable("host.internal refused".into()), "UPSTREAM_UNAVAILABLE"),
            (UpstreamError::Unprocessed("host.internal refused".into()), "UPSTREAM_UNAVAILABLE"),
            (UpstreamError::Broken("host.internal reset".into()), "UPSTREAM_UNAVAILABLE"),
            (UpstreamError::BreakerOpen { retry_after: Duration::ZERO }, "UPSTREAM_UNAVAILABLE"),
            (UpstreamError::ChangeFailed { status: 502 }, "UPSTREAM_UNAVAILABLE"),
            (UpstreamError::AttemptTimeout, "UPSTREAM_TIMEOUT"),
            (UpstreamError::DeadlinePassed, "UPSTREAM_TIMEOUT"),
            (UpstreamError::UnexpectedStatus { status: 302 }, "UPSTREAM_INVALID_RESPONSE"),
            (UpstreamError::TooLarge, "UPSTREAM_INVALID_RESPONSE"),
            (UpstreamError::Invalid("it is not JSON"), "UPSTREAM_INVALID_RESPONSE"),
            (UpstreamError::Overloaded { limit: Limit::UpstreamQueue }, "OVERLOADED"),
            (UpstreamError::Exhausted { is_sent: false }, "OVERLOADED"),
            (UpstreamError::KeyOfOtherRequest, "BAD_USER_INPUT"),
            (UpstreamError::Lost, "INTERNAL"),
        ] {
            let error = ApiError::from(fault);
            assert_eq!(error.code().as_str(), code);
            assert!(!error.message().contains("host.internal"), "messages name no upstream host");
        }
        for fault in [
            UpstreamError::RateLimited { retry_after: wait },
            UpstreamError::Failed { status: 503, retry_after: wait },
            UpstreamError::BreakerOpen { retry_after: Duration::from_millis(1500) },
        ] {
            assert_eq!(ApiError::from(fault).extensions().get("retryAfterSeconds"), Some(&2.into()));
        }
    }
}
