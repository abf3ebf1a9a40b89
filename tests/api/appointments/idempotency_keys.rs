//! `Idempotency-Key`: its syntax, its lifetime and its memory.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::time::sleep;

use crate::support::{
    Call, ChangeKind, Gateway, GatewayResponse, Keyed, RawConnection, Socket, Upstream, UpstreamResponse,
    handshake, id, raw,
};

async fn upstream() -> Upstream {
    Upstream::answering(|call| if call.is_change() { call.changed() } else { call.appointment() }).await
}

fn changes(upstream: &Upstream) -> usize {
    upstream.seen(|seen| seen.calls.iter().filter(|call| call.is_change()).count())
}

fn keyed(key: &str) -> Keyed {
    Keyed::of("token", key, ChangeKind::Create.operation())
}

async fn records(gateway: &Gateway) -> f64 {
    gateway.metrics().await["gateway_cache_entries{cache=\"idempotency_records\"}"]
}

/// A POST with these header lines.
async fn send(gateway: &Gateway, lines: &str, body: &str) -> GatewayResponse {
    let headers = format!("Authorization: Bearer {}\r\n{lines}", gateway.secret("token"));
    RawConnection::once(gateway, raw::post(&headers, body)).await.parsed()
}

#[tokio::test]
async fn a_key_is_a_quoted_string_or_a_bare_token() {
    let upstream = upstream().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let body = keyed("").parameters.to_string();
    let long = "k".repeat(255);
    for (line, expected) in [
        ("Idempotency-Key: \"one\"\r\n".to_owned(), 1),
        ("Idempotency-Key: one\r\n".to_owned(), 1),
        ("idempotency-key:   one  \r\n".to_owned(), 1),
        ("Idempotency-Key: One\r\n".to_owned(), 2),
        ("Idempotency-Key: \"a b, \\\"c\\\"\"\r\n".to_owned(), 3),
        (format!("Idempotency-Key: {long}\r\n"), 4),
        (format!("Idempotency-Key: \"{long}\"\r\n"), 4),
        (String::new(), 5),
    ] {
        send(&gateway, &line, &body).await.changed();
        assert_eq!(changes(&upstream), expected, "{line:?}");
    }
}

#[tokio::test]
async fn invalid_keys_are_refused_before_anything_is_sent() {
    let upstream = upstream().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let body = keyed("").parameters.to_string();
    let long = "k".repeat(256);
    for line in [
        "Idempotency-Key:\r\n",
        "Idempotency-Key: \"\"\r\n",
        "Idempotency-Key: \"canary-variable\r\n",
        "Idempotency-Key: canary-variable\"\r\n",
        "Idempotency-Key: canary-variable two\r\n",
        "Idempotency-Key: canary-variable,two\r\n",
        "Idempotency-Key: \"canary-variable\", \"two\"\r\n",
        "Idempotency-Key: canary-variable\r\nIdempotency-Key: canary-variable\r\n",
        "Idempotency-Key: canary-v\u{e4}riable\r\n",
        &format!("Idempotency-Key: {long}\r\n"),
        &format!("Idempotency-Key: \"{long}\"\r\n"),
    ] {
        let reply = send(&gateway, line, &body).await;
        let message = reply.rejected(400, "BAD_REQUEST");
        assert!(message.contains("Idempotency-Key") && !message.contains("canary"), "{line:?}: {message}");
    }
    assert_eq!(upstream.calls(), 0);
}

#[tokio::test]
async fn other_operations_ignore_the_key() {
    let upstream = upstream().await;
    for ttl in ["10m", "0"] {
        let gateway = Gateway::before(upstream.url(), &[("changes.idempotency_ttl", ttl)]).await;
        let query = format!("{{ appointment(id: \"{}\") {{ id }} }}", id(1));
        for other in [query.as_str(), "{ __typename }", query.as_str()] {
            let request = keyed("one").with_parameters(json!({ "query": other }));
            assert_eq!(request.send(&gateway).await.codes(), [""; 0], "{other}");
        }
        let get = gateway
            .request(Method::GET, "/graphql?query=%7B__typename%7D")
            .header("accept", "application/json");
        assert_eq!(GatewayResponse::of(get.header("idempotency-key", "not, a key")).await.status, 200);
        let mutation = "/graphql?query=mutation%7B__typename%7D";
        let get = gateway.request(Method::GET, mutation).header("accept", "application/json");
        GatewayResponse::of(get.header("idempotency-key", "one")).await.rejected(405, "BAD_REQUEST");
        let metrics = gateway.metrics().await;
        assert_eq!(metrics["gateway_cache_entries{cache=\"idempotency_records\"}"], 0.0);
    }
}

