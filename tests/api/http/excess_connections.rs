//! Connections beyond `http.max_connections` are refused at once.

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::support::{Gateway, RawConnection, Socket, TIMEOUT, raw};

const LIVEZ: &str = "GET /livez HTTP/1.1\r\nHost: gateway\r\n\r\n";

/// Waits until a new connection is served.
async fn until_served(gateway: &Gateway) -> RawConnection {
    timeout(TIMEOUT, async {
        loop {
            let mut connection = RawConnection::connect(gateway).await;
            if connection.exchange(LIVEZ).await.status == 200 {
                return connection;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("a free place is found")
}

#[tokio::test]
async fn an_excess_connection_gets_503_without_a_request() {
    let gateway = Gateway::on_sandbox(&[("http.max_connections", "2"), ("http.idle_timeout", "1h")]).await;
    let mut held = [RawConnection::connect(&gateway).await, RawConnection::connect(&gateway).await];
    for connection in &mut held {
        assert_eq!(connection.exchange(LIVEZ).await.status, 200);
    }
    for _ in 0..3 {
        let mut excess = RawConnection::connect(&gateway).await;
        let response = excess.reply().await;
        assert_eq!(response.header("connection"), Some("close"));
        assert_eq!(response.header("retry-after"), Some("1"));
        assert_eq!(response.header("cache-control"), Some("no-store"));
        let reply = response.parsed();
        assert!(reply.rejected(503, "OVERLOADED").contains("http.max_connections"));
        let extensions = &reply.body["errors"][0]["extensions"];
        assert_eq!(
            (&extensions["limit"], &extensions["maximum"]),
            (&json!("http.max_connections"), &json!(2))
        );
        assert_eq!(excess.closed().await, b"");
    }
    // Those in use are not affected.
    let metrics = held[0].exchange("GET /metrics HTTP/1.1\r\nHost: gateway\r\n\r\n").await;
    let metrics = String::from_utf8(metrics.body).unwrap();
    assert!(metrics.contains("gateway_limited_total{limit=\"http.max_connections\"} 3\n"), "{metrics}");
    drop(held);
    until_served(&gateway).await;
}

/// A client that has already sent its request can read the response.
#[tokio::test]
async fn an_excess_request_reads_the_refusal() {
    let gateway = Gateway::on_sandbox(&[("http.max_connections", "1"), ("http.idle_timeout", "1h")]).await;
    let mut held = RawConnection::connect(&gateway).await;
    assert_eq!(held.exchange(LIVEZ).await.status, 200);
    for _ in 0..20 {
        let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
        let body = format!("{:<50000}", raw::query("{ __typename }"));
        stream.write_all(raw::post("", &body).as_bytes()).await.unwrap();
        let mut response = Vec::new();
        timeout(TIMEOUT, stream.read_to_end(&mut response)).await.expect("an end").expect("no reset");
        assert!(response.starts_with(b"HTTP/1.1 503 "), "{response:?}");
    }
    assert_eq!(held.exchange(LIVEZ).await.status, 200);
}

#[tokio::test]
async fn each_listener_names_its_own_limit() {
    let settings = [
        ("admin.listen", "127.0.0.1:0"),
        ("metrics.listen", "127.0.0.1:0"),
        ("metrics.enabled", "true"),
        ("http.idle_timeout", "1h"),
    ];
    let gateway = Gateway::on_sandbox(&settings).await;
    for (name, line, maximum) in [("admin.listen", "Admin", 64), ("metrics.listen", "Metrics", 16)] {
        let stdout = gateway.stdout();
        let url = stdout.lines().filter_map(|text| text.trim().strip_prefix(line)).next().expect("its line");
        let address = url.trim().trim_start_matches("http://").split(['/', ' ']).next().unwrap().to_owned();
        let mut held = Vec::new();
        for _ in 0..maximum {
            held.push(TcpStream::connect(&address).await.unwrap());
        }
        let mut excess = RawConnection::of(TcpStream::connect(&address).await.unwrap());
        let reply = excess.reply().await.parsed();
        assert!(reply.rejected(503, "OVERLOADED").contains(name));
        assert_eq!(reply.body["errors"][0]["extensions"]["limit"], name);
        drop(held);
        assert_eq!(gateway.rejections(name).await, 1.0);
    }
    assert_eq!(gateway.rejections("http.max_connections").await, 0.0);
}

#[tokio::test]
async fn a_websocket_frees_its_place_among_the_connections() {
    let gateway = Gateway::on_sandbox(&[("http.max_connections", "1"), ("http.idle_timeout", "1h")]).await;
    let mut sockets = Vec::new();
    for _ in 0..3 {
        drop(until_served(&gateway).await);
        timeout(TIMEOUT, async {
            // The previous connection may not be closed yet.
            loop {
                match Socket::try_open(&gateway, &[]).await {
                    Ok(socket) => return sockets.push(socket),
                    Err(status) => assert_eq!(status, 503),
                }
            }
        })
        .await
        .expect("a WebSocket is opened");
    }
    let mut only = until_served(&gateway).await;
    assert_eq!(RawConnection::connect(&gateway).await.reply().await.status, 503);
    assert_eq!(only.exchange(LIVEZ).await.status, 200);
}
