//! Third-party clients against a gateway: the `graphql-http` audits, client libraries for queries and subscriptions, and
//! a real browser. The reference implementation, graphql-js, judges documents and literals.
//!
//! `cargo test --test clients` runs them. They need Node.js with npm, the packages of this directory, and Chromium, so
//! they are not part of a plain `cargo test`. `tests/run` installs all of these.

#![expect(unreachable_pub, reason = "a test binary has no public API")]
#![expect(clippy::unwrap_used, reason = "shared test code fails as a test does")]

mod node;
#[path = "../api/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the black-box tests, which use all of it")]
mod support;

use std::{collections::BTreeSet, path::Path};

use serde_json::{Value, json};

use support::{Call, Gateway, PrefixProxy, Upstream, UpstreamResponse, id, program as gateway_program};

const AUDITS_PASSED: &str = "61 of 61 audits ok";

/// Installs everything; the end of each message about a missing program.
const INSTALL: &str = "tests/run installs it where it can.";

/// Runs a Node.js program of this directory against `gateway`, which must succeed, and returns its output.
async fn run(program: &str, gateway: &Gateway) -> String {
    run_with(program, &[gateway.base()]).await
}

/// Runs a Node.js program of this directory, which must succeed, and returns its output.
async fn run_with(program: &str, arguments: &[&str]) -> String {
    let (is_success, text) = try_run(program, arguments).await;
    assert!(is_success, "{program}:\n{text}");
    text
}

/// Runs a Node.js program of this directory, and returns whether it succeeded, with its output.
async fn try_run(program: &str, arguments: &[&str]) -> (bool, String) {
    let (is_success, stdout, stderr) = node::run("clients", program, arguments).await;
    (is_success, stdout + &stderr)
}

/// Runs a program that drives Chromium.
async fn run_in_browser(program: &str, url: &str) {
    run_in_browser_with(program, &[url]).await;
}

/// Runs a program that drives Chromium, with several arguments.
async fn run_in_browser_with(program: &str, arguments: &[&str]) {
    let browser = std::env::var("CHROMIUM").unwrap_or("/usr/bin/chromium".to_owned());
    assert!(
        Path::new(&browser).exists(),
        "Chromium is missing at {browser}. Install it, or set CHROMIUM to its path. {INSTALL}"
    );
    run_with(program, arguments).await;
}

#[tokio::test]
async fn graphql_over_http_audits_pass() {
    let gateway = Gateway::on_sandbox(&[("http.statuses", "2025")]).await;
    let text = run("graphql-http.mjs", &gateway).await;
    assert!(text.contains(AUDITS_PASSED), "{text}");
}

/// The audits were written for the drafts up to 2025.
#[tokio::test]
async fn the_audits_that_differ_in_the_newer_edition_are_documented() {
    let (_, text) = try_run("graphql-http.mjs", &[Gateway::on_sandbox(&[]).await.base()]).await;
    let of_line = |line: &str, prefix| Some(line.strip_prefix(prefix)?.trim_start().get(..4)?.to_owned());
    let different = text.lines().filter(|line| !line.contains("audits"));
    let different = different.filter_map(|line| {
        ["failed", "error", "warn", "notice"].into_iter().find_map(|prefix| of_line(line, prefix))
    });
    let document = include_str!("../../docs/api.md");
    let (_, section) = document.split_once("| Audit |").expect("docs/api.md has a table of audits");
    let (section, _) = section.split_once("\n\n").unwrap();
    let documented = section.lines().filter_map(|line| of_line(line, "| `"));
    assert_eq!(different.collect::<BTreeSet<_>>(), documented.collect::<BTreeSet<_>>(), "{text}");
}

#[tokio::test]
async fn graphql_over_http_audits_pass_in_production() {
    // Four of the audits read a type of the schema.
    let settings =
        [("profile", "production"), ("sandbox.enabled", "true"), ("graphql.introspection", "true")];
    let settings = [settings.as_slice(), &[("http.statuses", "2025")]].concat();
    let text = run("graphql-http.mjs", &Gateway::on_sandbox(&settings).await).await;
    assert!(text.contains(AUDITS_PASSED), "{text}");
}

#[tokio::test]
async fn graphql_ws_subscribes() {
    run("graphql-ws.mjs", &Gateway::on_sandbox(&[]).await).await;
}

#[tokio::test]
async fn graphql_sse_subscribes() {
    run("graphql-sse.mjs", &Gateway::on_sandbox(&[]).await).await;
}

/// Partial responses, and every refusal that a client library can cause.
#[tokio::test]
async fn clients_lose_neither_data_nor_codes_under_any_status() {
    let upstream = Upstream::answering(|call| match &call.path {
        path if path.contains(&id(403)) => UpstreamResponse::status(403),
        path if path.contains(&id(503)) => UpstreamResponse::never(),
        _ => call.appointment(),
    })
    .await;
    let settings = [
        ("limits.uri", "8KiB"),
        ("limits.headers", "12000B"),
        ("limits.operations", "1"),
        ("limits.operations_waiting", "0"),
        ("rate_limit.per_second", "1"),
        ("rate_limit.burst", "20"),
        ("http.body_timeout", "200ms"),
        // The call without an answer outlasts the test.
        ("http.deadline", "1h"),
        ("upstream.timeout", "1h"),
    ];
    run("statuses.mjs", &Gateway::before(upstream.url(), &settings).await).await;
}

