//! The protocol `graphql-transport-ws`.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Gateway, RawConnection, RawResponse, Socket, Upstream, codes, handshake, id, jwt};

pub const ALL: &str = "sandbox-all";

pub fn watch(id: &str) -> String {
    format!(r#"subscription {{ appointmentChanged(id: "{id}") {{ id interpreterLanguage }} }}"#)
}

pub fn change(id: &str, language: &str) -> String {
    format!(
        r#"mutation {{ updateAppointment(id: "{id}", input: {{ interpreterLanguage: "{language}" }})
            {{ appointment {{ interpreterLanguage }} userErrors {{ message }} }} }}"#
    )
}

fn seen(subscription: &str, id: &str, language: &str) -> Value {
    let appointment = json!({ "id": id, "interpreterLanguage": language });
    json!({ "type": "next", "id": subscription, "payload": { "data": { "appointmentChanged": appointment } } })
}

#[tokio::test]
async fn the_handshake_is_that_of_the_rfc() {
    let gateway = Gateway::on_sandbox(&[("http.origins", "https://app.example")]).await;
    for headers in [
        "",
        "Sec-WebSocket-Protocol: graphql-ws, graphql-transport-ws\r\n",
        "Origin: http://gateway\r\n",
        "Origin: https://gateway\r\n",
        "Origin: https://app.example\r\n",
    ] {
        let reply: RawResponse = RawConnection::once(&gateway, handshake("GET", headers)).await;
        assert_eq!(reply.status, 101, "{headers}");
        // The example of RFC 6455, section 1.3.
        assert_eq!(reply.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(reply.header("sec-websocket-protocol"), Some("graphql-transport-ws"));
        assert!(reply.header("x-request-id").is_some());
    }
    for (method, headers, status, text) in [
        ("GET", "Sec-WebSocket-Protocol: \r\n", 400, "graphql-transport-ws"),
        ("GET", "Sec-WebSocket-Protocol: graphql-ws\r\n", 400, "graphql-transport-ws"),
        ("GET", "Sec-WebSocket-Version: 8\r\n", 426, "13"),
        ("GET", "Sec-WebSocket-Version: 8\r\nSec-WebSocket-Version: 13\r\n", 426, "13"),
        ("GET", "Connection: keep-alive\r\n", 400, "Upgrade"),
        ("POST", "Content-Length: 0\r\n", 405, "GET"),
        ("GET", "Origin: https://evil.example\r\n", 403, "http.origins"),
        ("GET", "Origin: http://gateway:8080\r\n", 403, "http.origins"),
        ("GET", "Origin: http://app.example\r\n", 403, "http.origins"),
        ("GET", "Origin: null\r\n", 403, "http.origins"),
        ("GET", "Origin: https://app.example/\r\n", 403, "http.origins"),
        ("GET", "Origin: https://app.example/path?query#fragment\r\n", 403, "http.origins"),
        ("GET", "Origin: https://app.example:443\r\n", 403, "http.origins"),
        ("GET", "Origin: https://user@app.example\r\n", 403, "http.origins"),
        ("GET", "Origin: HTTPS://APP.EXAMPLE\r\n", 403, "http.origins"),
        ("GET", "Origin: https://app.example https://app.example\r\n", 403, "http.origins"),
        ("GET", "Origin: https://app.example\r\nOrigin: https://app.example\r\n", 403, "http.origins"),
        ("GET", "Origin: https://app.example\r\nOrigin: https://evil.example\r\n", 403, "http.origins"),
        ("GET", "Origin: https://gateway\r\nOrigin: https://gateway\r\n", 403, "http.origins"),
        ("GET", "Origin: https://gateway/\r\n", 403, "http.origins"),
        ("GET", "Origin: https://gateway:443\r\n", 403, "http.origins"),
        ("GET", "Origin: https://user@gateway\r\n", 403, "http.origins"),
        ("GET", "Origin: https://Gateway\r\n", 403, "http.origins"),
        ("GET", "Origin: \r\n", 403, "http.origins"),
    ] {
        let reply = RawConnection::once(&gateway, handshake(method, headers)).await;
        assert!(status != 426 || reply.header("sec-websocket-version") == Some("13"));
        assert!(status != 426 || reply.header("upgrade") == Some("websocket"));
        assert!(status != 426 || reply.header("connection") == Some("upgrade"));
        assert!(status != 405 || reply.header("allow") == Some("GET"));
        let reply = reply.parsed();
        let message = reply.rejected(status, "BAD_REQUEST");
        assert!(message.contains(text), "{headers}: {message}");
    }
    // Java's client asks for this on every first request, and takes a plain answer.
    let plain = "GET /graphql?query=%7B__typename%7D HTTP/1.1\r\nHost: gateway\r\nAccept: application/json\r\n\
        Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n\r\n";
    assert_eq!(RawConnection::once(&gateway, plain).await.status, 200);
}

#[tokio::test]
async fn the_handshake_needs_one_key_of_16_bytes() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let key = |value: &str| format!("Sec-WebSocket-Key: {value}\r\n");
    for value in [
        "dGhlIHNhbXBsZSBub25jZQ==",
        "AAAAAAAAAAAAAAAAAAAAAA==",
        "/////////////////////w==",
        " +/+/+/+/+/+/+/+/+/+/+w== ",
    ] {
        let reply = RawConnection::once(&gateway, handshake("GET", &key(value))).await;
        assert_eq!(reply.status, 101, "{value}");
    }
    for headers in [
        key(""),
        key("x"),
        key("key"),
        // 15, 17 and 32 bytes.
        key("AAAAAAAAAAAAAAAAAAAA"),
        key("AAAAAAAAAAAAAAAAAAAAAAA="),
        key("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        // Without padding, with too much of it, in the other alphabet, with other characters.
        key("dGhlIHNhbXBsZSBub25jZQ"),
        key("dGhlIHNhbXBsZSBub25jZQ="),
        key("dGhlIHNhbXBsZSBub25jZQ==="),
        key("_____________________w=="),
        key("dGhlIHNhbXBs ZSBub25jZQ=="),
        key("dGhlIHNhbXBsZSBub25jZ\u{e9}=="),
        key("dGhlIHNhbXBsZSBub25jZQ==").repeat(2),
        key("dGhlIHNhbXBsZSBub25jZQ==") + &key("AAAAAAAAAAAAAAAAAAAAAA=="),
    ] {
        let reply = RawConnection::once(&gateway, handshake("GET", &headers)).await.parsed();
        let message = reply.rejected(400, "BAD_REQUEST");
        assert!(message.contains("Sec-WebSocket-Key") && message.contains("16"), "{headers}: {message}");
    }
    let missing = handshake("GET", "").replace("Sec-WebSocket-Key", "X-Other");
    RawConnection::once(&gateway, missing).await.parsed().rejected(400, "BAD_REQUEST");
}

#[tokio::test]
async fn http_1_0_cannot_upgrade() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let request = handshake("GET", "Accept: application/json\r\n")
        .replace("/graphql HTTP/1.1", "/graphql?query=%7B__typename%7D HTTP/1.0");
    let reply = RawConnection::once(&gateway, request).await.parsed();
    assert_eq!((reply.status, reply.body), (200, json!({ "data": { "__typename": "Query" } })));
}

