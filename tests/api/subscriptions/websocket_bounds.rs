//! Bounds of a WebSocket: its memory, its idle time, and its closing.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::websocket::{ALL, change, watch};
use crate::support::{
    Gate, Gateway, RawConnection, Socket, TIMEOUT, Upstream, UpstreamResponse, codes, handshake, id,
    peak_memory,
};

#[tokio::test]
async fn connections_and_subscriptions_have_a_bound() {
    let settings = [("websocket.max_connections", "2"), ("websocket.max_subscriptions", "2")];
    let gateway = Gateway::on_sandbox(&settings).await;
    let watch = watch(&gateway.sandbox_ids().await[0]);
    let first = Socket::connect(&gateway, ALL).await;
    let mut second = Socket::connect(&gateway, ALL).await;
    let reply = RawConnection::once(&gateway, handshake("GET", "")).await;
    assert_eq!(reply.header("retry-after"), Some("1"));
    reply.parsed().rejected(503, "OVERLOADED");
    // A place is free again soon after it has been left.
    first.close().await;
    let mut third = loop {
        match Socket::try_open(&gateway, &[]).await {
            Ok(socket) => break socket,
            Err(status) => assert_eq!(status, 503),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    third.send_message(json!({ "type": "connection_init" })).await;
    assert_eq!(third.receive().await, json!({ "type": "connection_ack" }));

    for id in ["1", "2"] {
        second.subscribe(id, &watch).await;
        assert_eq!(second.receive().await["id"], json!(id));
    }
    second.subscribe("3", &watch).await;
    let error = second.receive().await;
    assert_eq!(
        (&error["type"], &error["id"], codes(&error)),
        (&json!("error"), &json!("3"), vec!["OVERLOADED"])
    );
    let extensions = &error["payload"][0]["extensions"];
    assert_eq!(
        (&extensions["limit"], &extensions["maximum"]),
        (&json!("websocket.max_subscriptions"), &json!(2))
    );
    assert!(error["payload"][0]["message"].as_str().unwrap().contains("websocket.max_subscriptions"));
    assert_eq!(gateway.rejections("websocket.max_subscriptions").await, 1.0);
    assert!(gateway.rejections("websocket.max_connections").await >= 1.0);
    assert_eq!(gateway.metrics().await["gateway_websockets"], 2.0);
    second.send_message(json!({ "type": "complete", "id": "1" })).await;
    second.subscribe("3", &watch).await;
    assert_eq!(second.receive().await["type"], json!("next"));
}

#[tokio::test]
async fn a_message_has_a_bound() {
    let settings = [("websocket.max_message", "1KiB"), ("websocket.init_timeout", "1h")];
    let gateway = Gateway::on_sandbox(&settings).await;
    let pong = |length: usize| {
        let empty = json!({ "type": "pong", "payload": { "a": "" } }).to_string().len();
        Message::text(json!({ "type": "pong", "payload": { "a": "x".repeat(length - empty) } }).to_string())
    };
    let mut socket = Socket::open(&gateway).await;
    socket.send(pong(1024)).await;
    socket.send_message(json!({ "type": "ping" })).await;
    assert_eq!(socket.receive().await["type"], json!("pong"));
    socket.send(pong(1025)).await;
    assert_eq!(socket.closed().await.0, 1009);
    assert_eq!(gateway.rejections("websocket.max_message").await, 1.0);

    // Messages of any length: the gateway does not buffer them, and tells the client.
    let before = peak_memory(&gateway);
    for mut socket in join_all((0..4).map(|_| Socket::open(&gateway))).await {
        socket.send(pong(16 << 20)).await;
        assert_eq!(socket.closed().await.0, 1009);
    }
    let more = peak_memory(&gateway) - before;
    assert!(more < 16 << 10, "{more} KiB");
}

#[tokio::test]
async fn invalid_frames_close_with_the_code_of_the_rfc() {
    let gateway = Gateway::on_sandbox(&[]).await;
    // A text frame without a mask; one with a mask (of zeros) and no UTF-8 in it.
    for (frame, code) in [(&b"\x81\x02{}"[..], 1002), (b"\x81\x82\0\0\0\0\xff\xff", 1007)] {
        let mut stream = Socket::open(&gateway).await.into_stream();
        stream.write_all(frame).await.unwrap();
        let mut close = Vec::new();
        stream.read_to_end(&mut close).await.unwrap();
        assert_eq!((close[0], u16::from_be_bytes([close[2], close[3]])), (0x88, code), "{frame:?}");
    }
}

#[tokio::test]
async fn pings_are_sent_and_required() {
    let gateway = Gateway::on_sandbox(&[("live.keep_alive", "1s")]).await;
    let mut socket = Socket::connect(&gateway, ALL).await;
    let payload = json!({ "a": [1, "b"] });
    socket.send_message(json!({ "type": "ping", "payload": payload })).await;
    assert_eq!(socket.receive().await, json!({ "type": "pong", "payload": payload }));
    socket.send_message(json!({ "type": "pong", "payload": payload })).await;
    // Answered by the client's library as it reads on, these keep the socket open.
    let mut pings = 0;
    while pings < 3 {
        pings += usize::from(matches!(socket.frame().await, Message::Ping(_)));
    }
    let sent = Message::Ping(Vec::from(*b"there?").into());
    socket.send(sent).await;
    while socket.frame().await != Message::Pong(Vec::from(*b"there?").into()) {}

    // Clients that read but never respond to pings are disconnected.
    let mut silent = Socket::connect(&gateway, ALL).await.into_stream();
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
        UpstreamResponse::json(
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
    let mut socket = Socket::connect(&gateway, "token").await;
    socket.subscribe("1", &query).await;
    let status = |message: Value| -> usize {
        message["payload"]["data"]["appointmentChanged"]["status"].as_str().unwrap().parse().unwrap()
    };
    assert!(status(socket.receive().await) >= 1);
    let (calls, memory) = (upstream.calls(), peak_memory(&gateway));
    let late = calls + 60;
    upstream.until_called(late).await;
    // The events in flight when reading stopped, and then the current state.
    let mut events = 1;
    while status(socket.receive().await) < late - 1 {
        events += 1;
    }
    assert!(events <= 5, "{events} events");
    let more = peak_memory(&gateway).saturating_sub(memory);
    assert!(more < 100 << 10, "{more} KiB");
}

#[tokio::test]
async fn shutdown_finishes_operations_and_closes_subscriptions() {
    let settings = [("sandbox.latency", "500ms")];
    let mut gateway = Gateway::on_sandbox(&settings).await;
    let ids = gateway.sandbox_ids().await;
    let mut watching = Socket::connect(&gateway, ALL).await;
    watching.subscribe("1", &watch(&ids[0])).await;
    assert_eq!(watching.receive().await["type"], json!("next"));
    let mut idle = Socket::open(&gateway).await;
    let mut asking = Socket::connect(&gateway, ALL).await;
    asking.subscribe("1", &format!(r#"{{ appointment(id: "{}") {{ id }} }}"#, ids[1])).await;
    // The query is executing once a later message is answered.
    asking.send_message(json!({ "type": "ping" })).await;
    assert_eq!(asking.receive().await, json!({ "type": "pong" }));

    gateway.terminate();
    for socket in [&mut watching, &mut idle] {
        // Without a `complete`, which would tell the client not to subscribe again.
        let Message::Close(Some(close)) = socket.frame().await else { panic!("only a close") };
        assert_eq!((u16::from(close.code), close.reason), (1001, Utf8Bytes::from_static("Going away")));
    }
    assert_eq!(asking.receive().await["payload"]["data"]["appointment"]["id"], json!(ids[1]));
    assert_eq!(asking.receive().await, json!({ "type": "complete", "id": "1" }));
    assert_eq!(asking.closed().await.0, 1001);
    drop((watching, idle, asking));
    assert_eq!(gateway.ended().await.code(), Some(0));
    assert!(gateway.stderr().contains("drained"), "{}", gateway.stderr());
}

#[tokio::test]
async fn logs_contain_no_token_and_no_message_text() {
    let gateway = Gateway::on_sandbox(&[("log.level", "trace")]).await;
    let id = gateway.sandbox_ids().await.remove(0);
    let mut socket = Socket::connect(&gateway, ALL).await;
    socket.subscribe("secret-name", &watch(&id)).await;
    socket.receive().await;
    socket.subscribe("secret-name", &change(&id, "secret-language")).await;
    assert_eq!(socket.closed().await.0, 4409);
    let mut other = Socket::open(&gateway).await;
    other
        .send_message(json!({ "type": "connection_init", "payload": { "Authorization": "secret-token" } }))
        .await;
    assert_eq!(other.closed().await.0, 4403);
    let log = loop {
        let log = gateway.stderr();
        // The output of a process arrives with a short delay.
        if log.contains("4409") && log.contains("4403") {
            break log;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(!log.contains("secret") && !log.contains(ALL), "{log}");
}

#[tokio::test]
async fn slow_readers_hold_no_operation_slot() {
    let upstream = Upstream::answering(|call| {
        let large = json!({ "data": { "id": call.id, "reference": "x".repeat(900_000) } });
        UpstreamResponse::json(200, &large)
    })
    .await;
    let gate = Gate::shut();
    for n in [1, 2] {
        let gate = gate.clone();
        upstream.on(&id(n), move |call| call.appointment().once(&gate));
    }
    let gateway = Gateway::before(upstream.url(), &[("limits.operations", "3")]).await;
    let mut socket = Socket::connect(&gateway, "token").await;
    for n in [1, 2] {
        socket.subscribe(&n.to_string(), &format!(r#"{{ appointment(id: "{}") {{ id }} }}"#, id(n))).await;
    }
    upstream.until_called(2).await;
    // More than all the buffers between here and there hold.
    let large = (0..25).map(|n| format!(r#"a{n}: appointment(id: "{}") {{ reference }} "#, id(3)));
    socket.subscribe("3", &format!("{{ {} }}", large.collect::<String>())).await;
    upstream.until_called(3).await;
    let in_flight = async |count: f64| {
        let is_so = async {
            while gateway.metrics().await["gateway_operations_in_flight"] != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(TIMEOUT / 3, is_so).await.expect("so many are in flight");
    };
    in_flight(2.0).await;
    gate.open();
    in_flight(0.0).await;
}
