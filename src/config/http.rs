//! `http.*`: the HTTP server.

use std::time::Duration;

use bytesize::ByteSize;

/// `http.*`: CORS, connections, timeouts and graceful shutdown.
#[derive(Debug, Clone, Default)]
pub struct HttpConfig {
    /// `http.origins`, each as in the `Origin` header of a browser
    pub origins: Vec<String>,
    /// `http.compression`
    pub compression: bool,
    /// `http.deadline`
    pub deadline: Duration,
    /// `http.max_connections`
    pub max_connections: usize,
    /// `http.write_timeout`
    pub write_timeout: Duration,
    /// `http.send_timeout`
    pub send_timeout: Duration,
    /// `http.max_response_memory`
    pub max_response_memory: ByteSize,
    /// `http.header_timeout`
    pub header_timeout: Duration,
    /// `http.idle_timeout`
    pub idle_timeout: Duration,
    /// `http.body_timeout`
    pub body_timeout: Duration,
    /// `http.drain_delay`
    pub drain_delay: Duration,
    /// `http.drain_deadline`
    pub drain_deadline: Duration,
}
