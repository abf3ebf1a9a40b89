//! The circuit breaker: it stops calls to a failing route, and a few probes detect its recovery (invariant 8).

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::{
    Call, ChangeKind, Gate, Gateway, GatewayResponse, List, Pagination, Upstream, UpstreamResponse,
    UpstreamState, id, ids, served,
};

/// Five calls are enough to judge by.
const SOON: [(&str, &str); 3] =
    [("upstream.breaker_percent", "50"), ("upstream.breaker_calls", "5"), ("upstream.breaker_window", "60s")];

fn settings<'a>(pause: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&SOON[..], &[("upstream.breaker_pause", pause)], more].concat()
}

/// Asks one after the other for five ids that fail.
async fn open(gateway: &Gateway) {
    for n in 0..5 {
        let reply = gateway.appointment("token", &id(n)).await;
        assert_eq!(reply.codes().len(), 1, "{reply:?}");
    }
}

#[track_caller]
fn assert_refused(reply: &GatewayResponse, seconds: std::ops::RangeInclusive<u64>) {
    assert_eq!(reply.codes(), ["UPSTREAM_UNAVAILABLE"]);
    let told = reply.body["errors"][0]["extensions"]["retryAfterSeconds"].as_u64();
    assert!(told.is_some_and(|told| seconds.contains(&told)), "{told:?}");
}

#[tokio::test]
async fn a_route_that_fails_is_not_called_any_more_and_the_others_are() {
    let upstream = Upstream::answering(|call| match (call.is_change(), call.id.as_str()) {
        (true, _) => call.changed(),
        (false, "appointments") => List::of(1, Pagination::Meta).page(call),
        (false, _) => UpstreamResponse::status(500),
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &settings("60s", &[])).await;
    open(&gateway).await;
    assert_eq!(upstream.calls(), 5);
    for n in [0, 7, 8, 9] {
        // This includes ids and callers without failures: the upstream is down for all.
        assert_refused(&gateway.appointment("other", &id(n)).await, 50..=72);
    }
    assert_eq!(upstream.calls(), 5);
    assert_eq!(gateway.list("token", json!({ "first": 1 })).await.codes(), [""; 0]);
    gateway.update("token", &id(1), json!({ "status": "waiting" })).await.changed();

    let metrics = gateway.metrics().await;
    for (route, state, refusals) in [("appointment", 2.0, 4.0), ("list", 0.0, 0.0), ("change", 0.0, 0.0)] {
        assert_eq!(metrics[&format!("gateway_upstream_breaker{{route=\"{route}\"}}")], state, "{route}");
        let refused = metrics[&format!("gateway_upstream_breaker_refusals_total{{route=\"{route}\"}}")];
        assert_eq!(refused, refusals, "{route}");
    }
    let lines = gateway.stderr().lines().filter(|line| line.contains("circuit breaker opened")).count();
    assert_eq!(lines, 1, "it is logged that it opened, not each call: {}", gateway.stderr());
    let ready = GatewayResponse::of(gateway.request(Method::GET, "/readyz")).await;
    assert_eq!(ready.status, 200, "taking the gateway out of service would make nothing better");
}

#[tokio::test]
async fn every_way_to_fail_counts() {
    let ways: [fn(&Call) -> UpstreamResponse; 5] = [
        |_| UpstreamResponse::status(500),
        |_| UpstreamResponse::status(504),
        |_| UpstreamResponse::cut(),
        |call| call.appointment().short_of(5),
        |_| UpstreamResponse::never(),
    ];
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &settings("60s", &[("upstream.timeout", "500ms")])).await;
    for (n, way) in ways.into_iter().enumerate() {
        upstream.on(&id(n), way);
    }
    open(&gateway).await;
    assert_refused(&gateway.appointment("token", &id(7)).await, 50..=72);
    assert_eq!(upstream.calls(), 5);
}

#[tokio::test]
async fn rejections_do_not_count_as_failures() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &settings("60s", &[])).await;
    for (n, status) in [401, 403, 404, 429, 422, 400, 418, 302].into_iter().cycle().take(24).enumerate() {
        upstream.on(&id(n), move |_| UpstreamResponse::status(status));
        gateway.appointment("token", &id(n)).await;
    }
    for n in 30..36 {
        upstream.on(&id(n), |_| UpstreamResponse::text(200, "text/html", "}{"));
        gateway.appointment("token", &id(n)).await;
    }
    assert_eq!(upstream.calls(), 30);
    // Abandoned calls do not count as failures either.
    assert_eq!(*gateway.appointment("token", &id(50)).await.appointment(), served(&id(50), "token", 1));
}

