//! `admin.*`: the listener for probes and metrics.

use std::net::SocketAddr;

/// `admin.*`: the address that serves health checks and metrics.
#[derive(Debug, Clone, Default)]
pub struct AdminConfig {
    /// `admin.listen`
    pub listen: Option<SocketAddr>,
}
