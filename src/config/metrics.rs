//! `metrics.*`: the metrics endpoint.

use std::net::SocketAddr;

/// `metrics.*`: the addresses that serve metrics.
#[derive(Debug, Clone, Default)]
pub struct MetricsConfig {
    /// `metrics.enabled`
    pub enabled: bool,
    /// `metrics.listen`
    pub listen: Option<SocketAddr>,
}