#[tokio::test]
async fn everything_runs_over_one_socket() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let id = gateway.sandbox_ids().await.remove(0);
    let mut socket = Socket::connect(&gateway, ALL).await;

    socket.subscribe("watch", &watch(&id)).await;
    let first = socket.receive().await;
    assert_eq!(first["payload"]["data"]["appointmentChanged"]["id"], json!(id));

    // The response to a change and the event for subscribers arrive in either order.
    socket.subscribe("change", &change(&id, "xx")).await;
    let mut heard = [socket.receive().await, socket.receive().await, socket.receive().await];
    heard.sort_by_key(|message| message["type"].to_string() + &message["id"].to_string());
    let appointment = json!({ "appointment": { "interpreterLanguage": "xx" }, "userErrors": [] });
    let payload = json!({ "data": { "updateAppointment": appointment } });
    let answer = json!({ "type": "next", "id": "change", "payload": payload });
    assert_eq!(heard, [json!({ "type": "complete", "id": "change" }), answer, seen("watch", &id, "xx")]);

    // An id is free again once its operation is over; and so is one that the client has given up.
    for id in ["change", "watch"] {
        if id == "watch" {
            socket.send_message(json!({ "type": "complete", "id": id })).await;
        }
        socket.subscribe(id, "{ __typename }").await;
        let payload = json!({ "data": { "__typename": "Query" } });
        assert_eq!(socket.receive().await, json!({ "type": "next", "id": id, "payload": payload }));
        assert_eq!(socket.receive().await, json!({ "type": "complete", "id": id }));
    }

    // Cancelled operations send nothing more.
    gateway.query(Some(ALL), &change(&id, "yy")).await;
    socket.send_message(json!({ "type": "complete", "id": "never there" })).await;
    socket.send_message(json!({ "type": "ping" })).await;
    assert_eq!(socket.receive().await, json!({ "type": "pong" }));
    socket.close().await;
}

