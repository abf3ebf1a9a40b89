//! `sandbox.*`: the built-in upstream.

use std::time::Duration;

/// The client id that the sandbox's token endpoint accepts.
pub const CLIENT_ID: &str = "sandbox-client";
/// The client secret of [`CLIENT_ID`]. It protects made-up data only.
pub const CLIENT_SECRET: &str = "sandbox-secret";

/// `sandbox.*`: the built-in upstream with made-up data.
#[derive(Debug, Clone, Default)]
pub struct SandboxConfig {
    /// `sandbox.enabled`
    pub enabled: bool,
    /// The other keys of `sandbox.*`
    pub faults: FaultConfig,
}

/// Faults that the sandbox injects, for tests of a client's error handling.
///
/// They are derived from a counter of the requests, so the same requests in the same order meet the same faults. The
/// percentages add up; above a sum of 100, the fields take precedence in their order.
#[derive(Debug, Clone, Default)]
pub struct FaultConfig {
    /// `sandbox.latency`. It is added after the request is processed, so a client that gives up on a change may find it
    /// applied.
    pub latency: Duration,
    /// `sandbox.error_percent`: 500, 502 or 503 without processing, as HTML or without a body, like a load balancer's.
    pub error_percent: u8,
    /// `sandbox.garbage_percent`: 200 after processing, with a body that is not JSON.
    pub garbage_percent: u8,
    /// `sandbox.cut_percent`: a response that is truncated in the middle of its body, after processing.
    pub cut_percent: u8,
    /// `sandbox.rate_limit`: requests per minute and token before a 429 with `Retry-After`; 0 means no limit.
    pub rate_limit: u32,
}
