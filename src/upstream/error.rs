//! What can go wrong between the gateway and the upstream, in words for us.
//!
//! The texts are for the log: they may name statuses, never bodies, tokens or personal data. What a client sees is
//! made of these in one place, [`crate::error`].

use std::{sync::Arc, time::Duration};

use thiserror::Error;

use crate::error::limit::Limit;

/// Why the upstream gave no appointment. Cheap to clone, since all who wait for one call share its outcome.
#[derive(Debug, Clone, Error)]
pub enum UpstreamError {
    /// 401: the credential is missing, expired or invalid.
    #[error("the upstream did not accept the credential (401)")]
    Unauthenticated,
    /// The gateway has no token of its own to ask with: nothing was sent.
    #[error("the gateway has no token of its own: {0}")]
    NoServiceToken(Arc<str>),
    /// 401 to the gateway's own token, and to a fresh one if there could be one.
    #[error("the upstream did not accept the gateway's own token (401)")]
    ServiceTokenRefused,
    /// 403: the caller may not see this appointment.
    #[error("the upstream forbade access (403)")]
    Forbidden,
    /// 404 where an appointment has to be: it is to be changed or watched.
    #[error("the upstream knows no appointment by this id (404)")]
    NotFound,
    /// 409: the appointment is not in a state that allows the change.
    #[error("the change conflicts with the state of the appointment (409)")]
    Conflict,
    /// A change was sent and its answer was lost or could not be read: it may have happened.
    #[error("the outcome of a change is unknown: {0}")]
    OutcomeUnknown(Arc<str>),
    /// 429, with what `Retry-After` said.
    #[error("the upstream limits the rate (429)")]
    RateLimited {
        /// How long to wait, where the upstream said so.
        retry_after: Option<Duration>,
    },
    /// 5xx: the upstream, or the load balancer before it, failed.
    #[error("the upstream failed ({status})")]
    Failed {
        /// The status.
        status: u16,
        /// How long to wait, where the upstream said so.
        retry_after: Option<Duration>,
    },
    /// 5xx in answer to a change, which may have been made all the same.
    #[error("the upstream failed while it was asked for a change ({status})")]
    ChangeFailed {
        /// The status.
        status: u16,
    },
    /// A status that the API does not promise, a redirect among them.
    #[error("the upstream answered with an unexpected status ({status})")]
    UnexpectedStatus {
        /// The status.
        status: u16,
    },
    /// No connection could be made: nothing was sent.
    #[error("the upstream could not be reached: {0}")]
    Unreachable(Arc<str>),
    /// The connection broke after something was sent, before the answer was whole.
    #[error("the connection to the upstream broke: {0}")]
    Broken(Arc<str>),
    /// Nothing was sent, since too many calls of the route have failed of late.
    #[error("the circuit breaker of the route is open")]
    BreakerOpen {
        /// When the next call may be let through.
        retry_after: Duration,
    },
    /// One attempt took longer than `upstream.timeout`.
    #[error("the upstream took longer than upstream.timeout")]
    AttemptTimeout,
    /// Who asked stopped waiting: the operation's deadline passed first.
    #[error("the deadline of the operation passed")]
    DeadlinePassed,
    /// There is no room for more, or the caller has its share of it.
    #[error("there is no more room under {limit}, all told or for this caller")]
    Overloaded {
        /// The key of the bound that there is no room under.
        limit: Limit,
    },
    /// This machine ran out of open files, local ports or memory: nothing is known of the upstream.
    #[error("this machine has no resources for a call: open files, local ports or memory")]
    Exhausted {
        /// Whether the request may have been sent.
        is_sent: bool,
    },
    /// The answer is larger than `upstream.max_response`.
    #[error("the upstream's answer is larger than upstream.max_response")]
    TooLarge,
    /// The answer is not what the API promises.
    #[error("the upstream's answer cannot be used: {0}")]
    Invalid(&'static str),
    /// The task that carried the call ended without an outcome: a fault of ours.
    #[error("the call ended without an outcome")]
    Lost,
}

/// The copies that a failed read ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revocation {
    /// None: the upstream did not say anything about the resource.
    Nothing,
    /// Those of the resource that was read.
    Resource,
    /// All of the caller: the credential is not accepted.
    Everything,
}

impl UpstreamError {
    /// The copies that a read ends which failed so. Only an outage leaves them as they are; every other answer is definite.
    pub fn revocation(&self) -> Revocation {
        match self {
            Self::Unauthenticated | Self::ServiceTokenRefused => Revocation::Everything,
            // A fault of the gateway, not an answer.
            Self::Lost => Revocation::Nothing,
            _ if self.is_outage() => Revocation::Nothing,
            _ => Revocation::Resource,
        }
    }

    /// Whether the upstream, or the way to it, is down or too busy: no connection, a broken connection, a truncated body, a
    /// timeout, 408, 429, 5xx, an open breaker, no free slot. The last known copy is as good as it was.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::NoServiceToken(_)
            | Self::RateLimited { .. }
            | Self::Failed { .. }
            | Self::UnexpectedStatus { status: 408 }
            | Self::Unreachable(_)
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
            | Self::Lost => false,
        }
    }

    /// Whether a subscription ends with this error. Others are waited out.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Unauthenticated | Self::Forbidden | Self::NotFound)
    }

    /// Whether the error is of the caller's making: a caller can cause it at will, and it says nothing about the upstream.
    pub fn is_of_caller(&self) -> bool {
        matches!(
            self,
            Self::Unauthenticated
                | Self::Forbidden
                | Self::NotFound
                | Self::Conflict
                | Self::RateLimited { .. }
                | Self::DeadlinePassed
                | Self::Overloaded { .. }
        )
    }

    /// Whether a call that ended so speaks against the upstream's health: it failed, or there was no answer. A refusal is
    /// an answer.
    pub(crate) fn is_failure(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::Unreachable(_) | Self::Broken(_) | Self::AttemptTimeout)
    }

    /// Whether a second call may well fare better: no connection, no answer in time, a load balancer without a healthy
    /// server (502, 503, 504), a limit on the rate. A 500 is what the application made of this very request.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Failed { status, .. } => matches!(status, 502..=504),
            Self::RateLimited { .. } | Self::Unreachable(_) | Self::Broken(_) | Self::AttemptTimeout => true,
            _ => false,
        }
    }

    /// How long the upstream wants to be left alone, where it said so.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } | Self::Failed { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What this says of a change: it is told apart whether anything was sent.
    pub(crate) fn of_change(self) -> Self {
        match self {
            Self::Failed { status, .. } => Self::ChangeFailed { status },
            Self::Broken(_)
            | Self::Exhausted { is_sent: true }
            | Self::AttemptTimeout
            | Self::TooLarge
            | Self::Invalid(_) => Self::OutcomeUnknown(self.to_string().into()),
            told => told,
        }
    }

    /// The word under which a call that ended so is counted.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Unauthenticated | Self::ServiceTokenRefused => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::RateLimited { .. } => "rate_limited",
            Self::Failed { .. } | Self::ChangeFailed { .. } => "failed",
            Self::UnexpectedStatus { .. } => "unexpected",
            Self::Unreachable(_) | Self::Broken(_) => "unreachable",
            Self::AttemptTimeout => "timeout",
            Self::TooLarge | Self::Invalid(_) | Self::OutcomeUnknown(_) => "invalid",
            // None of them comes of a call that was made.
            Self::NoServiceToken(_)
            | Self::BreakerOpen { .. }
            | Self::DeadlinePassed
            | Self::Overloaded { .. }
            | Self::Exhausted { .. }
            | Self::Lost => "abandoned",
        }
    }
}
