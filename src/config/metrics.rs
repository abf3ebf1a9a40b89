//! `metrics.*`: the metrics endpoint.

use std::net::SocketAddr;

/// `metrics.*`: where what is counted can be read.
#[derive(Debug, Clone, Default)]
pub struct MetricsConfig {
    /// `metrics.enabled`
    pub enabled: bool,
    /// `metrics.listen`
    pub listen: Option<SocketAddr>,
}
