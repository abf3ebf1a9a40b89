//! Subscribers see changes made through the gateway immediately and in order.

use std::sync::Arc;

use serde_json::json;

use crate::support::{Call, Gate, Gateway, Upstream, UpstreamResponse, UpstreamState, id, served};

/// Pollers that would come too late for any test.
const NEVER: [(&str, &str); 2] = [("live.fast_interval", "10m"), ("live.slow_interval", "10m")];

/// Pollers that hurry.
const QUICK: [(&str, &str); 2] = [("live.fast_interval", "10ms"), ("live.slow_interval", "20ms")];

fn gets(upstream: &Upstream, token: &str) -> usize {
    upstream.seen(|seen| seen.calls.iter().filter(|call| !call.is_change() && call.token() == token).count())
}

/// Makes a change as `token`.
async fn change(gateway: &Gateway) {
    gateway.update("token", &id(1), json!({ "status": "waiting" })).await.changed();
}

fn answer(call: &Call) -> UpstreamResponse {
    if call.is_change() { call.changed() } else { call.appointment() }
}

#[tokio::test]
async fn changes_reach_their_caller_and_other_permitted_callers() {
    let upstream = Upstream::answering(answer).await;
    let gateway = Gateway::before(upstream.url(), &NEVER).await;
    let mut own = [gateway.watch("token", &id(1)).await, gateway.watch("token", &id(1)).await];
    let mut others = [gateway.watch("other", &id(1)).await, gateway.watch("other", &id(1)).await];
    let mut another = gateway.watch("token", &id(2)).await;
    for events in own.iter_mut().chain(&mut others).chain([&mut another]) {
        events.next().await;
    }
    change(&gateway).await;
    for events in &mut own {
        let expected = json!({ "id": id(1), "reference": "token", "status": "waiting" });
        assert_eq!(events.next().await, expected);
    }
    for events in &mut others {
        assert_eq!(events.next().await, served(&id(1), "other", 3), "fetched with a token of their own");
    }
    assert_eq!((gets(&upstream, "token"), gets(&upstream, "other")), (2, 2));
    // Others received nothing: their next event is their own change.
    gateway.cancel("token", &id(2)).await.changed();
    assert_eq!(another.status().await, "cancelled");
}

#[tokio::test]
async fn a_change_that_shows_nothing_or_is_lost_is_looked_at_at_once() {
    let cases: [fn(&Call) -> UpstreamResponse; 4] = [
        |_| UpstreamResponse::text(204, "text/plain", ""),
        |_| UpstreamResponse::cut(),
        |_| UpstreamResponse::status(500),
        |_| UpstreamResponse::text(200, "text/html", "<html>"),
    ];
    for script in cases {
        let upstream =
            Upstream::answering(move |call| if call.is_change() { script(call) } else { call.appointment() })
                .await;
        let gateway =
            Gateway::before(upstream.url(), &[&NEVER[..], &[("upstream.timeout", "60s")]].concat()).await;
        let mut events = gateway.watch("token", &id(1)).await;
        assert_eq!(events.status().await, "call 1");
        gateway.cancel("token", &id(1)).await;
        assert_eq!(events.status().await, "call 2");
    }
}

