//! `graphql-transport-ws`, to the letter of its protocol, and the bounds around it.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::support::{Answer, Gateway, Raw, RawReply, Socket, Upstream, id, peak_memory};

const ALL: &str = "sandbox-all";

fn watch(id: &str) -> String {
    format!(r#"subscription {{ appointmentChanged(id: "{id}") {{ id interpreterLanguage }} }}"#)
}

fn change(id: &str, language: &str) -> String {
    format!(
        r#"mutation {{ updateAppointment(id: "{id}", input: {{ interpreterLanguage: "{language}" }})
            {{ appointment {{ interpreterLanguage }} userErrors {{ message }} }} }}"#
    )
}

fn seen(subscription: &str, id: &str, language: &str) -> Value {
    let appointment = json!({ "id": id, "interpreterLanguage": language });
    json!({ "type": "next", "id": subscription, "payload": { "data": { "appointmentChanged": appointment } } })
}

/// The codes of the errors in a `next` or an `error`.
fn codes(message: &Value) -> Vec<&str> {
    let errors = message["payload"].as_array().or_else(|| message["payload"]["errors"].as_array());
    errors.unwrap().iter().map(|error| error["extensions"]["code"].as_str().unwrap()).collect()
}

/// A handshake with the usual headers, but for those that `headers` has.
fn handshake(method: &str, headers: &str) -> String {
    let mut text = format!("{method} /graphql HTTP/1.1\r\nHost: gateway\r\n");
    for usual in [
        "Connection: keep-alive, Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol: graphql-transport-ws",
    ] {
        let (name, _) = usual.split_once(':').unwrap();
        if !headers.contains(&format!("{name}:")) {
            text += &format!("{usual}\r\n");
        }
    }
    format!("{text}{headers}\r\n")
}

#[tokio::test]
async fn the_handshake_is_that_of_the_rfc() {
    let gateway = Gateway::on_sandbox(&[("websocket.origins", "https://app.example")]).await;
    for headers in [
        "",
        "Sec-WebSocket-Protocol: graphql-ws, graphql-transport-ws\r\n",
        "Origin: http://gateway\r\n",
        "Origin: https://gateway\r\n",
        "Origin: https://app.example\r\n",
    ] {
        let reply: RawReply = Raw::once(&gateway, handshake("GET", headers)).await;
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
        ("GET", "Connection: keep-alive\r\n", 400, "Upgrade"),
        ("POST", "Content-Length: 0\r\n", 405, "GET"),
        ("GET", "Origin: https://evil.example\r\n", 403, "websocket.origins"),
        ("GET", "Origin: http://gateway:8080\r\n", 403, "websocket.origins"),
        ("GET", "Origin: http://app.example\r\n", 403, "websocket.origins"),
        ("GET", "Origin: null\r\n", 403, "websocket.origins"),
    ] {
        let reply = Raw::once(&gateway, handshake(method, headers)).await;
        assert!(status != 426 || reply.header("sec-websocket-version") == Some("13"));
        assert!(status != 405 || reply.header("allow") == Some("GET"));
        let reply = reply.cooked();
        let message = reply.refused(status, "BAD_REQUEST");
        assert!(message.contains(text), "{headers}: {message}");
    }
    // Java's client asks for this on every first request, and takes a plain answer.
    let plain = "GET /graphql?query=%7B__typename%7D HTTP/1.1\r\nHost: gateway\r\nAccept: application/json\r\n\
        Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n\r\n";
    assert_eq!(Raw::once(&gateway, plain).await.status, 200);
}

#[tokio::test]
async fn everything_runs_over_one_socket() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let id = gateway.sandbox_ids().await.remove(0);
    let mut socket = Socket::begin(&gateway, ALL).await;

    socket.subscribe("watch", &watch(&id)).await;
    let first = socket.hear().await;
    assert_eq!(first["payload"]["data"]["appointmentChanged"]["id"], json!(id));

    // A change's own answer and what the watcher sees of it come in either order.
    socket.subscribe("change", &change(&id, "xx")).await;
    let mut heard = [socket.hear().await, socket.hear().await, socket.hear().await];
    heard.sort_by_key(|message| message["type"].to_string() + &message["id"].to_string());
    let appointment = json!({ "appointment": { "interpreterLanguage": "xx" }, "userErrors": [] });
    let payload = json!({ "data": { "updateAppointment": appointment } });
    let answer = json!({ "type": "next", "id": "change", "payload": payload });
    assert_eq!(heard, [json!({ "type": "complete", "id": "change" }), answer, seen("watch", &id, "xx")]);

    // An id is free again once its operation is over; and so is one that the client has given up.
    for id in ["change", "watch"] {
        if id == "watch" {
            socket.say(json!({ "type": "complete", "id": id })).await;
        }
        socket.subscribe(id, "{ __typename }").await;
        let payload = json!({ "data": { "__typename": "Query" } });
        assert_eq!(socket.hear().await, json!({ "type": "next", "id": id, "payload": payload }));
        assert_eq!(socket.hear().await, json!({ "type": "complete", "id": id }));
    }

    // Nothing more is said of what was given up.
    gateway.query(Some(ALL), &change(&id, "yy")).await;
    socket.say(json!({ "type": "complete", "id": "never there" })).await;
    socket.say(json!({ "type": "ping" })).await;
    assert_eq!(socket.hear().await, json!({ "type": "pong" }));
    socket.leave().await;
}

