//! Quotas: a caller with any number of requests evicts neither the cache entries nor the subscriptions of others.

use serde_json::{Value, json};

use crate::support::{
    Call, Gateway, KeyFile, List, Pagination, TIMEOUT, Upstream, UpstreamResponse, id, ids, served,
};

/// Room for about 160 appointments such as this upstream's, of which a twentieth are somebody's for certain.
const SMALL: [(&str, &str); 3] =
    [("cache.size", "256KiB"), ("cache.list_size", "256KiB"), ("cache.ttl", "10m")];

/// A caller that asks for `many` ids, a hundred at a time.
async fn flood(gateway: &Gateway, token: &str, many: std::ops::Range<usize>) {
    for chunk in ids(many).chunks(100) {
        gateway.appointments(token, chunk).await;
    }
}

/// How many of the appointments have to be fetched anew for `token`.
async fn misses(upstream: &Upstream, gateway: &Gateway, token: &str, ids: &[String]) -> usize {
    let before = upstream.calls();
    gateway.appointments(token, ids).await;
    upstream.calls() - before
}

async fn metric(gateway: &Gateway, name: &str) -> f64 {
    gateway.metrics().await[name]
}

#[tokio::test]
async fn large_callers_evict_nothing_of_small_ones() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &SMALL).await;
    let little = ids(0..6);
    // Whether the quiet one was there first or comes to a full house.
    for quiet in ["early", "late"] {
        if quiet == "late" {
            flood(&gateway, "noisy", 1000..2000).await;
        }
        assert_eq!(misses(&upstream, &gateway, quiet, &little).await, 6);
        flood(&gateway, "noisy", 2000..3000).await;
        // Repeated requests gain no more than single ones.
        for _ in 0..5 {
            flood(&gateway, "noisy", 3000..3400).await;
        }
        assert_eq!(misses(&upstream, &gateway, quiet, &little).await, 0, "{quiet}");
    }
    assert!(metric(&gateway, "gateway_evictions_total{cause=\"share\"}").await > 1000.0);
    assert_eq!(metric(&gateway, "gateway_evictions_total{cause=\"room\"}").await, 0.0);
}

#[tokio::test]
async fn a_single_caller_may_use_the_whole_cache() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &SMALL).await;
    flood(&gateway, "alone", 0..1000).await;
    let size = metric(&gateway, "gateway_cache_size_bytes{cache=\"appointments\"}").await;
    assert!((0.97 * 262_144.0..=262_144.0).contains(&size), "{size}");
    let entries = metric(&gateway, "gateway_cache_entries{cache=\"appointments\"}").await as usize;
    assert!(entries > 100, "{entries}");
    // The newest entries remain; the order within one operation is undefined.
    let newest = ids(1000 - entries / 100 * 100..1000);
    let mut missed = 0;
    for chunk in newest.chunks(100) {
        missed += misses(&upstream, &gateway, "alone", chunk).await;
    }
    assert_eq!(missed, 0);
}

#[tokio::test]
async fn many_small_callers_share_the_cache_within_its_bound() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &SMALL).await;
    for n in 0..100 {
        gateway.appointments(&format!("token-{n}"), &ids(0..6)).await;
    }
    // The last one is the last to be evicted.
    assert_eq!(misses(&upstream, &gateway, "token-99", &ids(0..6)).await, 0);
    assert_eq!(misses(&upstream, &gateway, "token-0", &ids(0..6)).await, 6);
    let size = metric(&gateway, "gateway_cache_size_bytes{cache=\"appointments\"}").await;
    // Evictions come in batches, a little later.
    assert!(size < 1.5 * 262_144.0, "{size}");
    assert!(metric(&gateway, "gateway_evictions_total{cause=\"room\"}").await > 0.0);
}

#[tokio::test]
async fn pages_of_the_list_are_shared_in_the_same_way() {
    let list = List { length: 100_000, pagination: Pagination::Meta, cap: usize::MAX };
    let upstream = Upstream::answering(move |call| list.page(call)).await;
    let settings = [&SMALL[..], &[("cache.list_ttl", "10m")]].concat();
    let gateway = Gateway::before(upstream.url(), &settings).await;
    gateway.list("quiet", json!({ "first": 3 })).await.list();
    let mut after = Value::Null;
    for _ in 0..100 {
        let page = gateway.list("noisy", json!({ "first": 10, "after": after })).await;
        after = page.list()["pageInfo"]["endCursor"].clone();
    }
    let before = upstream.calls();
    gateway.list("quiet", json!({ "first": 3 })).await.list();
    assert_eq!(upstream.calls(), before);
    let size = metric(&gateway, "gateway_cache_size_bytes{cache=\"pages\"}").await;
    assert!((0.8 * 262_144.0..=262_144.0).contains(&size), "{size}");
}

#[tokio::test]
async fn one_caller_cannot_watch_so_much_that_others_cannot() {
    let upstream = Upstream::start().await;
    let settings = [("live.max_watched", "5"), ("live.caller_share", "60"), ("live.slow_interval", "10m")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let mut watched = Vec::new();
    for n in 0..3 {
        let mut watching = gateway.watch("noisy", &id(n)).await;
        assert_eq!(watching.next().await, served(&id(n), "noisy", 1));
        watched.push(watching);
    }
    assert_eq!(gateway.watch("noisy", &id(3)).await.end().await, "OVERLOADED");
    let mut other = gateway.watch("quiet", &id(3)).await;
    assert_eq!(other.next().await, served(&id(3), "quiet", 1));
    // Leaving subscribers free their own share.
    drop(watched);
    let room = async {
        while gateway.watch("noisy", &id(3)).await.event().await
            != crate::support::SubscriptionEvent::Next(
                json!({ "data": { "appointmentChanged": served(&id(3), "noisy", 2) } }),
            )
        {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, room).await.expect("there is room again");
}

#[tokio::test]
async fn oversized_appointments_are_served_but_not_cached() {
    let large = |call: &Call| {
        let body = json!({ "data": { "id": call.id, "reference": "x".repeat(300_000), "status": "large" } });
        UpstreamResponse::json(200, &body)
    };
    let upstream = Upstream::answering(Call::appointment).await;
    upstream.on(&id(1), large);
    let gateway = Gateway::before(upstream.url(), &SMALL).await;
    gateway.appointment("token", &id(0)).await.appointment();
    for _ in 0..2 {
        assert_eq!(gateway.appointment("token", &id(1)).await.appointment()["status"], "large");
    }
    assert_eq!(upstream.calls_for(&id(1)), 2);
    gateway.appointment("token", &id(0)).await.appointment();
    assert_eq!(upstream.calls_for(&id(0)), 1);
}

#[tokio::test]
async fn callers_that_share_a_cache_have_separate_subscription_shares() {
    let upstream = Upstream::with_tokens().await;
    let keys = KeyFile::of(&["noisy", "quiet"]);
    let settings = [
        ("callers.api_keys_file", keys.path()),
        ("callers.share_cache", "true"),
        ("live.max_watched", "4"),
        ("live.slow_interval", "10m"),
    ];
    let gateway = Gateway::of_service(&upstream, &settings).await;
    let mut watched = Vec::new();
    for n in 0..2 {
        watched.push(gateway.watch(keys.key(0), &id(n)).await);
    }
    assert_eq!(gateway.watch(keys.key(0), &id(2)).await.end().await, "OVERLOADED");
    gateway.watch(keys.key(1), &id(2)).await.next().await;
}
