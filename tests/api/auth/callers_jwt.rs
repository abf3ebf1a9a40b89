//! Authentication by JWT: claims count only after verification.

use std::time::Duration;

use futures_util::future::join_all;
use ring::hmac;
use serde_json::{Value, json};

use crate::support::{
    Events, Gate, Gateway, Issuer, KeyFile, Socket, TIMEOUT, TempFile, Upstream, UpstreamResponse, id, ids,
    issuer::{AUDIENCE, ISSUER, claims_of, now, unsigned},
};

fn base64url(bytes: impl AsRef<[u8]>) -> String {
    base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, bytes)
}

/// `token` with its payload replaced.
fn tampered(token: &str, claims: &Value) -> String {
    let parts = token.split('.').collect::<Vec<_>>();
    [parts[0], &base64url(claims.to_string()), parts[2]].join(".")
}

#[tokio::test]
async fn a_token_of_the_issuer_is_served_whatever_it_is_signed_with() {
    for alg in ["ES256", "ES384", "RS256", "PS256", "EdDSA"] {
        let issuer = Issuer::signing_with(alg, "key-1");
        let upstream = Upstream::with_tokens().await;
        upstream.show_keys_of(&[&Issuer::new("another"), &issuer]);
        let gateway = Gateway::for_issuer(&upstream, &[("callers.algorithms", alg)]).await;
        let reply = gateway.appointment(&issuer.token("alice"), &id(1)).await;
        assert_eq!(reply.appointment()["reference"], "service-1", "{alg}");
        let several = issuer.token_with("alice", json!({ "aud": ["others", AUDIENCE] }));
        assert_eq!(gateway.appointment(&several, &id(1)).await.codes(), Vec::<&str>::new(), "{alg}");
    }
}