#[tokio::test]
async fn what_cannot_be_run_is_an_error_and_what_fails_is_an_answer() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let mut socket = Socket::begin(&gateway, ALL).await;
    for (query, code) in [
        ("{", "GRAPHQL_PARSE_FAILED"),
        ("{ nothing }", "GRAPHQL_VALIDATION_FAILED"),
        ("subscription { nothing }", "GRAPHQL_VALIDATION_FAILED"),
        ("query ($id: UUID!) { appointment(id: $id) { id } }", "BAD_USER_INPUT"),
    ] {
        socket.subscribe("1", query).await;
        let error = socket.hear().await;
        assert_eq!((&error["type"], &error["id"]), (&json!("error"), &json!("1")), "{query}");
        assert_eq!(codes(&error), [code], "{query}");
    }
    socket.subscribe("1", &watch(&id(404))).await;
    let answer = socket.hear().await;
    assert_eq!((&answer["type"], &answer["payload"]["data"]), (&json!("next"), &Value::Null));
    assert_eq!(codes(&answer), ["NOT_FOUND"]);
    assert_eq!(socket.hear().await, json!({ "type": "complete", "id": "1" }));
}

#[tokio::test]
async fn the_protocol_is_kept_or_the_socket_closed() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let payload = json!({ "Authorization": format!("Bearer {ALL}") });
    let init = json!({ "type": "connection_init", "payload": payload }).to_string();
    let query = watch(&gateway.sandbox_ids().await[0]);
    let run = |id: &str| json!({ "type": "subscribe", "id": id, "payload": { "query": query } }).to_string();
    let (one, two) = (run("1"), run(&"2".repeat(200)));
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
async fn who_does_not_begin_is_not_waited_for() {
    let gateway = Gateway::on_sandbox(&[("websocket.init_timeout", "200ms")]).await;
    let mut socket = Socket::open(&gateway).await;
    socket.say(json!({ "type": "ping" })).await;
    assert_eq!(socket.hear().await, json!({ "type": "pong" }));
    assert_eq!(socket.closed().await, (4408, "Connection initialisation timeout".to_owned()));

    let mut begun = Socket::begin(&gateway, ALL).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    begun.subscribe("1", "{ __typename }").await;
    assert_eq!(begun.hear().await["type"], json!("next"));
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
        socket.say(json!({ "type": "connection_init", "payload": payload })).await;
        assert_eq!(socket.hear().await, json!({ "type": "connection_ack" }));
        socket.subscribe("1", &query).await;
        let answer = socket.hear().await;
        match expected {
            Some(token) => {
                assert_eq!(answer["payload"]["data"]["appointment"]["reference"], json!(token))
            }
            None => assert_eq!(codes(&answer), ["UNAUTHENTICATED"]),
        }
        assert_eq!(socket.hear().await, json!({ "type": "complete", "id": "1" }));
    }
}

#[tokio::test]
async fn a_subscription_ends_with_its_token_and_the_socket_goes_on() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let mut socket = Socket::begin(&gateway, &crate::freshness::jwt(2)).await;
    socket.subscribe("1", &watch(&id(1))).await;
    assert!(socket.hear().await["payload"]["data"]["appointmentChanged"].is_object());
    let last = socket.hear().await;
    assert_eq!((&last["type"], codes(&last)), (&json!("next"), vec!["UNAUTHENTICATED"]));
    assert_eq!(socket.hear().await, json!({ "type": "complete", "id": "1" }));
    socket.say(json!({ "type": "ping" })).await;
    assert_eq!(socket.hear().await, json!({ "type": "pong" }));
}

