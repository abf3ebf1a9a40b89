//! The layers of the configuration: defaults < profile < TOML file < environment < command line. The errors of all layers
//! are reported together.

use std::{collections::BTreeMap, fmt, net::Ipv4Addr, path::PathBuf};

use thiserror::Error;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Config,
    admin::AdminConfig,
    auth::{self, CallersConfig, IdentityConfig},
    cache::CacheConfig,
    changes::ChangesConfig,
    documents::DocumentsConfig,
    graphql::GraphqlConfig,
    http::HttpConfig,
    ignored_variables::{self, IgnoredVariables},
    key::{ConfigKey, VARIABLE_PREFIX, ValueKind},
    keys::KEYS,
    limits::Limits,
    live::LiveConfig,
    log::LogConfig,
    metrics::MetricsConfig,
    named_file::NamedFile,
    profile::Profile,
    rate_limit::RateLimitConfig,
    sandbox::SandboxConfig,
    shared::SharedConfig,
    upstream::{self, UpstreamConfig},
    websocket::WebSocketConfig,
};

/// The environment variable equivalent to `--config`.
const FILE_VARIABLE: &str = "GATEWAY_CONFIG";

/// The sources of the configuration. They are passed in, not read from the process, so that tests can supply their own.
#[derive(Debug, Default)]
pub struct Sources {
    /// The file that `--config` names.
    pub file: Option<PathBuf>,
    /// The environment, without empty variables, which count as unset. Variables of other programs are ignored.
    pub environment: BTreeMap<String, String>,
    /// Names of keys with their values on the command line.
    pub flags: Vec<(&'static str, String)>,
}

/// All problems of a configuration.
#[derive(Debug, Error)]
pub struct ConfigError(pub Vec<ConfigProblem>);

/// A problem with its location and its fix. It does not repeat the value, which may be a misplaced secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// A line of the file, a variable, a flag or a key.
    pub location: String,
    /// The problem and its fix.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "the configuration has {count} {}:", if count == 1 { "error" } else { "errors" })?;
        self.0
            .iter()
            .try_for_each(|ConfigProblem { location, message }| write!(f, "\n  {location}: {message}"))
    }
}

impl Config {
    /// Reads all layers.
    ///
    /// # Errors
    /// The problems of all layers.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let config = Self::read(sources, Profile::default())?;
        // The profile is known only after all layers are read, but its defaults lie below them.
        match config.profile {
            Profile::Development => Ok(config),
            profile @ Profile::Production => Self::read(sources, profile),
        }
    }

    /// Reads all layers over the defaults of `profile`.
    fn read(sources: &Sources, profile: Profile) -> Result<Self, ConfigError> {
        let mut loader = Loader { config: Self::of(profile), problems: Vec::new(), has_secret: false };
        let file = sources.file.clone().or_else(|| sources.environment.get(FILE_VARIABLE).map(PathBuf::from));
        if let Some(file) = file {
            loader.read_file(&file.display().to_string(), std::fs::read_to_string(&file));
            let is_secret = loader.has_secret;
            loader.config.files.push(NamedFile { name: "--config", path: file, is_secret });
        }
        loader.read_environment(&sources.environment);
        for (name, value) in &sources.flags {
            if let Some(key) = KEYS.iter().find(|key| key.name == *name) {
                loader.set(key, key.flag().map_or(key.name.to_owned(), |flag| format!("--{flag}")), value);
            }
        }
        if loader.problems.is_empty() { Ok(loader.config) } else { Err(ConfigError(loader.problems)) }
    }

    /// Checks for contradictions between keys that are valid on their own.
    ///
    /// # Errors
    /// All contradictions: the sandbox next to a real upstream, or exposed without `--sandbox`; reversed intervals; a
    /// response cache without room for the responses being sent; incomplete or unused keys of the upstream's proxy and
    /// client certificate; missing or unused keys of the identity mode; a mode of trusted documents without documents;
    /// missing or unused keys of the shared Redis.
    pub fn check_serving(&self) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        let mut report = |key: &str, message: &str| {
            problems.push(ConfigProblem { location: key.to_owned(), message: message.to_owned() });
        };
        if self.live.fast_interval > self.live.slow_interval {
            report("live.fast_interval", "is longer than live.slow_interval; make it shorter");
        }
        let required = self.cache.answers_size.as_u64() + self.limits.answer.as_u64();
        if self.http.max_response_memory.as_u64() < required {
            report(
                "http.max_response_memory",
                "is less than the sum of cache.answers_size and limits.answer, so cached responses could leave no room for one \
                 that is being sent; raise it, or lower one of them",
            );
        }
        match (&self.upstream.url, self.sandbox.enabled) {
            (Some(_), true) => report(
                "sandbox.enabled",
                "is set together with upstream.url; set one of them, for made-up data or for a real upstream",
            ),
            (None, false) if !self.listen.ip().is_loopback() => report(
                "upstream.url",
                "is not set, and listen is not a loopback address; set upstream.url, or pass --sandbox to expose the \
                 sandbox's made-up data",
            ),
            (None, false) if self.profile == Profile::Production => report(
                "upstream.url",
                "is not set in production; set it, or pass --sandbox to serve the sandbox's made-up data",
            ),
            _ => {}
        }
        if self.http.path.is_root() && self.graphiql {
            report(
                "http.path",
                "is the path of GraphiQL too; write another path, or set graphiql.enabled to false",
            );
        }
        if let Some((key, message)) = self.documents.contradiction() {
            report(key, message);
        }
        for (key, message) in self.shared.contradictions() {
            report(key, &message);
        }
        let is_sandbox = self.upstream.url.is_none();
        let of_identity = auth::contradictions(&self.identity, &self.callers, is_sandbox);
        for (key, message) in upstream::contradictions(&self.upstream).into_iter().chain(of_identity) {
            report(key, &message);
        }
        if problems.is_empty() { Ok(()) } else { Err(ConfigError(problems)) }
    }
}