#[tokio::test]
async fn invalid_tokens_never_reach_the_upstream() {
    let (issuer, stranger) = (Issuer::new("key-1"), Issuer::new("key-1"));
    let upstream = Upstream::with_tokens().await;
    upstream.show_keys_of(&[&issuer, &Issuer::signing_with("RS256", "key-2")]);
    let gateway = Gateway::for_issuer(&upstream, &[("log.level", "trace")]).await;
    let good = issuer.token("alice");
    assert_eq!(gateway.appointment(&good, &id(0)).await.codes(), Vec::<&str>::new());
    let calls = upstream.calls_for_appointments();

    let header = |alg: &str| json!({ "alg": alg, "kid": "key-1" });
    let claims = claims_of("alice", json!({}));
    // Algorithm confusion: the public key, in any notation, used as an HMAC secret.
    let with_public_key = |secret: &[u8]| {
        let message = unsigned(&header("HS256"), &claims);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
        format!("{message}.{}", base64url(tag))
    };
    let jwk = issuer.jwk();
    let key_set = Issuer::key_set(&[&issuer]).to_string();
    let padded = |times| " ".repeat(times);
    for (token, reason) in [
        (issuer.token_with("alice", json!({ "iss": "https://other.example" })), "issuer"),
        (issuer.token_with("alice", json!({ "iss": format!("{ISSUER}/") })), "issuer"),
        (issuer.token_with("alice", json!({ "aud": "others" })), "audience"),
        (issuer.token_with("alice", json!({ "aud": ["others"] })), "audience"),
        (issuer.token_with("alice", json!({ "exp": now() - 60 })), "expired"),
        (issuer.token_with("alice", json!({ "exp": 0 })), "expired"),
        (issuer.token_with("alice", json!({ "nbf": now() + 60 })), "not_yet_valid"),
        (issuer.token_with("alice", json!({ "iss": null })), "claims"),
        (issuer.token_with("alice", json!({ "aud": null })), "claims"),
        (issuer.token_with("alice", json!({ "exp": null })), "claims"),
        (issuer.token_with("alice", json!({ "exp": "tomorrow" })), "claims"),
        (issuer.token_with("alice", json!({ "nbf": "tomorrow" })), "claims"),
        (issuer.token_with("alice", json!({ "sub": null })), "claims"),
        (issuer.token_with("alice", json!({ "sub": 17 })), "claims"),
        (issuer.token_with("alice", json!({ "sub": ["alice"] })), "claims"),
        (issuer.token_with("alice", json!({ "iss": [ISSUER] })), "claims"),
        (issuer.token_with("alice", json!({ "iss": { "is": ISSUER } })), "claims"),
        (issuer.token_with("alice", json!({ "aud": { "is": AUDIENCE } })), "claims"),
        (issuer.token_with("alice", json!({ "aud": [AUDIENCE, 17] })), "claims"),
        (issuer.token_with("alice", json!({ "exp": [now() + 600] })), "claims"),
        (issuer.token_with("alice", json!({ "nbf": true })), "claims"),
        (issuer.token_with("", json!({})), "claims"),
        (tampered(&good, &claims_of("bob", json!({}))), "signature"),
        (stranger.token("alice"), "signature"),
        (issuer.sign(&header("ES256"), &claims).rsplit_once('.').unwrap().0.to_owned() + ".", "signature"),
        (issuer.sign(&json!({ "alg": "ES256", "kid": "key-3" }), &claims), "unknown_key"),
        (issuer.sign(&json!({ "alg": "ES256", "kid": "key-2" }), &claims), "unknown_key"),
        (issuer.sign(&json!({ "alg": "RS256", "kid": "key-1" }), &claims), "unknown_key"),
        (issuer.sign(&json!({ "alg": "ES384", "kid": "key-1" }), &claims), "algorithm"),
        (
            issuer.sign(&json!({ "alg": "ES256", "kid": "key-1", "crit": ["b64"], "b64": true }), &claims),
            "malformed",
        ),
        (issuer.sign(&json!({ "kid": "key-1" }), &claims), "malformed"),
        (unsigned(&header("none"), &claims) + ".", "algorithm"),
        (unsigned(&header("None"), &claims) + ".", "algorithm"),
        (with_public_key(jwk["x"].as_str().unwrap().as_bytes()), "algorithm"),
        (with_public_key(jwk.to_string().as_bytes()), "algorithm"),
        (with_public_key(key_set.as_bytes()), "algorithm"),
        ("no-jwt".to_owned(), "malformed"),
        ("a.b.c".to_owned(), "malformed"),
        (format!("{good}.x"), "malformed"),
        (format!(".{good}"), "malformed"),
        (padded(1) + &good.replace('.', ""), "malformed"),
    ] {
        let series = format!("gateway_rejected_callers_total{{reason=\"{reason}\"}}");
        let before = gateway.metrics().await[&series];
        let reply = gateway.appointment(&token, &id(1)).await;
        assert_eq!((reply.status, reply.codes()), (401, vec!["UNAUTHENTICATED"]), "{reason}: {reply:?}");
        let message = reply.body["errors"][0]["message"].as_str().unwrap();
        assert!(!message.contains(token.trim()) && !message.contains("alice"), "{message}");
        assert_eq!(gateway.metrics().await[&series], before + 1.0, "{reason}: {message}");
    }
    assert_eq!(upstream.calls_for_appointments(), calls);
    let said = gateway.stderr();
    assert!(said.contains("caller rejected") && !said.contains(&good) && !said.contains("alice"), "{said}");
}

#[tokio::test]
async fn clocks_may_differ_by_the_leeway_and_no_more() {
    let issuer = Issuer::new("key-1");
    let upstream = Upstream::with_tokens().await;
    upstream.show_keys_of(&[&issuer]);
    let gateway = Gateway::for_issuer(&upstream, &[("callers.leeway", "10m")]).await;
    for (claims, codes) in [
        (json!({ "exp": now() - 300 }), vec![]),
        (json!({ "nbf": now() + 300 }), vec![]),
        (json!({ "exp": now() - 900 }), vec!["UNAUTHENTICATED"]),
        (json!({ "nbf": now() + 900 }), vec!["UNAUTHENTICATED"]),
    ] {
        assert_eq!(gateway.appointment(&issuer.token_with("alice", claims), &id(1)).await.codes(), codes);
    }
}

/// A token that was verified a moment ago is not taken for good when its time has come since.
#[tokio::test]
async fn verified_tokens_are_not_cached_past_their_expiry() {
    let issuer = Issuer::new("key-1");
    let upstream = Upstream::with_tokens().await;
    upstream.show_keys_of(&[&issuer]);
    let gateway = Gateway::for_issuer(&upstream, &[("callers.leeway", "0")]).await;
    let token = issuer.token_with("alice", json!({ "exp": now() + 3 }));
    assert_eq!(gateway.appointment(&token, &id(1)).await.codes(), Vec::<&str>::new());
    let mut socket = Socket::connect(&gateway, &token).await;
    let refused = async {
        while gateway.appointment(&token, &id(1)).await.codes().is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, refused).await.expect("its time comes");
    // Data cached for the subject serves its next token.
    let renewed = gateway.appointment(&issuer.token("alice"), &id(1)).await;
    assert_eq!((&renewed.appointment()["status"], upstream.calls_for(&id(1))), (&json!("call 1"), 1));
    // Nor is it on a WebSocket that was opened with it.
    socket.subscribe("a", &format!("{{ appointment(id: \"{}\") {{ id }} }}", id(1))).await;
    let answer = socket.receive().await;
    assert_eq!(answer["payload"]["errors"][0]["extensions"]["code"], "UNAUTHENTICATED", "{answer}");
}

