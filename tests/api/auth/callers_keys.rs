//! Key sets of issuers as they are: keys without ids, ids that are used twice, several issuers, redirects, algorithms.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{
    Events, Gateway, GatewayResponse, Issuer, KeyFile, Upstream, UpstreamResponse, id,
    issuer::{AUDIENCE, ISSUER, claims_of, unsigned},
};

/// Serves `keys` at `/jwks` from now on.
fn show(upstream: &Upstream, keys: &[Value]) {
    let set = json!({ "keys": keys });
    upstream.on("jwks", move |_| UpstreamResponse::json(200, &set));
}

/// A gateway whose issuer publishes `keys`, and its upstream.
async fn gateway(keys: &[Value], settings: &[(&str, &str)]) -> (Upstream, Gateway) {
    let upstream = Upstream::with_tokens().await;
    show(&upstream, keys);
    let gateway = Gateway::for_issuer(&upstream, settings).await;
    (upstream, gateway)
}

/// The key of `issuer` without its id.
fn nameless_key(issuer: &Issuer) -> Value {
    let mut key = issuer.jwk();
    key.as_object_mut().unwrap().remove("kid");
    key
}

/// A token of `issuer` that names no key.
fn nameless(issuer: &Issuer, subject: &str) -> String {
    issuer.sign(&json!({ "alg": "ES256" }), &claims_of(subject, json!({})))
}

async fn codes(gateway: &Gateway, token: &str) -> Vec<String> {
    gateway.appointment(token, &id(1)).await.codes().into_iter().map(str::to_owned).collect()
}

fn message(reply: &GatewayResponse) -> &str {
    reply.body["errors"][0]["message"].as_str().unwrap()
}

#[tokio::test]
async fn a_token_without_a_key_id_is_tried_with_every_key() {
    let issuers = [Issuer::new("a"), Issuer::new("b"), Issuer::new("c")];
    let others = [Issuer::signing_with("RS256", "d"), Issuer::signing_with("ES384", "e")];
    let keys = issuers.iter().chain(&others).map(Issuer::jwk).collect::<Vec<_>>();
    let (upstream, gateway) = gateway(&keys, &[]).await;
    for issuer in &issuers {
        assert_eq!(codes(&gateway, &nameless(issuer, "alice")).await, [""; 0]);
    }
    let calls = upstream.calls_for_appointments();
    assert_eq!(codes(&gateway, &nameless(&Issuer::new("a"), "alice")).await, ["UNAUTHENTICATED"]);
    // An id that the set has is still binding.
    let misnamed = issuers[0].sign(&json!({ "alg": "ES256", "kid": "b" }), &claims_of("alice", json!({})));
    assert_eq!(codes(&gateway, &misnamed).await, ["UNAUTHENTICATED"]);
    assert_eq!(upstream.calls_for_appointments(), calls);
}

#[tokio::test]
async fn keys_with_the_same_id_are_each_tried() {
    let (old, new) = (Issuer::new("signing"), Issuer::new("signing"));
    for keys in [[old.jwk(), new.jwk()], [new.jwk(), old.jwk()]] {
        let (_upstream, gateway) = gateway(&keys, &[]).await;
        for token in [old.token("alice"), new.token("bob")] {
            assert_eq!(codes(&gateway, &token).await, [""; 0]);
        }
        assert_eq!(codes(&gateway, &Issuer::new("signing").token("alice")).await, ["UNAUTHENTICATED"]);
    }
}

#[tokio::test]
async fn keys_without_an_id_fit_tokens_with_any() {
    let (first, second, named) = (Issuer::new("x"), Issuer::new("y"), Issuer::new("named"));
    let keys = [nameless_key(&first), nameless_key(&second), named.jwk()];
    let (_upstream, gateway) = gateway(&keys, &[]).await;
    for token in [first.token("a"), second.token("b"), named.token("c"), nameless(&second, "d")] {
        assert_eq!(codes(&gateway, &token).await, [""; 0]);
    }
    assert_eq!(codes(&gateway, &Issuer::new("x").token("alice")).await, ["UNAUTHENTICATED"]);
    // An id that the set has excludes the keys without one.
    let misnamed = first.sign(&json!({ "alg": "ES256", "kid": "named" }), &claims_of("alice", json!({})));
    assert_eq!(codes(&gateway, &misnamed).await, ["UNAUTHENTICATED"]);
}

