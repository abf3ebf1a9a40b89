//! Who refused a credential: the gateway never presents its own verdict as the upstream's, and leaves to the upstream what
//! only the upstream can judge.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::{
    Gateway, Issuer, KeyFile, Subscription, SubscriptionEvent, Transport, Upstream, UpstreamResponse, id,
    issuer::now, jwt,
};

const BY_UPSTREAM: &str = "The appointments service rejected the token";
const BY_CLOCK: &str = "The gateway has ended the subscription: by its clock, the token has expired";

async fn assert_end(subscription: &mut Subscription, message: &str) {
    let error = subscription.error().await;
    assert_eq!(error["extensions"]["code"], "UNAUTHENTICATED", "{error}");
    assert!(error["message"].as_str().unwrap().contains(message), "{message} in {error}");
    assert_eq!(subscription.event().await, SubscriptionEvent::Complete);
}

/// Shows `reference` as a change of the appointment.
fn change(upstream: &Upstream, reference: &'static str) {
    upstream.on(&id(1), move |call| {
        UpstreamResponse::json(
            200,
            &json!({ "data": { "id": call.id, "reference": reference, "status": "x" } }),
        )
    });
}

#[tokio::test]
async fn an_expired_token_is_for_the_upstream_to_judge() {
    for transport in Transport::EACH {
        for (expired, leeway) in [(-5, "5s"), (-5, "1h"), (-1, "0"), (-5, "0"), (-3600, "5s")] {
            let upstream = Upstream::start().await;
            let gateway = Gateway::before(upstream.url(), &[("callers.leeway", leeway)]).await;
            let token = jwt(expired);
            assert_eq!(gateway.appointment(&token, &id(1)).await.codes(), [""; 0]);
            let mut subscription = gateway.subscribe(transport, &token, &id(1)).await;
            assert!(subscription.status().await.starts_with("call"), "{transport:?} {expired} {leeway}");
            // The appointment of the query is not reused: it does not outlive the token.
            assert!(upstream.calls_for(&id(1)) >= 2);
            if leeway == "0" {
                assert_end(&mut subscription, BY_CLOCK).await;
            }
        }
    }
}

#[tokio::test]
async fn the_upstreams_rejection_of_an_expired_token_is_reported_as_its_own() {
    for transport in Transport::EACH {
        for leeway in ["0", "1h"] {
            let upstream = Upstream::answering(|_| UpstreamResponse::status(401)).await;
            let gateway = Gateway::before(upstream.url(), &[("callers.leeway", leeway)]).await;
            let token = jwt(-5);
            let mut subscription = gateway.subscribe(transport, &token, &id(1)).await;
            assert_end(&mut subscription, BY_UPSTREAM).await;
            let reply = gateway.appointment(&token, &id(1)).await;
            assert_eq!(reply.codes(), ["UNAUTHENTICATED"]);
            let message = reply.body["errors"][0]["message"].as_str().unwrap();
            assert!(message.contains(BY_UPSTREAM), "{message}");
        }
    }
}

#[tokio::test]
async fn a_subscription_continues_past_the_expiry_for_the_leeway() {
    for transport in Transport::EACH {
        let upstream = Upstream::start().await;
        let settings =
            [("callers.leeway", "1h"), ("live.fast_interval", "20ms"), ("live.slow_interval", "20ms")];
        let gateway = Gateway::before(upstream.url(), &settings).await;
        change(&upstream, "before");
        let mut subscription = gateway.subscribe(transport, &jwt(1), &id(1)).await;
        let shown = |event| match event {
            SubscriptionEvent::Next(answer) => answer["data"]["appointmentChanged"]["reference"].clone(),
            SubscriptionEvent::Complete => Value::Null,
        };
        assert_eq!(shown(subscription.event().await), "before");
        sleep(Duration::from_secs(2)).await;
        change(&upstream, "after");
        assert_eq!(shown(subscription.event().await), "after", "{transport:?}");
        // The upstream still decides.
        upstream.on(&id(1), |_| UpstreamResponse::status(401));
        assert_end(&mut subscription, BY_UPSTREAM).await;
    }
}

