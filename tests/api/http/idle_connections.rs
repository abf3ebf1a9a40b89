//! Connections between requests: `http.idle_timeout` and `http.header_timeout` are two clocks.

use std::time::Duration;

use tokio::time::sleep;

use crate::support::{
    Gateway, RawConnection, Subscription, SubscriptionEvent, Transport, Upstream, UpstreamResponse, id, raw,
    served,
};

const LIVEZ: &str = "GET /livez HTTP/1.1\r\nHost: gateway\r\n\r\n";

/// Much longer than [`SHORT`].
const PAUSE: Duration = Duration::from_millis(900);
const SHORT: &str = "300ms";

async fn used(gateway: &Gateway) -> RawConnection {
    let mut connection = RawConnection::connect(gateway).await;
    assert_eq!(connection.exchange(LIVEZ).await.status, 200);
    connection
}

#[tokio::test]
async fn an_idle_connection_outlives_the_header_timeout() {
    let gateway = Gateway::on_sandbox(&[("http.header_timeout", SHORT)]).await;
    let mut connection = used(&gateway).await;
    for _ in 0..2 {
        sleep(PAUSE).await;
        assert_eq!(connection.exchange(LIVEZ).await.status, 200);
    }
    // The head of a further request has the header timeout.
    connection.send("GET /livez HTTP/1.1\r\n").await.unwrap();
    assert_eq!(connection.closed().await, b"");
    assert!(gateway.rejections("http.header_timeout").await >= 1.0);
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_the_idle_timeout() {
    let gateway = Gateway::on_sandbox(&[("http.idle_timeout", SHORT), ("http.header_timeout", "1h")]).await;
    let mut connection = used(&gateway).await;
    assert_eq!(connection.exchange(raw::post("", &raw::query("{ __typename }"))).await.status, 200);
    assert_eq!(connection.closed().await, b"");
    // It is no fault of the client.
    assert_eq!(gateway.rejections("http.header_timeout").await, 0.0);
}

#[tokio::test]
async fn a_slow_head_outlives_the_idle_timeout() {
    let gateway = Gateway::on_sandbox(&[("http.idle_timeout", SHORT)]).await;
    for is_new in [true, false] {
        let mut connection =
            if is_new { RawConnection::connect(&gateway).await } else { used(&gateway).await };
        connection.send("GET /livez HTTP/1.1\r\nHost: ga").await.unwrap();
        sleep(PAUSE).await;
        assert_eq!(connection.exchange("teway\r\n\r\n").await.status, 200);
    }
}

#[tokio::test]
async fn a_new_connection_has_the_header_timeout() {
    let gateway = Gateway::on_sandbox(&[("http.header_timeout", SHORT), ("http.idle_timeout", "1h")]).await;
    let mut silent = RawConnection::connect(&gateway).await;
    let mut slow = RawConnection::connect(&gateway).await;
    slow.send("GET /livez HTTP/1.1\r\n").await.unwrap();
    assert_eq!(silent.closed().await, b"");
    assert_eq!(slow.closed().await, b"");
    // A scrape on a slow machine may be one more.
    assert!(gateway.rejections("http.header_timeout").await >= 2.0);
}

/// The gateway has read the start of the next head together with the request before it.
#[tokio::test]
async fn a_head_begun_during_a_request_has_the_header_timeout() {
    let gateway = Gateway::on_sandbox(&[("http.header_timeout", SHORT), ("http.idle_timeout", "1h")]).await;
    let mut connection = RawConnection::connect(&gateway).await;
    assert_eq!(connection.exchange(format!("{LIVEZ}GET /li")).await.status, 200);
    assert_eq!(connection.closed().await, b"");
    assert!(gateway.rejections("http.header_timeout").await >= 1.0);
}

/// Empty lines before a request are ignored (RFC 9112, section 2.2).
#[tokio::test]
async fn an_empty_line_begins_no_head() {
    let gateway = Gateway::on_sandbox(&[("http.header_timeout", SHORT), ("http.idle_timeout", "1h")]).await;
    let mut connection = used(&gateway).await;
    connection.send("\r\n").await.unwrap();
    sleep(PAUSE).await;
    assert_eq!(connection.exchange(LIVEZ).await.status, 200);
}

#[tokio::test]
async fn requests_in_progress_are_not_idle() {
    let upstream = Upstream::answering(|call| {
        if call.id == id(1) { call.appointment().after(PAUSE) } else { UpstreamResponse::status(404) }
    })
    .await;
    let timeouts = [("http.idle_timeout", SHORT), ("http.header_timeout", SHORT)];
    let gateway = Gateway::before(upstream.url(), &timeouts).await;
    let mut connection = used(&gateway).await;
    let body = raw::query(&format!(r#"{{ appointment(id: "{}") {{ id reference status }} }}"#, id(1)));
    let reply = connection.exchange(raw::post("Authorization: Bearer token\r\n", &body)).await.parsed();
    assert_eq!(*reply.appointment(), served(&id(1), "token", 1));

    // A body that arrives slowly.
    let request = raw::post("", &raw::query("{ __typename }"));
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    connection.send(format!("{head}\r\n\r\n")).await.unwrap();
    sleep(PAUSE).await;
    assert_eq!(connection.exchange(body).await.status, 200);
}

#[tokio::test]
async fn open_subscriptions_are_not_idle() {
    let upstream = Upstream::start().await;
    let settings = [
        ("http.idle_timeout", SHORT),
        ("http.header_timeout", SHORT),
        ("live.fast_interval", "1s"),
        ("live.slow_interval", "1s"),
        ("live.keep_alive", "1h"),
    ];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    for transport in Transport::EACH {
        let mut subscription: Subscription = gateway.subscribe(transport, "token", &id(1)).await;
        // Each poll changes the status.
        for _ in 0..3 {
            assert!(matches!(subscription.event().await, SubscriptionEvent::Next(_)), "{transport:?}");
        }
    }
}

/// A client that reads slowly is bounded by the write timeouts.
#[tokio::test]
async fn a_response_being_read_is_not_idle() {
    let gateway = Gateway::on_sandbox(&[("http.idle_timeout", SHORT)]).await;
    let mut connection = RawConnection::connect(&gateway).await;
    // More than the buffers between here and there hold.
    let asked = 100;
    let request = "GET /THIRD-PARTY-LICENSES.txt HTTP/1.1\r\nHost: g\r\n\r\n".repeat(asked);
    connection.send(&request).await.unwrap();
    sleep(PAUSE).await;
    for _ in 0..asked {
        assert_eq!(connection.reply().await.status, 200);
    }
    assert_eq!(connection.closed().await, b"");
}