/// A configuration while its layers are read.
struct Loader {
    config: Config,
    problems: Vec<ConfigProblem>,
    /// Whether a secret was set directly, not through a file.
    has_secret: bool,
}

impl Loader {
    fn report(&mut self, location: String, message: impl Into<String>) {
        self.problems.push(ConfigProblem { location, message: message.into() });
    }

    fn set(&mut self, key: &ConfigKey, location: String, value: &str) {
        if let Err(message) = (key.set)(&mut self.config, value) {
            self.report(location, message);
        }
        self.has_secret |= key.kind == ValueKind::Secret;
        let is_secret = key.kind == ValueKind::SecretFile;
        if is_secret || key.kind == ValueKind::File {
            let files = &mut self.config.files;
            // A later layer overrides an earlier one.
            files.retain(|file| file.name != key.name);
            if !value.is_empty() {
                files.push(NamedFile { name: key.name, path: value.into(), is_secret });
            }
        }
    }

    fn read_file(&mut self, name: &str, text: std::io::Result<String>) {
        let text = match text {
            Ok(text) => text,
            Err(error) => {
                return self.report(
                    name.to_owned(),
                    format!("cannot be read ({error}); name a readable TOML file with --config"),
                );
            }
        };
        let line = |offset: usize| text[..offset.min(text.len())].matches('\n').count() + 1;
        match DeTable::parse(&text) {
            Ok(table) => self.read_table(&|offset| format!("{name}:{}", line(offset)), "", table.get_ref()),
            Err(error) => {
                let offset = error.span().map_or(0, |span| span.start);
                self.report(
                    format!("{name}:{}", line(offset)),
                    format!("is not valid TOML: {}", error.message()),
                );
            }
        }
    }

