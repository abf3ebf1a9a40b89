//! Logs: enough to find a request, without personal data (invariant 7).

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{Gateway, GatewayResponse, RawConnection, TIMEOUT, raw};

/// The log, once a line has all of `parts`.
async fn log_with(gateway: &Gateway, parts: &[&str]) -> String {
    timeout(TIMEOUT, async {
        while !gateway.stderr().lines().any(|line| parts.iter().all(|part| line.contains(part))) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("no line with all of {parts:?}: {}", gateway.stderr()));
    gateway.stderr()
}

fn with_id(path: &str, id: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: gateway\r\nAccept: application/json\r\n{id}\r\n").into_bytes()
}

#[tokio::test]
async fn valid_request_ids_are_kept_and_others_replaced() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let long = "x".repeat(128);
    for id in ["abc", "0af7651916cd43dd8448eb211c80319c", "a-b_c.d:e/f+g=", long.as_str()] {
        let reply =
            RawConnection::once(&gateway, with_id("/livez", &format!("X-Request-Id: {id}\r\n"))).await;
        assert_eq!(reply.header("x-request-id"), Some(id));
    }
    let too_long = "x".repeat(129);
    let mut made = BTreeSet::new();
    for id in
        ["", "a b", "a\tb", "\"quoted\"", "<script>", "{}", "a;b", "\u{e9}", "\u{1b}[31m", too_long.as_str()]
    {
        // A control byte is no business of a header at all.
        if id.contains('\u{1b}') {
            continue;
        }
        let reply =
            RawConnection::once(&gateway, with_id("/livez", &format!("X-Request-Id: {id}\r\n"))).await;
        let given = reply.header("x-request-id").unwrap().to_owned();
        assert!(uuid::Uuid::try_parse(&given).is_ok(), "{id:?} became {given:?}");
        made.insert(given);
    }
    for _ in 0..3 {
        made.insert(
            RawConnection::once(&gateway, with_id("/livez", ""))
                .await
                .header("x-request-id")
                .unwrap()
                .to_owned(),
        );
    }
    assert_eq!(made.len(), 12, "each is made once: {made:?}");
}

#[tokio::test]
async fn responses_and_log_lines_carry_the_request_id() {
    let gateway = Gateway::on_sandbox(&[("log.level", "debug")]).await;
    for (id, path, status) in [
        ("id-of-page", "/", 200),
        ("id-of-live", "/livez", 200),
        ("id-of-nothing", "/nothing", 404),
        ("id-of-query", "/graphql?query=%7B__typename%7D", 200),
        ("id-of-refusal", "/graphql?variables=17", 400),
        ("id-of-asset", "/assets/nothing.js", 404),
    ] {
        let reply = RawConnection::once(&gateway, with_id(path, &format!("x-request-id: {id}\r\n"))).await;
        assert_eq!((reply.status, reply.header("x-request-id")), (status, Some(id)), "{path}");
        log_with(&gateway, &[id, "request completed", &status.to_string()]).await;
    }
    assert!(!gateway.stderr().contains('\u{1b}'), "no colours where no terminal is: {}", gateway.stderr());
    let body = raw::query("{ __typename }");
    for (id, headers, status) in
        [("id-of-type", "Content-Encoding: br\r\n", 415), ("id-of-body", "Expect: 100-continue\r\n", 200)]
    {
        let mut raw = RawConnection::connect(&gateway).await;
        let mut reply = raw.exchange(raw::post(&format!("{headers}X-Request-Id: {id}\r\n"), &body)).await;
        if reply.status == 100 {
            reply = raw.reply().await;
        }
        assert_eq!((reply.status, reply.header("x-request-id")), (status, Some(id)));
        log_with(&gateway, &[id, "request completed"]).await;
    }
}

#[tokio::test]
async fn the_route_is_one_that_is_served_there() {
    let settings = [("log.level", "debug"), ("metrics.enabled", "false"), ("metrics.listen", "127.0.0.1:0")];
    let gateway = Gateway::on_sandbox(&settings).await;
    let stdout = gateway.stdout();
    let metrics = stdout.lines().find_map(|line| line.trim().strip_prefix("Metrics")).unwrap().trim();
    let graphql = format!("{}/graphql", gateway.base());
    for (id, url, route) in [
        ("id-of-metrics", metrics, "/metrics"),
        ("id-of-graphql", &graphql, "/graphql"),
        ("id-of-nothing", &metrics.replace("/metrics", "/graphql"), "(none)"),
    ] {
        GatewayResponse::of(gateway.client().get(url).header("x-request-id", id)).await;
        log_with(&gateway, &[id, "request completed", &format!("http.route=\"{route}\"")]).await;
    }
}

