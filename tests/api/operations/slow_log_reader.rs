//! A slow or stopped reader of the log costs log lines, never responses.

use reqwest::Method;
use serde_json::json;
use tokio::time::timeout;

use crate::support::{
    Gateway, GatewayResponse, Issuer, KeyFile, RawConnection, TIMEOUT, Upstream, UpstreamResponse, forged,
    ids, raw,
};

const QUERY: &str = "query ($ids: [UUID!]!) { appointmentsByIds(ids: $ids) { id } }";

/// A gateway with an unread log that has dropped lines.
async fn stalled() -> (Upstream, Gateway) {
    let upstream = Upstream::answering(|_| UpstreamResponse::status(503)).await;
    let gateway = Gateway::with_unread_log(upstream.url(), &[("log.buffer", "4KiB")]).await;
    for first in 0..200 {
        let ids = ids(first..first + 2);
        let reply = gateway.query_with(Some("token"), QUERY, json!({ "ids": ids })).await;
        assert_eq!(reply.codes(), ["UPSTREAM_UNAVAILABLE"; 2]);
    }
    (upstream, gateway)
}

async fn until_logged(gateway: &Gateway, text: &str) {
    let logged = async {
        while !gateway.stderr().contains(text) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    timeout(TIMEOUT, logged).await.unwrap_or_else(|_| panic!("{text}: {}", gateway.stderr()));
}

#[tokio::test]
async fn a_stalled_log_reader_costs_lines_but_no_responses() {
    let (_upstream, mut gateway) = stalled().await;
    let live = GatewayResponse::of(gateway.request(Method::GET, "/livez")).await;
    assert_eq!(live.status, 200);
    let dropped = gateway.metrics().await["gateway_log_lines_dropped_total"];
    assert!(dropped > 0.0, "{dropped}");
    gateway.read_log();
    until_logged(&gateway, "log lines were dropped").await;
    let again = raw::post("X-Request-Id: after-the-stall\r\n", &raw::query("{ __typename }"));
    assert_eq!(RawConnection::once(&gateway, again).await.status, 200);
    until_logged(&gateway, "after-the-stall").await;
    let log = gateway.stderr();
    let reported = log.lines().filter_map(|line| line.split_once(" log lines were dropped"));
    let reported = reported.map(|(start, _)| start.rsplit(' ').next().unwrap().parse::<f64>().unwrap());
    assert!(reported.sum::<f64>() >= dropped, "{log}");
}

#[tokio::test]
async fn a_stalled_log_reader_does_not_hold_up_the_end() {
    let (_upstream, mut gateway) = stalled().await;
    gateway.terminate();
    assert_eq!(gateway.ended().await.code(), Some(0));
}

/// The last line is written before the process exits.
#[tokio::test]
async fn the_last_lines_are_written_at_the_end() {
    let mut gateway = Gateway::on_sandbox(&[]).await;
    for _ in 0..100 {
        gateway.query(None, "{ __typename }").await;
    }
    gateway.terminate();
    assert_eq!(gateway.ended().await.code(), Some(0));
    let log = gateway.stderr();
    assert!(log.lines().last().is_some_and(|line| line.ends_with("drained")), "{log}");
}

#[tokio::test]
async fn no_request_writes_a_line_at_info() {
    let issuer = Issuer::new("key-1");
    let upstream = Upstream::with_tokens().await;
    upstream.show_keys_of(&[&issuer]);
    let keys = KeyFile::of(&["alice"]);
    let settings = [
        ("log.level", "info"),
        ("callers.api_keys_file", keys.path()),
        ("callers.verifications_per_second", "1"),
        ("limits.operations", "1"),
        ("websocket.max_connections", "0"),
        ("rate_limit.per_second", "10"),
        ("rate_limit.burst", "20"),
    ];
    let gateway = Gateway::for_issuer(&upstream, &settings).await;
    assert_eq!(gateway.query(Some(keys.key(0)), "{ __typename }").await.status, 200);
    until_logged(&gateway, "serving").await;
    until_logged(&gateway, "service token fetched").await;
    let before = gateway.stderr();
    let mut statuses = std::collections::BTreeSet::new();
    for n in 0..30 {
        for token in [None, Some("unknown"), Some(keys.key(0)), Some(&forged(&format!("subject-{n}")))] {
            for query in ["{ __typename }", "{", "{ appointment(id: 1) { id } }"] {
                statuses.insert(gateway.query(token, query).await.status);
            }
        }
        for path in ["/nothing", "/graphql", "/graphql?query=%7B__typename%7D"] {
            statuses.insert(GatewayResponse::of(gateway.request(Method::PUT, path)).await.status);
            let upgrade = gateway.request(Method::GET, path).header("upgrade", "websocket");
            statuses.insert(GatewayResponse::of(upgrade.header("sec-websocket-version", "13")).await.status);
        }
    }
    assert!(statuses.contains(&503) && statuses.contains(&429) && statuses.contains(&401), "{statuses:?}");
    drop(gateway.metrics().await);
    let after = gateway.stderr();
    assert_eq!(after, before);
}
