//! The limit on subscribers per caller and appointment: `live.max_subscribers`.

use std::time::Duration;

use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::support::{Gateway, Subscription, SubscriptionEvent, TIMEOUT, Transport, Upstream, id};

const SETTINGS: [(&str, &str); 2] = [("live.max_subscribers", "2"), ("live.slow_interval", "10m")];

async fn subscribed(gateway: &Gateway, transport: Transport, token: &str, n: usize) -> Subscription {
    let mut subscription = gateway.subscribe(transport, token, &id(n)).await;
    assert!(subscription.status().await.starts_with("call"));
    subscription
}

#[tokio::test]
async fn one_subscriber_too_many_is_rejected_naming_the_limit() {
    for transport in Transport::EACH {
        let upstream = Upstream::start().await;
        let gateway = Gateway::before(upstream.url(), &SETTINGS).await;
        let _places = [
            subscribed(&gateway, Transport::EventStream, "token", 1).await,
            subscribed(&gateway, Transport::WebSocket, "token", 1).await,
        ];
        for refused in 1..=2 {
            let error = gateway.subscribe(transport, "token", &id(1)).await.error().await;
            let extensions = &error["extensions"];
            assert_eq!(
                (&extensions["code"], &extensions["limit"]),
                (&json!("OVERLOADED"), &json!("live.max_subscribers")),
                "{transport:?}"
            );
            assert_eq!(gateway.rejections("live.max_subscribers").await, f64::from(refused));
        }
        // Another appointment and another caller have places of their own.
        let _others = [
            subscribed(&gateway, transport, "token", 2).await,
            subscribed(&gateway, transport, "other", 1).await,
        ];
        assert_eq!(upstream.calls(), 3);
    }
}

#[tokio::test]
async fn a_subscriber_that_leaves_frees_its_place() {
    for transport in Transport::EACH {
        let upstream = Upstream::start().await;
        let gateway = Gateway::before(upstream.url(), &SETTINGS).await;
        let mut places = vec![
            subscribed(&gateway, transport, "token", 1).await,
            subscribed(&gateway, transport, "token", 1).await,
        ];
        for _ in 0..3 {
            assert_eq!(gateway.subscribe(transport, "token", &id(1)).await.end().await, "OVERLOADED");
            drop(places.remove(0));
            let freed = async {
                loop {
                    let mut next = gateway.subscribe(transport, "token", &id(1)).await;
                    match next.event().await {
                        SubscriptionEvent::Next(answer) if answer.get("errors").is_none() => return next,
                        _ => sleep(Duration::from_millis(20)).await,
                    }
                }
            };
            places.push(timeout(TIMEOUT, freed).await.expect("the place is free again"));
        }
    }
}
