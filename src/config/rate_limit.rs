//! `rate_limit.*`: the token buckets of callers.

/// `rate_limit.*`: the rate limit per caller.
#[derive(Debug, Clone, Default)]
pub struct RateLimitConfig {
    /// `rate_limit.per_second`; 0 means no limit.
    pub per_second: u32,
    /// `rate_limit.burst`
    pub burst: u32,
    /// `rate_limit.max_callers`
    pub max_callers: usize,
}
