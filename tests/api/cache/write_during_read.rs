//! Reads in flight during a change: later requests do not receive them, and they are not cached (invariant 2). The
//! upstream delays the old response until the change is complete.

use std::sync::Arc;

use serde_json::{Value, json};

use super::write_then_read::{PATIENT, answer, gets, read, status};
use crate::support::{
    Call, ChangeKind, Gate, Gateway, GatewayResponse, Upstream, UpstreamResponse, id, listed, served,
};

/// A gateway before an upstream that holds the first GET of each path back until the gate is open.
async fn holding(gate: &Gate, change: fn(&Call) -> UpstreamResponse) -> (Upstream, Arc<Gateway>) {
    let gate = gate.clone();
    let upstream = Upstream::answering(move |call| match (call.is_change(), call.nth) {
        (true, _) => change(call),
        (false, 1) => answer(call).once(&gate),
        (false, _) => answer(call),
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &PATIENT).await;
    (upstream, Arc::new(gateway))
}

fn spawn_read(gateway: &Arc<Gateway>, token: &'static str) -> tokio::task::JoinHandle<GatewayResponse> {
    let gateway = gateway.clone();
    tokio::spawn(async move { gateway.appointment(token, &id(1)).await })
}

#[tokio::test]
async fn reads_in_flight_during_a_change_are_neither_joined_nor_cached() {
    type Case = (&'static str, fn(&Call) -> UpstreamResponse, Value, usize);
    let cases: [Case; 3] = [
        // The author of the change has its response.
        ("token", Call::changed, status("waiting"), 1),
        ("token", |_| UpstreamResponse::text(204, "text/plain", ""), served(&id(1), "token", 2), 2),
        ("other", Call::changed, served(&id(1), "other", 2), 2),
    ];
    for (reader, change, now, calls) in cases {
        let gate = Gate::shut();
        let (upstream, gateway) = holding(&gate, change).await;
        let early = spawn_read(&gateway, reader);
        upstream.until_called(1).await;
        ChangeKind::Update.make(&gateway).await.payload();
        // The old answer is still on its way.
        assert_eq!(read(&gateway, reader).await, now);
        assert!(!early.is_finished());
        gate.open();
        assert_eq!(
            *early.await.unwrap().appointment(),
            served(&id(1), reader, 1),
            "who asked before has its own"
        );
        for _ in 0..3 {
            assert_eq!(read(&gateway, reader).await, now);
        }
        assert_eq!(gets(&upstream), calls);
    }
}

#[tokio::test]
async fn reads_in_flight_during_a_lost_change_are_not_cached() {
    let gate = Gate::shut();
    let (upstream, gateway) = holding(&gate, |_| UpstreamResponse::cut()).await;
    let early = spawn_read(&gateway, "token");
    upstream.until_called(1).await;
    assert_eq!(ChangeKind::Update.make(&gateway).await.codes(), ["OUTCOME_UNKNOWN"]);
    gate.open();
    assert_eq!(*early.await.unwrap().appointment(), served(&id(1), "token", 1));
    assert_eq!(read(&gateway, "token").await, served(&id(1), "token", 2));
}

#[tokio::test]
async fn data_fetched_during_a_change_is_invalidated_by_it() {
    let gate = Gate::shut();
    let upstream = Upstream::answering({
        let gate = gate.clone();
        move |call| if call.is_change() { call.changed().once(&gate) } else { answer(call) }
    })
    .await;
    let gateway = Arc::new(Gateway::before(upstream.url(), &PATIENT).await);
    let change = tokio::spawn({
        let gateway = gateway.clone();
        async move { ChangeKind::Update.make(&gateway).await }
    });
    upstream.until_called(1).await;
    for (n, token) in ["token", "other"].into_iter().enumerate() {
        assert_eq!(read(&gateway, token).await, served(&id(1), token, n + 1));
        gateway.list(token, json!({})).await.list();
    }
    gate.open();
    assert_eq!(*change.await.unwrap().changed(), status("waiting"));
    assert_eq!(read(&gateway, "token").await, status("waiting"));
    assert_eq!(read(&gateway, "other").await, served(&id(1), "other", 3));
    let before = gets(&upstream);
    gateway.list("token", json!({})).await.list();
    assert_eq!(gets(&upstream), before + 1);
}

#[tokio::test]
async fn pages_in_flight_during_a_change_are_not_cached() {
    for reader in ["token", "other"] {
        let gate = Gate::shut();
        let (upstream, gateway) = holding(&gate, Call::changed).await;
        let early = tokio::spawn({
            let gateway = gateway.clone();
            async move { gateway.list(reader, json!({ "first": 3 })).await }
        });
        upstream.until_called(1).await;
        ChangeKind::Update.make(&gateway).await.changed();
        gate.open();
        let early = early.await.unwrap();
        assert_eq!(early.list()["edges"][1]["node"], listed(1, reader), "who asked before has its own");
        let expected = if reader == "token" { status("waiting") } else { served(&id(1), reader, 1) };
        assert_eq!(read(&gateway, reader).await, expected);
        assert_eq!(*gateway.appointment(reader, &id(2)).await.appointment(), served(&id(2), reader, 1));
        let before = gets(&upstream);
        gateway.list(reader, json!({ "first": 3 })).await.list();
        assert_eq!(gets(&upstream), before + 1);
    }
}

#[tokio::test]
async fn pages_in_flight_during_a_change_are_not_joined_later() {
    let gate = Gate::shut();
    let (upstream, gateway) = holding(&gate, Call::changed).await;
    let early = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.list("token", json!({ "first": 3 })).await }
    });
    upstream.until_called(1).await;
    ChangeKind::Create.make(&gateway).await.changed();
    gateway.list("token", json!({ "first": 3 })).await.list();
    assert!(!early.is_finished());
    assert_eq!(gets(&upstream), 2);
    gate.open();
    early.await.unwrap().list();
    gateway.list("token", json!({ "first": 3 })).await.list();
    assert_eq!(gets(&upstream), 2);
}

#[tokio::test]
async fn concurrent_changes_leave_no_response_cached() {
    for first_answered in ["one", "two"] {
        let gates = [("one", Gate::shut()), ("two", Gate::shut())];
        let upstream = Upstream::answering({
            let gates = gates.clone();
            move |call| match gates.iter().find(|(status, _)| call.json()["status"] == *status) {
                Some((_, gate)) => call.changed().once(gate),
                None => answer(call),
            }
        })
        .await;
        let gateway = Arc::new(Gateway::before(upstream.url(), &PATIENT).await);
        let mut changes = Vec::new();
        for (n, (status, gate)) in gates.iter().enumerate() {
            let (gateway, status) = (gateway.clone(), *status);
            let change = async move { gateway.update("token", &id(1), json!({ "status": status })).await };
            changes.push((status, gate, tokio::spawn(change)));
            upstream.until_called(n + 1).await;
        }
        if first_answered == "two" {
            changes.reverse();
        }
        for (expected, gate, change) in changes {
            gate.open();
            assert_eq!(
                *change.await.unwrap().changed(),
                status(expected),
                "each is told what became of its own"
            );
        }
        // The gateway cannot know which change the upstream applied last.
        assert_eq!(read(&gateway, "token").await, served(&id(1), "token", 1), "{first_answered} first");
        assert_eq!(read(&gateway, "token").await, served(&id(1), "token", 1));
        assert_eq!(gets(&upstream), 1);
    }
}
