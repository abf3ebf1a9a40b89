//! `upstream.client_cert_file`: mutual TLS with the upstream.

use crate::support::{
    CLIENT_SECRET, FinishedRun, Gateway, KeyFile, MutualTlsUpstream, TempFile, id, program, self_signed,
};

fn path(n: usize) -> String {
    format!("/api/v1/appointments/{}", id(n))
}

#[tokio::test]
async fn the_upstream_receives_the_certificate_on_reads_and_changes() {
    let upstream = MutualTlsUpstream::start().await;
    let [certificate, key] = upstream.client_files();
    let settings = [
        ("upstream.ca_file", upstream.ca_file()),
        ("upstream.client_cert_file", certificate.path()),
        ("upstream.client_key_file", key.path()),
    ];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    assert_eq!(gateway.appointment("token", &id(1)).await.appointment()["reference"], "certified");
    gateway.update("token", &id(2), serde_json::json!({ "status": "waiting" })).await;
    assert_eq!(upstream.requests(), [(path(1), true), (path(2), true)]);
}

#[tokio::test]
async fn a_certificate_and_its_key_may_share_a_file() {
    let upstream = MutualTlsUpstream::start().await;
    let files = upstream.client_files();
    let both = files.each_ref().map(|file| std::fs::read_to_string(file.path()).unwrap()).concat();
    let both = TempFile::with(&both);
    let settings = [
        ("upstream.ca_file", upstream.ca_file()),
        ("upstream.client_cert_file", both.path()),
        ("upstream.client_key_file", both.path()),
    ];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    gateway.appointment("token", &id(1)).await.appointment();
    assert_eq!(upstream.requests(), [(path(1), true)]);
}

#[tokio::test]
async fn without_the_keys_no_certificate_is_sent() {
    let upstream = MutualTlsUpstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[("upstream.ca_file", upstream.ca_file())]).await;
    gateway.appointment("token", &id(1)).await.appointment();
    assert_eq!(upstream.requests(), [(path(1), false)]);
}

#[tokio::test]
async fn the_token_endpoint_does_not_receive_the_certificate() {
    let (upstream, keys) = (MutualTlsUpstream::start().await, KeyFile::of(&["alice"]));
    let [certificate, key] = upstream.client_files();
    let token_url = format!("{}/oauth2/token", upstream.url());
    let settings = [
        ("upstream.ca_file", upstream.ca_file()),
        ("upstream.client_cert_file", certificate.path()),
        ("upstream.client_key_file", key.path()),
        ("identity.mode", "service"),
        ("identity.token_url", &token_url),
        ("identity.client_id", "gateway"),
        ("identity.client_secret", CLIENT_SECRET),
        ("callers.api_keys_file", keys.path()),
    ];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    gateway.appointment(keys.key(0), &id(1)).await.appointment();
    assert_eq!(upstream.requests(), [("/oauth2/token".to_owned(), false), (path(1), true)]);
}

#[tokio::test]
async fn unusable_certificates_are_reported_with_their_keys() {
    let [one, other] = [self_signed("a.example"), self_signed("b.example")];
    let certificate = TempFile::with(&one.cert.pem());
    let key = TempFile::with(&one.signing_key.serialize_pem());
    let foreign_key = TempFile::with(&other.signing_key.serialize_pem());
    let garbage = TempFile::with("garbage");
    let (https, http) = (("upstream.url", "https://127.0.0.1:9"), ("upstream.url", "http://127.0.0.1:9"));
    let ca = TempFile::with(&other.cert.pem());
    let ca = ("upstream.ca_file", ca.path());
    let cert_file = |path| ("upstream.client_cert_file", path);
    let key_file = |path| ("upstream.client_key_file", path);
    for (settings, told) in [
        (vec![https, ca, cert_file(certificate.path())], &["upstream.client_key_file"][..]),
        (vec![https, ca, key_file(key.path())], &["upstream.client_cert_file"]),
        (
            vec![http, cert_file(certificate.path()), key_file(key.path())],
            &["upstream.client_cert_file", "https://"],
        ),
        (
            vec![
                https,
                ca,
                cert_file(certificate.path()),
                key_file(key.path()),
                ("upstream.proxy", "https://127.0.0.1:9"),
            ],
            &["upstream.client_cert_file", "proxy"],
        ),
        (
            vec![cert_file(certificate.path()), key_file(key.path())],
            &["upstream.client_cert_file", "upstream.url"],
        ),
        (
            vec![https, ca, cert_file(certificate.path()), key_file(foreign_key.path())],
            &["upstream.client_cert_file", "upstream.client_key_file", "together"],
        ),
        (
            vec![https, ca, cert_file(garbage.path()), key_file(key.path())],
            &["upstream.client_cert_file", "PEM"],
        ),
        (
            vec![https, ca, cert_file(certificate.path()), key_file(garbage.path())],
            &["upstream.client_key_file", "private key"],
        ),
        (
            vec![https, ca, cert_file("/none"), key_file(key.path())],
            &["UPSTREAM_CLIENT_CERT_FILE", "cannot be read"],
        ),
    ] {
        for command in ["check", "serve"] {
            let ended = FinishedRun::of(program(&[command], &settings)).await;
            assert_eq!(ended.code, Some(2), "{ended:?}");
            for part in told {
                assert!(ended.stderr.contains(part), "{part}: {ended:?}");
            }
            assert!(!ended.stderr.contains("PRIVATE KEY"), "{ended:?}");
        }
    }
}
