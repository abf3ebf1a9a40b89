//! The configuration. It is read once, and all errors are reported at once, before a port is bound.
//!
//! [`KEYS`](keys::KEYS) defines each key in one place: name, default, description and parser. Environment variables,
//! command-line flags, `--help` and the table in `docs/configuration.md` are derived from it. Each component receives its
//! own section of [`Config`].

pub mod admin;
pub mod auth;
pub mod cache;
pub mod changes;
pub mod documents;
pub mod graphql;
pub mod http;
pub mod ignored_variables;
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
pub mod shared;
pub mod upstream;
pub mod value;
pub mod warnings;
pub mod websocket;

use std::net::SocketAddr;

use self::{
    admin::AdminConfig,
    auth::{CallersConfig, IdentityConfig},
    cache::CacheConfig,
    changes::ChangesConfig,
    documents::DocumentsConfig,
    graphql::GraphqlConfig,
    http::HttpConfig,
    ignored_variables::IgnoredVariables,
    limits::Limits,
    live::LiveConfig,
    log::LogConfig,
    metrics::MetricsConfig,
    named_file::NamedFile,
    profile::Profile,
    rate_limit::RateLimitConfig,
    sandbox::SandboxConfig,
    shared::SharedConfig,
    upstream::UpstreamConfig,
    websocket::WebSocketConfig,
};

/// The whole configuration.
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
    /// `changes.*`
    pub changes: ChangesConfig,
    /// `live.*`
    pub live: LiveConfig,
    /// `websocket.*`
    pub websocket: WebSocketConfig,
    /// `limits.*`
    pub limits: Limits,
    /// `shared.*`
    pub shared: SharedConfig,
    /// `rate_limit.*`
    pub rate_limit: RateLimitConfig,
    /// `http.*`
    pub http: HttpConfig,
    /// `graphql.*`
    pub graphql: GraphqlConfig,
    /// `documents.*`
    pub documents: DocumentsConfig,
    /// `graphiql.enabled`
    pub graphiql: bool,
    /// `metrics.*`
    pub metrics: MetricsConfig,
    /// `admin.*`
    pub admin: AdminConfig,
    /// `log.*`
    pub log: LogConfig,
    /// The configuration file and all files that keys name.
    pub files: Vec<NamedFile>,
    /// Variables of the environment that look like settings and are none.
    pub ignored_variables: IgnoredVariables,
}
