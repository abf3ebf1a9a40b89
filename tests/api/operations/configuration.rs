//! Configuration and command line: all faults are reported at once, each with its place and its remedy, before the
//! gateway serves.

use std::{net::TcpListener, os::unix::ffi::OsStrExt as _};

use serde_json::json;

use crate::support::{FinishedRun, Gateway, TempFile, program};

/// A value that no message may repeat: it could be a misplaced secret.
const SECRET: &str = "hunter2";

/// Refused as faults of the configuration are, and every one of `told` is said.
#[track_caller]
fn assert_refused(ended: &FinishedRun, told: &[&str]) {
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert_eq!(ended.stdout, "", "nothing is announced that is not served");
    for part in told {
        assert!(ended.stderr.contains(part), "{part:?} in {}", ended.stderr);
    }
    assert!(ended.stderr.lines().count() <= 24, "more than a screen: {}", ended.stderr);
    assert!(!ended.stderr.contains("panicked") && !ended.stderr.contains(SECRET), "{}", ended.stderr);
}

async fn serve(arguments: &[&str], settings: &[(&str, &str)]) -> FinishedRun {
    FinishedRun::of(program(&[&["serve"], arguments].concat(), settings)).await
}

#[tokio::test]
async fn invalid_values_are_reported_with_place_and_remedy() {
    for (key, value, told) in [
        ("cache.ttl", "hunter2", &["GATEWAY_CACHE_TTL", "is not a duration", "30s"][..]),
        ("http.deadline", "10", &["GATEWAY_HTTP_DEADLINE", "is not a duration"]),
        ("http.deadline", "0", &["out of range"]),
        ("http.deadline", "-1s", &["is not a duration"]),
        ("upstream.timeout", "99999999999999999999s", &["GATEWAY_UPSTREAM_TIMEOUT"]),
        ("cache.size", "64", &["GATEWAY_CACHE_SIZE", "is not a size", "256MiB"]),
        ("cache.size", "64 elephants", &["is not a size"]),
        ("limits.ids", "101", &["GATEWAY_LIMITS_IDS", "from 1 to 100"]),
        ("listen", "localhost", &["GATEWAY_LISTEN", "IP:PORT"]),
        ("listen", "127.0.0.1:99999", &["GATEWAY_LISTEN", "IP:PORT"]),
        ("upstream.url", "not a url hunter2", &["GATEWAY_UPSTREAM_URL", "is not a URL", "https://"]),
        ("upstream.url", "ftp://hunter2.example", &["http://"]),
        ("upstream.url", "https://hunter2:x@api.example", &["user name or password"]),
        ("upstream.url", "https://x:hunter2@api.example/", &["user name or password"]),
        ("upstream.url", "https://api.example/?token=hunter2", &["?"]),
        ("upstream.ca_file", "/does/not/exist.pem", &["GATEWAY_UPSTREAM_CA_FILE", "cannot be read"]),
        ("graphiql.enabled", "maybe", &["GATEWAY_GRAPHIQL_ENABLED", "true, false"]),
        ("log.level", "loud", &["GATEWAY_LOG_LEVEL", "debug"]),
        ("log.format", "xml", &["GATEWAY_LOG_FORMAT", "human, json"]),
    ] {
        assert_refused(&serve(&[], &[(key, value)]).await, told);
    }
    for (value, told) in [
        ("cache:6379", "redis-sentinel://HOST[:PORT],HOST[:PORT]/MASTER"),
        ("redis://:hunter2@cache", "contains a password"),
        ("rediss-sentinel://gate:hunter2@one,two/main", "shared.password_file"),
        ("redis://cache/hunter2", "a number"),
    ] {
        assert_refused(&serve(&[], &[("shared.url", value)]).await, &["GATEWAY_SHARED_URL", told]);
    }
    let keys = TempFile::with(&format!("{}\nhunter2\n", "ab".repeat(32)));
    let told = ["GATEWAY_SHARED_KEY_FILE", "line 2 is not a key", "appointments-gateway key"];
    assert_refused(&serve(&[], &[("shared.key_file", keys.path())]).await, &told);
    let no_certificate = TempFile::with("hunter2");
    let settings = [("shared.ca_file", no_certificate.path()), ("shared.prefix", "hunter2 *")];
    let told = ["GATEWAY_SHARED_CA_FILE", "PEM", "GATEWAY_SHARED_PREFIX", "letters"];
    assert_refused(&serve(&[], &settings).await, &told);
    let settings = [("upstream.url", "https://api.example"), ("upstream.ca_file", no_certificate.path())];
    assert_refused(&serve(&[], &settings).await, &["upstream.ca_file", "PEM"]);
}

