//! The gateway's own token: shared by all calls, fetched ahead of time, and never requested more often than necessary.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{
    CLIENT_SECRET, Gate, Gateway, KeyFile, TIMEOUT, UPSTREAM_TEXT, Upstream, UpstreamResponse, id, ids,
    service_token,
};

const OF_CALLERS: &str = "callers.api_keys_file";

/// Asks for ever other appointments until one is served with `token`.
async fn until_served_with(gateway: &Gateway, key: &str, token: &str) {
    let asking = async {
        for number in 10_000.. {
            let reply = gateway.appointment(key, &id(number)).await;
            if reply.body["data"]["appointment"]["reference"] == token {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, asking).await.expect("it is served with the token");
}

#[tokio::test]
async fn fifty_concurrent_calls_wait_for_one_token() {
    let upstream = Upstream::with_tokens().await;
    let gate = Gate::shut();
    upstream.on("token", {
        let gate = gate.clone();
        move |call| service_token(call, 3600).once(&gate)
    });
    let keys = KeyFile::of(&["alice"]);
    let settings = [(OF_CALLERS, keys.path()), ("identity.scope", "read write")];
    let gateway = Gateway::of_service(&upstream, &settings).await;
    let ids = ids(0..50);
    let replies = join_all(ids.iter().map(|id| gateway.appointment(keys.key(0), id)));
    let opened = async {
        upstream.until_called(1).await;
        gate.open();
    };
    for reply in tokio::join!(replies, opened).0 {
        assert_eq!(reply.appointment()["reference"], "service-1");
    }
    assert_eq!((upstream.calls_for("token"), upstream.calls()), (1, 51));
    let call = upstream.seen(|seen| seen.calls[0].clone());
    let header = |name| call.header(name).unwrap_or_default();
    let basic = base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        format!("gateway:{CLIENT_SECRET}"),
    );
    assert_eq!((call.method.as_str(), call.path.as_str()), ("POST", "/oauth2/token"));
    assert_eq!(header("authorization"), format!("Basic {basic}"));
    assert_eq!(header("content-type"), "application/x-www-form-urlencoded");
    let form: std::collections::BTreeMap<String, String> = serde_urlencoded::from_str(&call.body).unwrap();
    assert_eq!(json!(form), json!({ "grant_type": "client_credentials", "scope": "read write" }));
}

/// The second refresh fails and the third is slow: no request waits for them.
#[tokio::test]
async fn the_token_is_refreshed_early_while_the_old_one_serves() {
    let upstream = Upstream::with_tokens().await;
    let gate = Gate::shut();
    upstream.on("token", {
        let gate = gate.clone();
        move |call| match call.nth {
            1 => service_token(call, 12),
            2 => UpstreamResponse::status(503),
            _ => service_token(call, 3600).once(&gate),
        }
    });
    let keys = KeyFile::of(&["alice"]);
    let settings = [(OF_CALLERS, keys.path()), ("identity.retry_interval", "10ms")];
    let gateway = Gateway::of_service(&upstream, &settings).await;
    for number in 0..2 {
        assert_eq!(
            gateway.appointment(keys.key(0), &id(number)).await.appointment()["reference"],
            "service-1"
        );
    }
    upstream.until(|seen| seen.calls.iter().filter(|call| call.id == "token").count() == 3).await;
    assert_eq!(gateway.appointment(keys.key(0), &id(2)).await.appointment()["reference"], "service-1");
    gate.open();
    until_served_with(&gateway, keys.key(0), "service-3").await;
    assert_eq!(upstream.calls_for("token"), 3);
}

#[tokio::test]
async fn a_rejected_token_is_replaced_once_and_calls_repeated_once() {
    let upstream = Upstream::answering(|call| match (call.id.as_str(), call.token()) {
        ("token", _) => service_token(call, 3600),
        (_, "service-1") => UpstreamResponse::status(401),
        _ => call.appointment(),
    })
    .await;
    let keys = KeyFile::of(&["alice"]);
    let gateway = Gateway::of_service(&upstream, &[(OF_CALLERS, keys.path())]).await;
    let ids = ids(0..20);
    for reply in join_all(ids.iter().map(|id| gateway.appointment(keys.key(0), id))).await {
        assert_eq!(reply.appointment()["reference"], "service-2");
    }
    assert_eq!(upstream.calls_for("token"), 2);
    assert!(ids.iter().all(|id| upstream.calls_for(id) <= 2), "{}", upstream.calls());
}

/// A 401 says that nothing was done, so a change is no exception.
#[tokio::test]
async fn a_change_with_a_rejected_token_is_sent_once_more() {
    let upstream = Upstream::answering(|call| match (call.id.as_str(), call.token()) {
        ("token", _) => service_token(call, 3600),
        (_, "service-1") => UpstreamResponse::status(401),
        _ => UpstreamResponse::json(200, &json!({ "data": { "id": id(1), "reference": call.token() } })),
    })
    .await;
    let keys = KeyFile::of(&["alice"]);
    let gateway = Gateway::of_service(&upstream, &[(OF_CALLERS, keys.path())]).await;
    let change =
        "mutation ($id: UUID!) { cancelAppointment(id: $id, reason: \"ill\") { appointment { reference } } }";
    let reply = gateway.query_with(Some(keys.key(0)), change, json!({ "id": id(1) })).await;
    assert_eq!(
        reply.body,
        json!({ "data": { "cancelAppointment": { "appointment": { "reference": "service-2" } } } })
    );
    let bodies = upstream.seen(|seen| {
        let sent = seen.calls.iter().filter(|call| call.id == "cancel");
        sent.map(|call| (call.method.clone(), call.body.clone())).collect::<Vec<_>>()
    });
    assert_eq!(bodies.len(), 2);
    assert_eq!(bodies[0], bodies[1]);
}

#[tokio::test]
async fn rejections_of_every_token_cause_no_refresh_storm() {
    let upstream = Upstream::answering(|call| match call.id.as_str() {
        "token" => service_token(call, 3600),
        _ => UpstreamResponse::status(401),
    })
    .await;
    let keys = KeyFile::of(&["alice"]);
    let gateway = Gateway::of_service(&upstream, &[(OF_CALLERS, keys.path())]).await;
    let reply = gateway.appointment(keys.key(0), &id(0)).await;
    assert_eq!(reply.codes(), ["UPSTREAM_UNAVAILABLE"]);
    assert_eq!((upstream.calls_for(&id(0)), upstream.calls_for("token")), (2, 2));
    for id in ids(1..20) {
        assert_eq!(gateway.appointment(keys.key(0), &id).await.codes(), ["UPSTREAM_UNAVAILABLE"]);
        assert_eq!((upstream.calls_for(&id), upstream.calls_for("token")), (1, 2));
    }
    let log = gateway.stderr();
    assert!(log.contains("did not accept the gateway's own token (401)"), "{log}");
}

#[tokio::test]
async fn a_403_does_not_refresh_the_token() {
    let upstream = Upstream::with_tokens().await;
    upstream.on(&id(1), |_| UpstreamResponse::status(403));
    let keys = KeyFile::of(&["alice"]);
    let gateway = Gateway::of_service(&upstream, &[(OF_CALLERS, keys.path())]).await;
    assert_eq!(gateway.appointment(keys.key(0), &id(1)).await.codes(), ["FORBIDDEN"]);
    assert_eq!((upstream.calls_for(&id(1)), upstream.calls_for("token")), (1, 1));
}

#[tokio::test]
async fn without_a_token_nothing_is_fetched_and_the_log_says_why() {
    let token = |members: serde_json::Value| UpstreamResponse::json(200, &members);
    let huge = format!("{{\"access_token\":\"{}\"}}", "x".repeat(2_000_000));
    for (answer, why) in [
        (UpstreamResponse::status(401), "identity.client_secret"),
        (UpstreamResponse::status(400), "identity.client_id"),
        (UpstreamResponse::status(500), "unexpected response status 500"),
        (UpstreamResponse::status(302).with("Location", "/elsewhere"), "unexpected response status 302"),
        (UpstreamResponse::never(), "upstream.timeout"),
        (UpstreamResponse::cut(), "unreachable"),
        (UpstreamResponse::text(200, "text/html", UPSTREAM_TEXT), "is not an access token response"),
        (
            token(json!({ "access_token": "secret-token", "token_type": "mac", "mac_key": "x" })),
            "is not Bearer",
        ),
        (token(json!({ "access_token": "secret\ntoken", "token_type": "Bearer" })), "a header cannot hold"),
        (token(json!({ "access_token": "", "token_type": "Bearer" })), "has no access token"),
        (UpstreamResponse::text(200, "application/json", &huge), "upstream.max_response"),
        (
            UpstreamResponse::json(200, &json!({ "access_token": "secret-token" })).short_of(5),
            "incomplete response",
        ),
    ] {
        let upstream = Upstream::with_tokens().await;
        upstream.on("token", move |_| answer.clone());
        let keys = KeyFile::of(&["alice"]);
        let settings = [
            (OF_CALLERS, keys.path()),
            ("upstream.timeout", "300ms"),
            ("identity.retry_interval", "1h"),
            ("log.level", "trace"),
        ];
        let gateway = Gateway::of_service(&upstream, &settings).await;
        for number in 0..10 {
            assert_eq!(
                gateway.appointment(keys.key(0), &id(number)).await.codes(),
                ["UPSTREAM_UNAVAILABLE"],
                "{why}"
            );
        }
        assert_eq!((upstream.calls_for("token"), upstream.calls_for_appointments()), (1, 0), "{why}");
        let log = gateway.stderr();
        assert!(log.contains("service token could not be fetched") && log.contains(why), "{why} in {log}");
        for secret in [CLIENT_SECRET, UPSTREAM_TEXT, "secret-token", keys.key(0)] {
            assert!(!log.contains(secret), "{secret} in {log}");
        }
        // Operations without upstream calls need no token.
        assert_eq!(
            gateway.query(None, "{ __typename }").await.body,
            json!({ "data": { "__typename": "Query" } })
        );
        let metrics = gateway.metrics().await;
        assert_eq!(metrics["gateway_service_token_fetches_total{outcome=\"failed\"}"], 1.0);
    }
}

#[tokio::test]
async fn a_token_endpoint_that_comes_back_is_noticed() {
    let upstream = Upstream::with_tokens().await;
    upstream.on("token", |call| match call.nth {
        1..=3 => UpstreamResponse::status(503),
        _ => service_token(call, 3600),
    });
    let keys = KeyFile::of(&["alice"]);
    let settings = [(OF_CALLERS, keys.path()), ("identity.retry_interval", "10ms")];
    let gateway = Gateway::of_service(&upstream, &settings).await;
    until_served_with(&gateway, keys.key(0), "service-4").await;
    assert_eq!(upstream.calls_for("token"), 4);
    let metrics = gateway.metrics().await;
    for (outcome, count) in [("failed", 3.0), ("ok", 1.0)] {
        assert_eq!(metrics[&format!("gateway_service_token_fetches_total{{outcome=\"{outcome}\"}}")], count);
    }
}

#[tokio::test]
async fn a_rate_limit_of_the_token_endpoint_is_obeyed() {
    let upstream = Upstream::with_tokens().await;
    upstream.on("token", |_| UpstreamResponse::status(429).with("Retry-After", "3600"));
    let keys = KeyFile::of(&["alice"]);
    let settings = [(OF_CALLERS, keys.path()), ("identity.retry_interval", "10ms")];
    let gateway = Gateway::of_service(&upstream, &settings).await;
    for number in 0..20 {
        let reply = gateway.appointment(keys.key(0), &id(number)).await;
        assert_eq!(reply.codes(), ["UPSTREAM_UNAVAILABLE"]);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(upstream.calls_for("token"), 1);
}
