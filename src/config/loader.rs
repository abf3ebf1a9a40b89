//! The layers of the configuration: defaults < profile < TOML file < environment < command line. Every fault of every
//! layer is found before any is reported.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use thiserror::Error;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Config,
    auth::{self, CallersConfig, IdentityConfig},
    cache::CacheConfig,
    graphql::GraphqlConfig,
    http::HttpConfig,
    key::{Key, Kind, VARIABLE_PREFIX},
    keys::KEYS,
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
use std::net::Ipv4Addr;

/// The variable that names the file, as `--config` does.
const FILE_VARIABLE: &str = "GATEWAY_CONFIG";

/// Where the configuration is read from: given, not taken from the process, so that a test can make them up.
#[derive(Debug, Default)]
pub struct Sources {
    /// The file that `--config` names.
    pub file: Option<PathBuf>,
    /// The environment. Variables of other programs are passed over.
    pub environment: BTreeMap<String, String>,
    /// Key names with the values that the command line gave them.
    pub flags: Vec<(&'static str, String)>,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Error)]
pub struct ConfigError(pub Vec<Fault>);

/// One thing that is wrong: where, what, and what to write instead. Values are not repeated, since one may be a secret
/// in the wrong place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// A line of the file, a variable, a flag or a key.
    pub place: String,
    /// What is wrong with it, and the fix.
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "the configuration has {count} {}:", if count == 1 { "fault" } else { "faults" })?;
        self.0.iter().try_for_each(|Fault { place, problem }| write!(f, "\n  {place}: {problem}"))
    }
}

impl Config {
    /// Reads all layers.
    ///
    /// # Errors
    /// Every fault of every layer; where there is none, every contradiction between keys.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let config = Self::read(sources, Profile::default())?;
        // Which profile it is, is known when every layer has been read; its defaults lie below them all.
        match config.profile {
            Profile::Development => Ok(config),
            profile @ Profile::Production => Self::read(sources, profile),
        }
    }

    /// Reads all layers over the defaults of `profile`.
    fn read(sources: &Sources, profile: Profile) -> Result<Self, ConfigError> {
        let mut loading = Loading { config: Self::of(profile), faults: Vec::new(), has_secret: false };
        let file = sources.file.clone().or_else(|| sources.environment.get(FILE_VARIABLE).map(PathBuf::from));
        if let Some(file) = file {
            loading.file(&file.display().to_string(), std::fs::read_to_string(&file));
            let is_secret = loading.has_secret;
            loading.config.files.push(NamedFile { name: "--config", path: file, is_secret });
        }
        loading.environment(&sources.environment);
        for (name, value) in &sources.flags {
            if let Some(key) = KEYS.iter().find(|key| key.name == *name) {
                loading.set(key, key.flag().map_or(key.name.to_owned(), |flag| format!("--{flag}")), value);
            }
        }
        if loading.faults.is_empty() { Ok(loading.config) } else { Err(ConfigError(loading.faults)) }
    }

    /// What is wrong with serving under this configuration, though each key by itself is right.
    ///
    /// # Errors
    /// Made-up data served to others without being asked for by name, or asked for beside a real upstream; intervals
    /// the wrong way round; a cache that may take all the memory for answers; a mode of identity without what it needs, or with what belongs to the other one.
    pub fn check_serving(&self) -> Result<(), ConfigError> {
        let mut faults = Vec::new();
        let mut fault = |place: &str, problem: &str| {
            faults.push(Fault { place: place.to_owned(), problem: problem.to_owned() });
        };
        if self.live.fast_interval > self.live.slow_interval {
            fault("live.fast_interval", "is longer than live.slow_interval; make it the shorter one");
        }
        let answers = self.cache.answers_size.as_u64() + self.limits.answer.as_u64();
        if self.http.max_response_memory.as_u64() < answers {
            fault(
                "http.max_response_memory",
                "is less than cache.answers_size and limits.answer together; raise it, or lower one of them, so that \
                 cached answers leave room for one that is being sent",
            );
        }
        match (&self.upstream.url, self.sandbox.enabled) {
            (Some(_), true) => fault(
                "sandbox.enabled",
                "is set beside upstream.url; set one of them: the sandbox's made-up data, or the real upstream",
            ),
            (None, false) if !self.listen.ip().is_loopback() => fault(
                "upstream.url",
                "is not set, and listen is an address that others can reach; set upstream.url, or say --sandbox to \
                 serve them the sandbox's made-up data",
            ),
            (None, false) if self.profile == Profile::Production => fault(
                "upstream.url",
                "is not set in production; set it, or say --sandbox to serve the sandbox's made-up data",
            ),
            _ => {}
        }
        for (place, problem) in auth::faults(&self.identity, &self.callers, self.upstream.url.is_none()) {
            fault(place, &problem);
        }
        if faults.is_empty() { Ok(()) } else { Err(ConfigError(faults)) }
    }
}

