//! The two identity modes: their required settings, and their secrets.

use serde_json::json;

use crate::support::{
    CLIENT_SECRET, FinishedRun, Gateway, Issuer, KeyFile, TempFile, Upstream, UpstreamResponse, id,
    issuer::{AUDIENCE, ISSUER},
    program,
};

const UPSTREAM: (&str, &str) = ("upstream.url", "http://127.0.0.1:9");
const SERVICE: (&str, &str) = ("identity.mode", "service");
const TOKEN_URL: (&str, &str) = ("identity.token_url", "https://auth.example/oauth2/token");
const CLIENT: (&str, &str) = ("identity.client_id", "gateway");
const SECRET: (&str, &str) = ("identity.client_secret", CLIENT_SECRET);
const JWKS: (&str, &str) = ("callers.jwks_url", "https://issuer.example/jwks");
const OF: (&str, &str) = ("callers.issuer", ISSUER);
const FOR: (&str, &str) = ("callers.audience", AUDIENCE);

async fn refused(settings: &[(&str, &str)], told: &[&str]) {
    for command in ["serve", "check"] {
        let ended = FinishedRun::of(program(&[command], settings)).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{settings:?}: {ended:?}");
        for part in told {
            assert!(ended.stderr.contains(part), "{part} in {}", ended.stderr);
        }
        assert!(!ended.stderr.contains(CLIENT_SECRET), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn service_mode_requires_caller_authentication() {
    let told =
        ["identity.mode: is service", "callers.jwks_url", "callers.jwks_file", "callers.api_keys_file"];
    refused(&[UPSTREAM, SERVICE, TOKEN_URL, CLIENT, SECRET], &told).await;
    refused(&[SERVICE], &told).await;
}

#[tokio::test]
async fn service_mode_needs_settings_for_its_token() {
    let callers = [UPSTREAM, SERVICE, JWKS, OF, FOR];
    let with = |more: &[(&'static str, &'static str)]| [callers.as_slice(), more].concat();
    refused(
        &with(&[]),
        &[
            "3 errors",
            "identity.token_url: is not set",
            "identity.client_id: is not set",
            "identity.client_secret: is not set",
            "GATEWAY_IDENTITY_CLIENT_SECRET",
        ],
    )
    .await;
    refused(&with(&[CLIENT, SECRET]), &["1 error", "identity.token_url"]).await;
    refused(&with(&[TOKEN_URL, SECRET]), &["1 error", "identity.client_id"]).await;
    refused(&with(&[TOKEN_URL, CLIENT]), &["1 error", "identity.client_secret"]).await;
    let without = |key: (&str, &str)| {
        let all = with(&[TOKEN_URL, CLIENT, SECRET]);
        all.into_iter().filter(|it| it.0 != key.0).collect::<Vec<_>>()
    };
    refused(&without(OF), &["callers.issuer: is not set"]).await;
    refused(&without(FOR), &["callers.audience: is not set"]).await;
    refused(&without(UPSTREAM), &["upstream.url: is not set", "identity.token_url, identity.client_id"])
        .await;
}

#[tokio::test]
async fn keys_of_the_other_mode_and_conflicting_keys_are_rejected() {
    let keys = KeyFile::of(&["alice"]);
    for key in [
        TOKEN_URL,
        CLIENT,
        SECRET,
        JWKS,
        OF,
        FOR,
        ("callers.api_keys_file", keys.path()),
        ("callers.share_cache", "true"),
        ("identity.auth_method", "post"),
        ("identity.parameters", "audience=a"),
    ] {
        refused(&[UPSTREAM, key], &["identity.mode: is pass-through", key.0]).await;
    }
    let file = TempFile::with(&Issuer::key_set(&[&Issuer::new("key-1")]).to_string());
    let secret_file = TempFile::with(CLIENT_SECRET);
    let all = [UPSTREAM, SERVICE, TOKEN_URL, CLIENT, SECRET, JWKS, OF, FOR];
    let with = |more| [all.as_slice(), &[more]].concat();
    refused(&with(("callers.jwks_file", file.path())), &["so is callers.jwks_file; remove one"]).await;
    refused(
        &with(("identity.client_secret_file", secret_file.path())),
        &["so is identity.client_secret_file"],
    )
    .await;
    let without_keys =
        [UPSTREAM, SERVICE, TOKEN_URL, CLIENT, SECRET, OF, ("callers.api_keys_file", keys.path())];
    refused(&without_keys, &["callers.issuer: is set without callers.jwks_url"]).await;
}

#[tokio::test]
async fn unsafe_values_are_rejected() {
    for (key, value, told) in [
        ("identity.token_url", "http://auth.example/token", "https://"),
        ("callers.jwks_url", "http://issuer.example/jwks", "https://"),
        ("callers.jwks_url", "http://10.0.0.1/jwks", "https://"),
        ("callers.algorithms", "none", "RS256"),
        ("callers.algorithms", "RS256,HS256", "RS256"),
        ("callers.algorithms", ",", "RS256"),
        ("identity.mode", "both", "pass-through, service"),
        ("identity.auth_method", "digest", "basic, post"),
        ("identity.parameters", "audience", "NAME=VALUE"),
        ("identity.parameters", "a=1&grant_type=password", "contains grant_type; remove it"),
        ("identity.parameters", "client_id=a", "identity.client_id"),
        ("identity.parameters", "client_secret=canary-client-secret", "identity.client_secret_file"),
        ("identity.parameters", "sc%6Fpe=a", "identity.scope"),
        ("identity.token_url", "https://auth.example/token#a", "fragment"),
        ("callers.jwks_url", "https://issuer.example/jwks#a", "fragment"),
        ("identity.client_secret", "client-secret-4711\nmore", "single line"),
    ] {
        let variable = format!("GATEWAY_{}", key.replace('.', "_").to_uppercase());
        refused(&[(key, value)], &[&variable, told]).await;
    }
    let (private, empty, two) = (
        TempFile::with(r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#),
        TempFile::with("\n"),
        TempFile::with("a\nb\n"),
    );
    for (key, path, told) in [
        ("callers.jwks_file", private.path(), "no public key"),
        ("callers.jwks_file", two.path(), "is not a JWK set"),
        ("callers.jwks_file", "/does/not/exist", "cannot be read"),
        ("identity.client_secret_file", empty.path(), "is empty"),
        ("identity.client_secret_file", two.path(), "several lines"),
        ("identity.client_secret_file", "/does/not/exist", "cannot be read"),
    ] {
        let variable = format!("GATEWAY_{}", key.replace('.', "_").to_uppercase());
        refused(&[(key, path)], &[&variable, told]).await;
    }
    let flag = FinishedRun::of(program(&["serve", "--identity-client-secret", CLIENT_SECRET], &[])).await;
    assert!(flag.code == Some(2) && !flag.stderr.contains("panicked"), "{flag:?}");
}

#[tokio::test]
async fn the_secret_can_come_from_a_file_with_a_line_break_at_its_end() {
    let upstream = Upstream::with_tokens().await;
    let token_url = format!("{}/oauth2/token", upstream.url());
    let (keys, secret) = (KeyFile::of(&["alice"]), TempFile::with("from-the-file\r\n"));
    let settings =
        [SERVICE, ("identity.token_url", &token_url), CLIENT, ("callers.api_keys_file", keys.path())];
    let settings = [("upstream.url", upstream.url())].iter().chain(&settings).copied().collect::<Vec<_>>();
    let arguments = ["serve", "--identity-client-secret-file", secret.path()];
    let gateway = Gateway::of(program(&arguments, &settings)).await;
    assert_eq!(gateway.appointment(keys.key(0), &id(1)).await.appointment()["reference"], "service-1");
    let basic = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, "gateway:from-the-file");
    let sent = upstream.seen(|seen| seen.calls[0].header("authorization").map(str::to_owned));
    assert_eq!(sent, Some(format!("Basic {basic}")));
}

#[tokio::test]
async fn caller_credentials_reach_neither_upstream_nor_logs() {
    let issuer = Issuer::new("key-1");
    for format in ["human", "json"] {
        let upstream = Upstream::with_tokens().await;
        upstream.show_keys_of(&[&issuer]);
        upstream.on(&id(2), |_| UpstreamResponse::status(401));
        let keys = KeyFile::of(&["alice"]);
        let settings =
            [("callers.api_keys_file", keys.path()), ("log.level", "trace"), ("log.format", format)];
        let mut gateway = Gateway::for_issuer(&upstream, &settings).await;
        let jwt = issuer.token("planted-subject");
        let bad = issuer.token_with("planted-subject", json!({ "aud": "planted-audience" }));
        let change = format!(
            "mutation {{ cancelAppointment(id: \"{}\", reason: \"x\") {{ appointment {{ id }} }} }}",
            id(1)
        );
        for token in [keys.key(0), &jwt, &bad, "planted-nobody"] {
            gateway.appointment(token, &id(1)).await;
            gateway.appointment(token, &id(2)).await;
            gateway.list(token, json!({ "first": 1 })).await;
            gateway.query(Some(token), &change).await;
        }
        let metrics = format!("{:?}", gateway.metrics().await);
        gateway.terminate();
        gateway.ended().await;
        let said = gateway.stdout() + &gateway.stderr() + &metrics;
        assert!(said.contains("request completed") && said.contains("drained"), "{said}");
        let secrets = [CLIENT_SECRET, "service-1", "service-2", "planted", keys.key(0), &jwt, &bad];
        for secret in secrets {
            assert!(!said.contains(secret), "{secret} in {said}");
        }
        upstream.seen(|seen| {
            assert!(seen.calls.len() > 8);
            for call in &seen.calls {
                let text = format!("{call:?}");
                for secret in ["planted", keys.key(0), &jwt, &bad] {
                    assert!(!text.contains(secret), "{secret} in {text}");
                }
                let is_for_appointments = call.path.starts_with("/api/v1/appointments");
                assert_eq!(call.token().starts_with("service-"), is_for_appointments, "{text}");
            }
        });
    }
}

#[tokio::test]
async fn check_reports_the_token_and_the_keys() {
    let upstream = Upstream::with_tokens().await;
    let (token_url, jwks_url) =
        (format!("{}/oauth2/token", upstream.url()), format!("{}/jwks", upstream.url()));
    // A query may hold a secret, so it is sent and not printed.
    let with_query = [&token_url, &jwks_url].map(|url| format!("{url}?key=planted"));
    let settings = [
        ("upstream.url", upstream.url()),
        SERVICE,
        ("identity.token_url", &with_query[0]),
        CLIENT,
        SECRET,
        ("callers.jwks_url", &with_query[1]),
        OF,
        FOR,
    ];
    upstream.show_keys_of(&[&Issuer::new("key-1")]);
    upstream.on("appointments", |_| UpstreamResponse::status(401));
    let ended = FinishedRun::of(program(&["check"], &settings)).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for part in ["issued a token", "supplied keys", &token_url, &jwks_url] {
        assert!(ended.stdout.contains(part), "{part} in {ended:?}");
    }
    assert!(!format!("{ended:?}").contains("planted"));
    upstream.on("token", |_| UpstreamResponse::status(401));
    upstream.on("jwks", |_| UpstreamResponse::status(404));
    let ended = FinishedRun::of(program(&["check"], &settings)).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for part in
        ["issued no token", "identity.client_secret", "supplied no keys", "unexpected response status 404"]
    {
        assert!(ended.stderr.contains(part), "{part} in {ended:?}");
    }
    assert!(!format!("{ended:?}").contains(CLIENT_SECRET) && !format!("{ended:?}").contains("planted"));
}
