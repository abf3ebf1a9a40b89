//! The configuration: read once, every fault reported at once, before a port is bound.
//!
//! Each key stands once, in [`KEYS`]: its name, its default, what it is for, and how its text becomes a value. The
//! names of the environment variables and of the command-line flags, `--help`, and the table in
//! `docs/configuration.md` follow from it. A component receives its own slice of [`Config`].

mod identity;
mod keys;
mod load;
mod profile;
mod secret;
mod value;
mod warnings;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use bytesize::ByteSize;
use url::Url;

pub use identity::{CallersConfig, ClientCredentials, IdentityConfig, IdentityMode};
pub use keys::KEYS;
pub use load::{ConfigError, Fault, Sources};
pub use profile::Profile;
pub use secret::Secret;
pub use warnings::NamedFile;

use crate::sandbox::Faults;

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

/// `upstream.*`: the REST API and how it is called.
#[derive(Debug, Clone, Default)]
pub struct UpstreamConfig {
    /// `upstream.url`; none means the sandbox.
    pub url: Option<Url>,
    /// `upstream.ca_file`
    pub ca_file: Option<PathBuf>,
    /// `upstream.connect_timeout`
    pub connect_timeout: Duration,
    /// `upstream.timeout`
    pub timeout: Duration,
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

/// `upstream.breaker_*`: when calls of a route are not made any more, and for how long.
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

/// `sandbox.*`: the built-in upstream with made-up data.
#[derive(Debug, Clone, Default)]
pub struct SandboxConfig {
    /// `sandbox.enabled`
    pub enabled: bool,
    /// The rest of `sandbox.*`
    pub faults: Faults,
}

/// `cache.*`: what is remembered, for how long.
#[derive(Debug, Clone, Default)]
pub struct CacheConfig {
    /// `cache.size`
    pub size: ByteSize,
    /// `cache.ttl`
    pub ttl: Duration,
    /// `cache.absence_ttl`
    pub absence_ttl: Duration,
    /// `cache.list_ttl`
    pub list_ttl: Duration,
    /// `cache.list_size`
    pub list_size: ByteSize,
    /// `cache.answers_size`
    pub answers_size: ByteSize,
    /// `cache.stale_if_error`
    pub stale_if_error: Duration,
    /// `cache.stale_while_revalidate`
    pub stale_while_revalidate: Duration,
    /// `cache.caller_share`, in percent
    pub caller_share: u8,
}

/// `live.*`: how what is watched is looked after.
#[derive(Debug, Clone, Default)]
pub struct LiveConfig {
    /// `live.fast_interval`
    pub fast_interval: Duration,
    /// `live.slow_interval`
    pub slow_interval: Duration,
    /// `live.near`
    pub near: Duration,
    /// `live.max_watched`
    pub max_watched: usize,
    /// `live.max_subscribers`
    pub max_subscribers: usize,
    /// `live.max_subscriptions`
    pub max_subscriptions: usize,
    /// `live.caller_share`, in percent
    pub caller_share: u8,
    /// `live.max_event_streams`
    pub max_event_streams: usize,
    /// `live.keep_alive`
    pub keep_alive: Duration,
}

impl LiveConfig {
    /// How many appointments one caller may watch at once: its share of `live.max_watched`, rounded up.
    pub fn max_of_caller(&self) -> usize {
        (self.max_watched * usize::from(self.caller_share)).div_ceil(100)
    }
}

/// `websocket.*`: how many there may be, and how much goes over one.
#[derive(Debug, Clone, Default)]
pub struct WebSocketConfig {
    /// `websocket.init_timeout`
    pub init_timeout: Duration,
    /// `websocket.max_connections`
    pub max_connections: usize,
    /// `websocket.max_subscriptions`
    pub max_subscriptions: usize,
    /// `websocket.max_message`
    pub max_message: ByteSize,
    /// `websocket.init_max_message`
    pub init_max_message: ByteSize,
    /// `websocket.message_timeout`
    pub message_timeout: Duration,
    /// `websocket.messages_per_second`
    pub messages_per_second: u32,
    /// `websocket.max_partial`
    pub max_partial: ByteSize,
}

/// `limits.*`: how much one request may ask for, and how many are carried out at once.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// `limits.body`
    pub body: ByteSize,
    /// `limits.headers`
    pub headers: ByteSize,
    /// `limits.header_count`
    pub header_count: usize,
    /// `limits.uri`
    pub uri: ByteSize,
    /// `limits.token`
    pub token: ByteSize,
    /// `limits.query`
    pub query: ByteSize,
    /// `limits.tokens`
    pub tokens: usize,
    /// `limits.depth`
    pub depth: usize,
    /// `limits.fields`
    pub fields: usize,
    /// `limits.root_fields`
    pub root_fields: usize,
    /// `limits.aliases`
    pub aliases: usize,
    /// `limits.directives`
    pub directives: usize,
    /// `limits.cost`
    pub cost: usize,
    /// `limits.errors`
    pub errors: usize,
    /// `limits.ids`
    pub ids: usize,
    /// `limits.items`
    pub items: usize,
    /// `limits.answer`
    pub answer: ByteSize,
    /// `limits.operations`
    pub operations: usize,
    /// `limits.operations_waiting`
    pub operations_waiting: usize,
    /// `limits.operations_wait`
    pub operations_wait: Duration,
    /// `limits.caller_share`, in percent
    pub caller_share: usize,
}

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

