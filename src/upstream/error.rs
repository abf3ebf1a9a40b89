//! Errors of calls to the upstream.
//!
//! The texts are for the log. They may name statuses, never bodies, tokens or personal data.
//! [`error_mapping`](super::error_mapping) translates them into client errors.

use std::{sync::Arc, time::Duration};

use thiserror::Error;

use super::outcome::CallOutcome;
use crate::error::limit::Limit;

/// A failed call. Cheap to clone, since all waiters of a coalesced call share its result.
#[derive(Debug, Clone, Error)]
pub enum UpstreamError {
    /// 401: the credential is missing, expired or invalid.
    #[error("the upstream did not accept the credential (401)")]
    Unauthenticated,
    /// The gateway has no service token. Nothing was sent.
    #[error("the gateway has no service token: {0}")]
    NoServiceToken(Arc<str>),
    /// 401 to the gateway's own token, and to a renewed one if available.
    #[error("the upstream did not accept the gateway's own token (401)")]
    ServiceTokenRefused,
    /// 403: the caller may not see this appointment.
    #[error("the upstream forbade access (403)")]
    Forbidden,
    /// The API's own 404 or 410 to an update, a cancellation or a watched appointment.
    #[error("the upstream has no appointment with this id (404)")]
    NotFound,
    /// 409: the state of the appointment does not allow the change.
    #[error("the change conflicts with the state of the appointment (409)")]
    Conflict,
    /// A change was sent, but its response was lost or could not be decoded. It may have been made.
    #[error("the outcome of a change is unknown: {0}")]
    OutcomeUnknown(Arc<str>),
    /// 429.
    #[error("the upstream limits the rate (429)")]
    RateLimited {
        /// The upstream's `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// 5xx: the upstream, or the load balancer before it, failed.
    #[error("the upstream failed ({status})")]
    Failed {
        /// The status.
        status: u16,
        /// The upstream's `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// 5xx to a change, which may have been made nevertheless.
    #[error("the upstream failed to make a change ({status})")]
    ChangeFailed {
        /// The status.
        status: u16,
    },
    /// A status that the API does not document, including redirects.
    #[error("the upstream responded with an unexpected status ({status})")]
    UnexpectedStatus {
        /// The status.
        status: u16,
    },
    /// No connection was established. Nothing was sent.
    #[error("the upstream could not be reached: {0}")]
    Unreachable(Arc<str>),
    /// The server refused the request, or closed its connection, and has certainly not processed it.
    #[error("the upstream did not process the request: {0}")]
    Unprocessed(Arc<str>),
    /// The connection broke before the response was complete.
    #[error("the connection to the upstream broke: {0}")]
    Broken(Arc<str>),
    /// The circuit breaker of the route is open. Nothing was sent.
    #[error("the circuit breaker of the route is open")]
    BreakerOpen {
        /// The time until the breaker admits a call.
        retry_after: Duration,
    },
    /// One attempt took longer than `upstream.timeout`.
    #[error("the upstream took longer than upstream.timeout")]
    AttemptTimeout,
    /// The operation's deadline passed first.
    #[error("the deadline of the operation passed")]
    DeadlinePassed,
    /// A limit is reached, in total or for this caller.
    #[error("{limit} is reached, in total or for this caller")]
    Overloaded {
        /// The configuration key of the limit.
        limit: Limit,
    },
    /// This machine ran out of open files, local ports or memory. This says nothing about the upstream.
    #[error("this machine is out of open files, local ports or memory")]
    Exhausted {
        /// Whether the request may have been sent.
        is_sent: bool,
    },
    /// The response exceeds `upstream.max_response`.
    #[error("the upstream's response exceeds upstream.max_response")]
    TooLarge,
    /// The response does not match the API.
    #[error("the upstream's response is invalid: {0}")]
    Invalid(&'static str),
    /// The idempotency key of a change belongs to another request. Nothing was sent.
    #[error("the idempotency key belongs to another request")]
    KeyOfOtherRequest,
    /// The task of the call ended without a result: a fault of the gateway.
    #[error("the call ended without a result")]
    Lost,
}

/// The copies that a failed read revokes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revocation {
    /// None.
    Nothing,
    /// The copies of the resource.
    Resource,
    /// All copies of the caller.
    Everything,
}

impl UpstreamError {
    /// Returns the scope of the revocation after a failed read. An outage revokes nothing; any other response is
    /// definite.
    pub fn revocation(&self) -> Revocation {
        match self {
            Self::Unauthenticated | Self::ServiceTokenRefused => Revocation::Everything,
            // Not a response.
            Self::Lost | Self::KeyOfOtherRequest => Revocation::Nothing,
            _ if self.is_outage() => Revocation::Nothing,
            _ => Revocation::Resource,
        }
    }

    /// Whether the upstream or the path to it is down or overloaded: no connection, a broken connection, a truncated
    /// body, a timeout, 408, 429, 5xx, an open breaker, no free slot. Stale copies may be served (stale-if-error).
    pub fn is_outage(&self) -> bool {
        match self {
            Self::NoServiceToken(_)
            | Self::RateLimited { .. }
            | Self::Failed { .. }
            | Self::UnexpectedStatus { status: 408 }
            | Self::Unreachable(_)
            | Self::Unprocessed(_)
            | Self::Broken(_)
            | Self::BreakerOpen { .. }
            | Self::AttemptTimeout
            | Self::DeadlinePassed
            | Self::Overloaded { .. }
            | Self::Exhausted { .. } => true,
            Self::Unauthenticated
            | Self::ServiceTokenRefused
            | Self::Forbidden
            | Self::NotFound
            | Self::Conflict
            | Self::OutcomeUnknown(_)
            | Self::ChangeFailed { .. }
            | Self::UnexpectedStatus { .. }
            | Self::TooLarge
            | Self::Invalid(_)
            | Self::KeyOfOtherRequest
            | Self::Lost => false,
        }
    }

    /// Whether the upstream blames the request (4xx), and has not applied a change by it (RFC 9110, section 15.5). A 408 leaves
    /// that unknown.
    pub(crate) fn is_client_error(&self) -> bool {
        matches!(self, Self::UnexpectedStatus { status: 400..=407 | 409..=499 })
    }

    /// Whether a subscription ends with this error. After other errors, polling continues.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Unauthenticated | Self::Forbidden | Self::NotFound)
    }

    /// Whether the caller caused the error. A caller can cause it at will, so it says nothing about the upstream's
    /// health.
    pub fn is_caused_by_caller(&self) -> bool {
        matches!(
            self,
            Self::Unauthenticated
                | Self::Forbidden
                | Self::NotFound
                | Self::Conflict
                | Self::RateLimited { .. }
                | Self::DeadlinePassed
                | Self::Overloaded { .. }
                | Self::KeyOfOtherRequest
        )
    }

    /// Whether a retry is likely to succeed: no connection, a timeout, a load balancer without a healthy server (502,
    /// 503, 504), a rate limit. A 500 is the application's response to this very request, so it is not retried.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Failed { status, .. } => matches!(status, 502..=504),
            Self::RateLimited { .. }
            | Self::Unreachable(_)
            | Self::Unprocessed(_)
            | Self::Broken(_)
            | Self::AttemptTimeout => true,
            _ => false,
        }
    }

    /// The upstream's `Retry-After`.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } | Self::Failed { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Converts an error of a call into the error of a change: if the change may have been made, the outcome is
    /// unknown.
    pub(crate) fn into_change_error(self) -> Self {
        match self {
            Self::Failed { status, .. } => Self::ChangeFailed { status },
            Self::Broken(_)
            | Self::Exhausted { is_sent: true }
            | Self::AttemptTimeout
            | Self::TooLarge
            | Self::Invalid(_) => Self::OutcomeUnknown(self.to_string().into()),
            other => other,
        }
    }

    /// The outcome of a call with this error.
    pub fn outcome(&self) -> CallOutcome {
        match self {
            Self::Unauthenticated | Self::ServiceTokenRefused => CallOutcome::Unauthenticated,
            Self::Forbidden => CallOutcome::Forbidden,
            Self::NotFound => CallOutcome::NotFound,
            Self::Conflict => CallOutcome::Conflict,
            Self::RateLimited { .. } => CallOutcome::RateLimited,
            Self::Failed { .. } | Self::ChangeFailed { .. } => CallOutcome::Failed,
            Self::UnexpectedStatus { .. } => CallOutcome::Unexpected,
            Self::Unreachable(_) | Self::Unprocessed(_) | Self::Broken(_) => CallOutcome::Unreachable,
            Self::AttemptTimeout => CallOutcome::Timeout,
            Self::TooLarge | Self::Invalid(_) | Self::OutcomeUnknown(_) => CallOutcome::Invalid,
            // These errors say nothing about the upstream.
            Self::NoServiceToken(_)
            | Self::BreakerOpen { .. }
            | Self::DeadlinePassed
            | Self::Overloaded { .. }
            | Self::Exhausted { .. }
            | Self::KeyOfOtherRequest
            | Self::Lost => CallOutcome::Abandoned,
        }
    }
}
