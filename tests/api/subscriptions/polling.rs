//! Subscriptions: the current state first, then each change once. One poller per caller and appointment serves all
//! subscribers, at an interval that suits the appointment.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::support::{Gate, Gateway, Upstream, UpstreamResponse, UpstreamState, id, served};

/// Pollers that hurry.
const QUICK: [(&str, &str); 2] = [("live.fast_interval", "10ms"), ("live.slow_interval", "20ms")];

/// An upstream in the state that is given.
async fn in_state(state: &UpstreamState) -> Upstream {
    let state = state.clone();
    Upstream::answering(move |call| state.answer(call)).await
}

#[tokio::test]
async fn subscribers_receive_the_state_and_then_each_change_once() {
    let state = UpstreamState::of("a");
    let upstream = in_state(&state).await;
    let gateway = Gateway::before(upstream.url(), &QUICK).await;
    let mut events = gateway.watch("token", &id(1)).await;
    assert_eq!(events.next().await, json!({ "id": id(1), "reference": "token", "status": "a" }));
    for status in ["b", "c", "b", "d"] {
        upstream.until_polled(3).await;
        state.set(status);
        // Were anything told twice, it would come before this.
        assert_eq!(events.status().await, status);
    }
    events.nothing(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn cached_state_serves_the_first_event() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[("live.slow_interval", "10m")]).await;
    gateway.appointment("token", &id(1)).await.appointment();
    let mut events = gateway.watch("token", &id(1)).await;
    assert_eq!(events.next().await, served(&id(1), "token", 1));
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn json_without_changed_values_sends_no_event() {
    let state = UpstreamState::of("a");
    let upstream = Upstream::answering({
        let state = state.clone();
        move |call| {
            let (id, status) = (&call.id, state.get());
            let body = match call.nth % 4 {
                0 => format!(r#"{{"data":{{"id":"{id}","status":"{status}"}}}}"#),
                1 => format!(
                    r#"{{"data":{{"status":"{status}","id":"{id}"}}, "meta":{{"took":{}}}}}"#,
                    call.nth
                ),
                2 => format!(
                    r#"{{ "data": {{ "id": "{id}", "status": "{status}", "updated_at": {} }} }}"#,
                    call.nth
                ),
                _ => format!(
                    r#"{{"data":{{"reference":null,"status":"{status}","id":"{}"}}}}"#,
                    id.to_uppercase()
                ),
            };
            UpstreamResponse::text(200, "application/json", &body)
        }
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &QUICK).await;
    let mut events = gateway.watch("token", &id(1)).await;
    assert_eq!(events.status().await, "a");
    upstream.until_polled(9).await;
    state.set("b");
    assert_eq!(events.status().await, "b");
}

#[tokio::test]
async fn one_poller_per_caller_and_appointment() {
    let (gate, state) = (Gate::shut(), UpstreamState::of("a"));
    let upstream = Upstream::answering({
        let (gate, state) = (gate.clone(), state.clone());
        // Later calls stay in flight until the gate is open.
        move |call| if state.get() == "a" { state.answer(call) } else { state.answer(call).once(&gate) }
    })
    .await;
    let settings = [&QUICK[..], &[("upstream.timeout", "60s")]].concat();
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let mut subscribers = Vec::new();
    for n in 0..60 {
        let (token, id) = (["token", "other"][n % 2], id(n % 3));
        subscribers.push(gateway.watch(token, &id).await);
    }
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.status().await, "a");
    }
    state.set("b");
    // Two tokens, three appointments: each combination asks, and no more of them than one.
    upstream.until(|seen| seen.in_flight == 6).await;
    sleep(Duration::from_millis(200)).await;
    assert_eq!(upstream.seen(|seen| seen.in_flight), 6);
    gate.open();
    for (n, subscriber) in subscribers.iter_mut().enumerate() {
        let token = ["token", "other"][n % 2];
        let expected = json!({ "id": id(n % 3), "reference": token, "status": "b" });
        assert_eq!(subscriber.next().await, expected);
    }
}

#[tokio::test]
async fn where_there_is_an_etag_only_changes_are_sent() {
    let state = UpstreamState::of("a");
    let upstream = Upstream::answering({
        let state = state.clone();
        move |call| {
            let etag = format!("W/\"{}\"", state.get());
            match call.header("if-none-match") {
                Some(known) if known == etag => {
                    UpstreamResponse::text(304, "text/plain", "").with("ETag", &etag)
                }
                _ => state.answer(call).with("ETag", &etag),
            }
        }
    })
    .await;
    let settings = [&QUICK[..], &[("cache.ttl", "1s")]].concat();
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let mut events = gateway.watch("token", &id(1)).await;
    assert_eq!(events.status().await, "a");
    upstream.until_called(10).await;
    let began = Instant::now();
    state.set("b");
    assert_eq!(events.status().await, "b");
    // For longer than the TTL, the upstream confirms the state without a change.
    upstream.until_polled(3).await;
    let from = upstream.calls();
    while began.elapsed() < Duration::from_millis(1500) {
        upstream.until_polled(5).await;
    }
    assert_eq!(gateway.appointment("token", &id(1)).await.appointment()["status"], "b");
    let asked = |n: usize| upstream.seen(|seen| seen.calls[n].header("if-none-match").map(str::to_owned));
    assert_eq!(asked(9).as_deref(), Some("W/\"a\""));
    for n in from..upstream.calls() {
        assert_eq!(
            asked(n).as_deref(),
            Some("W/\"b\""),
            "the query was served from what the poller keeps fresh"
        );
    }
}

#[tokio::test]
async fn polled_state_serves_queries() {
    let upstream = Upstream::answering(|call| match call.nth {
        1 | 2 => call.appointment(),
        // A query that asked itself would wait for this.
        _ => UpstreamResponse::never(),
    })
    .await;
    let settings = [&QUICK[..], &[("upstream.timeout", "60s"), ("cache.ttl", "10m")]].concat();
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let mut events = gateway.watch("token", &id(1)).await;
    for nth in [1, 2] {
        assert_eq!(events.next().await, served(&id(1), "token", nth));
    }
    upstream.until_called(3).await;
    assert_eq!(*gateway.appointment("token", &id(1)).await.appointment(), served(&id(1), "token", 2));
    assert_eq!(upstream.calls(), 3);
}

#[tokio::test]
async fn polling_is_fast_near_and_during_the_appointment() {
    let now = jiff::Timestamp::now();
    let minutes = |n: i64| (now + jiff::SignedDuration::from_mins(n)).to_string();
    let started = minutes(-600);
    let cases = [
        (json!({ "appointment_at": minutes(5) }), true),
        (json!({ "appointment_at": minutes(-5) }), true),
        (json!({ "appointment_at": started, "session_started_at": started }), true),
        (json!({ "session_started_at": started }), true),
        (json!({ "appointment_at": minutes(600) }), false),
        (json!({ "appointment_at": minutes(-600) }), false),
        (json!({}), false),
        (json!({ "appointment_at": "garbage" }), false),
        (json!({ "session_started_at": started, "session_ended_at": minutes(-5) }), false),
        (json!({ "appointment_at": minutes(5), "cancelled_at": started }), false),
    ];
    let upstream = Upstream::answering({
        let cases = cases.clone();
        move |call| {
            let n = (0..cases.len()).find(|n| id(*n) == call.id).unwrap();
            let mut data = cases[n].0.clone();
            data["id"] = json!(call.id);
            UpstreamResponse::json(200, &json!({ "data": data }))
        }
    })
    .await;
    let settings = [("live.fast_interval", "50ms"), ("live.slow_interval", "10m"), ("live.near", "15m")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let mut subscribers = Vec::new();
    for n in 0..cases.len() {
        subscribers.push(gateway.watch("token", &id(n)).await);
        subscribers[n].next().await;
    }
    for (n, (_, is_often)) in cases.iter().enumerate() {
        if *is_often {
            upstream.until(|seen| seen.calls.iter().filter(|call| call.id == id(n)).count() >= 5).await;
        }
    }
    for (n, (case, is_often)) in cases.iter().enumerate() {
        assert!(*is_often || upstream.calls_for(&id(n)) == 1, "{case}: {}", upstream.calls_for(&id(n)));
    }
}
