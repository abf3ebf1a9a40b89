//! Fair admission of operations: slow operations of some callers do not keep others out, over any transport.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::{Call, Events, Gate, Gateway, GatewayResponse, RequestForm, Socket, Upstream, id};

/// The default of the program, which the other tests do without.
const SHARE: (&str, &str) = ("limits.caller_share", "50");

const PATIENT: [(&str, &str); 2] = [("upstream.timeout", "60s"), ("http.deadline", "60s")];

/// An upstream that holds back responses to callers named `noisy…` until the gate is open.
async fn upstream_behind(gate: &Gate) -> Upstream {
    let gate = gate.clone();
    Upstream::answering(move |call: &Call| match call.token().starts_with("noisy") {
        true => call.appointment().once(&gate),
        false => call.appointment(),
    })
    .await
}

fn query(number: usize) -> String {
    format!(r#"{{ appointment(id: "{}") {{ id }} }}"#, id(number))
}

fn served(number: usize) -> Value {
    json!({ "data": { "appointment": { "id": id(number) } } })
}

async fn gateway_before(upstream: &Upstream, settings: &[(&str, &str)]) -> Arc<Gateway> {
    Arc::new(Gateway::before(upstream.url(), &[&PATIENT[..], settings].concat()).await)
}

/// Sends a query for each of `numbers`, each on its own, as `token`.
fn post_all(
    gateway: &Arc<Gateway>,
    token: &'static str,
    numbers: std::ops::Range<usize>,
) -> Vec<JoinHandle<GatewayResponse>> {
    let post = |number| {
        let gateway = gateway.clone();
        tokio::spawn(async move { gateway.query(Some(token), &query(number)).await })
    };
    numbers.map(post).collect()
}

/// How many of `requests` were refused, as operations beyond the limit are; the others were served.
async fn refusals(requests: Vec<JoinHandle<GatewayResponse>>) -> usize {
    let mut refused = 0;
    for request in requests {
        let reply = request.await.unwrap();
        if reply.status == 200 {
            assert_eq!(reply.codes(), [""; 0], "{reply:?}");
        } else {
            reply.rejected(503, "OVERLOADED");
            assert_eq!(reply.body["errors"][0]["extensions"]["limit"], json!("operations"));
            refused += 1;
        }
    }
    refused
}

/// Asks over each transport as `token`; whether every one of them is served.
async fn is_served_everywhere(gateway: &Gateway, token: &str) -> Vec<bool> {
    let mut is_served = Vec::new();
    for way in [RequestForm::POST, RequestForm::GET] {
        is_served.push(way.ask(gateway, token, &query(900)).await.body == served(900));
    }
    let events = GatewayResponse::of(Events::request(gateway, token, &query(901))).await;
    is_served.push(events.status == 200);
    let mut socket = Socket::connect(gateway, token).await;
    socket.subscribe("1", &query(902)).await;
    let message = socket.receive().await;
    if message["type"] == json!("next") {
        assert_eq!(message["payload"], served(902));
    } else {
        assert_eq!(message["payload"][0]["extensions"]["limit"], json!("operations"), "{message}");
    }
    is_served.push(message["type"] == json!("next"));
    is_served
}

#[tokio::test]
async fn three_noisy_callers_do_not_keep_a_quiet_one_out() {
    let gate = Gate::shut();
    let upstream = upstream_behind(&gate).await;
    let settings = [SHARE, ("limits.operations", "16"), ("limits.operations_waiting", "0")];
    let gateway = gateway_before(&upstream, &settings).await;
    // Half of sixteen, half of the remainder, and half of the next remainder.
    let posted = post_all(&gateway, "noisy-1", 0..20);
    upstream.until(|seen| seen.in_flight == 8).await;
    let mut socket = Socket::connect(&gateway, "noisy-2").await;
    for number in 100..110 {
        socket.subscribe(&number.to_string(), &query(number)).await;
    }
    upstream.until(|seen| seen.in_flight == 12).await;
    let mut streams = Vec::new();
    for number in 200..202 {
        streams.push(Events::open(&gateway, "noisy-3", &query(number)).await);
    }
    upstream.until(|seen| seen.in_flight == 14).await;
    GatewayResponse::of(Events::request(&gateway, "noisy-3", &query(202))).await.rejected(503, "OVERLOADED");
    for token in ["quiet-1", "quiet-2"] {
        assert_eq!(is_served_everywhere(&gateway, token).await, [true; 4], "{token}");
    }
    assert_eq!(upstream.seen(|seen| seen.in_flight), 14, "the noisy ones still wait");
    gate.open();
    assert_eq!(refusals(posted).await, 12);
    // The messages of several operations may alternate.
    let (mut over_socket, mut completed) = (0, 0);
    while over_socket + completed < 10 {
        let message = socket.receive().await;
        over_socket += usize::from(message["type"] == json!("error"));
        completed += usize::from(message["type"] == json!("complete"));
    }
    assert_eq!((over_socket, gateway.rejections("operations").await), (6, 12.0 + 6.0 + 1.0));
    drop(streams);
    gateway.until_gauge("gateway_operations_in_flight", 0.0).await;
}

/// The same without shares, which shows their purpose.
#[tokio::test]
async fn without_shares_one_noisy_caller_keeps_all_others_out() {
    let gate = Gate::shut();
    let upstream = upstream_behind(&gate).await;
    let settings =
        [("limits.caller_share", "100"), ("limits.operations", "4"), ("limits.operations_waiting", "0")];
    let gateway = gateway_before(&upstream, &settings).await;
    let posted = post_all(&gateway, "noisy-1", 0..4);
    upstream.until(|seen| seen.in_flight == 4).await;
    assert_eq!(is_served_everywhere(&gateway, "quiet").await, [false; 4]);
    gate.open();
    assert_eq!(refusals(posted).await, 0);
}

#[tokio::test]
async fn a_lone_caller_has_its_share_and_the_rest_stays_free() {
    let gate = Gate::shut();
    let upstream = upstream_behind(&gate).await;
    for (share, expected) in [("50", 4), ("75", 6), ("1", 1), ("100", 8)] {
        let settings = [
            ("limits.caller_share", share),
            ("limits.operations", "8"),
            ("limits.operations_waiting", "0"),
            ("cache.ttl", "0"),
        ];
        let gateway = gateway_before(&upstream, &settings).await;
        // Rejections happen while the others run.
        let mut posted = Vec::new();
        for number in 0..expected {
            posted.extend(post_all(&gateway, "noisy", number..number + 1));
            upstream.until(|seen| seen.in_flight == number + 1).await;
        }
        assert_eq!(refusals(post_all(&gateway, "noisy", 10..13)).await, 3, "{share}");
        // Gone, they make room.
        for request in &posted {
            request.abort();
        }
        upstream.until(|seen| seen.in_flight == 0).await;
        gateway.until_gauge("gateway_operations_in_flight", 0.0).await;
    }
}

#[tokio::test]
async fn waiting_operations_are_admitted_caller_by_caller() {
    let gate = Gate::shut();
    let upstream = Upstream::answering({
        let gate = gate.clone();
        move |call: &Call| call.appointment().once(&gate)
    })
    .await;
    let settings =
        [("limits.operations", "1"), ("limits.operations_waiting", "50"), ("limits.operations_wait", "1h")];
    let gateway = gateway_before(&upstream, &settings).await;
    let noisy = post_all(&gateway, "noisy", 0..20);
    gateway.until_gauge("gateway_operations_waiting", 19.0).await;
    let quiet = post_all(&gateway, "quiet", 100..101);
    gateway.until_gauge("gateway_operations_waiting", 20.0).await;
    gate.open();
    assert_eq!(refusals(noisy).await + refusals(quiet).await, 0);
    let position = upstream.seen(|seen| seen.calls.iter().position(|call| call.token() == "quiet").unwrap());
    assert!(position <= 2, "the quiet one's call was number {position}");
}
