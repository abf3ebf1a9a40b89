//! Settings that expose data to the network or to other users of the machine work, and cause warnings in production.

use std::{fs::Permissions, os::unix::fs::PermissionsExt as _, time::Duration};

use appointments_gateway::credentials::key_ring::KeyRing;
use serde_json::Value;
use tokio::time::timeout;

use crate::support::{
    CLIENT_SECRET, FinishedRun, Gateway, Issuer, KeyFile, TIMEOUT, TempFile, Upstream,
    issuer::{AUDIENCE, ISSUER},
    program,
};

const PRODUCTION: (&str, &str) = ("profile", "production");
const DEVELOPMENT: (&str, &str) = ("profile", "development");
const SANDBOX: (&str, &str) = ("sandbox.enabled", "true");

/// The warnings that `check` prints, which succeeds all the same.
async fn warnings(settings: &[(&str, &str)]) -> Vec<String> {
    let ended = FinishedRun::of(program(&["check"], settings)).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    ended.stdout.lines().filter_map(|line| line.strip_prefix("warning: ")).map(str::to_owned).collect()
}

/// Exactly one warning, with all of `parts`.
#[track_caller]
fn assert_one(warnings: &[String], parts: &[&str]) {
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for part in parts {
        assert!(warnings[0].contains(part), "{part:?} in {warnings:?}");
    }
}

/// The scripted upstream under an address that is not the loopback one, and leads there all the same.
fn elsewhere(upstream: &Upstream) -> String {
    upstream.url().replace("127.0.0.1", "0.0.0.0")
}