#[tokio::test]
async fn a_subscription_ends_with_its_token() {
    let issuer = Issuer::new("key-1");
    let upstream = Upstream::with_tokens().await;
    upstream.show_keys_of(&[&issuer]);
    let settings = [("callers.leeway", "0"), ("live.fast_interval", "50ms"), ("live.slow_interval", "50ms")];
    let gateway = Gateway::for_issuer(&upstream, &settings).await;
    let now_known_as = |reference: &'static str| {
        upstream.on(&id(1), move |call| {
            UpstreamResponse::json(200, &json!({ "data": { "id": call.id, "reference": reference } }))
        });
        json!({ "data": { "appointmentChanged": { "reference": reference } } })
    };
    let old = now_known_as("old");
    let watch = format!("subscription {{ appointmentChanged(id: \"{}\") {{ reference }} }}", id(1));
    let mut going_on = Events::open(&gateway, &issuer.token("alice"), &watch).await;
    assert_eq!(going_on.next().await, old);
    let short = issuer.token_with("alice", json!({ "exp": now() + 2 }));
    let mut ending = Events::open(&gateway, &short, &watch).await;
    assert_eq!(ending.next().await, old);
    let last = ending.next().await;
    assert_eq!(last["errors"][0]["extensions"]["code"], "UNAUTHENTICATED", "{last}");
    ending.completed().await;
    // Both watch by one poller, and the other token is still good.
    let new = now_known_as("new");
    assert_eq!(going_on.next().await, new);
}

#[tokio::test]
async fn subjects_share_nothing_and_renewed_tokens_keep_the_cache() {
    let issuer = Issuer::new("key-1");
    let upstream = Upstream::with_tokens().await;
    upstream.show_keys_of(&[&issuer]);
    let gateway = Gateway::for_issuer(&upstream, &[]).await;
    for (subject, status) in
        [("alice", "call 1"), ("bob", "call 2"), ("alice", "call 1"), ("bob", "call 2"), ("Alice", "call 3")]
    {
        // Each is another token.
        let reply = gateway.appointment(&issuer.token(subject), &id(1)).await;
        assert_eq!(reply.appointment()["status"], status, "{subject}");
    }
    assert_eq!(upstream.calls_for(&id(1)), 3);
}

#[tokio::test]
async fn authenticated_callers_share_a_cache_if_configured() {
    let issuer = Issuer::new("key-1");
    let upstream = Upstream::with_tokens().await;
    upstream.show_keys_of(&[&issuer]);
    let keys = KeyFile::of(&["carol"]);
    let settings = [("callers.share_cache", "true"), ("callers.api_keys_file", keys.path())];
    let gateway = Gateway::for_issuer(&upstream, &settings).await;
    for token in [&issuer.token("alice"), &issuer.token("bob"), keys.key(0)] {
        assert_eq!(gateway.appointment(token, &id(1)).await.appointment()["status"], "call 1");
    }
    assert_eq!(
        gateway.appointment(&Issuer::new("key-1").token("alice"), &id(1)).await.codes(),
        ["UNAUTHENTICATED"]
    );
    assert_eq!(upstream.calls_for(&id(1)), 1);
}

/// Both at once: a name of a key and a subject are two, also where they are one text.
#[tokio::test]
async fn a_key_and_a_subject_of_one_name_are_two_callers() {
    let issuer = Issuer::new("key-1");
    let upstream = Upstream::with_tokens().await;
    upstream.show_keys_of(&[&issuer]);
    let keys = KeyFile::of(&["alice"]);
    let gateway = Gateway::for_issuer(&upstream, &[("callers.api_keys_file", keys.path())]).await;
    assert_eq!(gateway.appointment(keys.key(0), &id(1)).await.appointment()["status"], "call 1");
    assert_eq!(gateway.appointment(&issuer.token("alice"), &id(1)).await.appointment()["status"], "call 2");
    assert_eq!(gateway.appointment("neither", &id(1)).await.codes(), ["UNAUTHENTICATED"]);
}

