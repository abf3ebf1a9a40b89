//! Events that a subscription survives, and those that end it.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{Gateway, UPSTREAM_TEXT, Upstream, UpstreamResponse, UpstreamState, id, ids};

const QUICK: [(&str, &str); 2] = [("live.fast_interval", "10ms"), ("live.slow_interval", "20ms")];

#[tokio::test]
async fn an_outage_of_any_kind_is_waited_out_and_caught_up_with() {
    let outage = |nth: usize| {
        Some(match nth {
            2 => UpstreamResponse::status(500),
            3 => UpstreamResponse::text(503, "text/html", UPSTREAM_TEXT),
            4 => UpstreamResponse::cut(),
            5 => UpstreamResponse::never(),
            6 => UpstreamResponse::text(200, "text/html", UPSTREAM_TEXT),
            7 => UpstreamResponse::status(429),
            8 => UpstreamResponse::text(204, "text/plain", ""),
            9 => UpstreamResponse::json(200, &json!({ "data": { "id": id(2) } })),
            10 => UpstreamResponse::status(418),
            11 => UpstreamResponse::status(302),
            _ => return None,
        })
    };
    let state = UpstreamState::of("before");
    let upstream = Upstream::answering({
        let state = state.clone();
        move |call| outage(call.nth).unwrap_or_else(|| state.answer(call))
    })
    .await;
    let settings = [&QUICK[..], &[("upstream.timeout", "500ms")]].concat();
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let mut events = gateway.watch("token", &id(1)).await;
    assert_eq!(events.status().await, "before");
    state.set("after");
    assert_eq!(events.status().await, "after");
    assert!(upstream.calls() >= 12);
    assert!(!gateway.stderr().contains(UPSTREAM_TEXT));
}

#[tokio::test]
async fn an_outage_at_the_beginning_is_waited_out_too() {
    let upstream = Upstream::answering(|call| match call.nth {
        1 => UpstreamResponse::status(500),
        2 => UpstreamResponse::cut(),
        _ => call.appointment(),
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &QUICK).await;
    let mut events = gateway.watch("token", &id(1)).await;
    assert_eq!(events.status().await, "call 3");
}

#[tokio::test]
async fn definite_errors_end_the_subscription() {
    for (status, code) in
        [(401, "UNAUTHENTICATED"), (403, "FORBIDDEN"), (404, "NOT_FOUND"), (410, "NOT_FOUND")]
    {
        for last in [1, 3] {
            let state = UpstreamState::of("a");
            let upstream = Upstream::answering({
                let state = state.clone();
                move |call| {
                    if call.nth >= last { UpstreamResponse::status(status) } else { state.answer(call) }
                }
            })
            .await;
            let settings = [&QUICK[..], &[("cache.absence_ttl", "0")]].concat();
            let gateway = Gateway::before(upstream.url(), &settings).await;
            let mut first = gateway.watch("token", &id(1)).await;
            if last > 1 {
                let mut second = gateway.watch("token", &id(1)).await;
                assert_eq!((first.status().await, second.status().await), ("a".to_owned(), "a".to_owned()));
                assert_eq!(second.end().await, code, "{status}");
            }
            assert_eq!(first.end().await, code, "{status}");
            drop(first);
            // Polling has ended, and the cached copy is gone.
            let before = upstream.calls();
            let reply = gateway.appointment("token", &id(1)).await;
            let expected = if status < 404 { vec![code] } else { vec![] };
            assert_eq!(
                (reply.codes(), &reply.body["data"]["appointment"]),
                (expected, &Value::Null),
                "{status}"
            );
            assert_eq!(upstream.calls(), before + 1, "{status}");
        }
    }
}

#[tokio::test]
async fn a_subscription_may_be_begun_again_after_it_was_ended() {
    let upstream = Upstream::answering(|call| match call.nth {
        2 => UpstreamResponse::status(403),
        _ => call.appointment(),
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &QUICK).await;
    let mut events = gateway.watch("token", &id(1)).await;
    assert_eq!(events.status().await, "call 1");
    assert_eq!(events.end().await, "FORBIDDEN");
    // While the ended one is still held on to.
    let mut again = gateway.watch("token", &id(1)).await;
    assert_eq!(again.status().await, "call 3");
}

#[tokio::test]
async fn polling_respects_retry_after() {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let upstream = Upstream::answering({
        let calls = calls.clone();
        move |call| {
            calls.lock().unwrap().push((call.id.clone(), Instant::now()));
            if call.nth == 2 {
                UpstreamResponse::status(429).with("Retry-After", "1")
            } else {
                call.appointment()
            }
        }
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &QUICK).await;
    let mut subscribers = Vec::new();
    for id in ids(0..16) {
        subscribers.push(gateway.watch("token", &id).await);
    }
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.status().await, "call 1");
        assert_eq!(subscriber.status().await, "call 3");
    }
    let calls = calls.lock().unwrap().clone();
    for id in ids(0..16) {
        let times = calls.iter().filter(|(it, _)| *it == id).map(|(_, at)| *at).collect::<Vec<_>>();
        let waited = times[2] - times[1];
        assert!(waited >= Duration::from_secs(1), "{waited:?}");
    }
}

#[tokio::test]
async fn a_time_beyond_all_bounds_breaks_nothing() {
    let upstream = Upstream::answering(|call| match (call.is_change(), call.nth) {
        (true, _) => call.changed(),
        (false, 1) => call.appointment(),
        (false, _) => UpstreamResponse::status(429).with("Retry-After", &u64::MAX.to_string()),
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &QUICK).await;
    // Each by itself, since none waits exactly as long as another.
    for id in ids(0..8) {
        let mut events = gateway.watch("token", &id).await;
        assert_eq!(events.status().await, "call 1");
        upstream.until(|seen| seen.calls.iter().filter(|call| call.id == id).count() == 2).await;
        events.nothing(Duration::from_millis(20)).await;
        gateway.update("token", &id, json!({ "status": "waiting" })).await.changed();
        assert_eq!(events.status().await, "waiting");
    }
}
