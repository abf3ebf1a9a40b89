//! `upstream.*`: the appointments REST API.

use std::{path::PathBuf, time::Duration};

use bytesize::ByteSize;
use url::Url;

/// `upstream.*`: URL, timeouts, retries and concurrency of upstream calls.
#[derive(Debug, Clone, Default)]
pub struct UpstreamConfig {
    /// `upstream.url`; `None` means the sandbox.
    pub url: Option<Url>,
    /// `upstream.ca_file`
    pub ca_file: Option<PathBuf>,
    /// `upstream.connect_timeout`
    pub connect_timeout: Duration,
    /// `upstream.timeout`
    pub timeout: Duration,
    /// `upstream.idle_timeout`
    pub idle_timeout: Duration,
    /// `upstream.max_connection_age`
    pub max_connection_age: Duration,
    /// `upstream.max_response`
    pub max_response: ByteSize,
    /// `upstream.max_concurrent`
    pub max_concurrent: usize,
    /// `upstream.max_waiting`
    pub max_waiting: usize,
    /// `upstream.caller_share`
    pub caller_share: usize,
    /// `upstream.retries`
    pub retries: u32,
    /// `upstream.retry_percent`
    pub retry_percent: u32,
    /// `upstream.max_paused`
    pub max_paused: usize,
    /// `upstream.hedge_percent`
    pub hedge_percent: u32,
    /// `upstream.breaker_*`
    pub breaker: BreakerConfig,
}

/// `upstream.breaker_*`: the circuit breakers.
#[derive(Debug, Clone, Copy, Default)]
pub struct BreakerConfig {
    /// `upstream.breaker_percent`
    pub percent: u64,
    /// `upstream.breaker_calls`
    pub calls: u64,
    /// `upstream.breaker_window`
    pub window: Duration,
    /// `upstream.breaker_pause`
    pub pause: Duration,
}