struct Loading {
    config: Config,
    faults: Vec<Fault>,
    /// Whether a secret itself has been set, not only named.
    has_secret: bool,
}

impl Loading {
    fn fault(&mut self, place: String, problem: impl Into<String>) {
        self.faults.push(Fault { place, problem: problem.into() });
    }

    fn set(&mut self, key: &Key, place: String, value: &str) {
        if let Err(problem) = (key.set)(&mut self.config, value) {
            self.fault(place, problem);
        }
        self.has_secret |= key.kind == Kind::Secret;
        let is_secret = key.kind == Kind::SecretFile;
        if is_secret || key.kind == Kind::File {
            let files = &mut self.config.files;
            // A later layer beats an earlier one.
            files.retain(|file| file.name != key.name);
            if !value.is_empty() {
                files.push(NamedFile { name: key.name, path: value.into(), is_secret });
            }
        }
    }

    fn file(&mut self, name: &str, text: std::io::Result<String>) {
        let text = match text {
            Ok(text) => text,
            Err(error) => {
                return self.fault(
                    name.to_owned(),
                    format!("cannot be read ({error}); name a readable TOML file with --config"),
                );
            }
        };
        let line = |offset: usize| text[..offset.min(text.len())].matches('\n').count() + 1;
        match DeTable::parse(&text) {
            Ok(table) => self.table(&|offset| format!("{name}:{}", line(offset)), "", table.get_ref()),
            Err(error) => {
                let offset = error.span().map_or(0, |span| span.start);
                self.fault(format!("{name}:{}", line(offset)), format!("is no TOML: {}", error.message()));
            }
        }
    }

