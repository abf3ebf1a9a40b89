//! Metrics and logs of rejected callers.

use crate::{credentials::rejection::Rejection, metrics::metrics};

/// Counts and logs `rejection`, and returns it.
pub(crate) fn report(rejection: Rejection) -> Rejection {
    metrics().rejected_callers.count(rejection.reason());
    tracing::debug!(reason = rejection.reason(), "caller rejected");
    rejection
}
