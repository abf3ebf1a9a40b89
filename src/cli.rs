//! The command line. Its flags and `--help` are derived from the table of configuration keys.

use clap::{Arg, ArgAction, ArgMatches, Command, builder::PossibleValuesParser};

use crate::config::{
    key::{ConfigKey, ValueKind},
    keys::KEYS,
    loader::Sources,
};

/// The subcommand to run.
#[derive(Debug)]
pub enum Action {
    /// Serve the gateway.
    Serve(Sources),
    /// Serve the sandbox alone.
    Sandbox(Sources),
    /// Print the schema, or that of the subgraph.
    Schema {
        /// Whether to print the schema of the subgraph.
        federation: bool,
    },
    /// Check the configuration and the services it depends on.
    Check(Sources),
    /// Generate an API key for the caller with this name.
    ApiKey(String),
    /// Generate a key of the fleet.
    Key,
}

const ABOUT: &str = "A GraphQL gateway in front of the appointments REST API";

const LONG_ABOUT: &str = "\
A GraphQL gateway in front of the appointments REST API.

Clients send GraphQL operations to /graphql (http.path) with a bearer token. The gateway passes the token on to the upstream, or \
authenticates callers by JWT or API key and uses a token of its own (identity.mode). Concurrent requests for the same \
appointment share one upstream call, and results are cached per caller. Several gateways form a fleet with a Redis that \
they share (shared.url).

Without upstream.url it serves a built-in sandbox with made-up data. Start it, open the printed GraphiQL address and run \
a query.";

const AFTER_HELP: &str = "\
Each key can be set in three places; a later one overrides an earlier one:
  TOML file    --config gateway.toml    [cache]
                                        ttl = \"30s\"
  environment  GATEWAY_CACHE_TTL=30s (an empty variable counts as unset)
  flag         --cache-ttl 30s

Durations and sizes have units: 250ms, 30s, 5m; 512B, 64KiB, 256MiB.

Exit codes: 0 success or graceful shutdown; 1 runtime error (check: a service is not reachable); 2 invalid usage or \
configuration, or an address that cannot be bound.";

/// Parses the command line. Exits after printing the help, the version or a usage error.
pub fn parse() -> Action {
    // Variables of other programs may not be UTF-8. In a variable of the gateway, the replacement fails to parse.
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    action(
        &command().get_matches(),
        std::env::vars_os()
            // Templates of deployments set an empty variable where a value is missing.
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (text(name), text(value)))
            .collect(),
    )
}

fn action(matches: &ArgMatches, environment: std::collections::BTreeMap<String, String>) -> Action {
    let sources = |matches: &ArgMatches| Sources {
        file: matches.get_one::<String>("config").map(Into::into),
        environment: environment.clone(),
        flags: KEYS
            .iter()
            .filter_map(|key| {
                let value = matches.try_get_one::<String>(key.name).ok().flatten()?;
                Some((key.name, value.clone()))
            })
            .collect(),
    };
    match matches.subcommand() {
        Some(("sandbox", matches)) => Action::Sandbox(sources(matches)),
        Some(("schema", matches)) => Action::Schema { federation: matches.get_flag("federation") },
        Some(("check", matches)) => Action::Check(sources(matches)),
        Some(("api-key", matches)) => Action::ApiKey(matches.get_one("name").cloned().unwrap_or_default()),
        Some(("key", _)) => Action::Key,
        Some((_, matches)) => Action::Serve(sources(matches)),
        None => Action::Serve(sources(matches)),
    }
}

fn command() -> Command {
    let all = || std::iter::once(config()).chain(KEYS.iter().filter_map(flag));
    let sandbox_keys = KEYS.iter().filter(|key| {
        matches!(key.name, "listen" | "log.level" | "log.format")
            || (key.name.starts_with("sandbox.") && key.name != "sandbox.enabled")
    });
    Command::new("appointments-gateway")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .long_about(LONG_ABOUT)
        .after_help(AFTER_HELP)
        .args_conflicts_with_subcommands(true)
        .max_term_width(100)
        .args(all())
        .subcommand(Command::new("serve").about("Serve the gateway (the default)").after_help(AFTER_HELP).args(all()))
        .subcommand(
            Command::new("sandbox")
                .about("Serve only the built-in upstream, with optional faults")
                .long_about(
                    "Serve only the built-in upstream: the appointments REST API with made-up data, for testing clients \
                     such as this gateway. Changes are stored in memory.",
                )
                .args(std::iter::once(config()).chain(sandbox_keys.filter_map(flag))),
        )
        .subcommand(
            Command::new("schema").about("Print the GraphQL schema (SDL)").arg(
                Arg::new("federation")
                    .long("federation")
                    .action(ArgAction::SetTrue)
                    .help("Print the schema of the subgraph for composition (graphql.federation)"),
            ),
        )
        .subcommand(
            Command::new("check")
                .about(
                    "Validate the configuration and the trusted documents, and contact the upstream, the token endpoint, the JWKS \
                     URL and the shared Redis",
                )
                .args(all()),
        )
        .subcommand(
            Command::new("api-key")
                .about("Generate an API key and its line for callers.api_keys_file")
                .long_about(
                    "Generate an API key for a caller. The key is printed once, to standard error. The line for \
                     callers.api_keys_file, with a digest of the key, is printed to standard output: \
                     appointments-gateway api-key alice >> keys",
                )
                .arg(Arg::new("name").value_name("NAME").required(true).help("Name of the caller")),
        )
        .subcommand(
            Command::new("key").about("Generate a key of the fleet for shared.key_file").long_about(
                "Generate a key of the fleet. It is printed to standard output, as a line for shared.key_file. It is a secret: \
                 (umask 077; appointments-gateway key > shared.keys)",
            ),
        )
}

fn config() -> Arg {
    Arg::new("config")
        .long("config")
        .value_name("FILE")
        .help("Configuration file (TOML) [env: GATEWAY_CONFIG]")
}

fn flag(key: &ConfigKey) -> Option<Arg> {
    let long = key.flag()?;
    let mut default = if key.default.is_empty() { "none".to_owned() } else { key.default.to_owned() };
    if let Some(production) = key.production() {
        default = format!("{default}; in production: {production}");
    }
    let arg = Arg::new(key.name)
        .long(long)
        .value_name(key.kind.placeholder())
        .help(format!("{} [default: {default}] [env: {}]", key.help, key.variable()))
        .help_heading(key.name.split_once('.').map_or("gateway", |(section, _)| section));
    Some(match key.kind {
        ValueKind::Switch => arg
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_parser(PossibleValuesParser::new(["true", "false"]))
            .hide_possible_values(true),
        ValueKind::Choice(words) => {
            arg.value_parser(PossibleValuesParser::new(words)).hide_possible_values(true)
        }
        _ => arg,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn flags_set_the_values_of_their_keys() {
        let matches =
            command().get_matches_from(["x", "serve", "--cache-ttl", "5s", "--graphiql=false", "--sandbox"]);
        let Action::Serve(sources) = action(&matches, Default::default()) else { panic!("not serve") };
        let flag = |name: &'static str, value: &str| (name, value.to_owned());
        assert_eq!(
            sources.flags,
            [flag("cache.ttl", "5s"), flag("graphiql.enabled", "false"), flag("sandbox.enabled", "true")]
        );
        assert!(matches!(
            action(&command().get_matches_from(["x", "schema"]), Default::default()),
            Action::Schema { federation: false }
        ));
    }
}