/// `http.*`: who may ask, connections, clocks and the end.
#[derive(Debug, Clone, Default)]
pub struct HttpConfig {
    /// `http.origins`, each as browsers send it
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

/// `graphql.*`: what clients are told of the schema, and what is remembered of their queries.
#[derive(Debug, Clone, Default)]
pub struct GraphqlConfig {
    /// `graphql.introspection`
    pub introspection: bool,
    /// `graphql.suggestions`
    pub suggestions: bool,
    /// `graphql.documents_size`
    pub documents_size: ByteSize,
}

/// `metrics.*`: where what is counted can be read.
#[derive(Debug, Clone, Default)]
pub struct MetricsConfig {
    /// `metrics.enabled`
    pub enabled: bool,
    /// `metrics.listen`
    pub listen: Option<SocketAddr>,
}

/// `log.*`: what is written to standard error.
#[derive(Debug, Clone, Default)]
pub struct LogConfig {
    /// `log.level`
    pub level: LogLevel,
    /// `log.format`
    pub format: LogFormat,
    /// `log.buffer`
    pub buffer: ByteSize,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What must be looked into.
    Error,
    /// What went wrong outside the gateway, too.
    Warn,
    /// Start and stop, too.
    #[default]
    Info,
    /// Each request and each call to the upstream, too.
    Debug,
    /// Everything there is.
    Trace,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

impl Default for Config {
    /// Every key at its default in development.
    fn default() -> Self {
        Self::of(Profile::Development)
    }
}

impl Config {
    /// Every key at its default in `profile`.
    pub fn of(profile: Profile) -> Self {
        let mut config = Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            profile,
            upstream: UpstreamConfig::default(),
            identity: IdentityConfig::default(),
            callers: CallersConfig::default(),
            sandbox: SandboxConfig::default(),
            cache: CacheConfig::default(),
            live: LiveConfig::default(),
            websocket: WebSocketConfig::default(),
            limits: Limits::default(),
            rate_limit: RateLimitConfig::default(),
            http: HttpConfig::default(),
            graphql: GraphqlConfig::default(),
            graphiql: false,
            metrics: MetricsConfig::default(),
            log: LogConfig::default(),
            files: Vec::new(),
        };
        for key in KEYS {
            let read = (key.set)(&mut config, key.default_in(profile));
            // A test reads every default.
            debug_assert_eq!(read, Ok(()), "{}", key.name);
        }
        config
    }
}

/// One key of the configuration.
#[derive(Debug)]
pub struct Key {
    /// As in the file: `section.name`.
    pub name: &'static str,
    /// The default in development, written as a value in the file would be; empty for none.
    pub default: &'static str,
    /// What a value looks like.
    pub kind: Kind,
    /// What it is for, in a sentence or two.
    pub help: &'static str,
    set: fn(&mut Config, &str) -> Result<(), String>,
}

/// What the value of a [`Key`] looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `IP:PORT`
    Address,
    /// `http://` or `https://`
    Url,
    /// Some of `http://HOST` or `https://HOST`, with commas between them.
    Origins,
    /// Any text in one line.
    Text,
    /// Text that is printed nowhere: it has no flag, since others can see a command line.
    Secret,
    /// Some of the names of signature algorithms, with commas between them.
    Algorithms,
    /// A path.
    File,
    /// A path of a file that holds a secret.
    SecretFile,
    /// A number with a unit of time, or 0.
    Duration,
    /// A number of bytes with a unit.
    Size,
    /// A whole number.
    Count,
    /// `true` or `false`
    Switch,
    /// One of some words.
    Choice(&'static [&'static str]),
}

impl Key {
    /// The environment variable: `GATEWAY_SECTION_NAME`.
    pub fn variable(&self) -> String {
        format!("{}{}", load::VARIABLE_PREFIX, self.name.replace('.', "_").to_uppercase())
    }

    /// The command-line flag without its dashes: `section-name`; a section's `enabled` goes by the section's name. A
    /// secret has none.
    pub fn flag(&self) -> Option<String> {
        let name = self.name.strip_suffix(".enabled").unwrap_or(self.name);
        (self.kind != Kind::Secret).then(|| name.replace(['.', '_'], "-"))
    }
}

impl Kind {
    /// A word for the table and for `--help`.
    pub fn placeholder(self) -> &'static str {
        match self {
            Self::Address => "IP:PORT",
            Self::Url => "URL",
            Self::Origins => "ORIGINS",
            Self::Text => "TEXT",
            Self::Secret => "SECRET",
            Self::Algorithms => "ALGORITHMS",
            Self::File | Self::SecretFile => "FILE",
            Self::Duration => "DURATION",
            Self::Size => "SIZE",
            Self::Count => "N",
            Self::Switch => "BOOL",
            Self::Choice(_) => "WORD",
        }
    }
}