#[tokio::test]
async fn unknown_variables_are_rejected_with_a_suggestion() {
    let ended = serve(&[], &[("cache.tll", SECRET)]).await;
    assert_refused(&ended, &["GATEWAY_CACHE_TLL", "did you mean GATEWAY_CACHE_TTL?"]);
    let ended = serve(&[], &[("port", "80"), ("hostname", "gateway")]).await;
    assert_refused(&ended, &["2 errors", "GATEWAY_PORT", "GATEWAY_HOSTNAME", "unset it"]);
    // Variables of other programs are ignored.
    let mut command = program(&["check"], &[]);
    command.env("GATEWAYS", "x").env("RUST_LOG", "trace");
    assert_eq!(FinishedRun::of(command).await.code, Some(0));
}

/// Any program may be started in any environment.
#[tokio::test]
async fn bytes_that_are_not_text_cause_no_panic() {
    let odd = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    let mut command = program(&["check"], &[]);
    command.env("SOMEBODY_ELSES", odd).env(odd, "x");
    let ended = FinishedRun::of(command).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));

    let mut command = program(&["serve"], &[]);
    command.env("GATEWAY_CACHE_TTL", odd);
    assert_refused(&FinishedRun::of(command).await, &["GATEWAY_CACHE_TTL"]);

    let mut command = program(&["serve", "--cache-ttl"], &[]);
    command.arg(odd);
    assert_refused(&FinishedRun::of(command).await, &["UTF-8"]);
}

#[tokio::test]
async fn a_malformed_file_is_reported_line_by_line() {
    let file = TempFile::with(
        "[cache]\ntll = \"5s\"\nttl = 5\n\n[upstream]\nurl = \"https://x:hunter2@api.example\"\n\n[surprise]\nx = 1\n",
    );
    let place = |line: usize| format!("{}:{line}: ", file.path());
    let told = [place(2), place(3), place(6), place(8)];
    let ended = serve(&["--config", file.path()], &[]).await;
    assert_refused(&ended, &told.each_ref().map(String::as_str));
    assert_refused(
        &ended,
        &["4 errors", "did you mean cache.ttl?", "upstream.url", "surprise: is not a configuration key"],
    );

    let broken = TempFile::with("[cache\nttl = \"hunter2\"");
    assert_refused(&serve(&["--config", broken.path()], &[]).await, &[":1: is not valid TOML"]);
    for unreadable in ["/does/not/exist.toml", "/"] {
        assert_refused(
            &serve(&["--config", unreadable], &[]).await,
            &[unreadable, "cannot be read", "--config"],
        );
        assert_refused(&serve(&[], &[("config", unreadable)]).await, &[unreadable, "cannot be read"]);
    }
}

#[tokio::test]
async fn all_faults_of_all_layers_are_reported_at_once() {
    let file = TempFile::with("[limits]\nids = 0\ndeep = 1\n");
    let settings = [("cache.ttl", "soon"), ("port", "80"), ("upstream.url", "https://x:hunter2@api.example")];
    let ended =
        serve(&["--config", file.path(), "--http-deadline", "0", "--limits-body", "1"], &settings).await;
    assert_refused(
        &ended,
        &[
            "7 errors",
            ":2: limits.ids",
            ":3: limits.deep",
            "GATEWAY_CACHE_TTL",
            "GATEWAY_PORT",
            "GATEWAY_UPSTREAM_URL",
            "--http-deadline",
            "--limits-body",
        ],
    );
}

#[tokio::test]
async fn contradictory_settings_are_rejected() {
    let both = [("upstream.url", "https://api.example"), ("sandbox.enabled", "true")];
    assert_refused(&serve(&[], &both).await, &["sandbox.enabled", "upstream.url", "set one of them"]);
    let (password, authority) = (TempFile::with(SECRET), rcgen::generate_simple_self_signed([]).unwrap());
    let authority = TempFile::with(&authority.cert.pem());
    let (password, authority) =
        (("shared.password_file", password.path()), ("shared.ca_file", authority.path()));
    assert_refused(
        &serve(&[], &[password, ("shared.cache", "true")]).await,
        &["1 error", "shared.url", "or remove: shared.password_file, shared.cache"],
    );
    let settings = [
        ("shared.url", "redis://gate@cache"),
        authority,
        ("shared.publish_timeout", "2s"),
        ("shared.timeout", "1m"),
    ];
    let told = [
        "5 errors",
        "shared.key_file: is not set",
        "appointments-gateway key > shared.keys",
        "shared.password_file: is not set",
        "shared.ca_file",
        "shared.publish_timeout: is not shorter than shared.lease",
        "shared.timeout: is not shorter than shared.lease",
    ];
    assert_refused(&serve(&[], &settings).await, &told);
}

