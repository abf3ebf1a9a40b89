//! Ordinary containers: no CA certificates, empty variables, variables injected by Kubernetes, signals of supervisors.

use std::time::Duration;

use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::json;
use tokio::{process::Command, time::timeout};

use crate::support::{
    FinishedRun, Gateway, GatewayResponse, KeyFile, TIMEOUT, TempFile, TlsUpstream, Upstream, id, program,
    served, signal,
};

/// The program on a system without CA certificates.
fn without_authorities(arguments: &[&str], settings: &[(&str, &str)]) -> Command {
    let mut command = program(arguments, settings);
    command.env("SSL_CERT_FILE", "/does/not/exist").env("SSL_CERT_DIR", "/does/not/exist");
    command
}

#[tokio::test]
async fn without_authorities_it_serves_plain_upstreams_and_the_sandbox() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::of(without_authorities(&["serve"], &[("upstream.url", upstream.url())])).await;
    assert_eq!(*gateway.appointment("token", &id(1)).await.appointment(), served(&id(1), "token", 1));
    let sandbox = Gateway::of(without_authorities(&["serve"], &[])).await;
    assert_eq!(sandbox.listed_ids("sandbox-all").await.len(), 100);
    let ended = FinishedRun::of(without_authorities(&["check"], &[])).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    // In service mode too, if the token endpoint is on a loopback address.
    let (tokens, keys) = (Upstream::with_tokens().await, KeyFile::of(&["alice"]));
    let token_url = format!("{}/oauth2/token", tokens.url());
    let settings = [
        ("upstream.url", tokens.url()),
        ("identity.mode", "service"),
        ("identity.token_url", &token_url),
        ("identity.client_id", "gateway"),
        ("identity.client_secret", crate::support::CLIENT_SECRET),
        ("callers.api_keys_file", keys.path()),
    ];
    let service = Gateway::of(without_authorities(&["serve"], &settings)).await;
    service.appointment(keys.key(0), &id(1)).await.appointment();
}

#[tokio::test]
async fn without_authorities_https_needs_the_package_or_a_file() {
    let keys = KeyFile::of(&["alice"]);
    let service = |url| {
        [
            ("upstream.url", "http://127.0.0.1:9"),
            ("identity.mode", "service"),
            ("identity.token_url", url),
            ("identity.client_id", "gateway"),
            ("identity.client_secret", crate::support::CLIENT_SECRET),
            ("callers.api_keys_file", keys.path()),
        ]
    };
    let proxied = [("upstream.url", "http://127.0.0.1:9"), ("upstream.proxy", "https://127.0.0.1:9")];
    for settings in
        [&[("upstream.url", "https://127.0.0.1:9")][..], &service("https://127.0.0.1:9/token"), &proxied]
    {
        for command in ["serve", "check"] {
            let ended = FinishedRun::of(without_authorities(&[command], settings)).await;
            assert_eq!(ended.code, Some(2), "{ended:?}");
            for told in ["CA certificates", "ca-certificates", "upstream.ca_file"] {
                assert!(ended.stderr.contains(told), "{told}: {ended:?}");
            }
        }
    }
    let upstream = TlsUpstream::start().await;
    let settings = [("upstream.url", upstream.url()), ("upstream.ca_file", upstream.ca_file())];
    let gateway = Gateway::of(without_authorities(&["serve"], &settings)).await;
    assert_eq!(*gateway.appointment("token", &id(1)).await.appointment(), served(&id(1), "token", 1));
}

#[tokio::test]
async fn empty_variables_count_as_unset() {
    let file = TempFile::with("[limits]\nids = 3\n");
    let all = appointments_gateway::config::keys::KEYS.iter().map(|key| key.variable());
    let mut command = program(&["serve", "--config", file.path()], &[]);
    for name in all.filter(|name| name != "GATEWAY_LISTEN") {
        command.env(name, "");
    }
    command.env("GATEWAY_CONFIG", "").env("GATEWAY_UNKNOWN", "").env("HTTPS_PROXY", "");
    let gateway = Gateway::of(command).await;
    // The file still applies.
    let ids: Vec<_> = (0..4).map(id).collect();
    let reply = gateway.appointments("token", &ids).await;
    assert_eq!(reply.body["errors"][0]["extensions"]["maximum"], json!(3), "{reply:?}");
    assert!(!gateway.stderr().contains("HTTPS_PROXY"), "{}", gateway.stderr());

    let mut sandbox = program(&["check"], &[]);
    sandbox.env("GATEWAY_LISTEN", "").env("GATEWAY_LOG_LEVEL", "").env("GATEWAY_CONFIG", "");
    let ended = FinishedRun::of(sandbox).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
}

