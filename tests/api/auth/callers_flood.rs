//! A flood of invalid tokens: each is rejected with its reason, and valid tokens are still served.

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{
    Gateway, GatewayResponse, Issuer, KeyFile, Socket, Upstream, codes, forged, id, issuer::now,
};

const TIGHT: [(&str, &str); 2] = [("rate_limit.per_second", "1"), ("rate_limit.burst", "3")];

/// A gateway for the issuer with `settings`, and the upstream that it needs.
async fn gateway(issuer: &Issuer, settings: &[(&str, &str)]) -> (Upstream, Gateway) {
    let upstream = Upstream::with_tokens().await;
    upstream.show_keys_of(&[issuer]);
    let gateway = Gateway::for_issuer(&upstream, settings).await;
    (upstream, gateway)
}

#[track_caller]
fn assert_over_budget(reply: &GatewayResponse) {
    reply.rejected(503, "OVERLOADED");
    assert_eq!(reply.headers["retry-after"], "1");
    let extensions = json!({
        "code": "OVERLOADED", "limit": "callers.verifications_per_second", "retryAfterSeconds": 1
    });
    assert_eq!(reply.body["errors"][0]["extensions"], extensions);
}

#[tokio::test]
async fn expired_tokens_are_reported_as_such_during_a_flood() {
    let issuer = Issuer::new("key-1");
    let (upstream, gateway) = gateway(&issuer, &TIGHT).await;
    let expired = issuer.token_with("alice", json!({ "exp": now() - 60 }));
    let flood = (0..100).map(|n| {
        let (issuer, gateway) = (&issuer, &gateway);
        async move {
            let token = match n % 4 {
                0 => None,
                1 => Some("malformed".to_owned()),
                2 => Some(issuer.token_with("mallory", json!({ "aud": "others" }))),
                _ => Some(forged("mallory")),
            };
            gateway.query(token.as_deref(), "{ __typename }").await
        }
    });
    let mut refused = 0;
    let asked = async {
        for _ in 0..50 {
            let reply = gateway.appointment(&expired, &id(1)).await;
            assert_eq!(reply.codes(), ["UNAUTHENTICATED"]);
            let message = reply.body["errors"][0]["message"].as_str().unwrap();
            assert!(message.contains("expired"), "{message}");
            reply.rejected(401, "UNAUTHENTICATED");
            assert_eq!(reply.headers["www-authenticate"], "Bearer error=\"invalid_token\"");
            // Needs no credential, but a token of the bucket.
            let probe = gateway.query(Some(&expired), "{ __typename }").await;
            if probe.status != 200 {
                assert!(probe.rejected(401, "UNAUTHENTICATED").contains("expired"));
                refused += 1;
            }
        }
    };
    for (n, reply) in tokio::join!(join_all(flood), asked).0.into_iter().enumerate() {
        let is_limited = reply.codes() == ["RATE_LIMITED"];
        assert!(n % 4 == 0 || !is_limited, "a token gets its own reason: {reply:?}");
    }
    assert!(refused > 0, "the bucket is empty");
    let mut socket = Socket::connect(&gateway, &expired).await;
    for n in 0..10 {
        socket.subscribe(&n.to_string(), "{ __typename }").await;
        let answer = socket.receive().await;
        if answer["type"] == json!("error") {
            assert_eq!(codes(&answer), ["UNAUTHENTICATED"]);
        } else {
            assert_eq!(socket.receive().await["type"], json!("complete"));
        }
    }
    assert_eq!(upstream.calls_for_appointments(), 0);
}

/// Neither is a header that holds no token, nor an unknown API key.
#[tokio::test]
async fn invalid_credentials_receive_no_retry_after() {
    let issuer = Issuer::new("key-1");
    let keys = KeyFile::of(&["carol"]);
    let settings = [&TIGHT[..], &[("callers.api_keys_file", keys.path())]].concat();
    let (_upstream, gateway) = gateway(&issuer, &settings).await;
    for round in 0..20 {
        for credential in
            ["Basic Zm9v", "Bearer", "Bearer a b", "Bearer unknown", &format!("Bearer {}", forged("a"))]
        {
            let request =
                gateway.request(reqwest::Method::POST, "/graphql").header("authorization", credential);
            let request = request.header("content-type", "application/json");
            let reply = GatewayResponse::of(request.body(
                json!({ "query": format!("{{ appointment(id: \"{}\") {{ id }} }}", id(1)) }).to_string(),
            ))
            .await;
            assert_eq!(reply.codes(), ["UNAUTHENTICATED"], "{round}: {credential}");
        }
    }
    // Nor is a valid one touched by it.
    assert_eq!(gateway.appointment(keys.key(0), &id(1)).await.codes(), [""; 0]);
}