#[tokio::test]
async fn a_port_in_use_is_reported_with_a_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = serve(&["--listen", &address], &[]).await;
    assert_refused(&ended, &[&address, "in use", "--listen"]);
    let ended = FinishedRun::of(program(&["sandbox", "--listen", &address], &[])).await;
    assert_refused(&ended, &[&address, "in use", "--listen"]);
    let elsewhere = serve(&["--listen", "192.0.2.1:8080", "--sandbox"], &[]).await;
    assert_refused(&elsewhere, &["192.0.2.1:8080", "an address of this machine"]);
}

#[tokio::test]
async fn a_wrong_command_line_prints_the_usage() {
    for (arguments, told) in [
        (&["--nope"][..], "--nope"),
        (&["sevre"], "sevre"),
        (&["serve", "now"], "now"),
        (&["serve", "--cache-ttl"], "--cache-ttl"),
        (&["serve", "--log-level", "loud"], "--log-level"),
        (&["serve", "--cache-tll", SECRET], "--cache-ttl"),
        (&["schema", "--listen", "127.0.0.1:0"], "--listen"),
        (&["sandbox", "--upstream-url", "http://x"], "--upstream-url"),
        (&["serve", "--cache-ttl", "1s", "--cache-ttl", "2s"], "--cache-ttl"),
    ] {
        assert_refused(&FinishedRun::of(program(arguments, &[])).await, &[told]);
    }
}

#[tokio::test]
async fn help_reads_as_documentation_and_names_every_key() {
    let help = FinishedRun::of(program(&["--help"], &[])).await;
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    for key in appointments_gateway::config::keys::KEYS {
        let is_told = |flag| help.stdout.contains(&format!("--{flag}"));
        assert!(key.flag().is_none_or(is_told), "{}", key.name);
        assert!(help.stdout.contains(&key.variable()), "{}", key.name);
    }
    for part in ["sandbox", "schema", "check", "api-key", "key", "Exit codes", "Usage:"] {
        assert!(help.stdout.contains(part), "{part}");
    }
    let version = FinishedRun::of(program(&["--version"], &[])).await;
    assert_eq!(version.stdout, concat!("appointments-gateway ", env!("CARGO_PKG_VERSION"), "\n"));
    for subcommand in ["serve", "sandbox", "schema", "check", "api-key", "key"] {
        assert_eq!(
            FinishedRun::of(program(&[subcommand, "--help"], &[])).await.code,
            Some(0),
            "{subcommand}"
        );
    }
}

#[tokio::test]
async fn flags_override_environment_then_file_then_default() {
    let file = TempFile::with("[limits]\nids = 3\n");
    let of_file = ("config", file.path());
    for (arguments, settings, allowed) in [
        (&["serve"][..], &[][..], 100),
        (&["serve"], &[of_file], 3),
        (&["serve", "--config", file.path()], &[], 3),
        (&["serve"], &[of_file, ("limits.ids", "4")], 4),
        (&["serve", "--limits-ids", "5"], &[of_file, ("limits.ids", "4")], 5),
        (&["--limits-ids=6"], &[of_file], 6),
    ] {
        let gateway = Gateway::of(program(arguments, settings)).await;
        let ids: Vec<_> = (0..=allowed).map(|_| uuid::Uuid::nil()).collect();
        let query = "query ($ids: [UUID!]!) { appointmentsByIds(ids: $ids) { id } }";
        let reply = gateway.query_with(Some("token"), query, json!({ "ids": ids })).await;
        let message = reply.body["errors"][0]["message"].as_str().unwrap();
        assert!(message.contains(&format!("the limit of {allowed} per field")), "{message}");
    }
}

#[tokio::test]
async fn the_sandbox_on_public_addresses_needs_the_flag() {
    for listen in ["0.0.0.0:0", "[::]:0"] {
        assert_refused(&serve(&["--listen", listen], &[]).await, &["upstream.url", "--sandbox"]);
        assert_refused(&FinishedRun::of(program(&["check", "--listen", listen], &[])).await, &["--sandbox"]);
    }
    let named = Gateway::of(program(&["serve", "--listen", "0.0.0.0:0", "--sandbox"], &[])).await;
    assert!(named.stdout().contains("made up"), "{}", named.stdout());
    let real = program(&["serve", "--listen", "0.0.0.0:0", "--upstream-url", "http://127.0.0.1:9"], &[]);
    Gateway::of(real).await;
}