/// The variables that Kubernetes injects for a Service with a named port.
fn service_links(service: &str, ip: &str, port: u16) -> Vec<(String, String)> {
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    let url = format!("tcp://{host}:{port}");
    [
        ("SERVICE_HOST".to_owned(), ip.to_owned()),
        ("SERVICE_PORT".to_owned(), port.to_string()),
        ("SERVICE_PORT_HTTP".to_owned(), port.to_string()),
        ("PORT".to_owned(), url.clone()),
        (format!("PORT_{port}_TCP"), url),
        (format!("PORT_{port}_TCP_PROTO"), "tcp".to_owned()),
        (format!("PORT_{port}_TCP_PORT"), port.to_string()),
        (format!("PORT_{port}_TCP_ADDR"), ip.to_owned()),
    ]
    .map(|(suffix, value)| (format!("{service}_{suffix}"), value))
    .to_vec()
}

#[tokio::test]
async fn variables_of_kubernetes_services_cause_one_warning() {
    let links = [
        service_links("GATEWAY", "10.96.12.4", 8080),
        service_links("GATEWAY_ADMIN", "fd00::12", 9090),
        service_links("GATEWAY_CACHE", "10.96.12.5", 6379),
    ]
    .concat();
    let with_links = |arguments: &[&str]| {
        let mut command = program(arguments, &[]);
        command.envs(links.clone());
        command
    };
    let ended = FinishedRun::of(with_links(&["check"])).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    let warnings: Vec<_> = ended.stdout.lines().filter(|line| line.starts_with("warning: ")).collect();
    assert_eq!(warnings.len(), 1, "{ended:?}");
    assert!(
        warnings[0].contains("GATEWAY_") && warnings[0].contains("enableServiceLinks: false"),
        "{warnings:?}"
    );

    let gateway = Gateway::of(with_links(&["serve"])).await;
    assert_eq!(gateway.query(None, "{ __typename }").await.status, 200);
    assert_eq!(gateway.stderr().matches("enableServiceLinks").count(), 1, "{}", gateway.stderr());
}

#[tokio::test]
async fn unknown_variables_that_resemble_service_links_are_errors() {
    for (name, value) in [
        ("GATEWAY_PORT", "8080"),
        ("GATEWAY_PORT", "http://10.0.0.1:8080"),
        ("GATEWAY_SERVICE_HOST", "gateway.example"),
        ("GATEWAY_HOST", "10.0.0.1"),
        ("GATEWAY_PORT_8080", "tcp://10.0.0.1:8080"),
    ] {
        let mut command = program(&["check"], &[]);
        command.env(name, value);
        let ended = FinishedRun::of(command).await;
        assert_eq!(ended.code, Some(2), "{name}={value}: {ended:?}");
        assert!(ended.stderr.contains(name), "{ended:?}");
    }
}

#[tokio::test]
async fn check_reports_ignored_proxy_variables() {
    let upstream = Upstream::start().await;
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        let mut command = program(&["check"], &[("upstream.url", upstream.url())]);
        command.env(name, "http://user:hunter2@127.0.0.1:9");
        let ended = FinishedRun::of(command).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        for part in [name, "ignore", "upstream.proxy"] {
            assert!(ended.stdout.contains(part), "{part}: {ended:?}");
        }
        assert!(!ended.stdout.contains("hunter2"), "{ended:?}");
    }
    let ended = FinishedRun::of(program(&["check"], &[("upstream.url", upstream.url())])).await;
    assert!(!ended.stdout.contains("proxy"), "{ended:?}");
}

#[tokio::test]
async fn sighup_is_logged_and_ends_nothing() {
    let mut gateway = Gateway::on_sandbox(&[]).await;
    for count in 1..=3 {
        signal(&gateway, Signal::SIGHUP);
        timeout(TIMEOUT, async {
            while gateway.stderr().matches("SIGHUP ignored").count() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("the signal is logged");
    }
    assert_eq!(GatewayResponse::of(gateway.request(Method::GET, "/readyz")).await.status, 200);
    assert_eq!(gateway.query(None, "{ __typename }").await.status, 200);
    gateway.terminate();
    assert_eq!(gateway.ended().await.code(), Some(0));
}
