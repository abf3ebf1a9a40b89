//! The translation of upstream faults into errors that clients see.

use super::error::UpstreamError;
use crate::error::{
    ApiError,
    limit::{Limit, LimitExceeded},
};

/// The one translation of what went wrong upstream into what a client is told.
impl From<UpstreamError> for ApiError {
    fn from(error: UpstreamError) -> Self {
        match error {
            UpstreamError::Unauthenticated => Self::Unauthenticated(
                "The appointments service did not accept the token: it is invalid or has expired.".into(),
            ),
            // Nothing that the caller could do about it.
            UpstreamError::NoServiceToken(_) | UpstreamError::ServiceTokenRefused => {
                Self::UpstreamUnavailable { retry_after: None }
            }
            UpstreamError::Forbidden => Self::Forbidden,
            UpstreamError::NotFound => Self::NotFound,
            UpstreamError::Conflict => Self::Conflict,
            UpstreamError::OutcomeUnknown(_) => Self::OutcomeUnknown,
            UpstreamError::RateLimited { retry_after } => Self::RateLimited { retry_after },
            UpstreamError::Failed { retry_after, .. } => Self::UpstreamUnavailable { retry_after },
            UpstreamError::BreakerOpen { retry_after } => {
                Self::UpstreamUnavailable { retry_after: Some(retry_after) }
            }
            UpstreamError::Unreachable(_) | UpstreamError::Broken(_) => {
                Self::UpstreamUnavailable { retry_after: None }
            }
            UpstreamError::ChangeFailed { .. } => Self::ChangeFailed,
            UpstreamError::AttemptTimeout | UpstreamError::DeadlinePassed => Self::UpstreamTimeout,
            UpstreamError::UnexpectedStatus { .. } | UpstreamError::TooLarge | UpstreamError::Invalid(_) => {
                Self::UpstreamInvalidResponse(
                    "The appointments service answered with something that cannot be used.",
                )
            }
            UpstreamError::Overloaded { limit } => LimitExceeded::at_capacity(limit),
            UpstreamError::Exhausted { .. } => LimitExceeded::at_capacity(Limit::SystemResources),
            UpstreamError::Lost => Self::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_fault_of_the_upstream_has_its_code() {
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
            (UpstreamError::Lost, "INTERNAL"),
        ] {
            let error = ApiError::from(fault);
            assert_eq!(error.code().as_str(), code);
            assert!(!error.message().contains("host.internal"), "a client learns nothing of the upstream");
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