/// Includes the list with `relayStylePagination`, and a mutation that updates the client's cache.
#[tokio::test]
async fn apollo_client_queries_mutates_and_subscribes() {
    run("apollo.mjs", &Gateway::on_sandbox(&[]).await).await;
}

#[tokio::test]
async fn apollo_client_and_urql_persist_their_queries() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let unsupported = Gateway::on_sandbox(&[("graphql.documents_size", "0")]).await;
    run_with("persisted-queries.mjs", &[gateway.base(), unsupported.base()]).await;
}

#[tokio::test]
async fn apollo_client_batches_operations() {
    run("batching.mjs", &Gateway::on_sandbox(&[]).await).await;
}

#[tokio::test]
async fn graphiql_works_in_a_browser() {
    run_in_browser("graphiql.mjs", Gateway::on_sandbox(&[]).await.base()).await;
}

#[tokio::test]
async fn graphiql_works_behind_a_path_prefix() {
    let command = gateway_program(&["serve"], &[("http.path", "/api/graphql")]);
    let gateway = Gateway::with_path(command, "/api/graphql").await;
    let proxy = PrefixProxy::before(&gateway).await;
    run_in_browser("graphiql.mjs", proxy.url()).await;
}

#[tokio::test]
async fn a_browser_enforces_the_allowed_origins() {
    let settings = [("http.origins", "http://app.localhost")];
    run_in_browser("origins.mjs", Gateway::on_sandbox(&settings).await.base()).await;
}

#[tokio::test]
async fn a_browser_stores_responses_for_each_user() {
    let upstream = Upstream::answering(|call| match call.id == id(2) {
        true => UpstreamResponse::json(200, &json!({ "data": { "id": call.id, "reference": "equal" } })),
        false => call.appointment(),
    })
    .await;
    for mode in ["validate", "fresh"] {
        let settings =
            [("http.client_cache", mode), ("http.origins", "http://app.localhost"), ("cache.ttl", "10m")];
        let gateway = Gateway::before(upstream.url(), &settings).await;
        let (alice, bob) = (gateway.secret("alice"), gateway.secret("bob"));
        let arguments = [gateway.base(), mode, &id(1), &id(2), &alice, &bob];
        run_in_browser_with("caching.mjs", &arguments).await;
    }
}

/// Every document is valid for both or for neither, and the same values reach the upstream. `LITERALS_SEED` and
/// `LITERALS_COUNT` choose other random documents, and more of them.
#[tokio::test]
async fn literals_and_documents_mean_what_they_mean_to_graphql_js() {
    let variable = |name, default: &str| std::env::var(name).unwrap_or(default.to_owned());
    let (seed, count) = (variable("LITERALS_SEED", "1"), variable("LITERALS_COUNT", "6000"));
    let cases = run_with("literals.mjs", &[&seed, &count]).await;
    let upstream =
        Upstream::answering(|call| if call.method == "GET" { call.appointment() } else { call.changed() })
            .await;
    let gateway = Gateway::before(upstream.url(), &[("cache.ttl", "0s")]).await;
    let mut wrong = Vec::new();
    let mut outcomes = std::collections::HashMap::<String, usize>::new();
    for case in cases.lines() {
        let case: Value = serde_json::from_str(case).unwrap();
        let before = upstream.calls();
        let reply = gateway.query(Some("token"), case["document"].as_str().unwrap()).await;
        let outcome = match reply.codes()[..] {
            ["GRAPHQL_PARSE_FAILED", ..] => "syntax",
            ["GRAPHQL_VALIDATION_FAILED" | "BAD_USER_INPUT", ..] => "invalid",
            _ => "executed",
        };
        let calls = upstream.seen(|seen| seen.calls[before..].iter().map(sent).collect::<Vec<_>>());
        let expected = case["calls"].as_array().cloned().unwrap_or_default();
        let errors = reply.body["errors"].as_array().into_iter().flatten();
        let is_located = |error: &Value| {
            error["extensions"]["code"] == "BAD_USER_INPUT" || error["locations"][0]["line"].is_u64()
        };
        if case["outcome"] != outcome
            || sorted(calls.clone()) != sorted(expected)
            || !errors.clone().all(is_located)
        {
            wrong.push(format!("{case}\n  {outcome} {} {}", Value::Array(calls), reply.body));
        }
        *outcomes.entry(outcome.to_owned()).or_default() += 1;
    }
    assert!(wrong.is_empty(), "{} cases differ:\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
    // The cases are of all kinds.
    assert!(outcomes.len() == 3 && outcomes.values().all(|count| *count > 500), "{outcomes:?}");
}

/// The id that a call reads, or the body that it sends.
fn sent(call: &Call) -> Value {
    if call.method == "GET" { call.id.clone().into() } else { call.json() }
}

/// The calls in a fixed order. Each id is read once.
fn sorted(mut calls: Vec<Value>) -> Vec<Value> {
    calls.sort_by_key(Value::to_string);
    calls.dedup_by(|one, other| one.is_string() && one == other);
    calls
}
