//! The command line: `--help` that reads as documentation, made of the same table as the configuration.

use clap::{Arg, ArgMatches, Command, builder::PossibleValuesParser};

use crate::config::{
    key::{Key, Kind},
    keys::KEYS,
    loader::Sources,
};

/// What the program was asked to do.
#[derive(Debug)]
pub enum Task {
    /// Serve the gateway.
    Serve(Sources),
    /// Serve the sandbox alone.
    Sandbox(Sources),
    /// Print the schema.
    Schema,
    /// Say whether the configuration is right and the upstream answers.
    Check(Sources),
    /// Make an API key for the caller by this name.
    ApiKey(String),
}

const ABOUT: &str = "A GraphQL gateway in front of the appointments REST API";

const LONG_ABOUT: &str = "\
A GraphQL gateway in front of the appointments REST API.

Clients ask for the fields that they want at /graphql, with their own bearer token. The gateway fetches each appointment \
with that token, once for all who ask with it at the same time, and remembers it for a while, for that token alone. Or \
it asks the upstream with a token of its own, and callers show API keys or JWTs (identity.mode).

Without an upstream it serves a built-in sandbox with made-up data: run it, open the page that it names, press play.";

const AFTER_HELP: &str = "\
Every setting can be given in three ways; a later one beats an earlier one:
  in a TOML file      --config gateway.toml    [cache]
                                               ttl = \"30s\"
  in the environment  GATEWAY_CACHE_TTL=30s
  as a flag           --cache-ttl 30s

Durations and sizes carry units: 250ms, 30s, 5m; 512B, 64KiB, 256MiB.

Exit codes: 0 done or drained, 1 failed while running (check: the upstream does not answer), 2 wrong usage or \
configuration, a port in use among it.";

/// Reads the command line. Prints help, version or what is wrong with it, and exits, where that is all there is to do.
pub fn parse() -> Task {
    // A variable that is no text may be anybody's, and is no reason to panic; one of ours fails by its value.
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    task(
        &command().get_matches(),
        std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect(),
    )
}

fn task(matches: &ArgMatches, environment: std::collections::BTreeMap<String, String>) -> Task {
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
        Some(("sandbox", matches)) => Task::Sandbox(sources(matches)),
        Some(("schema", _)) => Task::Schema,
        Some(("check", matches)) => Task::Check(sources(matches)),
        Some(("api-key", matches)) => Task::ApiKey(matches.get_one("name").cloned().unwrap_or_default()),
        Some((_, matches)) => Task::Serve(sources(matches)),
        None => Task::Serve(sources(matches)),
    }
}

fn command() -> Command {
    let all = || std::iter::once(config()).chain(KEYS.iter().filter_map(flag));
    let of_the_sandbox = KEYS.iter().filter(|key| {
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
                .about("Serve the built-in upstream alone, with faults on request")
                .long_about(
                    "Serve the built-in upstream alone: the appointments REST API with made-up data, for trying clients \
                     of it, a gateway among them. It keeps what is changed in memory.",
                )
                .args(std::iter::once(config()).chain(of_the_sandbox.filter_map(flag))),
        )
        .subcommand(Command::new("schema").about("Print the GraphQL schema (SDL)"))
        .subcommand(
            Command::new("check")
                .about("Check the configuration, and whether the upstream answers")
                .args(all()),
        )
        .subcommand(
            Command::new("api-key")
                .about("Make an API key for a caller, and the line for callers.api_keys_file")
                .long_about(
                    "Make an API key for a caller. The key is shown once, on standard error; on standard output is the line \
                     for callers.api_keys_file, which holds a digest: appointments-gateway api-key alice >> keys",
                )
                .arg(Arg::new("name").value_name("NAME").required(true).help("What the caller is called")),
        )
}

fn config() -> Arg {
    Arg::new("config")
        .long("config")
        .value_name("FILE")
        .help("The TOML file with the configuration [env: GATEWAY_CONFIG]")
}

fn flag(key: &Key) -> Option<Arg> {
    let long = key.flag()?;
    let mut default = if key.default.is_empty() { "none".to_owned() } else { key.default.to_owned() };
    if let Some(production) = key.production() {
        default = format!("{default}; in production {production}");
    }
    let arg = Arg::new(key.name)
        .long(long)
        .value_name(key.kind.placeholder())
        .help(format!("{} [default: {default}] [env: {}]", key.help, key.variable()))
        .help_heading(key.name.split_once('.').map_or("gateway", |(section, _)| section));
    Some(match key.kind {
        Kind::Switch => arg
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_parser(PossibleValuesParser::new(["true", "false"]))
            .hide_possible_values(true),
        Kind::Choice(words) => arg.value_parser(PossibleValuesParser::new(words)).hide_possible_values(true),
        _ => arg,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn flags_become_values_of_their_keys() {
        let matches =
            command().get_matches_from(["x", "serve", "--cache-ttl", "5s", "--graphiql=false", "--sandbox"]);
        let Task::Serve(sources) = task(&matches, Default::default()) else { panic!("that is serve") };
        let flag = |name: &'static str, value: &str| (name, value.to_owned());
        assert_eq!(
            sources.flags,
            [flag("cache.ttl", "5s"), flag("graphiql.enabled", "false"), flag("sandbox.enabled", "true")]
        );
        assert!(matches!(
            task(&command().get_matches_from(["x", "schema"]), Default::default()),
            Task::Schema
        ));
    }
}
