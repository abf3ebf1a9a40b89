//! After a rejection, the caller's cached data is purged: one appointment after a 403 or 404, everything after a 401.
//! Other callers keep theirs.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::support::{Call, Gate, Gateway, List, Pagination, Upstream, UpstreamResponse, id, listed, served};

const LONG: [(&str, &str); 3] = [("cache.ttl", "10m"), ("cache.list_ttl", "10m"), ("cache.absence_ttl", "0")];

const TEN: List = List { length: 10, pagination: Pagination::Meta, cap: usize::MAX };

fn answer(call: &Call) -> UpstreamResponse {
    if call.id == "appointments" { TEN.page(call) } else { call.appointment() }
}

/// How many are kept, of appointments and of pages.
async fn kept(gateway: &Gateway) -> (f64, f64) {
    let metrics = gateway.metrics().await;
    let of = |cache: &str| metrics[&format!("gateway_cache_entries{{cache=\"{cache}\"}}")];
    (of("appointments"), of("pages"))
}

#[tokio::test]
async fn a_rejection_purges_the_pages_with_the_appointment() {
    for status in [401, 403, 404] {
        let upstream = Upstream::answering(answer).await;
        let gateway = Gateway::before(upstream.url(), &LONG).await;
        for token in ["token", "other"] {
            gateway.list(token, json!({ "first": 5 })).await.list();
            let end =
                gateway.list(token, json!({ "first": 5 })).await.list()["pageInfo"]["endCursor"].clone();
            gateway.list(token, json!({ "first": 5, "after": end })).await.list();
        }
        assert_eq!((upstream.calls(), kept(&gateway).await), (4, (20.0, 4.0)));
        upstream.on(&id(2), move |_| UpstreamResponse::status(status));
        gateway.update("token", &id(2), json!({ "interpreterLanguage": "xx" })).await;
        let calls = upstream.calls();
        let left = if status == 401 { (10.0, 2.0) } else { (19.0, 3.0) };
        assert_eq!(kept(&gateway).await, left, "{status}");
        gateway.list("other", json!({ "first": 5 })).await.list();
        assert_eq!(upstream.calls(), calls, "{status}: it is the caller's alone");
        gateway.list("token", json!({ "first": 5 })).await.list();
        assert_eq!(upstream.calls(), calls + 1, "{status}");
        let evicted = gateway.metrics().await["gateway_evictions_total{cause=\"refusal\"}"];
        assert_eq!(evicted, if status == 401 { 12.0 } else { 2.0 });
    }
}

#[tokio::test]
async fn rejected_reads_purge_the_page_too() {
    for status in [401, 403, 404] {
        let upstream = Upstream::answering(answer).await;
        let settings = [("cache.ttl", "0"), ("cache.list_ttl", "10m"), ("cache.absence_ttl", "0")];
        let gateway = Gateway::before(upstream.url(), &settings).await;
        gateway.list("token", json!({})).await.list();
        upstream.on(&id(20), move |_| UpstreamResponse::status(status));
        gateway.appointment("token", &id(20)).await;
        gateway.list("token", json!({})).await.list();
        let expected = if status == 401 { 3 } else { 2 };
        assert_eq!(upstream.calls(), expected, "{status}: of what the page does not show");
        upstream.on(&id(2), move |_| UpstreamResponse::status(status));
        gateway.appointment("token", &id(2)).await;
        gateway.list("token", json!({})).await.list();
        assert_eq!(upstream.calls(), expected + 2, "{status}");
    }
}

#[tokio::test]
async fn a_token_that_is_not_accepted_any_more_leaves_nothing() {
    let upstream = Upstream::answering(answer).await;
    let gateway = Gateway::before(upstream.url(), &LONG).await;
    for token in ["token", "other"] {
        gateway.appointments(token, &[id(20), id(21), id(22)]).await;
        gateway.list(token, json!({})).await.list();
    }
    assert_eq!(kept(&gateway).await, (26.0, 2.0));
    upstream.on(&id(30), |_| UpstreamResponse::status(401));
    assert_eq!(gateway.appointment("token", &id(30)).await.codes(), ["UNAUTHENTICATED"]);
    assert_eq!(kept(&gateway).await, (13.0, 1.0));
    let calls = upstream.calls();
    for n in [0, 20] {
        gateway.appointment("other", &id(n)).await.appointment();
    }
    assert_eq!(upstream.calls(), calls);
    assert_eq!(*gateway.appointment("token", &id(0)).await.appointment(), served(&id(0), "token", 1));
    assert_eq!(*gateway.appointment("token", &id(20)).await.appointment(), served(&id(20), "token", 3));
}

