//! The concurrency limit and its queue. The upstream holds back its responses until a test releases them.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    Call, Events, Gate, Gateway, GatewayResponse, RawConnection, Socket, Upstream, UpstreamResponse, codes,
    id, raw,
};

/// An upstream that answers nothing until the gate is open, but for ids from 100.
async fn held() -> (Upstream, Gate) {
    let gate = Gate::shut();
    let answers = gate.clone();
    let upstream = Upstream::answering(move |call: &Call| match call.id.as_str() >= id(100).as_str() {
        true => call.appointment(),
        false => call.appointment().once(&answers),
    })
    .await;
    (upstream, gate)
}

fn query(number: usize) -> String {
    format!(r#"{{ appointment(id: "{}") {{ id }} }}"#, id(number))
}

fn served(number: usize) -> Value {
    json!({ "data": { "appointment": { "id": id(number) } } })
}

#[track_caller]
fn assert_overloaded(reply: &GatewayResponse, maximum: usize) {
    reply.rejected(503, "OVERLOADED");
    assert_eq!(reply.headers["retry-after"], "1");
    let extensions =
        json!({ "code": "OVERLOADED", "limit": "operations", "maximum": maximum, "retryAfterSeconds": 1 });
    assert_eq!(reply.body["errors"][0]["extensions"], extensions);
}

#[tokio::test]
async fn executing_and_waiting_operations_are_bounded() {
    let (upstream, gate) = held().await;
    let settings =
        [("limits.operations", "2"), ("limits.operations_waiting", "1"), ("limits.operations_wait", "1h")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let (ask, asks) = (query, [query(1), query(2), query(3)]);
    let (first, second, third) = (
        gateway.query(Some("token"), &asks[0]),
        gateway.query(Some("token"), &asks[1]),
        gateway.query(Some("token"), &asks[2]),
    );
    let refusing = async {
        upstream.until_called(2).await;
        gateway.until_gauge("gateway_operations_in_flight", 2.0).await;
        gateway.until_gauge("gateway_operations_waiting", 1.0).await;
        for accept in ["application/json", "application/graphql-response+json", "text/event-stream"] {
            let request = gateway.request(Method::POST, "/graphql").bearer_auth("token");
            let request = request.header("content-type", "application/json").header("accept", accept);
            assert_overloaded(&GatewayResponse::of(request.body(raw::query(&ask(4)))).await, 2);
        }
        assert_eq!(gateway.rejections("operations").await, 3.0);
        // Health checks, metrics and GraphiQL are not limited.
        for path in ["/livez", "/readyz", "/metrics", "/", "/graphiql.json"] {
            assert_eq!(GatewayResponse::of(gateway.request(Method::GET, path)).await.status, 200, "{path}");
        }
        assert_eq!(upstream.calls(), 2, "nothing is asked for by those who wait or are refused");
        gate.open();
    };
    let third = async {
        upstream.until_called(2).await;
        third.await
    };
    let (first, second, third, ()) = futures_util::join!(first, second, third, refusing);
    let bodies = [first, second, third].map(|reply| reply.body);
    assert_eq!(bodies, [served(1), served(2), served(3)]);
    assert_eq!(upstream.calls(), 3);
    gateway.until_gauge("gateway_operations_in_flight", 0.0).await;
    gateway.until_gauge("gateway_operations_waiting", 0.0).await;
}

#[tokio::test]
async fn waiting_ends_after_the_configured_time() {
    let (upstream, gate) = held().await;
    let settings = [("limits.operations", "1"), ("limits.operations_wait", "50ms")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let ask = query(1);
    let refusing = async {
        upstream.until_called(1).await;
        assert_overloaded(&gateway.query(Some("token"), &query(2)).await, 1);
        gate.open();
    };
    let (reply, ()) = futures_util::join!(gateway.query(Some("token"), &ask), refusing);
    assert_eq!((reply.body, upstream.calls()), (served(1), 1));
}

/// Disconnected clients free their slot, whether waiting or executing.
#[tokio::test]
async fn leaving_subscribers_free_their_place() {
    let (upstream, _gate) = held().await;
    let settings = [("limits.operations", "1"), ("limits.operations_wait", "1h")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let ask = |number| raw::post("Authorization: Bearer token\r\n", &raw::query(&query(number)));
    let mut serving = RawConnection::connect(&gateway).await;
    serving.send(ask(1)).await.unwrap();
    upstream.until_called(1).await;
    let mut waiting = RawConnection::connect(&gateway).await;
    waiting.send(ask(2)).await.unwrap();
    gateway.until_gauge("gateway_operations_waiting", 1.0).await;
    drop(waiting);
    gateway.until_gauge("gateway_operations_waiting", 0.0).await;
    drop(serving);
    assert_eq!(gateway.query(Some("token"), &query(100)).await.body, served(100));
    assert_eq!(upstream.calls_for(&id(2)), 0);
}

/// Slow bodies hold no slot: a request needs one only after its body.
#[tokio::test]
async fn a_slow_body_takes_no_place() {
    let settings = [("limits.operations", "1"), ("limits.operations_waiting", "0")];
    let gateway = Gateway::on_sandbox(&settings).await;
    let mut slow = RawConnection::connect(&gateway).await;
    let request = raw::post("Expect: 100-continue\r\n", &raw::query("{ __typename }"));
    let (start, end) = request.split_at(request.len() - 1);
    slow.send(start).await.unwrap();
    assert_eq!(slow.reply().await.status, 100);
    assert_eq!(gateway.query(None, "{ __typename }").await.status, 200);
    slow.send(end).await.unwrap();
    assert_eq!(slow.reply().await.status, 200);
}

/// An operation over a WebSocket waits like any other, without delaying other messages.
#[tokio::test]
async fn over_a_websocket_an_operation_waits_and_the_socket_does_not() {
    let (upstream, gate) = held().await;
    let settings =
        [("limits.operations", "1"), ("limits.operations_waiting", "1"), ("limits.operations_wait", "1h")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let mut socket = Socket::connect(&gateway, "token").await;
    socket.subscribe("1", &query(1)).await;
    upstream.until_called(1).await;
    socket.subscribe("2", &query(2)).await;
    gateway.until_gauge("gateway_operations_waiting", 1.0).await;
    socket.subscribe("3", &query(3)).await;
    let error = socket.receive().await;
    assert_eq!((&error["id"], codes(&error)), (&json!("3"), vec!["OVERLOADED"]));
    assert_eq!(error["payload"][0]["extensions"]["limit"], json!("operations"));
    socket.send_message(json!({ "type": "ping" })).await;
    assert_eq!(socket.receive().await, json!({ "type": "pong" }));
    gate.open();
    for number in [1, 2] {
        assert_eq!(socket.receive().await["payload"], served(number));
        assert_eq!(socket.receive().await["type"], json!("complete"));
    }
    assert_eq!(upstream.calls(), 2);
}

/// Long-lived streams have a limit of their own, so that they do not block other operations.
#[tokio::test]
async fn event_streams_have_their_own_concurrency_limit() {
    let settings =
        [("limits.operations", "1"), ("limits.operations_waiting", "0"), ("live.max_event_streams", "2")];
    let gateway = Gateway::on_sandbox(&settings).await;
    let id = gateway.sandbox_ids().await.remove(0);
    let subscription = format!(r#"subscription {{ appointmentChanged(id: "{id}") {{ id }} }}"#);
    let mut first = Events::open(&gateway, "sandbox-all", &subscription).await;
    let mut second = Events::open(&gateway, "sandbox-all", &subscription).await;
    for events in [&mut first, &mut second] {
        assert_eq!(events.next().await["data"]["appointmentChanged"]["id"], json!(id));
    }
    let mut socket = Socket::connect(&gateway, "sandbox-all").await;
    socket.subscribe("1", &subscription).await;
    assert_eq!(socket.receive().await["type"], json!("next"));
    assert_eq!(gateway.metrics().await["gateway_event_streams"], 2.0);

    let third = GatewayResponse::of(Events::request(&gateway, "sandbox-all", &subscription)).await;
    third.rejected(503, "OVERLOADED");
    assert_eq!(third.headers["retry-after"], "1");
    let extensions = &third.body["errors"][0]["extensions"];
    assert_eq!((&extensions["limit"], &extensions["maximum"]), (&json!("live.max_event_streams"), &json!(2)));
    assert_eq!(gateway.rejections("live.max_event_streams").await, 1.0);
    // Queries and mutations are not subscriptions, also over an event stream.
    let mut events = Events::open(&gateway, "sandbox-all", "{ __typename }").await;
    assert_eq!(events.next().await, json!({ "data": { "__typename": "Query" } }));
    events.completed().await;

    drop(first);
    gateway.until_gauge("gateway_event_streams", 1.0).await;
    Events::open(&gateway, "sandbox-all", &subscription).await.next().await;
}

/// Answers that are ready and not read hold no place.
#[tokio::test]
async fn a_slow_reader_of_an_event_stream_takes_no_place() {
    let text = "x".repeat(900_000);
    let body = json!({ "data": { "id": id(1), "reference": text } });
    let upstream = Upstream::answering(move |_| UpstreamResponse::json(200, &body)).await;
    let settings = [("limits.operations", "1"), ("limits.operations_waiting", "0")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let fields = (0..40).map(|n| format!("a{n}: reference ")).collect::<String>();
    let query = raw::query(&format!(r#"{{ appointment(id: "{}") {{ {fields} }} }}"#, id(1)));
    let request = raw::post("Authorization: Bearer token\r\n", &query)
        .replace("application/graphql-response+json", "text/event-stream");
    let mut slow = RawConnection::connect(&gateway).await;
    slow.send(request).await.unwrap();
    upstream.until_called(1).await;
    gateway.until_gauge("gateway_operations_in_flight", 0.0).await;
    assert_eq!(gateway.query(None, "{ __typename }").await.status, 200);
    assert_eq!(slow.reply().await.status, 200);
}
