//! `x-request-id`: the upstream's logs can be matched with those of the gateway and its clients.

use std::collections::BTreeSet;

use reqwest::{Method, RequestBuilder};
use serde_json::json;

use crate::support::{
    Call, Events, Gateway, GatewayResponse, List, Pagination, Socket, SubscriptionEvent, Transport, Upstream,
    UpstreamResponse, id, ids,
};

const ID: &str = "trace-42/a_b.c:d+e=";

fn request(gateway: &Gateway, query: &str) -> RequestBuilder {
    gateway
        .request(Method::POST, "/graphql")
        .header("content-type", "application/json")
        .bearer_auth(gateway.secret("token"))
        .body(json!({ "query": query }).to_string())
}

/// The `x-request-id` of every call.
fn sent(upstream: &Upstream) -> Vec<Option<String>> {
    upstream.seen(|seen| {
        seen.calls
            .iter()
            .map(|call| {
                let mut ids = call.headers.iter().filter(|(name, _)| name == "x-request-id");
                let id = ids.next().map(|(_, value)| value.clone());
                assert_eq!(ids.next(), None, "one header at most");
                id
            })
            .collect()
    })
}

fn some(id: &str) -> Option<String> {
    Some(id.to_owned())
}

/// An upstream with every appointment, a list and changes.
async fn upstream() -> Upstream {
    Upstream::answering(|call: &Call| match call.id.as_str() {
        _ if call.is_change() => call.changed(),
        "appointments" => List::of(3, Pagination::Meta).page(call),
        _ => call.appointment(),
    })
    .await
}

#[tokio::test]
async fn every_kind_of_call_carries_the_id_of_its_request() {
    let upstream = upstream().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    for (query, calls) in [
        (format!(r#"{{ appointment(id: "{}") {{ id }} }}"#, id(1)), 1),
        (format!("{{ appointmentsByIds(ids: {}) {{ id }} }}", json!(ids(10..13))), 3),
        ("{ appointments(first: 2) { nodes { id } } }".to_owned(), 1),
        (format!(r#"mutation {{ cancelAppointment(id: "{}") {{ userErrors {{ message }} }} }}"#, id(2)), 1),
        (
            r#"mutation { createAppointment(input: { appointmentAt: "2031-01-01T00:00:00Z" }) { userErrors { message } } }"#
                .to_owned(),
            1,
        ),
    ] {
        let before = upstream.calls();
        let reply = GatewayResponse::of(request(&gateway, &query).header("x-request-id", ID)).await;
        assert_eq!((reply.codes(), reply.headers["x-request-id"].to_str().unwrap()), (vec![], ID), "{query}");
        assert_eq!(sent(&upstream)[before..], vec![some(ID); calls], "{query}");
    }
}

#[tokio::test]
async fn a_generated_id_is_sent_and_returned() {
    let upstream = upstream().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let mut seen = BTreeSet::new();
    // An id that could forge a log line is replaced.
    for (n, own) in [None, Some("a b"), Some("{}"), Some("")].into_iter().enumerate() {
        let query = format!(r#"{{ appointment(id: "{}") {{ id }} }}"#, id(n));
        let mut request = request(&gateway, &query);
        if let Some(own) = own {
            request = request.header("x-request-id", own);
        }
        let reply = GatewayResponse::of(request).await;
        let returned = reply.headers["x-request-id"].to_str().unwrap();
        assert_eq!(sent(&upstream)[n].as_deref(), Some(returned));
        assert!(own != Some(returned) && seen.insert(returned.to_owned()), "{returned}");
    }
}

#[tokio::test]
async fn retries_carry_the_same_id() {
    let upstream = Upstream::answering(|call: &Call| match call.nth {
        1 | 2 => UpstreamResponse::status(503),
        _ => call.appointment(),
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[("upstream.retries", "2")]).await;
    let query = format!(r#"{{ appointment(id: "{}") {{ id }} }}"#, id(1));
    let reply = GatewayResponse::of(request(&gateway, &query).header("x-request-id", ID)).await;
    assert_eq!(reply.codes(), [""; 0]);
    assert_eq!(sent(&upstream), vec![some(ID); 3]);
}

#[tokio::test]
async fn subscriptions_send_the_id_of_the_request_that_opened_them() {
    let upstream = upstream().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let query = format!(r#"subscription {{ appointmentChanged(id: "{}") {{ id }} }}"#, id(1));
    let mut events = Events::of(Events::request(&gateway, "token", &query).header("x-request-id", ID)).await;
    events.next().await;
    assert_eq!(sent(&upstream)[0], some(ID));

    let bearer = format!("Bearer {}", gateway.secret("token"));
    let headers = [("x-request-id", "socket-1"), ("authorization", &bearer)];
    let mut socket = Socket::try_open(&gateway, &headers).await.unwrap();
    socket.send_message(json!({ "type": "connection_init" })).await;
    assert_eq!(socket.receive().await["type"], "connection_ack");
    socket.subscribe("1", &format!(r#"{{ appointment(id: "{}") {{ id }} }}"#, id(2))).await;
    socket.receive().await;
    let of_socket = upstream.seen(|seen| seen.calls.iter().position(|call| call.id == id(2)).unwrap());
    assert_eq!(sent(&upstream)[of_socket], some("socket-1"));
}

#[tokio::test]
async fn a_request_that_joins_a_call_in_flight_adds_none() {
    let upstream = upstream().await;
    let gate = crate::support::Gate::shut();
    upstream.on(&id(1), {
        let gate = gate.clone();
        move |call| call.appointment().once(&gate)
    });
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let query = format!(r#"{{ appointment(id: "{}") {{ id }} }}"#, id(1));
    let first = GatewayResponse::of(request(&gateway, &query).header("x-request-id", "first"));
    let second = async {
        upstream.until_called(1).await;
        let joining = GatewayResponse::of(request(&gateway, &query).header("x-request-id", "second"));
        let opening = async {
            gateway.until_gauge("gateway_operations_in_flight", 2.0).await;
            gate.open();
        };
        tokio::join!(joining, opening).0
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!((first.codes(), second.codes()), (vec![], vec![]));
    assert_eq!(sent(&upstream), [some("first")]);
}

#[tokio::test]
async fn switched_off_no_id_is_sent() {
    let upstream = upstream().await;
    let gateway = Gateway::before(upstream.url(), &[("upstream.forward_request_id", "false")]).await;
    let query = format!(r#"{{ appointment(id: "{}") {{ id }} }}"#, id(1));
    let reply = GatewayResponse::of(request(&gateway, &query).header("x-request-id", ID)).await;
    assert_eq!(reply.headers["x-request-id"].to_str().unwrap(), ID);
    gateway.cancel("token", &id(2)).await;
    let mut subscription = gateway.subscribe(Transport::WebSocket, "token", &id(3)).await;
    assert!(matches!(subscription.event().await, SubscriptionEvent::Next(_)));
    assert_eq!(sent(&upstream), [None, None, None]);
}