#[tokio::test]
async fn connections_and_subscriptions_have_a_bound() {
    let settings = [("websocket.max_connections", "2"), ("websocket.max_subscriptions", "2")];
    let gateway = Gateway::on_sandbox(&settings).await;
    let watch = watch(&gateway.sandbox_ids().await[0]);
    let first = Socket::begin(&gateway, ALL).await;
    let mut second = Socket::begin(&gateway, ALL).await;
    let reply = Raw::once(&gateway, handshake("GET", "")).await;
    assert_eq!(reply.header("retry-after"), Some("1"));
    reply.cooked().refused(503, "OVERLOADED");
    // A place is free again soon after it has been left.
    first.leave().await;
    let mut third = loop {
        match Socket::try_open(&gateway, &[]).await {
            Ok(socket) => break socket,
            Err(status) => assert_eq!(status, 503),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    third.say(json!({ "type": "connection_init" })).await;
    assert_eq!(third.hear().await, json!({ "type": "connection_ack" }));

    for id in ["1", "2"] {
        second.subscribe(id, &watch).await;
        assert_eq!(second.hear().await["id"], json!(id));
    }
    second.subscribe("3", &watch).await;
    let error = second.hear().await;
    assert_eq!(
        (&error["type"], &error["id"], codes(&error)),
        (&json!("error"), &json!("3"), vec!["BAD_REQUEST"])
    );
    assert!(error["payload"][0]["message"].as_str().unwrap().contains("websocket.max_subscriptions"));
    second.say(json!({ "type": "complete", "id": "1" })).await;
    second.subscribe("3", &watch).await;
    assert_eq!(second.hear().await["type"], json!("next"));
}

#[tokio::test]
async fn a_message_has_a_bound() {
    let gateway = Gateway::on_sandbox(&[("websocket.max_message", "1KiB")]).await;
    let ping = |length: usize| {
        let empty = json!({ "type": "ping", "payload": { "a": "" } }).to_string().len();
        Message::text(json!({ "type": "ping", "payload": { "a": "x".repeat(length - empty) } }).to_string())
    };
    let mut socket = Socket::open(&gateway).await;
    socket.send(ping(1024)).await;
    assert_eq!(socket.hear().await["type"], json!("pong"));
    socket.send(ping(1025)).await;
    assert_eq!(socket.closed().await.0, 1009);

    // However long it is: nobody collects it, and the client is told.
    let before = peak_memory(&gateway);
    for mut socket in join_all((0..4).map(|_| Socket::open(&gateway))).await {
        socket.send(ping(16 << 20)).await;
        assert_eq!(socket.closed().await.0, 1009);
    }
    let more = peak_memory(&gateway) - before;
    assert!(more < 16 << 10, "{more} KiB");
}

#[tokio::test]
async fn what_is_not_websocket_is_closed_as_the_rfc_says() {
    let gateway = Gateway::on_sandbox(&[]).await;
    use tokio::io::AsyncWriteExt as _;
    // A text frame without a mask; one with a mask (of zeros) and no UTF-8 in it.
    for (frame, code) in [(&b"\x81\x02{}"[..], 1002), (b"\x81\x82\0\0\0\0\xff\xff", 1007)] {
        let mut stream = Socket::open(&gateway).await.silent();
        stream.write_all(frame).await.unwrap();
        let mut close = Vec::new();
        stream.read_to_end(&mut close).await.unwrap();
        assert_eq!((close[0], u16::from_be_bytes([close[2], close[3]])), (0x88, code), "{frame:?}");
    }
}

#[tokio::test]
async fn signs_of_life_are_given_and_asked_for() {
    let gateway = Gateway::on_sandbox(&[("live.keep_alive", "1s")]).await;
    let mut socket = Socket::begin(&gateway, ALL).await;
    let payload = json!({ "a": [1, "b"] });
    socket.say(json!({ "type": "ping", "payload": payload })).await;
    assert_eq!(socket.hear().await, json!({ "type": "pong", "payload": payload }));
    socket.say(json!({ "type": "pong", "payload": payload })).await;
    // Answered by the client's library as it reads on, these keep the socket open.
    let mut pings = 0;
    while pings < 3 {
        pings += usize::from(matches!(socket.frame().await, Message::Ping(_)));
    }
    let sent = Message::Ping(Vec::from(*b"there?").into());
    socket.send(sent).await;
    while socket.frame().await != Message::Pong(Vec::from(*b"there?").into()) {}

    // Who reads and never answers is taken for gone.
    let mut silent = Socket::begin(&gateway, ALL).await.silent();
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).await.unwrap();
    assert!(rest.starts_with(b"\x89\0"), "pings first: {rest:?}");
    assert!(!rest.contains(&0x88), "and nothing said at the end");
}

#[tokio::test]
async fn a_slow_reader_finds_the_latest_state_and_no_queue() {
    // Four megabytes an event, another one each time that the upstream is asked.
    let upstream = Upstream::answering(|call| {
        let reference = call.nth.to_string().repeat(200_000 / call.nth.to_string().len());
        Answer::json(
            200,
            &json!({ "data": { "id": call.id, "reference": reference, "status": call.nth.to_string() } }),
        )
    })
    .await;
    let settings =
        [("live.fast_interval", "20ms"), ("live.slow_interval", "20ms"), ("live.keep_alive", "1h")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let fields = (0..20).map(|n| format!("a{n}: reference")).collect::<Vec<_>>().join(" ");
    let query = format!(r#"subscription {{ appointmentChanged(id: "{}") {{ status {fields} }} }}"#, id(1));
    let mut socket = Socket::begin(&gateway, "token").await;
    socket.subscribe("1", &query).await;
    let status = |message: Value| -> usize {
        message["payload"]["data"]["appointmentChanged"]["status"].as_str().unwrap().parse().unwrap()
    };
    assert!(status(socket.hear().await) >= 1);
    let (calls, memory) = (upstream.calls(), peak_memory(&gateway));
    let late = calls + 60;
    upstream.until_called(late).await;
    // What was on its way when the reading stopped, and then the state of now.
    let mut events = 1;
    while status(socket.hear().await) < late - 1 {
        events += 1;
    }
    assert!(events <= 5, "{events} events");
    let more = peak_memory(&gateway).saturating_sub(memory);
    assert!(more < 100 << 10, "{more} KiB");
}

#[tokio::test]
async fn asked_to_stop_the_gateway_finishes_requests_and_sends_subscribers_elsewhere() {
    let settings = [("sandbox.latency", "500ms")];
    let mut gateway = Gateway::on_sandbox(&settings).await;
    let ids = gateway.sandbox_ids().await;
    let mut watching = Socket::begin(&gateway, ALL).await;
    watching.subscribe("1", &watch(&ids[0])).await;
    assert_eq!(watching.hear().await["type"], json!("next"));
    let mut idle = Socket::open(&gateway).await;
    let mut asking = Socket::begin(&gateway, ALL).await;
    asking.subscribe("1", &format!(r#"{{ appointment(id: "{}") {{ id }} }}"#, ids[1])).await;
    // That the query is being run is sure once what was said after it is answered.
    asking.say(json!({ "type": "ping" })).await;
    assert_eq!(asking.hear().await, json!({ "type": "pong" }));

    gateway.terminate();
    for socket in [&mut watching, &mut idle] {
        // Without a `complete`, which would tell the client not to subscribe again.
        let Message::Close(Some(close)) = socket.frame().await else { panic!("only a close") };
        assert_eq!((u16::from(close.code), close.reason), (1001, Utf8Bytes::from_static("Going away")));
    }
    assert_eq!(asking.hear().await["payload"]["data"]["appointment"]["id"], json!(ids[1]));
    assert_eq!(asking.hear().await, json!({ "type": "complete", "id": "1" }));
    assert_eq!(asking.closed().await.0, 1001);
    drop((watching, idle, asking));
    assert_eq!(gateway.ended().await.code(), Some(0));
    assert!(gateway.stderr().contains("drained"), "{}", gateway.stderr());
}

#[tokio::test]
async fn no_log_has_a_token_or_what_was_said() {
    let gateway = Gateway::on_sandbox(&[("log.level", "trace")]).await;
    let id = gateway.sandbox_ids().await.remove(0);
    let mut socket = Socket::begin(&gateway, ALL).await;
    socket.subscribe("secret-name", &watch(&id)).await;
    socket.hear().await;
    socket.subscribe("secret-name", &change(&id, "secret-language")).await;
    assert_eq!(socket.closed().await.0, 4409);
    let mut other = Socket::open(&gateway).await;
    other.say(json!({ "type": "connection_init", "payload": { "Authorization": "secret-token" } })).await;
    assert_eq!(other.closed().await.0, 4403);
    let log = loop {
        let log = gateway.stderr();
        // What a process has written is here a moment later.
        if log.contains("4409") && log.contains("4403") {
            break log;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(!log.contains("secret") && !log.contains(ALL), "{log}");
}