#[tokio::test]
async fn added_keys_are_accepted_and_removed_keys_rejected() {
    let (old, new) = (Issuer::new("old"), Issuer::new("new"));
    let upstream = Upstream::with_tokens().await;
    upstream.show_keys_of(&[&old]);
    let gateway = Gateway::for_issuer(&upstream, &[]).await;
    let of_old = old.token("alice");
    assert_eq!(gateway.appointment(&of_old, &id(1)).await.codes(), Vec::<&str>::new());
    upstream.show_keys_of(&[&new]);
    assert_eq!(gateway.appointment(&new.token("alice"), &id(1)).await.codes(), Vec::<&str>::new());
    // It was remembered as verified, with keys that are no more.
    assert_eq!(gateway.appointment(&of_old, &id(1)).await.codes(), ["UNAUTHENTICATED"]);
    assert_eq!(upstream.calls_for("jwks"), 2);
}

#[tokio::test]
async fn the_key_set_is_refreshed_when_it_expires() {
    let (old, new) = (Issuer::new("key-1"), Issuer::new("key-1"));
    let upstream = Upstream::with_tokens().await;
    upstream.show_keys_of(&[&old]);
    let gateway = Gateway::for_issuer(&upstream, &[("callers.jwks_max_age", "50ms")]).await;
    assert_eq!(gateway.appointment(&old.token("alice"), &id(1)).await.codes(), Vec::<&str>::new());
    upstream.show_keys_of(&[&new]);
    // The first of these may have been asked for before.
    let seen = upstream.calls_for("jwks");
    upstream.until(|it| it.calls.iter().filter(|call| call.id == "jwks").count() >= seen + 3).await;
    assert_eq!(gateway.appointment(&new.token("alice"), &id(1)).await.codes(), Vec::<&str>::new());
    assert_eq!(gateway.appointment(&old.token("alice"), &id(1)).await.codes(), ["UNAUTHENTICATED"]);
}

#[tokio::test]
async fn a_flood_of_unknown_keys_causes_one_refresh() {
    let issuer = Issuer::new("key-1");
    let upstream = Upstream::with_tokens().await;
    upstream.show_keys_of(&[&issuer]);
    let gateway = Gateway::for_issuer(&upstream, &[]).await;
    assert_eq!(gateway.appointment(&issuer.token("alice"), &id(1)).await.codes(), Vec::<&str>::new());
    let gate = Gate::shut();
    let key_set = Issuer::key_set(&[&issuer]);
    upstream.on("jwks", {
        let gate = gate.clone();
        move |_| UpstreamResponse::json(200, &key_set).once(&gate)
    });
    let strangers =
        (0..100).map(|n| Issuer::new(&format!("unknown-{n}")).token("mallory")).collect::<Vec<_>>();
    let unseen = id(2);
    let flood = join_all(strangers.iter().map(|token| gateway.appointment(token, &unseen)));
    let meanwhile = async {
        upstream.until(|seen| seen.calls.iter().filter(|call| call.id == "jwks").count() == 2).await;
        // Callers with verified tokens need no keys during the refresh.
        let reply = gateway.appointment(&issuer.token("alice"), &id(3)).await;
        assert_eq!(reply.codes(), Vec::<&str>::new());
        gate.open();
    };
    for reply in tokio::join!(flood, meanwhile).0 {
        assert_eq!(reply.codes(), ["UNAUTHENTICATED"]);
    }
    assert_eq!((upstream.calls_for("jwks"), upstream.calls_for(&id(2))), (2, 0));
}

#[tokio::test]
async fn while_the_keys_cannot_be_fetched_the_old_ones_are_good() {
    let issuer = Issuer::new("key-1");
    let upstream = Upstream::with_tokens().await;
    upstream.show_keys_of(&[&issuer]);
    let settings = [("callers.jwks_max_age", "20ms"), ("callers.jwks_refresh_interval", "20ms")];
    let gateway = Gateway::for_issuer(&upstream, &settings).await;
    assert_eq!(gateway.appointment(&issuer.token("alice"), &id(1)).await.codes(), Vec::<&str>::new());
    for broken in [
        UpstreamResponse::status(503),
        UpstreamResponse::cut(),
        UpstreamResponse::text(200, "text/html", "<html>"),
        UpstreamResponse::json(200, &json!({ "keys": [] })),
    ] {
        upstream.on("jwks", move |_| broken.clone());
        let seen = upstream.calls_for("jwks");
        upstream.until(|it| it.calls.iter().filter(|call| call.id == "jwks").count() >= seen + 2).await;
        assert_eq!(gateway.appointment(&issuer.token("alice"), &id(1)).await.codes(), Vec::<&str>::new());
    }
    assert!(gateway.metrics().await["gateway_caller_key_fetches_total{outcome=\"failed\"}"] >= 4.0);
}