#[tokio::test]
async fn request_errors_use_error_and_field_errors_use_next() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let mut socket = Socket::connect(&gateway, ALL).await;
    for (query, code) in [
        ("{", "GRAPHQL_PARSE_FAILED"),
        ("{ nothing }", "GRAPHQL_VALIDATION_FAILED"),
        ("subscription { nothing }", "GRAPHQL_VALIDATION_FAILED"),
        ("query ($id: UUID!) { appointment(id: $id) { id } }", "BAD_USER_INPUT"),
    ] {
        socket.subscribe("1", query).await;
        let error = socket.receive().await;
        assert_eq!((&error["type"], &error["id"]), (&json!("error"), &json!("1")), "{query}");
        assert_eq!(codes(&error), [code], "{query}");
    }
    socket.subscribe("1", &watch(&id(404))).await;
    let answer = socket.receive().await;
    assert_eq!((&answer["type"], &answer["payload"]["data"]), (&json!("next"), &Value::Null));
    assert_eq!(codes(&answer), ["NOT_FOUND"]);
    assert_eq!(socket.receive().await, json!({ "type": "complete", "id": "1" }));
}

#[tokio::test]
async fn protocol_violations_close_the_socket() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let payload = json!({ "Authorization": format!("Bearer {ALL}") });
    let init = json!({ "type": "connection_init", "payload": payload }).to_string();
    let query = watch(&gateway.sandbox_ids().await[0]);
    let run = |id: &str| json!({ "type": "subscribe", "id": id, "payload": { "query": query } }).to_string();
    let (one, two) = (run("1"), run(&"2".repeat(100)));
    let text = |text: &str| Message::text(text.to_owned());
    let with = |payload: Value| text(&json!({ "type": "connection_init", "payload": payload }).to_string());
    for (frames, code, reason) in [
        (vec![text("")], 4400, "Invalid message"),
        (vec![text("no JSON")], 4400, "Invalid message"),
        (vec![text(r#"{"type":"start"}"#)], 4400, "Invalid message"),
        (vec![text(&init), text(r#"{"type":"subscribe","id":"1","payload":{}}"#)], 4400, "Invalid message"),
        (vec![Message::binary(init.clone().into_bytes())], 4400, "Invalid message"),
        (vec![text(&one)], 4401, "Unauthorized"),
        (vec![with(json!({ "Authorization": "sandbox-all" }))], 4403, "Forbidden"),
        (vec![with(json!({ "Authorization": "Basic dTpw" }))], 4403, "Forbidden"),
        (vec![with(json!({ "Authorization": 1 }))], 4403, "Forbidden"),
        (vec![with(json!({ "Authorization": "Bearer a", "authorization": "Bearer b" }))], 4403, "Forbidden"),
        (vec![text(&init), text(&one), text(&one)], 4409, "Subscriber for 1 already exists"),
        (vec![text(&init), text(&two), text(&two)], 4409, "Subscriber already exists"),
        (vec![text(&init), text(&init)], 4429, "Too many initialisation requests"),
    ] {
        let mut socket = Socket::open(&gateway).await;
        let what = format!("{frames:?}");
        for frame in frames {
            socket.send(frame).await;
        }
        let (closed, because) = socket.closed().await;
        assert_eq!(closed, code, "{what}");
        assert!(because.starts_with(reason), "{what}: {because}");
        assert!(!because.contains("sandbox-all"), "{because}");
    }
}

#[tokio::test]
async fn connections_without_init_are_closed() {
    let gateway = Gateway::on_sandbox(&[("websocket.init_timeout", "200ms")]).await;
    let mut socket = Socket::open(&gateway).await;
    socket.send_message(json!({ "type": "ping" })).await;
    assert_eq!(socket.receive().await, json!({ "type": "pong" }));
    assert_eq!(socket.closed().await, (4408, "Connection initialisation timeout".to_owned()));
    assert_eq!(gateway.rejections("websocket.init_timeout").await, 1.0);

    let mut begun = Socket::connect(&gateway, ALL).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    begun.subscribe("1", "{ __typename }").await;
    assert_eq!(begun.receive().await["type"], json!("next"));
}

#[tokio::test]
async fn the_token_of_the_first_message_beats_that_of_the_handshake() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let query = format!(r#"{{ appointment(id: "{}") {{ reference }} }}"#, id(1));
    let named = |token: &str| json!({ "Authorization": format!("Bearer {token}") });
    for (header, payload, expected) in [
        (Some("Bearer up"), Value::Null, Some("up")),
        (Some("Bearer up"), json!({ "Authorization": null }), Some("up")),
        (Some("Bearer up"), named("first"), Some("first")),
        (Some("Basic dTpw"), named("first"), Some("first")),
        (None, json!({ "authorization": "bearer first", "more": 1 }), Some("first")),
        (Some("Basic dTpw"), Value::Null, None),
        (None, Value::Null, None),
    ] {
        let headers: Vec<_> = header.map(|header| ("authorization", header)).into_iter().collect();
        let mut socket = Socket::try_open(&gateway, &headers).await.unwrap();
        socket.send_message(json!({ "type": "connection_init", "payload": payload })).await;
        assert_eq!(socket.receive().await, json!({ "type": "connection_ack" }));
        socket.subscribe("1", &query).await;
        let answer = socket.receive().await;
        match expected {
            Some(token) => {
                assert_eq!(answer["payload"]["data"]["appointment"]["reference"], json!(token))
            }
            None => assert_eq!(codes(&answer), ["UNAUTHENTICATED"]),
        }
        assert_eq!(socket.receive().await, json!({ "type": "complete", "id": "1" }));
    }
}

#[tokio::test]
async fn a_subscription_ends_with_its_token_and_the_socket_goes_on() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[("callers.leeway", "0")]).await;
    let mut socket = Socket::connect(&gateway, &jwt(2)).await;
    socket.subscribe("1", &watch(&id(1))).await;
    assert!(socket.receive().await["payload"]["data"]["appointmentChanged"].is_object());
    let last = socket.receive().await;
    assert_eq!((&last["type"], codes(&last)), (&json!("next"), vec!["UNAUTHENTICATED"]));
    assert_eq!(socket.receive().await, json!({ "type": "complete", "id": "1" }));
    socket.send_message(json!({ "type": "ping" })).await;
    assert_eq!(socket.receive().await, json!({ "type": "pong" }));
}
