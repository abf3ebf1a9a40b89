//! Rejected callers, counted and logged.

use crate::{credentials::rejection::Rejection, metrics::metrics};

/// Counts and logs `rejection`.
pub(crate) fn counted(rejection: Rejection) -> Rejection {
    metrics().rejected_callers.count(rejection.reason());
    tracing::debug!(reason = rejection.reason(), "caller rejected");
    rejection
}
