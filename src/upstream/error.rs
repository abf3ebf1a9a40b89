//! What can go wrong between the gateway and the upstream, in words for us.
//!
//! The texts are for the log: they may name statuses, never bodies, tokens or personal data. What a client sees is
//! made of these in one place, [`crate::graphql::error`].

use std::{sync::Arc, time::Duration};

use thiserror::Error;

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
    /// No connection could be made, or it broke before the answer was whole.
    #[error("the upstream could not be reached: {0}")]
    Unreachable(Arc<str>),
    /// One attempt took longer than `upstream.timeout`.
    #[error("the upstream took longer than upstream.timeout")]
    AttemptTimeout,
    /// Who asked stopped waiting: the operation's deadline passed first.
    #[error("the deadline of the operation passed")]
    DeadlinePassed,
    /// More calls wait already than `upstream.max_waiting` allows.
    #[error("more calls to the upstream wait than upstream.max_waiting allows")]
    Overloaded,
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
