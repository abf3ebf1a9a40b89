//! Caching and sharing of lists, and of the appointments in them (invariants 1, 2, 3 and 5).

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{
    Call, Gate, Gateway, List, Pagination, UPSTREAM_TEXT, Upstream, UpstreamResponse, id, listed, served,
};

const TEN: List = List { length: 10, pagination: Pagination::Meta, cap: usize::MAX };

/// Lists and single appointments.
fn answer(call: &Call) -> UpstreamResponse {
    if call.id == "appointments" { TEN.page(call) } else { call.appointment() }
}

#[tokio::test]
async fn appointments_from_lists_serve_their_caller_only() {
    let upstream = Upstream::answering(answer).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    gateway.list("token", json!({})).await.list();
    for n in 0..10 {
        assert_eq!(*gateway.appointment("token", &id(n)).await.appointment(), listed(n, "token"));
    }
    assert_eq!(upstream.calls(), 1);
    assert_eq!(*gateway.appointment("other", &id(0)).await.appointment(), served(&id(0), "other", 1));
    assert_eq!(upstream.calls(), 2);
}

#[tokio::test]
async fn appointments_from_lists_have_the_appointment_ttl() {
    let upstream = Upstream::answering(answer).await;
    let gateway = Gateway::before(upstream.url(), &[("cache.list_ttl", "0")]).await;
    gateway.list("token", json!({})).await.list();
    assert_eq!(*gateway.appointment("token", &id(0)).await.appointment(), listed(0, "token"));
    let gateway = Gateway::before(upstream.url(), &[("cache.ttl", "0")]).await;
    gateway.list("token", json!({})).await.list();
    let before = upstream.calls();
    gateway.appointment("token", &id(0)).await.appointment();
    assert_eq!(upstream.calls(), before + 1);
}

#[tokio::test]
async fn uncacheable_lists_fill_no_cache() {
    let upstream = Upstream::answering(|call| answer(call).with("Cache-Control", "no-store")).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    gateway.list("token", json!({})).await.list();
    gateway.list("token", json!({})).await.list();
    assert_eq!(upstream.calls(), 2);
    assert_eq!(*gateway.appointment("token", &id(0)).await.appointment(), served(&id(0), "token", 1));
}

#[tokio::test]
async fn a_list_is_cached_for_its_ttl_and_its_caller() {
    let upstream = Upstream::answering(answer).await;
    for (ttl, pause, calls) in [("60s", 0, 1), ("300ms", 450, 2), ("0", 0, 2)] {
        let gateway = Gateway::before(upstream.url(), &[("cache.list_ttl", ttl)]).await;
        let before = upstream.calls();
        let first = gateway.list("token", json!({})).await;
        tokio::time::sleep(Duration::from_millis(pause)).await;
        assert_eq!(gateway.list("token", json!({})).await.list(), first.list());
        assert_eq!(upstream.calls() - before, calls, "{ttl}");
        let other = gateway.list("other", json!({})).await;
        assert_eq!(other.list()["edges"][0]["node"], listed(0, "other"));
        assert_eq!(upstream.calls() - before, calls + 1, "{ttl}");
    }
}

#[tokio::test]
async fn a_list_never_outlives_the_token_that_fetched_it() {
    use base64::Engine as _;
    let part = |json: Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json.to_string());
    let expired = format!("{}.{}.c2ln", part(json!({ "alg": "RS256" })), part(json!({ "exp": 1 })));
    let upstream = Upstream::answering(answer).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    gateway.list(&expired, json!({})).await.list();
    gateway.list(&expired, json!({})).await.list();
    assert_eq!(upstream.calls(), 2);
    gateway.appointment(&expired, &id(0)).await.appointment();
    assert_eq!(upstream.calls(), 3);
}