fn with_mode(path: &str, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn a_plain_upstream_on_another_host_is_warned_of_in_production() {
    let upstream = Upstream::start().await;
    let url = elsewhere(&upstream);
    let warned = warnings(&[PRODUCTION, ("upstream.url", &url)]).await;
    assert_one(&warned, &["upstream.url", &url, "unencrypted", "https://"]);
    assert_eq!(warnings(&[DEVELOPMENT, ("upstream.url", &url)]).await, [""; 0]);
    assert_eq!(warnings(&[PRODUCTION, ("upstream.url", upstream.url())]).await, [""; 0]);
}

#[tokio::test]
async fn plain_origins_on_other_hosts_are_warned_of_in_production() {
    let origins = (
        "http.origins",
        "http://app.example,https://safe.example,http://localhost:3000,http://10.0.0.1:8080",
    );
    let warned = warnings(&[PRODUCTION, SANDBOX, origins]).await;
    assert_eq!(warned.len(), 2, "{warned:?}");
    assert_one(&warned[..1], &["http.origins", "http://app.example", "https://"]);
    assert_one(&warned[1..], &["http.origins", "http://10.0.0.1:8080"]);
    assert_eq!(warnings(&[DEVELOPMENT, SANDBOX, origins]).await, [""; 0]);
}

/// A Redis on another machine is never reached here, so `check` fails after the warnings.
#[tokio::test]
async fn a_plain_redis_on_another_host_is_warned_of_in_production() {
    let (keys, password) = (TempFile::with(&KeyRing::generate_line()), TempFile::with("hunter2"));
    let url = "redis://gate@0.0.0.0:9";
    let warned = async |settings: &[(&str, &str)]| {
        let ended = FinishedRun::of(program(&["check"], settings)).await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let lines = ended.stdout.lines().filter_map(|line| line.strip_prefix("warning: "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let keys = ("shared.key_file", keys.path());
    let all = [PRODUCTION, SANDBOX, keys, ("shared.url", url), ("shared.password_file", password.path())];
    with_mode(password.path(), 0o600);
    with_mode(keys.1, 0o600);
    assert_one(&warned(&all).await, &["shared.url is redis://0.0.0.0:9", "plain text", "rediss://"]);
    assert_eq!(warned(&[&all[..], &[DEVELOPMENT]].concat()).await, [""; 0]);
    for local in ["redis://127.0.0.1:9", "rediss://0.0.0.0:9"] {
        assert_eq!(warned(&[&all[..], &[("shared.url", local)]].concat()).await, [""; 0]);
    }
    for (file, key) in [(keys.1, "shared.key_file"), (password.path(), "shared.password_file")] {
        with_mode(file, 0o644);
        let settings = [&all[..], &[("shared.url", "redis://127.0.0.1:9")]].concat();
        assert_one(&warned(&settings).await, &[key, file, "every user", "chmod o-rwx"]);
        with_mode(file, 0o600);
    }
    let long =
        [("shared.lease", "1m"), ("shared.publish_timeout", "10s"), ("shared.url", "redis://127.0.0.1:9")];
    assert_one(&warned(&[&all[..], &long].concat()).await, &["shared.publish_timeout", "http.deadline"]);
}

#[tokio::test]
async fn token_and_key_urls_need_tls_in_every_profile() {
    for profile in [PRODUCTION, DEVELOPMENT] {
        for key in ["identity.token_url", "callers.jwks_url"] {
            let settings = [profile, (key, "http://auth.example/path")];
            let ended = FinishedRun::of(program(&["check"], &settings)).await;
            assert_eq!(ended.code, Some(2), "{ended:?}");
            assert!(ended.stderr.contains("https://"), "{ended:?}");
        }
    }
}

#[tokio::test]
async fn a_secret_that_every_user_can_read_is_warned_of_in_production() {
    let upstream = Upstream::with_tokens().await;
    let token_url = format!("{}/oauth2/token", upstream.url());
    let (secret, keys) = (TempFile::with(CLIENT_SECRET), KeyFile::of(&["alice"]));
    with_mode(keys.path(), 0o644);
    let settings = |profile| {
        [
            profile,
            ("upstream.url", upstream.url()),
            ("identity.mode", "service"),
            ("identity.token_url", &token_url),
            ("identity.client_id", "gateway"),
            ("identity.client_secret_file", secret.path()),
            ("callers.api_keys_file", keys.path()),
        ]
    };
    for mode in [0o644, 0o604, 0o444] {
        with_mode(secret.path(), mode);
        let told = format!("mode {mode:04o}");
        let parts = ["identity.client_secret_file", secret.path(), "every user", &told, "chmod o-rwx"];
        assert_one(&warnings(&settings(PRODUCTION)).await, &parts);
        assert_eq!(warnings(&settings(DEVELOPMENT)).await, [""; 0]);
    }
    for mode in [0o600, 0o400, 0o440, 0o640] {
        with_mode(secret.path(), mode);
        assert_eq!(warnings(&settings(PRODUCTION)).await, [""; 0], "{mode:o}");
    }
}

#[tokio::test]
async fn key_files_writable_by_others_cause_warnings_in_production() {
    let upstream = Upstream::with_tokens().await;
    let token_url = format!("{}/oauth2/token", upstream.url());
    let issuer = Issuer::new("one");
    let authority = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap().cert.pem();
    let (secret, api_keys) = (TempFile::with(CLIENT_SECRET), KeyFile::of(&["alice"]));
    let (key_set, authorities) =
        (TempFile::with(&Issuer::key_set(&[&issuer]).to_string()), TempFile::with(&authority));
    let files = [
        ("identity.client_secret_file", secret.path()),
        ("callers.api_keys_file", api_keys.path()),
        ("callers.jwks_file", key_set.path()),
        ("upstream.ca_file", authorities.path()),
    ];
    let others = [
        ("upstream.url", upstream.url()),
        ("identity.mode", "service"),
        ("identity.token_url", &token_url),
        ("identity.client_id", "gateway"),
        ("callers.issuer", ISSUER),
        ("callers.audience", AUDIENCE),
    ];
    let in_profile = |profile| [&[profile], &files[..], &others].concat();
    for (_, path) in files {
        with_mode(path, 0o640);
    }
    assert_eq!(warnings(&in_profile(PRODUCTION)).await, [""; 0]);
    for (key, path) in files {
        for mode in [0o660, 0o642] {
            with_mode(path, mode);
            let told = format!("mode {mode:04o}");
            assert_one(&warnings(&in_profile(PRODUCTION)).await, &[key, path, "modify", &told, "chmod go-w"]);
            assert_eq!(warnings(&in_profile(DEVELOPMENT)).await, [""; 0]);
        }
        with_mode(path, 0o640);
    }
}

/// The file of settings is one of secrets where it holds one.
#[tokio::test]
async fn the_configuration_file_is_checked_like_files_it_names() {
    let plain = TempFile::with("profile = \"production\"\n[sandbox]\nenabled = true\n");
    let in_file = async |file: &TempFile, mode| {
        with_mode(file.path(), mode);
        let ended = FinishedRun::of(program(&["check", "--config", file.path()], &[])).await;
        let lines = ended.stdout.lines().filter_map(|line| line.strip_prefix("warning: "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(in_file(&plain, 0o644).await, [""; 0]);
    assert_one(&in_file(&plain, 0o666).await, &["--config", plain.path(), "chmod go-w"]);
    let upstream = Upstream::with_tokens().await;
    let (url, keys) = (upstream.url(), KeyFile::of(&["alice"]));
    with_mode(keys.path(), 0o644);
    let secret = TempFile::with(&format!(
        "profile = \"production\"\nupstream.url = \"{url}\"\ncallers.api_keys_file = \"{}\"\n[identity]\n\
         mode = \"service\"\ntoken_url = \"{url}/oauth2/token\"\nclient_id = \"a\"\nclient_secret = \"{CLIENT_SECRET}\"\n",
        keys.path()
    ));
    assert_one(
        &in_file(&secret, 0o644).await,
        &["--config", secret.path(), "contains a secret", "chmod o-rwx"],
    );
    assert_eq!(in_file(&secret, 0o640).await, [""; 0]);
}

#[tokio::test]
async fn serve_logs_each_warning_once_and_serves() {
    let upstream = Upstream::start().await;
    let settings = [PRODUCTION, ("http.origins", "http://app.example"), ("upstream.timeout", "1h")];
    let gateway = Gateway::before(&elsewhere(&upstream), &settings).await;
    let log = timeout(TIMEOUT, async {
        loop {
            let log = gateway.stderr();
            if log.contains("\"serving\"") {
                return log;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let log = log.await.expect("the gateway says that it serves");
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let warned =
        lines.filter(|line| line["level"] == "WARN").map(|line| line.to_string()).collect::<Vec<_>>();
    assert_eq!(warned.len(), 3, "{warned:?}");
    for part in ["upstream.timeout is not below", "upstream.url is http://0.0.0.0", "http://app.example"] {
        assert_eq!(warned.iter().filter(|line| line.contains(part)).count(), 1, "{part:?} in {warned:?}");
    }
    let reply = gateway.query(Some("token"), "{ __typename }").await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn arrays_beyond_the_burst_are_warned_of() {
    for (burst, per_second, batch, is_warned) in
        [("9", "1", "10", true), ("10", "1", "10", false), ("9", "0", "10", false), ("9", "1", "9", false)]
    {
        let settings = [
            SANDBOX,
            ("rate_limit.burst", burst),
            ("rate_limit.per_second", per_second),
            ("limits.batch", batch),
        ];
        let warned = warnings(&settings).await;
        match is_warned {
            true => assert_one(&warned, &["rate_limit.burst", "limits.batch"]),
            false => assert_eq!(warned, [""; 0], "{settings:?}"),
        }
    }
}
