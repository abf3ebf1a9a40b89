//! Admission of subscribers, their number, and the end of polling when they leave or their token expires.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use crate::support::{
    Gate, Gateway, SubscriptionEvent, TIMEOUT, Upstream, UpstreamResponse, id, jwt, served,
};

/// Pollers that hurry.
const QUICK: [(&str, &str); 2] = [("live.fast_interval", "10ms"), ("live.slow_interval", "20ms")];

#[tokio::test]
async fn polling_ends_with_the_last_subscriber_and_not_before() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &QUICK).await;
    let mut first = gateway.watch("token", &id(1)).await;
    let mut second = gateway.watch("token", &id(1)).await;
    first.next().await;
    second.next().await;
    // Also the one that began it may leave.
    drop(first);
    upstream.until_polled(10).await;
    second.next().await;
    drop(second);
    let quiet = async {
        loop {
            let before = upstream.calls();
            sleep(Duration::from_millis(300)).await;
            if upstream.calls() == before {
                return;
            }
        }
    };
    timeout(TIMEOUT, quiet).await.expect("the polling ends");
    // Later subscribers start anew.
    let before = upstream.calls();
    let mut third = gateway.watch("token", &id(1)).await;
    third.next().await;
    upstream.until_polled(3).await;
    assert!(upstream.calls() > before);
}

#[tokio::test]
async fn a_poll_under_way_ends_with_the_last_subscriber() {
    let upstream =
        Upstream::answering(
            |call| if call.nth == 1 { call.appointment() } else { UpstreamResponse::never() },
        )
        .await;
    let settings = [&QUICK[..], &[("upstream.timeout", "10m")]].concat();
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let mut events = gateway.watch("token", &id(1)).await;
    events.next().await;
    upstream.until(|seen| seen.in_flight == 1).await;
    drop(events);
    upstream.until(|seen| seen.hung_up == 1).await;
}

#[tokio::test]
async fn no_more_is_watched_than_is_allowed() {
    let upstream = Upstream::start().await;
    let settings = [("live.max_watched", "2"), ("live.caller_share", "100"), ("live.slow_interval", "10m")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let mut first = gateway.watch("token", &id(1)).await;
    let mut second = gateway.watch("other", &id(1)).await;
    let shown = first.next().await;
    second.next().await;
    for (token, n) in [("token", 2), ("third", 1)] {
        assert_eq!(gateway.watch(token, &id(n)).await.end().await, "OVERLOADED");
    }
    assert_eq!(gateway.rejections("live.max_watched").await, 2.0);
    assert_eq!(upstream.calls(), 2);
    // Further subscribers of a watched appointment are admitted, and abandoned ones free their place.
    let mut more = gateway.watch("token", &id(1)).await;
    assert_eq!(more.next().await, shown);
    drop(second);
    let room = async {
        loop {
            let mut events = gateway.watch("token", &id(2)).await;
            match events.event().await {
                SubscriptionEvent::Next(answer) if answer.get("errors").is_none() => return,
                _ => sleep(Duration::from_millis(20)).await,
            }
        }
    };
    timeout(TIMEOUT, room).await.expect("there is room again");
}

#[tokio::test]
async fn without_a_token_nothing_is_watched() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &QUICK).await;
    assert_eq!(gateway.watch("", &id(1)).await.end().await, "UNAUTHENTICATED");
    assert_eq!(upstream.calls(), 0);
}

#[tokio::test]
async fn a_subscription_ends_when_its_token_expires() {
    let upstream = Upstream::start().await;
    let settings = [("callers.leeway", "0"), ("live.slow_interval", "10m")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let mut long = gateway.watch(&jwt(3600), &id(1)).await;
    let mut short = gateway.watch(&jwt(2), &id(1)).await;
    long.next().await;
    short.next().await;
    assert_eq!(short.end().await, "UNAUTHENTICATED");
    long.nothing(Duration::from_millis(50)).await;
}

/// Single flight (invariant 3) covers polls and queries.
#[tokio::test]
async fn queries_join_a_poll_in_flight() {
    let gate = Gate::shut();
    let upstream = Upstream::answering({
        let gate = gate.clone();
        move |call| if call.nth == 2 { call.appointment().once(&gate) } else { call.appointment() }
    })
    .await;
    let settings = [("live.fast_interval", "10ms"), ("live.slow_interval", "20ms"), ("cache.ttl", "0")];
    let gateway = Arc::new(Gateway::before(upstream.url(), &settings).await);
    let mut watching = gateway.watch("token", &id(1)).await;
    watching.next().await;
    upstream.until_called(2).await;
    let asking = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.appointment("token", &id(1)).await }
    });
    // Long enough for a call of its own to be seen.
    sleep(Duration::from_millis(300)).await;
    assert_eq!(upstream.calls(), 2, "one call is under way");
    gate.open();
    assert_eq!(asking.await.unwrap().body["data"]["appointment"], served(&id(1), "token", 2));
}
