//! HTTP/1: old versions, pipelining, chunked bodies, and slow clients.

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::support::{Gateway, GatewayResponse, RawConnection, TIMEOUT, raw};

fn served() -> serde_json::Value {
    json!({ "data": { "__typename": "Query" } })
}

#[tokio::test]
async fn http_1_0_is_kept_alive_on_request_only() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let request = raw::post("", &raw::query("{ __typename }")).replace("HTTP/1.1", "HTTP/1.0");
    let mut once = RawConnection::connect(&gateway).await;
    let reply = once.exchange(&request).await;
    assert_eq!((reply.status, reply.header("transfer-encoding")), (200, None));
    assert_eq!(reply.parsed().body, served());
    assert_eq!(once.closed().await, b"");

    let kept = request.replace("Host: gateway\r\n", "Connection: keep-alive\r\n");
    let mut twice = RawConnection::connect(&gateway).await;
    for _ in 0..2 {
        let reply = twice.exchange(&kept).await;
        assert_eq!(reply.header("connection"), Some("keep-alive"));
        assert_eq!(reply.parsed().body, served());
    }
}

#[tokio::test]
async fn chunks_are_put_together_however_they_are_cut() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let head = "POST /graphql HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    let mut raw = RawConnection::connect(&gateway).await;
    raw.send(head).await.unwrap();
    for byte in raw::query("{ __typename }").chars() {
        raw.send(format!("1;ext=x\r\n{byte}\r\n")).await.unwrap();
    }
    raw.send("0\r\nTrailer: x\r\n\r\n").await.unwrap();
    assert_eq!(raw.reply().await.parsed().body, served());
    // And the connection is still in step.
    assert_eq!(raw.exchange(raw::post("", &raw::query("{ __typename }"))).await.parsed().body, served());
}

#[tokio::test]
async fn pipelined_requests_are_served_in_order() {
    let gateway = Gateway::on_sandbox(&[("sandbox.latency", "50ms")]).await;
    let id = gateway.sandbox_ids().await.remove(0);
    let slow = raw::post(
        "Authorization: Bearer sandbox-all\r\n",
        &raw::query(&format!(r#"{{ appointment(id: "{id}") {{ id }} }}"#)),
    );
    let quick = raw::post("", &raw::query("{ __typename }"));
    let refused = raw::post("", "[]");
    let unknown = "GET /nothing HTTP/1.1\r\nHost: gateway\r\n\r\n";
    let mut raw = RawConnection::connect(&gateway).await;
    raw.send([&slow, &quick, &refused, unknown, &quick].concat()).await.unwrap();
    assert_eq!(raw.reply().await.parsed().body, json!({ "data": { "appointment": { "id": id } } }));
    assert_eq!(raw.reply().await.parsed().body, served());
    raw.reply().await.parsed().rejected(422, "BAD_REQUEST");
    raw.reply().await.parsed().rejected(404, "BAD_REQUEST");
    assert_eq!(raw.reply().await.parsed().body, served());
}

#[tokio::test]
async fn a_connection_continues_after_a_rejection() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let mut raw = RawConnection::connect(&gateway).await;
    raw.exchange(raw::post("Content-Encoding: br\r\n", "xx")).await.parsed().rejected(415, "BAD_REQUEST");
    assert_eq!(raw.exchange(raw::post("", &raw::query("{ __typename }"))).await.parsed().body, served());
}

#[tokio::test]
async fn slow_headers_and_idle_connections_time_out() {
    let timeouts = [("http.header_timeout", "300ms"), ("http.idle_timeout", "300ms")];
    let gateway = Gateway::on_sandbox(&timeouts).await;
    let mut silent = RawConnection::connect(&gateway).await;
    let mut slow = RawConnection::connect(&gateway).await;
    slow.send("POST /graphql HTTP/1.1\r\nHost: gat").await.unwrap();
    let mut idle = RawConnection::connect(&gateway).await;
    assert_eq!(idle.exchange(raw::post("", &raw::query("{ __typename }"))).await.status, 200);
    // Each new header is no new patience.
    let mut trickling = RawConnection::connect(&gateway).await;
    trickling.send("GET /livez HTTP/1.1\r\nHost: g\r\n").await.unwrap();
    while trickling.send("X-Y: z\r\n").await.is_ok() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    silent.closed().await;
    slow.closed().await;
    idle.closed().await;
    assert_eq!(GatewayResponse::of(gateway.request(reqwest::Method::GET, "/livez")).await.status, 200);
}

#[tokio::test]
async fn a_body_that_does_not_end_is_408_at_the_deadline() {
    let gateway = Gateway::on_sandbox(&[("http.deadline", "300ms")]).await;
    let head = "POST /graphql HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n";
    for rest in ["Content-Length: 100\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"] {
        let reply = RawConnection::once(&gateway, format!("{head}{rest}")).await.parsed();
        assert!(reply.rejected(408, "BAD_REQUEST").contains("http.deadline"));
    }
    let mut trickling = RawConnection::connect(&gateway).await;
    trickling.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n")).await.unwrap();
    let reply = trickling.exchange_long("", b"1\r\n{\r\n", usize::MAX, b"").await.parsed();
    assert!(matches!(reply.status, 408 | 413), "{reply:?}");
    assert!(gateway.rejections("http.deadline").await >= 2.0);
}

/// Unread responses occupy memory.
#[tokio::test]
async fn a_client_that_reads_nothing_is_let_go() {
    let gateway = Gateway::on_sandbox(&[("http.write_timeout", "300ms")]).await;
    let page = GatewayResponse::of(gateway.request(reqwest::Method::GET, "/THIRD-PARTY-LICENSES.txt")).await;
    let whole = page.body.as_str().unwrap().len();
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    // More than the buffers between here and there hold.
    let asked = 200;
    let request = "GET /THIRD-PARTY-LICENSES.txt HTTP/1.1\r\nHost: g\r\n\r\n".repeat(asked);
    stream.write_all(request.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut answers = Vec::new();
    // The connection may end with a reset, as long as it ends before everything was sent.
    let _ = timeout(TIMEOUT, stream.read_to_end(&mut answers)).await.expect("an end");
    assert!(answers.len() < asked * whole, "{} bytes", answers.len());
    assert_eq!(gateway.rejections("http.write_timeout").await, 1.0);
}