#[tokio::test]
async fn queued_calls_are_not_sent_once_the_breaker_is_open() {
    let upstream = Upstream::answering(|_| UpstreamResponse::status(503)).await;
    let settings = settings("60s", &[("upstream.max_concurrent", "1")]);
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let reply = gateway.appointments("token", &ids(0..40)).await;
    assert_eq!(reply.codes(), ["UPSTREAM_UNAVAILABLE"; 40]);
    assert_eq!(upstream.calls(), 5);
}

#[tokio::test]
async fn repetitions_end_when_it_opens() {
    let upstream = Upstream::answering(|_| UpstreamResponse::status(503)).await;
    let settings = settings("60s", &[("upstream.retries", "10")]);
    let gateway = Gateway::before(upstream.url(), &settings).await;
    assert_refused(&gateway.appointment("token", &id(0)).await, 50..=72);
    assert_eq!(upstream.calls(), 5);
}

/// Fails until recovery is triggered; then it answers once the gate is open.
async fn upstream_with_an_outage() -> (Upstream, UpstreamState, Gate) {
    let (state, gate) = (UpstreamState::of("ill"), Gate::shut());
    let upstream = Upstream::answering({
        let (state, gate) = (state.clone(), gate.clone());
        move |call| match state.get().as_str() {
            "ill" => UpstreamResponse::status(503),
            _ => call.appointment().once(&gate),
        }
    })
    .await;
    (upstream, state, gate)
}

#[tokio::test]
async fn after_a_pause_successful_probes_close_the_breaker() {
    let (upstream, state, gate) = upstream_with_an_outage().await;
    let gateway = Arc::new(Gateway::before(upstream.url(), &settings("500ms", &[])).await);
    open(&gateway).await;
    state.set("well");
    sleep(Duration::from_millis(700)).await;
    let probes = (10..13).map(|n| {
        let gateway = gateway.clone();
        tokio::spawn(async move { gateway.appointment("token", &id(n)).await })
    });
    let probes = probes.collect::<Vec<_>>();
    upstream.until_called(5 + 3).await;
    let others = join_all((20..30).map(|n| {
        let gateway = gateway.clone();
        async move { gateway.appointment("token", &id(n)).await }
    }));
    for other in others.await {
        assert_refused(&other, 1..=1);
    }
    assert_eq!(upstream.calls(), 5 + 3);
    assert_eq!(gateway.metrics().await["gateway_upstream_breaker{route=\"appointment\"}"], 1.0);
    gate.open();
    for probe in probes {
        assert_eq!(probe.await.unwrap().codes(), [""; 0]);
    }
    assert_eq!(gateway.appointments("token", &ids(30..50)).await.paths_and_codes(), []);
    let metrics = gateway.metrics().await;
    assert_eq!(metrics["gateway_upstream_breaker{route=\"appointment\"}"], 0.0);
    for to in ["open", "half_open", "closed"] {
        assert_eq!(metrics[&format!("gateway_upstream_breaker_turns_total{{to=\"{to}\"}}")], 1.0, "{to}");
    }
}

#[tokio::test]
async fn a_burst_right_after_a_successful_probe_is_served() {
    let (upstream, state, gate) = upstream_with_an_outage().await;
    let gateway = Gateway::before(upstream.url(), &settings("500ms", &[])).await;
    open(&gateway).await;
    state.set("well");
    upstream.on(&id(10), Call::appointment);
    sleep(Duration::from_millis(700)).await;
    assert_eq!(gateway.appointment("token", &id(10)).await.codes(), [""; 0]);
    assert_eq!(gateway.metrics().await["gateway_upstream_breaker{route=\"appointment\"}"], 1.0);
    // All of them are in flight before one is answered.
    let burst = ids(20..70);
    let (reply, ()) = tokio::join!(gateway.appointments("token", &burst), async {
        upstream.until(|seen| seen.in_flight == 50).await;
        gate.open();
    });
    assert_eq!(reply.paths_and_codes(), []);
    assert_eq!(upstream.calls(), 5 + 1 + 50);
    assert_eq!(gateway.metrics().await["gateway_upstream_breaker{route=\"appointment\"}"], 0.0);
}

