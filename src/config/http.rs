//! `http.*`: the HTTP server.

use std::time::Duration;

use bytesize::ByteSize;

/// `http.statuses`: the edition of GraphQL over HTTP that determines the statuses of responses in
/// `application/graphql-response+json`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StatusEdition {
    /// September 2026
    #[default]
    Edition2026,
    /// The drafts up to 2025.
    Edition2025,
}

/// `http.*`: statuses, CORS, connections, timeouts and graceful shutdown.
#[derive(Debug, Clone, Default)]
pub struct HttpConfig {
    /// `http.statuses`
    pub statuses: StatusEdition,
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
    /// `http.body_timeout`
    pub body_timeout: Duration,
    /// `http.drain_delay`
    pub drain_delay: Duration,
    /// `http.drain_deadline`
    pub drain_deadline: Duration,
}