#[tokio::test]
async fn withdrawing_one_of_two_keys_with_the_same_id_ends_only_its_tokens() {
    let (old, new) = (Issuer::new("signing"), Issuer::new("signing"));
    let (upstream, gateway) =
        gateway(&[old.jwk(), new.jwk()], &[("callers.jwks_max_age", "50ms"), ("live.slow_interval", "10m")])
            .await;
    let watch = format!("subscription {{ appointmentChanged(id: \"{}\") {{ id }} }}", id(1));
    let (of_old, of_new) = (old.token("alice"), new.token("bob"));
    let mut ending = Events::open(&gateway, &of_old, &watch).await;
    let mut going_on = Events::open(&gateway, &of_new, &watch).await;
    for events in [&mut ending, &mut going_on] {
        assert_eq!(events.next().await["data"]["appointmentChanged"]["id"], json!(id(1)));
    }
    show(&upstream, &[new.jwk()]);
    assert_eq!(ending.next().await["errors"][0]["extensions"]["code"], "UNAUTHENTICATED");
    assert_eq!(codes(&gateway, &of_old).await, ["UNAUTHENTICATED"]);
    assert_eq!(codes(&gateway, &of_new).await, [""; 0]);
    assert_eq!(gateway.metrics().await["gateway_event_streams"], 1.0, "the other goes on");
}

#[tokio::test]
async fn a_new_key_without_an_id_is_fetched_early() {
    let (old, new) = (Issuer::new("a"), Issuer::new("b"));
    let (upstream, gateway) = gateway(&[nameless_key(&old)], &[]).await;
    assert_eq!(codes(&gateway, &nameless(&old, "alice")).await, [""; 0]);
    show(&upstream, &[nameless_key(&new)]);
    assert_eq!(codes(&gateway, &nameless(&new, "alice")).await, [""; 0]);
    assert_eq!(codes(&gateway, &nameless(&old, "alice")).await, ["UNAUTHENTICATED"]);
    // Further tokens of unknown keys cause no further refresh, whether they name a key or not.
    let strangers = (0..20).map(|n| nameless(&Issuer::new("c"), &format!("mallory-{n}"))).collect::<Vec<_>>();
    for codes in join_all(strangers.iter().map(|token| codes(&gateway, token))).await {
        assert_eq!(codes, ["UNAUTHENTICATED"]);
    }
    assert_eq!(upstream.calls_for("jwks"), 2);
}

#[tokio::test]
async fn every_tried_key_takes_from_the_budget() {
    let issuers: [Issuer; 8] = std::array::from_fn(|n| Issuer::new(&n.to_string()));
    let keys = issuers.iter().map(Issuer::jwk).collect::<Vec<_>>();
    let settings = [("callers.verifications_per_second", "8")];
    let (_upstream, gateway) = gateway(&keys, &settings).await;
    // Half of the budget is open to unknown subjects: four tries of the eight that this token takes.
    let reply = gateway.appointment(&nameless(&Issuer::new("x"), "mallory"), &id(1)).await;
    assert_eq!(reply.codes(), ["OVERLOADED"], "{reply:?}");
    assert_eq!(reply.body["errors"][0]["extensions"]["limit"], "callers.verifications_per_second");
}