/// A WebSocket has many operations, so no header of its handshake can be the key of one of them.
#[tokio::test]
async fn a_websocket_ignores_the_key_of_its_handshake() {
    let upstream = upstream().await;
    for ttl in ["10m", "0"] {
        let gateway = Gateway::before(upstream.url(), &[("changes.idempotency_ttl", ttl)]).await;
        for lines in [
            "Idempotency-Key: one\r\n",
            "Idempotency-Key:\r\n",
            "Idempotency-Key: canary-variable, two\r\n",
            "Idempotency-Key: one\r\nIdempotency-Key: two\r\n",
            "Idempotency-Key: canary-v\u{e4}riable\r\n",
        ] {
            let reply = RawConnection::once(&gateway, handshake("GET", lines)).await;
            assert_eq!(reply.status, 101, "{ttl} {lines:?}");
        }
        let before = changes(&upstream);
        let mut socket = Socket::try_open(&gateway, &[("idempotency-key", "one")]).await.unwrap();
        let payload = json!({ "Authorization": format!("Bearer {}", gateway.secret("token")) });
        socket.send_message(json!({ "type": "connection_init", "payload": payload })).await;
        assert_eq!(socket.receive().await["type"], "connection_ack");
        for id in ["1", "2"] {
            let payload = keyed("one").parameters;
            socket.send_message(json!({ "type": "subscribe", "id": id, "payload": payload })).await;
            let next = socket.receive().await;
            let created = &next["payload"]["data"]["createAppointment"]["appointment"];
            assert_eq!(created["status"], "created", "{ttl} {next}");
            assert_eq!(socket.receive().await["type"], "complete", "{ttl}");
        }
        assert_eq!(changes(&upstream), before + 2, "{ttl}: both were sent");
        assert_eq!(records(&gateway).await, 0.0, "{ttl}");
        if ttl != "0" {
            keyed("one").send(&gateway).await.changed();
            assert_eq!(changes(&upstream), before + 3, "the key is still new");
        }
    }
}

#[tokio::test]
async fn a_record_expires() {
    let upstream = upstream().await;
    let gateway = Gateway::before(upstream.url(), &[("changes.idempotency_ttl", "500ms")]).await;
    keyed("one").send(&gateway).await.changed();
    sleep(Duration::from_millis(600)).await;
    let metrics = gateway.metrics().await;
    assert_eq!(metrics["gateway_cache_entries{cache=\"idempotency_records\"}"], 0.0);
    assert_eq!(metrics["gateway_cache_size_bytes{cache=\"idempotency_records\"}"], 0.0);
    // The key is free for any request.
    Keyed::of("token", "one", ChangeKind::Cancel.operation()).send(&gateway).await.changed();
    assert_eq!(changes(&upstream), 2);
}

#[tokio::test]
async fn without_records_a_key_is_refused() {
    let upstream = upstream().await;
    for (key, value) in [("changes.idempotency_ttl", "0"), ("changes.idempotency_size", "0")] {
        let gateway = Gateway::before(upstream.url(), &[(key, value)]).await;
        let before = changes(&upstream);
        for accept in ["application/graphql-response+json", "application/json", "text/event-stream"] {
            let request = keyed("one").request_without_accept(&gateway).header("accept", accept);
            let reply = GatewayResponse::of(request).await;
            let message = reply.rejected(400, "BAD_REQUEST");
            assert!(message.contains(key), "{message}");
        }
        assert_eq!(changes(&upstream), before);
        ChangeKind::Create.make(&gateway).await.changed();
    }
}

#[tokio::test]
async fn a_full_memory_refuses_keys_and_forgets_none() {
    let upstream = upstream().await;
    let gateway = Gateway::before(upstream.url(), &[("changes.idempotency_size", "32KiB")]).await;
    let mut made = 0;
    let refusal = loop {
        let reply = keyed(&format!("key-{made}")).send(&gateway).await;
        if reply.status != 200 {
            break reply;
        }
        made += 1;
        assert_eq!(changes(&upstream), made);
    };
    assert!(made > 10, "{made}");
    let message = refusal.rejected(503, "OVERLOADED");
    assert!(message.contains("changes.idempotency_size"), "{message}");
    assert_eq!(refusal.body["errors"][0]["extensions"]["limit"], "changes.idempotency_size");
    let retry_after: u64 = refusal.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((300..=600).contains(&retry_after), "{retry_after}");
    assert_eq!(changes(&upstream), made, "nothing was sent");
    assert_eq!(gateway.rejections("changes.idempotency_size").await, 1.0);

    ChangeKind::Create.make(&gateway).await.changed();
    keyed("key-0").by("other").send(&gateway).await.changed();
    assert_eq!(changes(&upstream), made + 2, "without a key, and another caller");
    for n in 0..made {
        keyed(&format!("key-{n}")).send(&gateway).await.changed();
    }
    keyed("key-0").by("other").send(&gateway).await.changed();
    assert_eq!(changes(&upstream), made + 2, "all are recorded");
    let size = gateway.metrics().await["gateway_cache_size_bytes{cache=\"idempotency_records\"}"];
    assert!(size <= 32.0 * 1024.0, "{size}");
}

#[tokio::test]
async fn made_up_tokens_take_no_memory() {
    let upstream = Upstream::answering(|call: &Call| match call.token() {
        "token" if call.is_change() => call.changed(),
        "token" => call.appointment(),
        _ => UpstreamResponse::status(401),
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[("changes.idempotency_size", "16KiB")]).await;
    for n in 0..100 {
        let reply = keyed("one").by(&format!("made-up-{n}")).send(&gateway).await;
        assert_eq!(reply.codes(), ["UNAUTHENTICATED"]);
    }
    let metrics = gateway.metrics().await;
    assert_eq!(metrics["gateway_cache_entries{cache=\"idempotency_records\"}"], 0.0);
    keyed("one").send(&gateway).await.changed();
    keyed("one").send(&gateway).await.changed();
    assert_eq!(changes(&upstream), 101);
}
