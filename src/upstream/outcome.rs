//! The outcome of a call to the upstream, as metrics and the circuit breaker see it.

/// The outcome of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    /// The expected response.
    Ok,
    /// 401.
    Unauthenticated,
    /// 403.
    Forbidden,
    /// 404 or 410.
    NotFound,
    /// 409.
    Conflict,
    /// 422: the upstream rejected the input.
    Rejected,
    /// 429.
    RateLimited,
    /// 5xx.
    Failed,
    /// Any other status.
    Unexpected,
    /// No connection, or a broken one.
    Unreachable,
    /// No response within `upstream.timeout`.
    Timeout,
    /// A response that cannot be decoded.
    Invalid,
    /// The attempt was given up, or never sent.
    Abandoned,
}

impl CallOutcome {
    /// All outcomes.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 13] = [
        Self::Ok,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::Conflict,
        Self::Rejected,
        Self::RateLimited,
        Self::Failed,
        Self::Unexpected,
        Self::Unreachable,
        Self::Timeout,
        Self::Invalid,
        Self::Abandoned,
    ];

    /// The value of a metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Rejected => "rejected",
            Self::RateLimited => "rate_limited",
            Self::Failed => "failed",
            Self::Unexpected => "unexpected",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Invalid => "invalid",
            Self::Abandoned => "abandoned",
        }
    }

    /// The evidence about the upstream's health. A rejection is a response, so it counts as healthy; an abandoned
    /// attempt says nothing.
    pub(crate) fn health(self) -> Health {
        match self {
            Self::Failed | Self::Unreachable | Self::Timeout => Health::Unhealthy,
            Self::Abandoned => Health::Unknown,
            Self::Ok
            | Self::Unauthenticated
            | Self::Forbidden
            | Self::NotFound
            | Self::Conflict
            | Self::Rejected
            | Self::RateLimited
            | Self::Unexpected
            | Self::Invalid => Health::Healthy,
        }
    }
}

/// The evidence of one attempt about the upstream's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// The upstream responded.
    Healthy,
    /// The upstream failed or did not respond.
    Unhealthy,
    /// No evidence.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::metrics;

    #[test]
    fn every_outcome_has_a_counter() {
        let text = metrics().text();
        for outcome in CallOutcome::ALL {
            let series = format!("gateway_upstream_calls_total{{outcome=\"{}\"}}", outcome.label());
            assert!(text.contains(&series), "{series}");
        }
    }
}
