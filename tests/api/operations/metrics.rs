//! Metrics: their format, and their separate address.

use reqwest::Method;
use serde_json::json;

use crate::support::{FinishedRun, Gateway, GatewayResponse, Upstream, UpstreamResponse, program};

const APPOINTMENT: &str = include_str!("../../fixtures/fresh.json");
const QUERY: &str = "query ($id: UUID!) { appointment(id: $id) { status } }";

#[tokio::test]
async fn operations_and_errors_are_counted() {
    let upstream =
        Upstream::answering(|_| UpstreamResponse::text(200, "application/json", APPOINTMENT)).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let id = &serde_json::from_str::<serde_json::Value>(APPOINTMENT).unwrap()["data"]["id"];
    for _ in 0..3 {
        gateway.query_with(Some("token"), QUERY, json!({ "id": id })).await;
    }
    gateway.query(Some("token"), "{").await;
    let cancel = "mutation ($id: UUID!) { cancelAppointment(id: $id) { appointment { id } } }";
    gateway.query_with(Some("token"), cancel, json!({ "id": id })).await;
    // Rejected, not executed.
    gateway.query_with(None, cancel, json!({ "id": id })).await;
    GatewayResponse::of(gateway.request(Method::POST, "/graphql").body("no json")).await;
    let metrics = gateway.metrics().await;
    for (series, value) in [
        ("gateway_operations_total{kind=\"query\"}", 3.0),
        ("gateway_operations_total{kind=\"mutation\"}", 1.0),
        ("gateway_operations_total{kind=\"subscription\"}", 0.0),
        ("gateway_errors_total{code=\"GRAPHQL_PARSE_FAILED\"}", 1.0),
        ("gateway_errors_total{code=\"UNAUTHENTICATED\"}", 1.0),
        ("gateway_errors_total{code=\"BAD_REQUEST\"}", 1.0),
        ("gateway_requests_total{status=\"2xx\"}", 4.0),
        ("gateway_requests_total{status=\"4xx\"}", 3.0),
        ("gateway_panics_total", 0.0),
    ] {
        assert_eq!(metrics.get(series), Some(&value), "{series} of {metrics:#?}");
    }
    assert_eq!(metrics["gateway_request_duration_seconds_count"], 7.0);
    assert!(metrics["gateway_resident_memory_bytes"] > 1e6 && metrics["gateway_open_files"] > 3.0);
}

#[tokio::test]
async fn metrics_are_uncacheable_text_for_scrapers() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let reply = GatewayResponse::of(gateway.request(Method::GET, "/metrics")).await;
    assert_eq!(reply.status, 200);
    assert!(
        reply.headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("application/openmetrics-text; version=1.0.0")
    );
    assert_eq!(reply.headers["cache-control"], "no-store");
    let text = reply.body.as_str().unwrap();
    assert!(text.ends_with("# EOF\n") && text.contains("# HELP gateway_errors "), "{text}");
}

#[tokio::test]
async fn it_is_shown_where_the_operator_says_and_nowhere_else() {
    let apart = [("metrics.enabled", "false"), ("metrics.listen", "127.0.0.1:0")];
    let gateway = Gateway::on_sandbox(&apart).await;
    GatewayResponse::of(gateway.request(Method::GET, "/metrics")).await.rejected(404, "BAD_REQUEST");
    let stdout = gateway.stdout();
    let address =
        stdout.lines().find_map(|line| line.trim().strip_prefix("Metrics")).unwrap().trim().to_owned();
    let metrics = GatewayResponse::of(gateway.client().get(&address)).await;
    assert!(metrics.body.as_str().unwrap().contains("gateway_requests_total"));
    let elsewhere = address.replace("/metrics", "/graphql");
    GatewayResponse::of(gateway.client().get(elsewhere)).await.rejected(404, "BAD_REQUEST");
}

#[tokio::test]
async fn an_address_that_is_taken_ends_the_start_with_its_key() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = FinishedRun::of(program(&["serve"], &[("metrics.listen", &address)])).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains(&format!("--metrics-listen: cannot listen on {address}")), "{ended:?}");
}
