//! Withdrawal of a signing key ends the subscriptions and operations of its tokens, and no others.

use serde_json::{Value, json};

use crate::support::{Events, Gateway, Issuer, Socket, Upstream, UpstreamResponse, codes, id};

fn watch() -> String {
    format!("subscription {{ appointmentChanged(id: \"{}\") {{ reference }} }}", id(1))
}

/// Changes the watched appointment; returns the event that subscribers receive.
fn now_known_as(upstream: &Upstream, reference: &'static str) -> Value {
    upstream.on(&id(1), move |call| {
        UpstreamResponse::json(200, &json!({ "data": { "id": call.id, "reference": reference } }))
    });
    json!({ "data": { "appointmentChanged": { "reference": reference } } })
}

async fn gateway(upstream: &Upstream, interval: &str) -> Gateway {
    let settings = [
        ("callers.jwks_max_age", "20ms"),
        ("callers.jwks_refresh_interval", "20ms"),
        ("live.fast_interval", interval),
        ("live.slow_interval", interval),
    ];
    Gateway::for_issuer(upstream, &settings).await
}

/// Waits until the published keys have been fetched.
async fn keys_fetched(upstream: &Upstream) {
    let seen = upstream.calls_for("jwks");
    // The first of these may have been asked for before.
    upstream.until(|it| it.calls.iter().filter(|call| call.id == "jwks").count() >= seen + 3).await;
}

#[tokio::test]
async fn a_withdrawn_key_ends_the_subscriptions_of_its_tokens() {
    let (old, new) = (Issuer::new("old"), Issuer::new("new"));
    // The key is gone, or there is another by its name.
    for (left, reason) in [(vec![&new], "key"), (vec![&new, &Issuer::new("old")], "signature")] {
        let upstream = Upstream::with_tokens().await;
        upstream.show_keys_of(&[&old, &new]);
        let gateway = gateway(&upstream, "50ms").await;
        let first = now_known_as(&upstream, "first");
        let (of_old, of_new) = (old.token("alice"), new.token("alice"));
        let mut ending = Events::open(&gateway, &of_old, &watch()).await;
        let mut going_on = Events::open(&gateway, &of_new, &watch()).await;
        let mut socket = Socket::connect(&gateway, &of_old).await;
        socket.subscribe("1", &watch()).await;
        assert_eq!(ending.next().await, first);
        assert_eq!(going_on.next().await, first);
        assert_eq!(socket.receive().await["payload"], first);

        upstream.show_keys_of(&left);
        let last = ending.next().await;
        ending.completed().await;
        // A query with the same token is told the same.
        let query = gateway.appointment(&of_old, &id(1)).await;
        assert_eq!(query.codes(), ["UNAUTHENTICATED"]);
        let message = &query.body["errors"][0]["message"];
        assert!(message.as_str().unwrap().contains(reason), "{message}");
        let error = &last["errors"][0];
        assert_eq!((&error["message"], &error["extensions"]["code"]), (message, &json!("UNAUTHENTICATED")));
        let answer = socket.receive().await;
        assert_eq!(answer["payload"]["errors"][0]["message"], *message, "{answer}");
        // The WebSocket stays, and so does the subscription of the other key, by the same poller.
        let last = socket.receive().await;
        assert_eq!(last, json!({ "type": "complete", "id": "1" }));
        let second = now_known_as(&upstream, "second");
        assert_eq!(going_on.next().await, second);
    }
}

#[tokio::test]
async fn a_rotation_that_keeps_the_key_ends_nothing() {
    let (issuer, other) = (Issuer::new("key-1"), Issuer::new("key-2"));
    let upstream = Upstream::with_tokens().await;
    upstream.show_keys_of(&[&issuer]);
    let gateway = gateway(&upstream, "1h").await;
    let first = now_known_as(&upstream, "first");
    let mut events = Events::open(&gateway, &issuer.token("alice"), &watch()).await;
    assert_eq!(events.next().await, first);
    let mut renamed = issuer.jwk();
    renamed.as_object_mut().unwrap().remove("use");
    let other_notation = json!({ "keys": [other.jwk(), renamed] });
    upstream.show_keys_of(&[&issuer, &other]);
    keys_fetched(&upstream).await;
    upstream.on("jwks", move |_| UpstreamResponse::json(200, &other_notation));
    keys_fetched(&upstream).await;
    assert_eq!(gateway.metrics().await["gateway_event_streams"], 1.0);
    assert_eq!(upstream.calls_for(&id(1)), 1, "the poller goes on");
    // It is the same one that ends with its key.
    upstream.show_keys_of(&[&other]);
    assert_eq!(events.next().await["errors"][0]["extensions"]["code"], "UNAUTHENTICATED");
}

#[tokio::test]
async fn keys_that_cannot_be_fetched_end_nothing() {
    let issuer = Issuer::new("key-1");
    let upstream = Upstream::with_tokens().await;
    upstream.show_keys_of(&[&issuer]);
    let gateway = gateway(&upstream, "50ms").await;
    let first = now_known_as(&upstream, "first");
    let mut events = Events::open(&gateway, &issuer.token("alice"), &watch()).await;
    assert_eq!(events.next().await, first);
    for broken in [
        UpstreamResponse::status(503),
        UpstreamResponse::cut(),
        UpstreamResponse::json(200, &json!({ "keys": [] })),
    ] {
        upstream.on("jwks", move |_| broken.clone());
        keys_fetched(&upstream).await;
    }
    let second = now_known_as(&upstream, "second");
    assert_eq!(events.next().await, second);
}

/// Each operation over a WebSocket is of the token as it is then, not as it was when the WebSocket was opened.
#[tokio::test]
async fn withdrawn_keys_lose_access_to_cached_data() {
    let (old, new) = (Issuer::new("old"), Issuer::new("new"));
    let upstream = Upstream::with_tokens().await;
    upstream.show_keys_of(&[&old]);
    let gateway = gateway(&upstream, "1h").await;
    let token = old.token("alice");
    let query = format!("{{ appointment(id: \"{}\") {{ reference }} }}", id(1));
    let mut socket = Socket::connect(&gateway, &token).await;
    socket.subscribe("1", &query).await;
    assert_eq!(socket.receive().await["type"], "next");
    assert_eq!(socket.receive().await["type"], "complete");
    upstream.show_keys_of(&[&new]);
    keys_fetched(&upstream).await;
    assert_eq!(gateway.query(Some(&token), &query).await.codes(), ["UNAUTHENTICATED"]);
    socket.subscribe("2", &query).await;
    let answer = socket.receive().await;
    assert_eq!(codes(&answer), ["UNAUTHENTICATED"]);
    assert_eq!(upstream.calls_for(&id(1)), 1);
}