#[tokio::test]
async fn a_rejected_list_purges_its_pages() {
    for (status, appointments) in [(401, 0.0), (403, 5.0), (404, 5.0), (410, 5.0)] {
        let upstream = Upstream::answering(answer).await;
        let gateway = Gateway::before(upstream.url(), &LONG).await;
        let first = gateway.list("token", json!({ "first": 5 })).await;
        assert_eq!(kept(&gateway).await, (5.0, 1.0));
        upstream.on("appointments", move |_| UpstreamResponse::status(status));
        let after = &first.list()["pageInfo"]["endCursor"];
        assert_eq!(gateway.list("token", json!({ "first": 5, "after": after })).await.codes().len(), 1);
        assert_eq!(kept(&gateway).await, (appointments, 0.0), "{status}");
    }
}

#[tokio::test]
async fn a_list_that_was_under_way_brings_nothing_back() {
    for status in [401, 403, 404] {
        let gate = Gate::shut();
        let upstream = Upstream::answering({
            let gate = gate.clone();
            move |call| match call.id.as_str() {
                "appointments" => TEN.page(call).once(&gate),
                _ => UpstreamResponse::status(status),
            }
        })
        .await;
        let gateway = Arc::new(Gateway::before(upstream.url(), &LONG).await);
        let listing = tokio::spawn({
            let gateway = gateway.clone();
            async move { gateway.list("token", json!({})).await }
        });
        upstream.until_called(1).await;
        gateway.appointment("token", &id(2)).await;
        gate.open();
        // Earlier requests receive the earlier state, which is not cached.
        assert_eq!(listing.await.unwrap().list()["edges"][2]["node"], listed(2, "token"));
        assert_eq!(kept(&gateway).await, (0.0, 0.0), "{status}");
        assert_eq!(gateway.appointment("token", &id(2)).await.body["data"]["appointment"], Value::Null);
    }
}

#[tokio::test]
async fn changes_in_flight_during_a_rejection_are_not_cached() {
    let gate = Gate::shut();
    let upstream = Upstream::answering({
        let gate = gate.clone();
        move |call| if call.is_change() { call.changed().once(&gate) } else { call.appointment() }
    })
    .await;
    upstream.on(&id(2), |_| UpstreamResponse::status(401));
    let gateway = Arc::new(Gateway::before(upstream.url(), &LONG).await);
    let changing = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.update("token", &id(1), json!({ "status": "waiting" })).await }
    });
    upstream.until_called(1).await;
    assert_eq!(gateway.appointment("token", &id(2)).await.codes(), ["UNAUTHENTICATED"]);
    gate.open();
    assert_eq!(changing.await.unwrap().changed()["status"], "waiting", "who made it is told so");
    assert_eq!(kept(&gateway).await, (0.0, 0.0));
    assert_eq!(*gateway.appointment("token", &id(1)).await.appointment(), served(&id(1), "token", 1));
}

#[tokio::test]
async fn reads_in_flight_during_a_rejected_change_restore_nothing() {
    for status in [401, 403, 404, 409] {
        let gate = Gate::shut();
        let upstream = Upstream::answering({
            let gate = gate.clone();
            move |call| {
                if call.is_change() {
                    UpstreamResponse::status(status)
                } else {
                    call.appointment().once(&gate)
                }
            }
        })
        .await;
        let gateway = Arc::new(Gateway::before(upstream.url(), &LONG).await);
        let reading = tokio::spawn({
            let gateway = gateway.clone();
            async move { gateway.appointments("token", &[id(1), id(2)]).await }
        });
        upstream.until_called(2).await;
        gateway.update("token", &id(1), json!({ "status": "waiting" })).await;
        gate.open();
        // Earlier requests receive the earlier state, which is not cached.
        assert_eq!(reading.await.unwrap().paths_and_codes(), []);
        let others = if status == 401 { 0.0 } else { 1.0 };
        assert_eq!(kept(&gateway).await, (others, 0.0), "{status}");
    }
}