    fn read_table(&mut self, location: &dyn Fn(usize) -> String, prefix: &str, table: &DeTable<'_>) {
        let mut members: Vec<(&Spanned<_>, &Spanned<DeValue<'_>>)> = table.iter().collect();
        members.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in members {
            let path = if prefix.is_empty() {
                name.get_ref().to_string()
            } else {
                format!("{prefix}.{}", name.get_ref())
            };
            let member = format!("{}: {path}", location(name.span().start));
            let key = KEYS.iter().find(|key| key.name == path);
            match (key, value.get_ref()) {
                (Some(key), DeValue::String(value)) => self.set(key, member, value),
                (Some(key), DeValue::Integer(value)) => self.set(key, member, &value.to_string()),
                (Some(key), DeValue::Boolean(value)) => self.set(key, member, &value.to_string()),
                (Some(key), _) => {
                    self.report(
                        member,
                        format!(
                            "takes a single value ({}), in quotes if it has a unit",
                            key.kind.placeholder()
                        ),
                    );
                }
                (None, DeValue::Table(table)) if is_section(&path) => self.read_table(location, &path, table),
                (None, _) => {
                    let nearest = nearest(&path, KEYS.iter().map(|key| key.name.to_owned()));
                    self.report(
                        member,
                        format!("is not a configuration key{nearest}; --help lists all keys"),
                    );
                }
            }
        }
    }

    fn read_environment(&mut self, environment: &BTreeMap<String, String>) {
        for (name, value) in environment {
            let ignored = &mut self.config.ignored_variables;
            if ignored_variables::is_proxy(name) {
                ignored.proxies.push(name.clone());
            }
            if ignored_variables::is_service_link(name, value) {
                ignored.service_links.push(name.clone());
                continue;
            }
            if !name.starts_with(VARIABLE_PREFIX) || name == FILE_VARIABLE {
                continue;
            }
            match KEYS.iter().find(|key| key.variable() == *name) {
                Some(key) => self.set(key, name.clone(), value),
                None => {
                    let nearest = nearest(name, KEYS.iter().map(ConfigKey::variable));
                    self.report(name.clone(), format!("is not a configuration variable{nearest}; unset it"));
                }
            }
        }
    }
}

fn is_section(path: &str) -> bool {
    KEYS.iter().any(|key| key.name.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// Returns "; did you mean …?" if a known name is similar.
fn nearest(name: &str, known: impl Iterator<Item = String>) -> String {
    known
        .map(|known| (strsim::jaro_winkler(name, &known), known))
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map_or(String::new(), |(_, known)| format!("; did you mean {known}?"))
}

impl Default for Config {
    /// The defaults in development.
    fn default() -> Self {
        Self::of(Profile::Development)
    }
}

impl Config {
    /// Returns the defaults in `profile`.
    pub fn of(profile: Profile) -> Self {
        let mut config = Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            profile,
            upstream: UpstreamConfig::default(),
            identity: IdentityConfig::default(),
            callers: CallersConfig::default(),
            sandbox: SandboxConfig::default(),
            cache: CacheConfig::default(),
            changes: ChangesConfig::default(),
            live: LiveConfig::default(),
            websocket: WebSocketConfig::default(),
            limits: Limits::default(),
            rate_limit: RateLimitConfig::default(),
            shared: SharedConfig::default(),
            http: HttpConfig::default(),
            graphql: GraphqlConfig::default(),
            documents: DocumentsConfig::default(),
            graphiql: false,
            metrics: MetricsConfig::default(),
            admin: AdminConfig::default(),
            log: LogConfig::default(),
            files: Vec::new(),
            ignored_variables: IgnoredVariables::default(),
        };
        for key in KEYS {
            let result = (key.set)(&mut config, key.default_in(profile));
            // A test parses every default.
            debug_assert_eq!(result, Ok(()), "{}", key.name);
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn problems_of_file(text: &str) -> Vec<String> {
        let mut loader = Loader { config: Config::default(), problems: Vec::new(), has_secret: false };
        loader.read_file("g.toml", Ok(text.to_owned()));
        let problems = loader.problems.iter();
        problems.map(|ConfigProblem { location, message }| format!("{location}: {message}")).collect()
    }

    fn environment(variables: &[(&str, &str)]) -> Sources {
        let environment =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Sources { environment, ..Sources::default() }
    }

    #[test]
    fn every_default_is_valid() {
        let mut config = Config::default();
        for key in KEYS {
            for profile in [Profile::Production, Profile::Development] {
                assert_eq!((key.set)(&mut config, key.default_in(profile)), Ok(()), "{}", key.name);
            }
        }
        assert_eq!(config.cache.ttl, Duration::from_secs(30));
    }

    #[test]
    fn later_layers_override_earlier_ones() {
        let file = std::env::temp_dir().join(format!("gateway-{}.toml", uuid::Uuid::new_v4()));
        std::fs::write(&file, "[cache]\nttl = \"1s\"\nabsence_ttl = \"2s\"\n[limits]\nids = 7\n").unwrap();
        let mut sources =
            environment(&[("GATEWAY_CACHE_ABSENCE_TTL", "3s"), ("GATEWAY_LIMITS_IDS", "8"), ("PATH", "/")]);
        sources.file = Some(file.clone());
        sources.flags = vec![("limits.ids", "9".to_owned())];
        let config = Config::load(&sources).unwrap();
        std::fs::remove_file(file).unwrap();
        assert_eq!(
            (config.cache.ttl, config.cache.absence_ttl, config.limits.ids),
            (Duration::from_secs(1), Duration::from_secs(3), 9)
        );
    }

    #[test]
    fn all_problems_of_a_file_are_reported_with_line_and_fix() {
        let problems = problems_of_file(
            "listen = \"nowhere\"\ncache.tll = \"5s\"\n[upstream]\nurl = \"http://a:secret@b\"\ntimeout = 5\n\n\
             [limits]\nids = [1]\n[surprise]\nx = 1\n",
        );
        assert_eq!(
            problems,
            [
                "g.toml:1: listen: is not an address; write IP:PORT, such as 127.0.0.1:8080 or [::1]:8080",
                "g.toml:2: cache.tll: is not a configuration key; did you mean cache.ttl?; --help lists all keys",
                "g.toml:4: upstream.url: contains a user name or password; remove them: requests carry bearer \
                 tokens",
                "g.toml:5: upstream.timeout: is not a duration; write a number with a unit, such as 250ms, 30s or 5m",
                "g.toml:8: limits.ids: takes a single value (N), in quotes if it has a unit",
                "g.toml:9: surprise: is not a configuration key; --help lists all keys",
            ]
        );
        assert_eq!(problems_of_file("a = = \"secret\"").len(), 1);
        assert!(!problems_of_file("a = = \"secret\"")[0].contains("secret"));
    }

    #[test]
    fn problems_of_all_layers_are_reported_together() {
        let mut sources = environment(&[("GATEWAY_CACHE_TTLL", "x"), ("GATEWAY_PORT", "80")]);
        sources.file = Some("/does/not/exist.toml".into());
        sources.flags = vec![("http.deadline", "0".to_owned())];
        let error = Config::load(&sources).unwrap_err().to_string();
        for part in [
            "4 errors",
            "/does/not/exist.toml: cannot be read",
            "mean GATEWAY_CACHE_TTL?",
            "GATEWAY_PORT",
            "--http-deadline",
        ] {
            assert!(error.contains(part), "{part} in {error}");
        }
    }

    #[test]
    fn the_sandbox_is_exposed_only_when_enabled_explicitly() {
        let serving =
            |variables: &[(&str, &str)]| Config::load(&environment(variables)).unwrap().check_serving();
        let (exposed, url, sandbox) = (
            ("GATEWAY_LISTEN", "0.0.0.0:80"),
            ("GATEWAY_UPSTREAM_URL", "http://a"),
            ("GATEWAY_SANDBOX_ENABLED", "true"),
        );
        assert!(serving(&[]).is_ok());
        assert!(serving(&[exposed]).is_err());
        assert!(serving(&[exposed, sandbox]).is_ok());
        assert!(serving(&[exposed, url]).is_ok());
        assert!(serving(&[url, sandbox]).is_err());
        let production = ("GATEWAY_PROFILE", "production");
        assert!(serving(&[production]).is_err());
        assert!(serving(&[production, sandbox]).is_ok());
        assert!(serving(&[production, url]).is_ok());
    }

    proptest! {
        #[test]
        fn loading_a_file_never_panics(text: String) {
            problems_of_file(&text);
        }

        #[test]
        fn loading_values_of_known_keys_never_panics(values in proptest::collection::vec("\\PC*", KEYS.len())) {
            let flags = KEYS.iter().map(|key| key.name).zip(values).collect();
            let _ = Config::load(&Sources { flags, ..Sources::default() });
        }
    }
}
