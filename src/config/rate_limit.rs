//! `rate_limit.*`: the token bucket of each caller.

/// `rate_limit.*`: how often each caller may ask.
#[derive(Debug, Clone, Default)]
pub struct RateLimitConfig {
    /// `rate_limit.per_second`; 0 is no limit.
    pub per_second: u32,
    /// `rate_limit.burst`
    pub burst: u32,
    /// `rate_limit.max_callers`
    pub max_callers: usize,
}