#[tokio::test]
async fn without_a_key_set_the_error_is_the_gateways() {
    let issuer = Issuer::new("key-1");
    let upstream = Upstream::with_tokens().await;
    upstream.on("jwks", |_| UpstreamResponse::status(503));
    let gateway = Gateway::for_issuer(&upstream, &[("callers.jwks_refresh_interval", "200ms")]).await;
    let reply = gateway.appointment(&issuer.token("alice"), &id(1)).await;
    assert_eq!(reply.codes(), ["UPSTREAM_UNAVAILABLE"]);
    let message = reply.body["errors"][0]["message"].as_str().unwrap();
    assert!(message.contains("cannot be verified at the moment"), "{message}");
    assert_eq!(upstream.calls_for_appointments(), 0);
    upstream.show_keys_of(&[&issuer]);
    let served = async {
        while !gateway.appointment(&issuer.token("alice"), &id(1)).await.codes().is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, served).await.expect("the keys come");
    assert!(gateway.stderr().contains("JWKS could not be fetched"), "{}", gateway.stderr());
}

#[tokio::test]
async fn keys_from_a_file_work_and_a_single_key_needs_no_kid() {
    let issuer = Issuer::new("key-1");
    let file = TempFile::with(&Issuer::key_set(&[&issuer]).to_string());
    let upstream = Upstream::with_tokens().await;
    let settings =
        [("callers.jwks_file", file.path()), ("callers.issuer", ISSUER), ("callers.audience", AUDIENCE)];
    let gateway = Gateway::of_service(&upstream, &settings).await;
    let nameless = issuer.sign(&json!({ "alg": "ES256" }), &claims_of("alice", json!({})));
    for (token, codes) in [
        (issuer.token("alice"), vec![]),
        (nameless, vec![]),
        (Issuer::new("key-1").token("alice"), vec!["UNAUTHENTICATED"]),
        (Issuer::new("key-2").token("alice"), vec!["UNAUTHENTICATED"]),
    ] {
        assert_eq!(gateway.appointment(&token, &id(1)).await.codes(), codes);
    }
}

#[tokio::test]
async fn many_concurrent_callers_are_distinguished() {
    let issuer = Issuer::new("key-1");
    let upstream = Upstream::with_tokens().await;
    upstream.show_keys_of(&[&issuer]);
    let gateway = Gateway::for_issuer(&upstream, &[("callers.max_verified", "3")]).await;
    let ids = ids(0..5);
    let asked =
        (0..100).map(|n| (issuer.token(&format!("subject-{}", n % 10)), &ids[n % 5])).collect::<Vec<_>>();
    let replies = join_all(asked.iter().map(|(token, id)| gateway.appointment(token, id))).await;
    assert!(replies.iter().all(|reply| reply.codes().is_empty()));
    // Ten subjects, each of which asks for one of the five ids alone.
    assert_eq!(upstream.calls_for_appointments(), 10);
    assert_eq!((upstream.calls_for("jwks"), upstream.calls_for("token")), (1, 1));
}

#[tokio::test]
async fn unknown_keys_are_a_temporary_error_while_refreshes_fail() {
    let (issuer, new) = (Issuer::new("key-1"), Issuer::new("key-2"));
    let upstream = Upstream::with_tokens().await;
    upstream.show_keys_of(&[&issuer]);
    let settings = [("callers.jwks_refresh_interval", "10ms")];
    let gateway = Gateway::for_issuer(&upstream, &settings).await;
    assert_eq!(gateway.appointment(&issuer.token("alice"), &id(0)).await.codes(), [""; 0]);
    upstream.on("jwks", |_| UpstreamResponse::status(503));
    for _ in 0..2 {
        assert_eq!(gateway.appointment(&new.token("alice"), &id(0)).await.codes(), ["UPSTREAM_UNAVAILABLE"]);
        assert_eq!(gateway.appointment(&issuer.token("alice"), &id(0)).await.codes(), [""; 0]);
    }
    upstream.show_keys_of(&[&issuer, &new]);
    let served =
        async { while !gateway.appointment(&new.token("alice"), &id(0)).await.codes().is_empty() {} };
    tokio::time::timeout(TIMEOUT, served).await.expect("it is known once the keys are there");
}