#[tokio::test]
async fn the_gateway_ends_a_subscription_in_its_own_name() {
    for transport in Transport::EACH {
        let upstream = Upstream::start().await;
        for leeway in ["0", "1s"] {
            let settings = [("callers.leeway", leeway), ("live.slow_interval", "10m")];
            let gateway = Gateway::before(upstream.url(), &settings).await;
            let mut subscription = gateway.subscribe(transport, &jwt(1), &id(1)).await;
            assert!(subscription.status().await.starts_with("call"));
            assert_end(&mut subscription, BY_CLOCK).await;
        }
        let issuer = Issuer::new("key-1");
        let upstream = Upstream::with_tokens().await;
        upstream.show_keys_of(&[&issuer]);
        let settings = [("callers.leeway", "0"), ("live.slow_interval", "10m")];
        let gateway = Gateway::for_issuer(&upstream, &settings).await;
        let token = issuer.token_with("alice", json!({ "exp": now() + 2 }));
        let mut subscription = gateway.subscribe(transport, &token, &id(1)).await;
        assert!(subscription.status().await.starts_with("call"));
        assert_end(&mut subscription, "The gateway rejected the token: it has expired").await;
    }
}

#[tokio::test]
async fn messages_say_who_refused() {
    let issuer = Issuer::new("key-1");
    let upstream = Upstream::with_tokens().await;
    upstream.show_keys_of(&[&issuer]);
    let keys = KeyFile::of(&["alice"]);
    let gateway = Gateway::for_issuer(&upstream, &[("callers.api_keys_file", keys.path())]).await;
    for token in [
        "unknown-key".to_owned(),
        "a.b.c".to_owned(),
        issuer.token_with("alice", json!({ "exp": now() - 60 })),
        issuer.token_with("alice", json!({ "nbf": now() + 60 })),
        issuer.token_with("alice", json!({ "iss": "other" })),
        issuer.token_with("alice", json!({ "aud": "other" })),
        issuer.token_with("alice", json!({ "sub": null })),
        issuer.sign(&json!({ "alg": "none" }), &json!({})),
        Issuer::new("key-1").token("alice"),
        Issuer::new("key-2").token("alice"),
    ] {
        let reply = gateway.appointment(&token, &id(1)).await;
        assert_eq!(reply.codes(), ["UNAUTHENTICATED"]);
        let message = reply.body["errors"][0]["message"].as_str().unwrap();
        assert!(message.starts_with("The gateway ") && !message.contains("service"), "{message}");
    }
    for (status, code, text) in [
        (401, "UPSTREAM_UNAVAILABLE", "The appointments service rejected the gateway's own token."),
        (403, "FORBIDDEN", "The appointments service denied access."),
        (429, "RATE_LIMITED", "The appointments service limits the rate."),
    ] {
        upstream.on(&id(1), move |_| UpstreamResponse::status(status));
        let reply = gateway.appointment(keys.key(0), &id(1)).await;
        assert_eq!(reply.codes(), [code]);
        let message = reply.body["errors"][0]["message"].as_str().unwrap();
        assert!(message.starts_with(text), "{message}");
    }
}

#[tokio::test]
async fn keys_that_do_not_arrive_are_not_the_appointments_services_fault() {
    let upstream = Upstream::with_tokens().await;
    upstream.on("jwks", |_| UpstreamResponse::never());
    let settings = [("http.deadline", "300ms"), ("upstream.timeout", "1m")];
    let gateway = Gateway::for_issuer(&upstream, &settings).await;
    let reply = gateway.appointment(&Issuer::new("key-1").token("alice"), &id(1)).await;
    assert_eq!(reply.codes(), ["UPSTREAM_TIMEOUT"]);
    let message = reply.body["errors"][0]["message"].as_str().unwrap();
    assert!(message.contains("The gateway could not verify the token in time"), "{message}");
    assert_eq!(upstream.calls_for_appointments(), 0);
}
