//! The configuration: read once, every fault reported at once, before a port is bound.
//!
//! Each key stands once, in [`KEYS`]: its name, its default, what it is for, and how its text becomes a value. The
//! names of the environment variables and of the command-line flags, `--help`, and the table in the README follow from
//! it. A component receives its own slice of [`Config`].

pub mod auth;
pub mod cache;
pub mod graphql;
pub mod http;
pub mod key;
pub mod keys;
pub mod limits;
pub mod live;
pub mod loader;
pub mod log;
pub mod metrics;
pub mod named_file;
pub mod profile;
pub mod rate_limit;
pub mod sandbox;
pub mod secret;
pub mod upstream;
pub mod value;
pub mod warnings;
pub mod websocket;

use std::net::SocketAddr;

use self::{
    auth::{CallersConfig, IdentityConfig},
    cache::CacheConfig,
    graphql::GraphqlConfig,
    http::HttpConfig,
    limits::Limits,
    live::LiveConfig,
    log::LogConfig,
    metrics::MetricsConfig,
    named_file::NamedFile,
    profile::Profile,
    rate_limit::RateLimitConfig,
    sandbox::SandboxConfig,
    upstream::UpstreamConfig,
    websocket::WebSocketConfig,
};

/// Everything that can be set.
#[derive(Debug, Clone)]
pub struct Config {
    /// `listen`
    pub listen: SocketAddr,
    /// `profile`
    pub profile: Profile,
    /// `upstream.*`
    pub upstream: UpstreamConfig,
    /// `identity.*`
    pub identity: IdentityConfig,
    /// `callers.*`
    pub callers: CallersConfig,
    /// `sandbox.*`
    pub sandbox: SandboxConfig,
    /// `cache.*`
    pub cache: CacheConfig,
    /// `live.*`
    pub live: LiveConfig,
    /// `websocket.*`
    pub websocket: WebSocketConfig,
    /// `limits.*`
    pub limits: Limits,
    /// `rate_limit.*`
    pub rate_limit: RateLimitConfig,
    /// `http.*`
    pub http: HttpConfig,
    /// `graphql.*`
    pub graphql: GraphqlConfig,
    /// `graphiql.enabled`
    pub graphiql: bool,
    /// `metrics.*`
    pub metrics: MetricsConfig,
    /// `log.*`
    pub log: LogConfig,
    /// The files that keys name, and the file of keys.
    pub files: Vec<NamedFile>,
}