#[tokio::test]
async fn a_failure_in_the_burst_opens_the_breaker_again() {
    let (upstream, state, gate) = upstream_with_an_outage().await;
    let gateway = Gateway::before(upstream.url(), &settings("500ms", &[])).await;
    open(&gateway).await;
    state.set("well");
    upstream.on(&id(10), Call::appointment);
    upstream.on(&id(20), |_| UpstreamResponse::status(503));
    sleep(Duration::from_millis(700)).await;
    assert_eq!(gateway.appointment("token", &id(10)).await.codes(), [""; 0]);
    gate.open();
    assert_eq!(gateway.appointment("token", &id(20)).await.codes(), ["UPSTREAM_UNAVAILABLE"]);
    assert_refused(&gateway.appointment("token", &id(21)).await, 1..=1);
    assert_eq!(upstream.calls(), 5 + 2);
}

#[tokio::test]
async fn a_failed_probe_is_the_only_call_until_the_next_pause_ends() {
    let upstream = Upstream::answering(|_| UpstreamResponse::status(503)).await;
    let gateway = Gateway::before(upstream.url(), &settings("2s", &[])).await;
    open(&gateway).await;
    sleep(Duration::from_millis(2600)).await;
    for n in 10..20 {
        assert_eq!(gateway.appointment("token", &id(n)).await.codes(), ["UPSTREAM_UNAVAILABLE"]);
    }
    assert_eq!(upstream.calls(), 5 + 1);
}

#[tokio::test]
async fn a_probe_that_its_client_gives_up_makes_room_for_another() {
    let (upstream, state, gate) = upstream_with_an_outage().await;
    let settings = settings("500ms", &[("http.deadline", "1s"), ("upstream.timeout", "60s")]);
    let gateway = Gateway::before(upstream.url(), &settings).await;
    open(&gateway).await;
    state.set("well");
    sleep(Duration::from_millis(700)).await;
    let reply = gateway.appointments("token", &ids(10..16)).await;
    let count = |code| reply.codes().iter().filter(|it| **it == code).count();
    assert_eq!((count("UPSTREAM_TIMEOUT"), count("UPSTREAM_UNAVAILABLE")), (3, 3));
    upstream.until(|seen| seen.hung_up == 3).await;
    gate.open();
    let served = async {
        while !gateway.appointment("token", &id(20)).await.codes().is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(crate::support::TIMEOUT, served).await.expect("it is not stuck");
}

#[tokio::test]
async fn a_change_stopped_by_the_breaker_is_reported_as_not_sent() {
    let upstream = Upstream::answering(|call| {
        if call.is_change() { UpstreamResponse::status(500) } else { call.appointment() }
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &settings("60s", &[])).await;
    for n in 0..5 {
        gateway.update("token", &id(n), json!({ "status": "waiting" })).await;
    }
    for kind in ChangeKind::EACH {
        let reply = kind.make(&gateway).await;
        assert_refused(&reply, 50..=72);
        assert_eq!(reply.body["data"], Value::Null, "{kind:?}");
    }
    assert_eq!(upstream.calls(), 5);
    assert_eq!(*gateway.appointment("token", &id(1)).await.appointment(), served(&id(1), "token", 1));
}

#[tokio::test]
async fn polling_stops_while_the_breaker_is_open_and_then_catches_up() {
    let state = UpstreamState::of("before");
    let upstream = Upstream::answering({
        let state = state.clone();
        move |call| {
            if (2..=5).contains(&call.nth) { UpstreamResponse::status(503) } else { state.answer(call) }
        }
    })
    .await;
    let quick = [("live.fast_interval", "10ms"), ("live.slow_interval", "20ms")];
    let gateway = Gateway::before(upstream.url(), &settings("2s", &quick)).await;
    let mut events = gateway.watch("token", &id(1)).await;
    assert_eq!(events.status().await, "before");
    // One success and four failures are enough.
    upstream.until_called(5).await;
    state.set("after");
    events.nothing(Duration::from_millis(500)).await;
    assert_eq!(upstream.calls(), 5);
    assert_eq!(events.status().await, "after");
}