#[tokio::test]
async fn tokens_of_each_configured_issuer_are_accepted() {
    let issuer = Issuer::new("key-1");
    let other = "https://old-issuer.example/";
    let both = format!("{ISSUER} , {other},");
    let (upstream, gateway) = gateway(&[issuer.jwk()], &[("callers.issuer", &both)]).await;
    // Equal subjects of two issuers are two callers.
    for (iss, status) in [(ISSUER, "call 1"), (other, "call 2"), (ISSUER, "call 1"), (other, "call 2")] {
        let reply = gateway.appointment(&issuer.token_with("alice", json!({ "iss": iss })), &id(1)).await;
        assert_eq!(reply.appointment()["status"], status, "{iss}");
    }
    let calls = upstream.calls_for_appointments();
    for iss in [
        json!("https://third.example"),
        json!(both),
        json!(other.trim_end_matches('/')),
        json!(""),
        json!([ISSUER, other]),
    ] {
        let token = issuer.token_with("alice", json!({ "iss": iss }));
        assert_eq!(codes(&gateway, &token).await, ["UNAUTHENTICATED"], "{iss}");
    }
    assert_eq!(upstream.calls_for_appointments(), calls);
}

#[tokio::test]
async fn redirects_of_the_key_set_are_followed_within_its_origin() {
    let issuer = Issuer::new("key-1");
    for status in [301, 302, 303, 307, 308] {
        let upstream = Upstream::with_tokens().await;
        upstream.on("jwks", move |_| UpstreamResponse::status(status).with("Location", "/moved/one?p=a"));
        let absolute = format!("{}/moved/two", upstream.url());
        upstream.on("one", move |_| UpstreamResponse::status(status).with("Location", &absolute));
        let set = Issuer::key_set(&[&issuer]);
        upstream.on("two", move |_| UpstreamResponse::json(200, &set));
        let gateway = Gateway::for_issuer(&upstream, &[]).await;
        assert_eq!(codes(&gateway, &issuer.token("alice")).await, [""; 0], "{status}");
        let is_seen = upstream.seen(|seen| seen.calls.iter().any(|call| call.path == "/moved/one?p=a"));
        assert!(is_seen, "the query is part of the address");
    }
}

#[tokio::test]
async fn redirects_of_the_key_set_to_other_origins_and_in_circles_end() {
    let issuer = Issuer::new("key-1");
    let elsewhere = Upstream::with_tokens().await;
    elsewhere.show_keys_of(&[&issuer]);
    let to_elsewhere = format!("{}/jwks", elsewhere.url());
    let with_password = |upstream: &Upstream| upstream.url().replace("http://", "http://user:pw@") + "/moved";
    for (location, calls, why) in [
        (Some(to_elsewhere.as_str()), 1, "a redirect that is not followed"),
        (Some("jwks"), 4, "redirects too often"),
        (None, 1, "a redirect that is not followed"),
    ] {
        let upstream = Upstream::with_tokens().await;
        let location = location.map_or_else(|| with_password(&upstream), str::to_owned);
        upstream.on("jwks", move |_| UpstreamResponse::status(302).with("Location", &location));
        let gateway = Gateway::for_issuer(&upstream, &[("callers.jwks_refresh_interval", "1h")]).await;
        assert_eq!(codes(&gateway, &issuer.token("alice")).await, ["UPSTREAM_UNAVAILABLE"], "{why}");
        assert_eq!((upstream.calls_for("jwks"), upstream.calls_for("moved")), (calls, 0), "{why}");
        assert!(gateway.stderr().contains(why), "{why} in {}", gateway.stderr());
    }
    assert_eq!(elsewhere.calls(), 0);
}

#[tokio::test]
async fn the_address_of_the_key_set_may_have_a_query() {
    let issuer = Issuer::new("key-1");
    let upstream = Upstream::with_tokens().await;
    upstream.show_keys_of(&[&issuer]);
    let url = format!("{}/jwks?p=b2c_1_policy", upstream.url());
    let gateway = Gateway::for_issuer(&upstream, &[("callers.jwks_url", &url)]).await;
    assert_eq!(codes(&gateway, &issuer.token("alice")).await, [""; 0]);
    let is_seen = upstream.seen(|seen| seen.calls.iter().any(|call| call.path == "/jwks?p=b2c_1_policy"));
    assert!(is_seen);
}