#[tokio::test]
async fn equal_lists_share_one_call_per_caller() {
    let gate = Gate::shut();
    let upstream = Upstream::answering({
        let gate = gate.clone();
        move |call| answer(call).once(&gate)
    })
    .await;
    let settings = [("upstream.timeout", "60s"), ("http.deadline", "60s"), ("cache.list_ttl", "0")];
    let gateway = Arc::new(Gateway::before(upstream.url(), &settings).await);
    let asked = (0..20).map(|n| {
        let gateway = gateway.clone();
        // Once the appointment that is this operation's own is asked for, so is the list.
        let query = format!(
            "{{ appointments {{ nodes {{ id reference status }} }} appointment(id: \"{}\") {{ id }} }}",
            id(100 + n)
        );
        let token = if n % 2 == 0 { "even" } else { "odd" };
        tokio::spawn(async move { (token, gateway.query(Some(token), &query).await) })
    });
    let asked = asked.collect::<Vec<_>>();
    upstream.until_called(22).await;
    gate.open();
    for reply in join_all(asked).await {
        let (token, reply) = reply.unwrap();
        let expected = (0..10).map(|n| listed(n, token)).collect::<Vec<_>>();
        assert_eq!(reply.body["data"]["appointments"]["nodes"], json!(expected));
    }
    assert_eq!(upstream.calls_for("appointments"), 2);
}

#[tokio::test]
async fn list_failures_have_their_code_and_are_not_cached() {
    type Case = (&'static str, fn(&Call) -> UpstreamResponse, &'static str);
    let cases: &[Case] = &[
        ("401", |_| UpstreamResponse::status(401), "UNAUTHENTICATED"),
        ("403", |_| UpstreamResponse::status(403), "FORBIDDEN"),
        ("429", |_| UpstreamResponse::status(429).with("Retry-After", "7"), "RATE_LIMITED"),
        ("500", |_| UpstreamResponse::status(500), "UPSTREAM_UNAVAILABLE"),
        ("503", |_| UpstreamResponse::text(503, "text/html", UPSTREAM_TEXT), "UPSTREAM_UNAVAILABLE"),
        ("cut", |_| UpstreamResponse::cut(), "UPSTREAM_UNAVAILABLE"),
        ("cut in the body", |call| TEN.page(call).short_of(5), "UPSTREAM_UNAVAILABLE"),
        ("never", |_| UpstreamResponse::never(), "UPSTREAM_TIMEOUT"),
        ("404", |_| UpstreamResponse::status(404), "UPSTREAM_INVALID_RESPONSE"),
        ("422", |_| UpstreamResponse::status(422), "UPSTREAM_INVALID_RESPONSE"),
        (
            "no JSON",
            |_| UpstreamResponse::text(200, "application/json", UPSTREAM_TEXT),
            "UPSTREAM_INVALID_RESPONSE",
        ),
        ("no data", |_| UpstreamResponse::status(200), "UPSTREAM_INVALID_RESPONSE"),
        ("data null", |_| UpstreamResponse::json(200, &json!({ "data": null })), "UPSTREAM_INVALID_RESPONSE"),
        (
            "one appointment",
            |_| UpstreamResponse::json(200, &json!({ "data": listed(0, UPSTREAM_TEXT) })),
            "UPSTREAM_INVALID_RESPONSE",
        ),
    ];
    for (name, script, code) in cases {
        let upstream =
            Upstream::answering(move |call| if call.nth == 1 { script(call) } else { answer(call) }).await;
        let gateway = Gateway::before(upstream.url(), &[("upstream.timeout", "1s")]).await;
        let reply = gateway.list("token", json!({})).await;
        assert_eq!(reply.paths_and_codes(), [(r#"["appointments"]"#.to_owned(), *code)], "{name}");
        assert_eq!((reply.status, &reply.body["data"]), (294, &Value::Null), "{name}");
        assert!(!reply.body.to_string().contains(UPSTREAM_TEXT), "{name}");
        if *name == "429" {
            assert_eq!(reply.body["errors"][0]["extensions"]["retryAfterSeconds"], 7);
        }
        assert_eq!(gateway.list("token", json!({})).await.list()["totalCount"], 10, "{name}");
        assert_eq!(upstream.calls(), 2, "{name}");
    }
}

#[tokio::test]
async fn a_fault_of_one_of_two_pages_is_the_windows() {
    let upstream = Upstream::answering(|call| match call.number("page") {
        Some(1) => List::of(100, Pagination::Meta).page(call),
        _ => UpstreamResponse::status(503),
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let first = gateway.list("token", json!({ "first": 5 })).await;
    let after = &first.list()["pageInfo"]["endCursor"];
    let reply = gateway.list("token", json!({ "first": 10, "after": after })).await;
    assert_eq!(reply.paths_and_codes(), [(r#"["appointments"]"#.to_owned(), "UPSTREAM_UNAVAILABLE")]);
    assert_eq!(reply.body["data"], Value::Null);
}