    fn table(&mut self, place: &dyn Fn(usize) -> String, prefix: &str, table: &DeTable<'_>) {
        let mut members: Vec<(&Spanned<_>, &Spanned<DeValue<'_>>)> = table.iter().collect();
        members.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in members {
            let path = if prefix.is_empty() {
                name.get_ref().to_string()
            } else {
                format!("{prefix}.{}", name.get_ref())
            };
            let here = format!("{}: {path}", place(name.span().start));
            let known = KEYS.iter().find(|key| key.name == path);
            match (known, value.get_ref()) {
                (Some(key), DeValue::String(value)) => self.set(key, here, value),
                (Some(key), DeValue::Integer(value)) => self.set(key, here, &value.to_string()),
                (Some(key), DeValue::Boolean(value)) => self.set(key, here, &value.to_string()),
                (Some(key), _) => {
                    self.fault(
                        here,
                        format!(
                            "takes one value ({}), in quotes where it has a unit",
                            key.kind.placeholder()
                        ),
                    );
                }
                (None, DeValue::Table(table)) if is_section(&path) => self.table(place, &path, table),
                (None, _) => {
                    let nearest = nearest(&path, KEYS.iter().map(|key| key.name.to_owned()));
                    self.fault(here, format!("is no key of the gateway{nearest}; --help lists them all"));
                }
            }
        }
    }

    fn environment(&mut self, environment: &BTreeMap<String, String>) {
        for (name, value) in environment {
            if !name.starts_with(VARIABLE_PREFIX) || name == FILE_VARIABLE {
                continue;
            }
            match KEYS.iter().find(|key| key.variable() == *name) {
                Some(key) => self.set(key, name.clone(), value),
                None => {
                    let nearest = nearest(name, KEYS.iter().map(Key::variable));
                    self.fault(
                        name.clone(),
                        format!(
                            "is no variable of the gateway{nearest}; unset it. If an orchestrator injects it \
                             (Kubernetes does so for a Service named \"gateway\"), give that service another name"
                        ),
                    );
                }
            }
        }
    }
}

fn is_section(path: &str) -> bool {
    KEYS.iter().any(|key| key.name.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// "; did you mean …?", where a known name is close.
fn nearest(name: &str, known: impl Iterator<Item = String>) -> String {
    known
        .map(|known| (strsim::jaro_winkler(name, &known), known))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map_or(String::new(), |(_, known)| format!("; did you mean {known}?"))
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn faults_of_file(text: &str) -> Vec<String> {
        let mut loading = Loading { config: Config::default(), faults: Vec::new(), has_secret: false };
        loading.file("g.toml", Ok(text.to_owned()));
        loading.faults.iter().map(|Fault { place, problem }| format!("{place}: {problem}")).collect()
    }

    fn environment(variables: &[(&str, &str)]) -> Sources {
        let environment =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Sources { environment, ..Sources::default() }
    }

    #[test]
    fn every_default_is_read_and_within_its_own_bounds() {
        let mut config = Config::default();
        for key in KEYS {
            for profile in [Profile::Production, Profile::Development] {
                assert_eq!((key.set)(&mut config, key.default_in(profile)), Ok(()), "{}", key.name);
            }
        }
        assert_eq!(config.cache.ttl, Duration::from_secs(30));
    }

    #[test]
    fn a_later_layer_beats_an_earlier_one() {
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
    fn every_fault_of_a_file_is_reported_with_its_line_and_the_fix() {
        let faults = faults_of_file(
            "listen = \"nowhere\"\ncache.tll = \"5s\"\n[upstream]\nurl = \"http://a:secret@b\"\ntimeout = 5\n\n\
             [limits]\nids = [1]\n[surprise]\nx = 1\n",
        );
        assert_eq!(
            faults,
            [
                "g.toml:1: listen: is no address; write IP:PORT, such as 127.0.0.1:8080 or [::1]:8080",
                "g.toml:2: cache.tll: is no key of the gateway; did you mean cache.ttl?; --help lists them all",
                "g.toml:4: upstream.url: holds a user name or password; leave them out: each caller's own token is \
                 passed on",
                "g.toml:5: upstream.timeout: is no duration; write a number with a unit, such as 250ms, 30s or 5m",
                "g.toml:8: limits.ids: takes one value (N), in quotes where it has a unit",
                "g.toml:9: surprise: is no key of the gateway; --help lists them all",
            ]
        );
        assert_eq!(faults_of_file("a = = \"secret\"").len(), 1);
        assert!(!faults_of_file("a = = \"secret\"")[0].contains("secret"));
    }

    #[test]
    fn faults_of_all_layers_are_reported_together() {
        let mut sources = environment(&[("GATEWAY_CACHE_TTLL", "x"), ("GATEWAY_PORT", "tcp://10.0.0.1:80")]);
        sources.file = Some("/does/not/exist.toml".into());
        sources.flags = vec![("http.deadline", "0".to_owned())];
        let error = Config::load(&sources).unwrap_err().to_string();
        for part in [
            "4 faults",
            "/does/not/exist.toml: cannot be read",
            "mean GATEWAY_CACHE_TTL?",
            "GATEWAY_PORT",
            "--http-deadline",
        ] {
            assert!(error.contains(part), "{part} in {error}");
        }
    }

    #[test]
    fn made_up_data_is_served_to_others_only_when_asked_for_by_name() {
        let serving =
            |variables: &[(&str, &str)]| Config::load(&environment(variables)).unwrap().check_serving();
        let (open, url, named) = (
            ("GATEWAY_LISTEN", "0.0.0.0:80"),
            ("GATEWAY_UPSTREAM_URL", "http://a"),
            ("GATEWAY_SANDBOX_ENABLED", "true"),
        );
        assert!(serving(&[]).is_ok());
        assert!(serving(&[open]).is_err());
        assert!(serving(&[open, named]).is_ok());
        assert!(serving(&[open, url]).is_ok());
        assert!(serving(&[url, named]).is_err());
        let production = ("GATEWAY_PROFILE", "production");
        assert!(serving(&[production]).is_err());
        assert!(serving(&[production, named]).is_ok());
        assert!(serving(&[production, url]).is_ok());
    }

    proptest! {
        #[test]
        fn any_file_is_read_without_a_panic(text: String) {
            faults_of_file(&text);
        }

        #[test]
        fn any_values_under_known_names_are_read_without_a_panic(values in proptest::collection::vec("\\PC*", KEYS.len())) {
            let flags = KEYS.iter().map(|key| key.name).zip(values).collect();
            let _ = Config::load(&Sources { flags, ..Sources::default() });
        }
    }
}