#[tokio::test]
async fn the_json_log_is_one_object_a_line() {
    let settings = [("log.format", "json"), ("log.level", "trace"), ("sandbox.error_percent", "100")];
    let mut gateway = Gateway::on_sandbox(&settings).await;
    let id = gateway.sandbox_ids().await.remove(0);
    let request = raw::post(
        "Authorization: Bearer sandbox-all\r\nX-Request-Id: findable\r\n",
        &raw::query(&format!(r#"{{ appointment(id: "{id}") {{ id }} }}"#)),
    );
    assert_eq!(RawConnection::once(&gateway, request).await.parsed().codes(), ["UPSTREAM_UNAVAILABLE"]);
    gateway.terminate();
    assert_eq!(gateway.ended().await.code(), Some(0));
    let log = log_with(&gateway, &["drained"]).await;
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect();
    assert!(lines.iter().all(|line| line["level"].is_string() && line["timestamp"].is_string()), "{log}");
    let answered =
        lines.iter().find(|line| line["message"] == "request completed" && line["span"]["id"] == "findable");
    assert_eq!(answered.map(|line| &line["http.status"]), Some(&json!(294)), "{log}");
    assert!(!log.contains('\u{1b}'), "no colours: {log}");
}

#[tokio::test]
async fn log_level_off_logs_nothing() {
    let mut gateway = Gateway::on_sandbox(&[("log.level", "off")]).await;
    gateway.query(Some("sandbox-all"), "{ a }").await;
    gateway.terminate();
    gateway.ended().await;
    assert_eq!(gateway.stderr(), "");
}

/// Everything that an appointment says of a person.
const PERSONAL: &str = "query ($ids: [UUID!]!) { appointmentsByIds(ids: $ids) {
    id reference url cancellationReason interpreterLanguage
    claimant { name phoneNumber email dateOfBirth data { name value } }
    meeting { roomName roomUrl }
} }";

#[tokio::test]
async fn no_token_and_nothing_personal_is_written_at_any_level() {
    for format in ["human", "json"] {
        let mut gateway = Gateway::on_sandbox(&[("log.level", "trace"), ("log.format", format)]).await;
        // One's own, since the sandbox's are printed at the start: they are no secret.
        let issued = gateway.client().post(format!("{}/oauth2/token", gateway.sandbox()));
        let issued = GatewayResponse::of(
            issued
                .basic_auth("sandbox-client", Some("sandbox-secret"))
                .body("grant_type=client_credentials")
                .header("content-type", "application/x-www-form-urlencoded"),
        )
        .await;
        let token = issued.body["access_token"].as_str().unwrap().to_owned();

        let mut ids = gateway.sandbox_ids().await;
        ids.extend(gateway.listed_ids(&token).await);
        ids.truncate(100);
        let reply = gateway.query_with(Some(&token), PERSONAL, json!({ "ids": ids })).await;
        let mut secrets = BTreeSet::from([token.clone(), token.rsplit('.').next().unwrap().to_owned()]);
        for appointment in reply.body["data"]["appointmentsByIds"].as_array().unwrap() {
            personal(appointment, &mut secrets);
        }
        assert!(secrets.len() > 200, "{} things to look for", secrets.len());

        // And any client input in unexpected places.
        let misplaced = "misplaced-4711";
        gateway.query(Some(misplaced), &format!(r#"{{ appointment(id: "{}") {{ id }} }}"#, ids[0])).await;
        gateway.query_with(None, PERSONAL, json!({ "ids": misplaced, misplaced: misplaced })).await;
        gateway.query(None, &format!(r#"{{ appointment(id: "{misplaced}") {{ id }} }}"#)).await;
        gateway.query(None, &format!("{{ a: {misplaced} {{")).await;
        gateway.query(None, &format!("query ($a: String = \"{misplaced}\") {{ nothing(a: $a) }}")).await;
        for path in [
            format!("/{misplaced}"),
            format!("/assets/{misplaced}"),
            format!("/graphql?query={misplaced}&access_token={misplaced}"),
        ] {
            GatewayResponse::of(gateway.request(Method::GET, &path).header("cookie", misplaced)).await;
        }
        for headers in [
            format!("Authorization: Basic {misplaced}\r\n"),
            format!("Authorization: Bearer {misplaced} {misplaced}\r\n"),
            format!("X-Request-Id: {misplaced}!\r\nAccept: {misplaced}\r\nX-Api-Key: {misplaced}\r\n"),
            format!("Bad Header {misplaced}\r\n"),
        ] {
            RawConnection::once(&gateway, raw::post(&headers, misplaced)).await;
        }
        secrets.insert(misplaced.to_owned());
        gateway.terminate();
        gateway.ended().await;
        let said = log_with(&gateway, &["drained"]).await + &gateway.stdout();
        assert!(said.contains("request completed"), "at this level each request is logged: {said}");
        for secret in &secrets {
            if let Some(line) = said.lines().find(|line| line.contains(secret.as_str())) {
                panic!("{secret:?} is in: {line}");
            }
        }
    }
}

/// The texts within `value` that are long enough not to be met by chance, but for the id.
fn personal(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::String(text) if text.len() >= 6 => {
            found.insert(text.clone());
        }
        Value::Array(items) => items.iter().for_each(|item| personal(item, found)),
        Value::Object(members) => {
            members.iter().filter(|(name, _)| *name != "id").for_each(|(_, member)| personal(member, found));
        }
        _ => {}
    }
}