#[tokio::test]
async fn a_flood_of_forged_tokens_leaves_known_subjects_unharmed() {
    let issuer = Issuer::new("key-1");
    let settings = [("callers.verifications_per_second", "4"), ("rate_limit.per_second", "1")];
    let (upstream, gateway) = gateway(&issuer, &settings).await;
    let (alice, bob) = (issuer.token("alice"), issuer.token("bob"));
    for token in [&alice, &bob] {
        assert_eq!(gateway.appointment(token, &id(1)).await.codes(), [""; 0]);
    }
    let over_budget = "gateway_rejected_callers_total{reason=\"over_budget\"}";
    for (claimed, renewed) in [("mallory", "alice"), ("alice", "bob")] {
        let flood = (0..100).map(|_| forged(claimed)).collect::<Vec<_>>();
        let wanted = id(1);
        let replies = join_all(flood.iter().map(|token| gateway.appointment(token, &wanted))).await;
        let (mut rejected, mut shed) = (0, 0);
        for reply in &replies {
            match reply.codes()[..] {
                ["UNAUTHENTICATED"] => rejected += 1,
                _ => {
                    assert_over_budget(reply);
                    shed += 1;
                }
            }
        }
        assert!(shed > 0, "{rejected} were verified");
        let reply = gateway.appointment(&issuer.token(renewed), &id(1)).await;
        assert_eq!(reply.codes(), [""; 0], "a new token of {renewed}, while {claimed} floods");
        // A token that was verified needs no check.
        assert_eq!(gateway.appointment(&alice, &id(1)).await.codes(), [""; 0]);
    }
    let (limited, metrics) =
        (gateway.rejections("callers.verifications_per_second").await, gateway.metrics().await);
    assert_eq!(
        (limited, metrics["gateway_limited_total{limit=\"rate_limit.per_second\"}"]),
        (metrics[over_budget], 0.0)
    );
    assert_eq!(upstream.calls_for_appointments(), 2);
}

/// Rejections without a signature check are not subject to the budget.
#[tokio::test]
async fn tokens_invalid_without_a_signature_check_state_why() {
    let issuer = Issuer::new("key-1");
    let (_upstream, gateway) = gateway(&issuer, &[("callers.verifications_per_second", "1")]).await;
    let spent =
        join_all((0..20).map(|_| async { gateway.appointment(&forged("a"), &id(1)).await.status })).await;
    assert!(spent.contains(&503), "{spent:?}");
    for (claims, text) in [
        (json!({ "exp": now() - 60 }), "expired"),
        (json!({ "nbf": now() + 600 }), "not valid yet"),
        (json!({ "iss": "https://other.example" }), "issuer"),
        (json!({ "aud": "others" }), "aud"),
        (json!({ "sub": null }), "claim"),
    ] {
        for _ in 0..10 {
            let reply = gateway.appointment(&issuer.token_with("alice", claims.clone()), &id(1)).await;
            assert_eq!((reply.status, reply.codes()), (401, vec!["UNAUTHENTICATED"]), "{text}");
            let message = reply.body["errors"][0]["message"].as_str().unwrap();
            assert!(message.contains(text), "{message}");
        }
    }
}

#[tokio::test]
async fn websockets_report_the_budget_per_operation() {
    let issuer = Issuer::new("key-1");
    let (_upstream, gateway) = gateway(&issuer, &[("callers.verifications_per_second", "1")]).await;
    let mut socket = Socket::connect(&gateway, &forged("mallory")).await;
    let error = loop {
        socket.subscribe("1", "{ __typename }").await;
        let message = socket.receive().await;
        if message["type"] == json!("error") {
            break message;
        }
        assert_eq!(socket.receive().await["type"], json!("complete"));
    };
    assert_eq!(codes(&error), ["OVERLOADED"]);
    assert_eq!(error["payload"][0]["extensions"]["limit"], "callers.verifications_per_second");
    socket.send_message(json!({ "type": "ping" })).await;
    assert_eq!(socket.receive().await["type"], json!("pong"));
}

/// Each round of checks would take the whole budget of a second, were any made.
#[tokio::test]
async fn a_rotation_that_keeps_the_key_costs_no_check() {
    let (issuer, added) = (Issuer::new("key-1"), Issuer::new("key-2"));
    let settings = [("callers.verifications_per_second", "40"), ("callers.jwks_max_age", "20ms")];
    let (upstream, gateway) = gateway(&issuer, &settings).await;
    let tokens = (0..20).map(|n| issuer.token(&format!("subject-{n}"))).collect::<Vec<_>>();
    let ask = async || {
        let codes = join_all(
            tokens.iter().map(|token| async { gateway.appointment(token, &id(1)).await.codes().join(",") }),
        );
        assert_eq!(codes.await, [""; 20]);
    };
    ask().await;
    for keys in [vec![&added, &issuer], vec![&issuer], vec![&issuer, &added]] {
        upstream.show_keys_of(&keys);
        let seen = upstream.calls_for("jwks");
        upstream.until(|it| it.calls.iter().filter(|call| call.id == "jwks").count() >= seen + 3).await;
        ask().await;
    }
    let unspent = gateway.metrics().await["gateway_rejected_callers_total{reason=\"over_budget\"}"];
    assert_eq!(unspent, 0.0);
}