#[tokio::test]
async fn odd_members_and_entries_of_the_key_set_cost_nothing_else() {
    let issuer = Issuer::new("key-1");
    let mut key = issuer.jwk();
    for (name, value) in
        [("x5c", json!("text")), ("x5t", json!(7)), ("key_ops", Value::Null), ("exp", json!(1.5))]
    {
        key[name] = value;
    }
    let keys = [json!(7), json!({ "kty": "new" }), json!({ "kty": "EC", "kid": ["key-1"] }), key];
    let upstream = Upstream::with_tokens().await;
    let body = format!("\u{feff}{}", json!({ "keys": keys, "keys_url": 7 }));
    upstream.on("jwks", move |_| UpstreamResponse::text(200, "text/plain", &body));
    let gateway = Gateway::for_issuer(&upstream, &[]).await;
    assert_eq!(codes(&gateway, &issuer.token("alice")).await, [""; 0]);
}

#[tokio::test]
async fn an_algorithm_that_is_not_accepted_is_named_as_such() {
    let issuer = Issuer::new("key-1");
    let (upstream, gateway) = gateway(&[issuer.jwk()], &[]).await;
    let claims = claims_of("alice", json!({}));
    let mut count = 0.0;
    for alg in [
        "none",
        "HS256",
        "HS512",
        "RS384",
        "PS256",
        "ES384",
        "ES512",
        "ES256K",
        "EdDSA",
        "Ed25519",
        "Ed448",
        "ML-DSA-44",
    ] {
        let signed = issuer.sign(&json!({ "alg": alg, "kid": "key-1" }), &claims);
        let unsigned = unsigned(&json!({ "alg": alg, "kid": "key-1" }), &claims) + ".";
        for token in [signed, unsigned] {
            let reply = gateway.appointment(&token, &id(1)).await;
            assert_eq!(reply.codes(), ["UNAUTHENTICATED"], "{alg}");
            let message = message(&reply);
            let expected = format!("does not accept the token's signature algorithm, {alg}.");
            assert!(message.contains(&expected) && message.contains("callers.algorithms"), "{message}");
            count += 1.0;
        }
    }
    // An encrypted token has five parts. Other names are not repeated.
    let encrypted = unsigned(&json!({ "alg": "RSA-OAEP-256", "enc": "A256GCM" }), &claims) + ".a.b.c";
    for (token, named) in [
        (encrypted.clone(), "algorithm, RSA-OAEP-256."),
        (unsigned(&json!({ "alg": "planted" }), &claims) + ".", "algorithm. Get"),
        (unsigned(&json!({ "alg": "None" }), &claims) + ".", "algorithm. Get"),
        (unsigned(&json!({ "alg": "" }), &claims) + ".", "algorithm. Get"),
    ] {
        let reply = gateway.appointment(&token, &id(1)).await;
        assert_eq!(reply.codes(), ["UNAUTHENTICATED"]);
        let message = message(&reply);
        assert!(message.contains(named) && !message.contains("planted"), "{message}");
        count += 1.0;
    }
    // A gateway that also accepts API keys does not mistake it for one of them.
    let keys = KeyFile::of(&["alice"]);
    let both = Gateway::for_issuer(&upstream, &[("callers.api_keys_file", keys.path())]).await;
    let reply = both.appointment(&encrypted, &id(1)).await;
    assert!(message(&reply).contains("algorithm, RSA-OAEP-256."), "{}", message(&reply));
    let metrics = gateway.metrics().await;
    assert_eq!(metrics["gateway_rejected_callers_total{reason=\"algorithm\"}"], count);
    assert_eq!(metrics["gateway_rejected_callers_total{reason=\"malformed\"}"], 0.0);
    assert_eq!(upstream.calls_for_appointments(), 0);
    // A header with odd members is still the header of a JWT.
    let odd = json!({ "alg": "ES256", "kid": "key-1", "typ": 7, "x5c": "text", "jwk": [], "cty": null });
    assert_eq!(codes(&gateway, &issuer.sign(&odd, &claims)).await, [""; 0]);
    assert_eq!(claims["aud"], AUDIENCE);
}
