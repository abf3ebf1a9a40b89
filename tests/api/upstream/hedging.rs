//! Hedging: a second call next to an unusually slow one. It is off by default, has a budget, and applies to reads only.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::time::sleep;

use crate::support::{Gate, Gateway, Upstream, UpstreamResponse, id, ids, served};

const TIMES: [(&str, &str); 2] = [("upstream.timeout", "2s"), ("http.deadline", "60s")];

fn settings<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&TIMES[..], more].concat()
}

/// An upstream that leaves the first call for each of the ids up to `id(99)` without an answer, and a gateway that has
/// learnt from 40 others how long calls take.
async fn upstream_that_hangs_at_first(settings: &[(&str, &str)]) -> (Upstream, Gateway) {
    let upstream = Upstream::answering(|call| match call.id.as_str() < id(100).as_str() && call.nth == 1 {
        true => UpstreamResponse::never(),
        false => call.appointment(),
    })
    .await;
    let gateway = Gateway::before(upstream.url(), settings).await;
    for part in 10..50 {
        gateway.appointment("token", &id(100 * part)).await.appointment();
    }
    (upstream, gateway)
}

#[tokio::test]
async fn unusually_slow_calls_are_hedged_and_the_first_response_wins() {
    let (upstream, gateway) =
        upstream_that_hangs_at_first(&settings(&[("upstream.hedge_percent", "10")])).await;
    // Under load, one of the calls before may have seemed slow as well.
    let (before, hung_up) = (gateway.metrics().await, upstream.seen(|seen| seen.hung_up));
    let reply = gateway.appointment("token", &id(1)).await;
    assert_eq!(*reply.appointment(), served(&id(1), "token", 2));
    assert_eq!(upstream.calls_for(&id(1)), 2);
    upstream.until(|seen| seen.hung_up > hung_up).await;
    let metrics = gateway.metrics().await;
    let rise = |series: &str| metrics[series] - before[series];
    for hedge in ["sent", "won"] {
        assert_eq!(rise(&format!("gateway_upstream_hedges_total{{hedge=\"{hedge}\"}}")), 1.0, "{hedge}");
    }
    assert_eq!(rise("gateway_upstream_calls_total{outcome=\"abandoned\"}"), 1.0);
}

#[tokio::test]
async fn by_default_nothing_is_sent_twice() {
    let (upstream, gateway) = upstream_that_hangs_at_first(&settings(&[])).await;
    assert_eq!(gateway.appointment("token", &id(1)).await.codes(), ["UPSTREAM_TIMEOUT"]);
    assert_eq!(upstream.calls_for(&id(1)), 1);
}

#[tokio::test]
async fn no_more_is_sent_twice_than_the_budget_allows() {
    let (upstream, gateway) =
        upstream_that_hangs_at_first(&settings(&[("upstream.hedge_percent", "5")])).await;
    let reply = gateway.appointments("token", &ids(0..40)).await;
    let second = (0..40).map(|n| upstream.calls_for(&id(n)) - 1).sum::<usize>();
    // One to begin with, and one for each twenty of eighty.
    assert!((1..=1 + 80 / 20).contains(&second), "{second} second calls");
    assert_eq!(reply.codes(), vec!["UPSTREAM_TIMEOUT"; 40 - second]);
}

#[tokio::test]
async fn a_second_call_takes_no_slot_that_is_not_free() {
    let settings = settings(&[("upstream.hedge_percent", "100"), ("upstream.max_concurrent", "1")]);
    let (upstream, gateway) = upstream_that_hangs_at_first(&settings).await;
    assert_eq!(gateway.appointment("token", &id(1)).await.codes(), ["UPSTREAM_TIMEOUT"]);
    assert_eq!(upstream.calls_for(&id(1)), 1);
}

#[tokio::test]
async fn no_hedge_is_sent_during_a_retry_after() {
    let (slow, gate) = (Duration::from_millis(700), Gate::shut());
    let upstream = Upstream::answering({
        let gate = gate.clone();
        move |call| match call.id {
            ref it if *it == id(1) => call.appointment().once(&gate),
            ref it if *it == id(2) => UpstreamResponse::status(429).with("Retry-After", "3600"),
            _ => call.appointment().after(slow),
        }
    })
    .await;
    let settings = settings(&[
        ("upstream.hedge_percent", "100"),
        ("upstream.max_paused", "10"),
        ("upstream.timeout", "60s"),
    ]);
    let gateway = Arc::new(Gateway::before(upstream.url(), &settings).await);
    gateway.appointments("token", &ids(1000..1040)).await;
    let first = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.appointment("token", &id(1)).await }
    });
    upstream.until_called(41).await;
    assert_eq!(gateway.appointment("token", &id(2)).await.codes(), ["RATE_LIMITED"]);
    sleep(2 * slow).await;
    gate.open();
    assert_eq!(*first.await.unwrap().appointment(), served(&id(1), "token", 1));
    assert_eq!(upstream.calls_for(&id(1)), 1);
}

#[tokio::test]
async fn a_failed_hedge_leaves_the_first_call_running() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &settings(&[("upstream.hedge_percent", "100")])).await;
    for n in 1000..1040 {
        gateway.appointment("token", &id(n)).await.appointment();
    }
    upstream.on(&id(1), |call| match call.nth {
        1 => call.appointment().after(Duration::from_millis(1000)),
        _ => UpstreamResponse::status(503),
    });
    assert_eq!(*gateway.appointment("token", &id(1)).await.appointment(), served(&id(1), "token", 1));
    assert_eq!(upstream.calls_for(&id(1)), 2);
}

#[tokio::test]
async fn a_change_is_sent_once_however_long_it_takes() {
    let upstream = Upstream::answering(|call| match call.nth {
        1..=40 => call.changed(),
        _ => call.changed().after(Duration::from_millis(1000)),
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &settings(&[("upstream.hedge_percent", "100")])).await;
    for n in 1..=41 {
        gateway.update("token", &id(1), json!({ "status": format!("{n}") })).await.changed();
    }
    assert_eq!(upstream.calls(), 41);
}