#[tokio::test]
async fn rejected_changes_send_no_event() {
    let upstream = Upstream::answering(|call| {
        if call.is_change() { UpstreamResponse::status(422) } else { call.appointment() }
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &NEVER).await;
    let mut events = gateway.watch("token", &id(1)).await;
    assert_eq!(events.status().await, "call 1");
    gateway.cancel("token", &id(1)).await.payload();
    upstream.on("cancel", Call::changed);
    gateway.cancel("token", &id(1)).await.changed();
    assert_eq!(events.status().await, "cancelled");
    assert_eq!(gets(&upstream, "token"), 1);
}

#[tokio::test]
async fn polling_goes_on_after_a_change_was_shown() {
    let state = UpstreamState::of("before");
    let upstream = Upstream::answering({
        let state = state.clone();
        move |call| {
            if call.is_change() {
                state.set("waiting");
            }
            state.answer(call)
        }
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &QUICK).await;
    let mut events = gateway.watch("token", &id(1)).await;
    assert_eq!(events.status().await, "before");
    for status in ["later", "later still"] {
        change(&gateway).await;
        assert_eq!(events.status().await, "waiting");
        state.set(status);
        assert_eq!(events.status().await, status);
    }
}

/// An upstream that holds back the second GET of each token, with the state before the change.
async fn holding(gate: &Gate, state: &UpstreamState) -> (Upstream, Arc<Gateway>) {
    let upstream = Upstream::answering({
        let (gate, state) = (gate.clone(), state.clone());
        let asked = std::sync::Mutex::new(std::collections::HashMap::<String, usize>::new());
        move |call| {
            if call.is_change() {
                state.set("waiting");
                return call.changed();
            }
            let mut asked = asked.lock().unwrap();
            let nth = asked.entry(call.token().to_owned()).or_default();
            *nth += 1;
            match *nth {
                // Read before the change and different from the last event, so it would be sent.
                2 => UpstreamResponse::json(200, &json!({ "data": { "id": call.id, "status": "outdated" } }))
                    .once(&gate),
                _ => state.answer(call),
            }
        }
    })
    .await;
    let settings = [&QUICK[..], &[("upstream.timeout", "60s")]].concat();
    let gateway = Gateway::before(upstream.url(), &settings).await;
    (upstream, Arc::new(gateway))
}

#[tokio::test]
async fn polls_in_flight_never_show_the_state_before_a_change() {
    let (gate, state) = (Gate::shut(), UpstreamState::of("before"));
    let (upstream, gateway) = holding(&gate, &state).await;
    let mut own = gateway.watch("token", &id(1)).await;
    let mut other = gateway.watch("other", &id(1)).await;
    assert_eq!((own.status().await, other.status().await), ("before".to_owned(), "before".to_owned()));
    upstream.until(|seen| seen.in_flight == 2).await;
    change(&gateway).await;
    // The polls from before the change still hang.
    assert_eq!(own.status().await, "waiting");
    assert_eq!(other.status().await, "waiting");
    gate.open();
    state.set("after");
    assert_eq!((own.status().await, other.status().await), ("after".to_owned(), "after".to_owned()));
}

#[tokio::test]
async fn a_late_mutation_response_never_follows_newer_state() {
    let (gate, state) = (Gate::shut(), UpstreamState::of("before"));
    let (upstream, gateway) = holding(&gate, &state).await;
    let mut events = gateway.watch("token", &id(1)).await;
    assert_eq!(events.status().await, "before");
    upstream.until(|seen| seen.in_flight == 1).await;
    change(&gateway).await;
    // It changes again, behind the gateway's back, before the poll from before the change ends.
    state.set("later");
    gate.open();
    assert_eq!(events.status().await, "waiting");
    assert_eq!(events.status().await, "later");
    state.set("last");
    assert_eq!(events.status().await, "last");
}

#[tokio::test]
async fn changes_in_a_row_end_with_the_last() {
    let upstream =
        Upstream::answering(|call| if call.is_change() { call.changed() } else { call.appointment() }).await;
    let gateway = Gateway::before(upstream.url(), &NEVER).await;
    let mut events = gateway.watch("token", &id(1)).await;
    events.next().await;
    for n in 0..20 {
        gateway.update("token", &id(1), json!({ "status": n.to_string() })).await.changed();
    }
    // Slow subscribers may miss some states, but see the last, and no older one after it.
    let mut seen = events.status().await.parse::<usize>().unwrap();
    while seen != 19 {
        let next = events.status().await.parse::<usize>().unwrap();
        assert!(next > seen, "{next} after {seen}");
        seen = next;
    }
    assert_eq!(gets(&upstream, "token"), 1);
}

#[tokio::test]
async fn new_subscribers_see_no_state_from_before_a_change() {
    let (gate, state) = (Gate::shut(), UpstreamState::of("before"));
    let upstream = Upstream::answering({
        let (gate, state) = (gate.clone(), state.clone());
        move |call| match (call.is_change(), state.get().as_str()) {
            (true, _) => call.changed(),
            (false, "before") => state.answer(call),
            (false, _) => state.answer(call).once(&gate),
        }
    })
    .await;
    let gateway =
        Gateway::before(upstream.url(), &[&NEVER[..], &[("upstream.timeout", "60s")]].concat()).await;
    let mut early = gateway.watch("other", &id(1)).await;
    assert_eq!(early.status().await, "before");
    state.set("waiting");
    change(&gateway).await;
    // The current state is unknown to this caller, which did not receive the response to the change.
    upstream.until(|seen| seen.in_flight == 1).await;
    let mut late = gateway.watch("other", &id(1)).await;
    late.nothing(std::time::Duration::from_millis(100)).await;
    gate.open();
    assert_eq!((early.status().await, late.status().await), ("waiting".to_owned(), "waiting".to_owned()));
}

#[tokio::test]
async fn a_change_without_effect_sends_no_event_to_others() {
    let upstream = Upstream::answering(|call| match call.id.as_str() {
        "cancel" => UpstreamResponse::text(204, "text/plain", ""),
        _ if call.is_change() => call.changed(),
        _ => UpstreamResponse::json(200, &json!({ "data": { "id": call.id, "status": "same" } })),
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &NEVER).await;
    let mut early = gateway.watch("token", &id(1)).await;
    assert_eq!(early.status().await, "same");
    gateway.cancel("token", &id(1)).await.payload();
    let mut late = gateway.watch("token", &id(1)).await;
    assert_eq!(late.status().await, "same");
    change(&gateway).await;
    assert_eq!((early.status().await, late.status().await), ("waiting".to_owned(), "waiting".to_owned()));
}

#[tokio::test]
async fn a_forbidden_change_causes_no_calls_of_others() {
    let upstream = Upstream::answering(|call| {
        if call.is_change() { UpstreamResponse::status(403) } else { call.appointment() }
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &NEVER).await;
    let mut watching = gateway.watch("token", &id(1)).await;
    watching.next().await;
    for _ in 0..3 {
        gateway.cancel("stranger", &id(1)).await;
    }
    // Long enough for a poll to be seen.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!(gets(&upstream, "token"), 1);
}

#[tokio::test]
async fn an_unexpected_state_after_a_change_polls_for_its_caller() {
    for status in [404, 409] {
        let upstream = Upstream::answering(answer).await;
        let gateway = Gateway::before(upstream.url(), &NEVER).await;
        let mut own = gateway.watch("token", &id(1)).await;
        own.next().await;
        let mut others = Vec::new();
        for n in 0..10 {
            let mut other = gateway.watch(&format!("other-{n}"), &id(1)).await;
            other.next().await;
            others.push(other);
        }
        upstream.on(&id(1), move |call| {
            if call.is_change() { UpstreamResponse::status(status) } else { call.appointment() }
        });
        let before = upstream.calls();
        gateway.update("token", &id(1), json!({ "status": "waiting" })).await;
        own.next().await;
        gateway.update("stranger", &id(1), json!({ "status": "waiting" })).await;
        // Time for the others to look, if they did.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        assert_eq!(upstream.calls() - before, 3, "{status}");
    }
}
