//! Health checks and graceful shutdown.

use std::time::Duration;

use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::json;
use tokio::{net::TcpStream, time::timeout};

use crate::support::{Gateway, GatewayResponse, RawConnection, TIMEOUT, raw, signal};

const LIVEZ: &str = "GET /livez HTTP/1.1\r\nHost: gateway\r\n\r\n";
const READYZ: &str = "GET /readyz HTTP/1.1\r\nHost: gateway\r\n\r\n";

/// Waits until `is_so`.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    timeout(TIMEOUT, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("it never comes to be that {what}"));
}

/// A query for an appointment that the gateway has certainly begun to read.
async fn in_flight(gateway: &Gateway) -> RawConnection {
    let id = gateway.sandbox_ids().await.remove(0);
    let body = raw::query(&format!(r#"{{ appointment(id: "{id}") {{ id }} }}"#));
    let request = raw::post("Authorization: Bearer sandbox-all\r\nExpect: 100-continue\r\n", &body);
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let mut raw = RawConnection::connect(gateway).await;
    raw.send(format!("{head}\r\n\r\n")).await.unwrap();
    assert_eq!(raw.reply().await.status, 100);
    raw.send(body).await.unwrap();
    raw
}

async fn is_refused(gateway: &Gateway) -> bool {
    TcpStream::connect(gateway.address()).await.is_err()
}

#[tokio::test]
async fn live_and_ready_from_the_start_without_an_upstream() {
    let gateway = Gateway::before("http://127.0.0.1:9", &[]).await;
    for (path, text) in [("/livez", "live\n"), ("/readyz", "ready\n")] {
        let reply = GatewayResponse::of(gateway.request(Method::GET, path)).await;
        assert_eq!((reply.status, reply.body), (200, json!(text)));
        assert_eq!(reply.headers["cache-control"], "no-store");
        assert_eq!(GatewayResponse::of(gateway.request(Method::HEAD, path)).await.status, 200);
    }
}

#[tokio::test]
async fn shutdown_completes_requests_in_flight_and_accepts_none() {
    for ask in [Signal::SIGTERM, Signal::SIGINT] {
        let mut gateway = Gateway::on_sandbox(&[("sandbox.latency", "500ms")]).await;
        let mut idle = RawConnection::connect(&gateway).await;
        assert_eq!(idle.exchange(LIVEZ).await.status, 200);
        let mut slow = in_flight(&gateway).await;
        signal(&gateway, ask);
        // Idle connections do not delay the shutdown.
        assert_eq!(idle.closed().await, b"");
        until("connections are refused", async || is_refused(&gateway).await).await;
        let reply = slow.reply().await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("connection"), Some("close"));
        assert!(reply.parsed().body["data"]["appointment"]["id"].is_string());
        assert_eq!(slow.closed().await, b"");
        assert_eq!(gateway.ended().await.code(), Some(0), "{ask}");
        assert!(gateway.stderr().contains("drained"), "{}", gateway.stderr());
    }
}

#[tokio::test]
async fn during_the_drain_delay_it_serves_but_is_not_ready() {
    let mut gateway = Gateway::on_sandbox(&[("http.drain_delay", "1h")]).await;
    assert_eq!(RawConnection::once(&gateway, READYZ).await.status, 200);
    gateway.terminate();
    until("/readyz is 503", async || RawConnection::once(&gateway, READYZ).await.status == 503).await;
    assert_eq!(RawConnection::once(&gateway, LIVEZ).await.status, 200);
    let served = RawConnection::once(&gateway, raw::post("", &raw::query("{ __typename }"))).await;
    assert_eq!(served.parsed().body, json!({ "data": { "__typename": "Query" } }));

    // A second signal exits at once.
    gateway.terminate();
    assert_eq!(gateway.ended().await.code(), Some(1));
}

#[tokio::test]
async fn after_the_drain_delay_it_ends() {
    let mut gateway = Gateway::on_sandbox(&[("http.drain_delay", "100ms")]).await;
    assert_eq!(RawConnection::once(&gateway, READYZ).await.status, 200);
    gateway.terminate();
    assert_eq!(gateway.ended().await.code(), Some(0));
}

/// A request of an hour, with a deadline of two.
const ENDLESS: [(&str, &str); 3] =
    [("sandbox.latency", "1h"), ("upstream.timeout", "2h"), ("http.deadline", "2h")];

#[tokio::test]
async fn at_the_drain_deadline_it_ends_whatever_is_in_flight() {
    let mut gateway =
        Gateway::on_sandbox(&[&ENDLESS[..], &[("http.drain_deadline", "200ms")]].concat()).await;
    let mut slow = in_flight(&gateway).await;
    let mut half = RawConnection::connect(&gateway).await;
    half.send("POST /graphql HTTP/1.1\r\nHost: g").await.unwrap();
    gateway.terminate();
    assert_eq!(gateway.ended().await.code(), Some(0));
    assert_eq!(slow.closed().await, b"");
    assert!(gateway.stderr().contains("http.drain_deadline"), "{}", gateway.stderr());
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    for (first, second) in [(Signal::SIGTERM, Signal::SIGTERM), (Signal::SIGINT, Signal::SIGTERM)] {
        let mut gateway =
            Gateway::on_sandbox(&[&ENDLESS[..], &[("http.drain_deadline", "2h")]].concat()).await;
        let mut slow = in_flight(&gateway).await;
        signal(&gateway, first);
        until("it drains", async || is_refused(&gateway).await).await;
        signal(&gateway, second);
        assert_eq!(gateway.ended().await.code(), Some(1));
        assert_eq!(slow.closed().await, b"");
    }
}

/// Two signals in a row are two signals, however little time there is between them.
#[tokio::test]
async fn two_signals_in_quick_succession_exit_at_once() {
    let mut gateway = Gateway::on_sandbox(&[("http.drain_delay", "1h")]).await;
    signal(&gateway, Signal::SIGTERM);
    signal(&gateway, Signal::SIGINT);
    assert_eq!(gateway.ended().await.code(), Some(1));
}

/// An orchestrator may change its mind while the start-up lines are still being written.
#[tokio::test]
async fn shutdown_right_after_the_start_is_graceful() {
    for _ in 0..10 {
        let mut gateway = Gateway::on_sandbox(&[]).await;
        gateway.terminate();
        assert_eq!(gateway.ended().await.code(), Some(0));
    }
}

#[tokio::test]
async fn the_request_deadline_produces_a_response() {
    let settings = [("sandbox.latency", "1h"), ("upstream.timeout", "2h"), ("http.deadline", "200ms")];
    let gateway = Gateway::on_sandbox(&settings).await;
    let id = gateway.sandbox_ids().await.remove(0);
    let query = format!(r#"{{ t: __typename a: appointment(id: "{id}") {{ id }} }}"#);
    let reply = gateway.query(Some("sandbox-all"), &query).await;
    assert_eq!((reply.status, &reply.body["data"]), (294, &json!({ "t": "Query", "a": null })));
    assert_eq!(reply.codes(), ["UPSTREAM_TIMEOUT"]);
    assert_eq!(reply.body["errors"][0]["path"], json!(["a"]));
}
