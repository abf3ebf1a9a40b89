//! The list as a Relay connection over the pages of the upstream. Paging through it yields each appointment once, for
//! any window length and any pagination data of the upstream, with at most two upstream pages per window.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::support::{Call, Gate, Gateway, List, Pagination, Upstream, UpstreamResponse, id, ids};

/// Walks the list to its end with windows of `lengths` in turn, and keeps every window.
async fn walk(gateway: &Gateway, upstream: &Upstream, lengths: &[usize]) -> Vec<Value> {
    let (mut windows, mut after) = (Vec::new(), Value::Null);
    for length in lengths.iter().cycle() {
        let before = upstream.calls();
        let reply = gateway.list("token", json!({ "first": length, "after": after })).await;
        assert!(upstream.calls() - before <= 2, "{} pages for one window", upstream.calls() - before);
        let window = reply.list().clone();
        let (edges, nodes) = (&window["edges"], &window["nodes"]);
        assert!(edges.as_array().unwrap().len() <= *length);
        assert_eq!(
            ids_of(edges),
            nodes.as_array().unwrap().iter().map(|it| it["id"].clone()).collect::<Vec<_>>()
        );
        let info = window["pageInfo"].clone();
        assert_eq!(info["startCursor"], edges[0]["cursor"]);
        assert_eq!(info["hasPreviousPage"], !after.is_null());
        windows.push(window);
        if info["hasNextPage"] == false {
            return windows;
        }
        assert_ne!(info["endCursor"], Value::Null, "where the list goes on there is a way to go on");
        after = info["endCursor"].clone();
        assert!(windows.len() <= 1_000, "the walk comes to an end");
    }
    unreachable!("the lengths go on for ever")
}

fn ids_of(edges: &Value) -> Vec<Value> {
    edges.as_array().unwrap().iter().map(|edge| edge["node"]["id"].clone()).collect()
}

fn all_ids(windows: &[Value]) -> Vec<Value> {
    windows.iter().flat_map(|window| ids_of(&window["edges"])).collect()
}

fn cursor(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

#[tokio::test]
async fn equal_windows_yield_each_item_once_and_fetch_pages_once() {
    for tells in Pagination::EACH {
        let upstream = Upstream::answering(move |call| List::of(1_000, tells).page(call)).await;
        for (length, pages) in [(7, 143), (25, 40), (100, 10)] {
            // A gateway that remembers nothing of another walk, and everything of this one.
            let gateway = Gateway::before(upstream.url(), &[("cache.list_ttl", "60s")]).await;
            let before = upstream.calls();
            let windows = walk(&gateway, &upstream, &[length]).await;
            assert_eq!(all_ids(&windows), ids(0..1_000), "{tells:?}, {length}");
            assert_eq!(windows.len(), pages);
            let total = if tells == Pagination::Meta { json!(1_000) } else { Value::Null };
            assert!(windows.iter().all(|window| window["totalCount"] == total));
            // SubscriptionEvent nothing, only an empty page says that a full one was the last.
            let extra = usize::from(tells == Pagination::Nothing && 1_000 % length == 0);
            assert_eq!(upstream.calls() - before, pages + extra, "{tells:?}, {length}");
        }
    }
}

#[tokio::test]
async fn varying_windows_yield_each_item_once_from_two_pages() {
    for tells in Pagination::EACH {
        let upstream = Upstream::answering(move |call| List::of(500, tells).page(call)).await;
        let gateway = Gateway::before(upstream.url(), &[("cache.list_ttl", "0")]).await;
        for lengths in [&[7, 25, 100][..], &[1, 100], &[99, 100, 1, 50, 3]] {
            let windows = walk(&gateway, &upstream, lengths).await;
            assert_eq!(all_ids(&windows), ids(0..500), "{tells:?}, {lengths:?}");
            // None is shorter than it was asked to be, but the last.
            let full = windows.iter().zip(lengths.iter().cycle());
            for (window, length) in full.take(windows.len() - 1) {
                assert_eq!(window["edges"].as_array().unwrap().len(), *length);
            }
        }
    }
}

#[tokio::test]
async fn a_window_across_two_pages_asks_for_both_at_once() {
    let gate = Gate::shut();
    let upstream = Upstream::answering({
        let gate = gate.clone();
        move |call| List::of(100, Pagination::Meta).page(call).once(&gate)
    })
    .await;
    let settings = [("upstream.timeout", "60s"), ("http.deadline", "60s")];
    let gateway = Arc::new(Gateway::before(upstream.url(), &settings).await);
    let asked = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.list("token", json!({ "first": 10, "after": cursor("appointments:24") })).await }
    });
    // Neither has an answer while both are under way.
    upstream.until(|seen| seen.in_flight == 2).await;
    gate.open();
    let reply = asked.await.unwrap();
    assert_eq!(ids_of(&reply.list()["edges"]), ids(25..35));
    let mut pages = upstream.seen(|seen| seen.calls.iter().map(|call| call.path.clone()).collect::<Vec<_>>());
    pages.sort();
    assert_eq!(pages, [3, 4].map(|page| format!("/api/v1/appointments?page={page}&per_page=10")));
}

#[tokio::test]
async fn capped_upstream_page_sizes_are_adopted() {
    let list = List { cap: 15, ..List::of(1_000, Pagination::Meta) };
    let upstream = Upstream::answering(move |call| list.page(call)).await;
    let gateway = Gateway::before(upstream.url(), &[("cache.list_ttl", "0")]).await;
    for lengths in [&[100][..], &[7, 100, 15, 40], &[10, 100], &[16], &[14, 29]] {
        let windows = walk(&gateway, &upstream, lengths).await;
        assert_eq!(all_ids(&windows), ids(0..1_000), "{lengths:?}");
        assert!(windows.iter().all(|window| window["totalCount"] == 1_000));
    }
}

#[tokio::test]
async fn cursors_stay_valid_when_pages_become_shorter() {
    let list = List { cap: 15, ..List::of(1_000, Pagination::Meta) };
    let upstream = Upstream::answering(move |call| list.page(call)).await;
    let gateway = Gateway::before(upstream.url(), &[("cache.list_ttl", "0")]).await;
    for start in [1, 14, 15, 100, 499, 990] {
        let after = cursor(&format!("appointments:{}", start - 1));
        let reply = gateway.list("token", json!({ "first": 100, "after": after })).await;
        let found = ids_of(&reply.list()["edges"]);
        assert!(!found.is_empty());
        assert_eq!(found, ids(start..start + found.len()), "from {start}");
        assert_eq!(reply.list()["pageInfo"]["hasNextPage"], start + found.len() < 1_000);
    }
}

#[tokio::test]
async fn has_next_page_is_exact_at_the_end_of_a_full_page() {
    for tells in Pagination::EACH {
        for (length, first, goes_on) in
            [(10, 10, false), (11, 10, true), (9, 10, false), (20, 10, true), (1, 1, false)]
        {
            let upstream = Upstream::answering(move |call| List::of(length, tells).page(call)).await;
            let gateway = Gateway::before(upstream.url(), &[]).await;
            let reply = gateway.list("token", json!({ "first": first })).await;
            let case = format!("{tells:?}: {first} of {length}");
            assert_eq!(reply.list()["pageInfo"]["hasNextPage"], goes_on, "{case}");
            assert_eq!(ids_of(&reply.list()["edges"]), ids(0..length.min(first)), "{case}");
        }
    }
}

#[tokio::test]
async fn an_empty_list_is_an_empty_window() {
    for tells in Pagination::EACH {
        let upstream = Upstream::answering(move |call| List::of(0, tells).page(call)).await;
        let gateway = Gateway::before(upstream.url(), &[]).await;
        let reply = gateway.list("token", json!({})).await;
        let page_info =
            json!({ "hasNextPage": false, "hasPreviousPage": false, "startCursor": null, "endCursor": null });
        let total = if tells == Pagination::Meta { json!(0) } else { Value::Null };
        let expected = json!({ "edges": [], "nodes": [], "pageInfo": page_info, "totalCount": total });
        assert_eq!(*reply.list(), expected);
        assert_eq!(upstream.calls(), 1);
    }
}

#[tokio::test]
async fn a_list_that_shrank_in_between_ends_where_it_now_ends() {
    for tells in Pagination::EACH {
        for left in [12, 10, 5, 0] {
            let upstream = Upstream::answering(move |call| {
                let length = if call.number("page") == Some(1) { 30 } else { left };
                List::of(length, tells).page(call)
            })
            .await;
            let gateway = Gateway::before(upstream.url(), &[]).await;
            let window = gateway.list("token", json!({ "first": 10 })).await;
            let after = &window.list()["pageInfo"]["endCursor"];
            let reply = gateway.list("token", json!({ "first": 10, "after": after })).await;
            assert_eq!(ids_of(&reply.list()["edges"]), ids(10..left.max(10)), "{tells:?}: {left} left");
            assert_eq!(reply.list()["pageInfo"]["hasNextPage"], false, "{tells:?}: {left} left");
            assert_eq!(reply.list()["pageInfo"]["hasPreviousPage"], true);
        }
    }
}

#[tokio::test]
async fn an_empty_page_ends_the_list_whatever_else_it_says() {
    // There is no cursor to go on with: who were told that it goes on would begin again and walk in circles.
    let upstream = Upstream::answering(|_| {
        let meta = json!({ "current_page": 1, "last_page": 2, "per_page": 25, "total": 3 });
        UpstreamResponse::json(
            200,
            &json!({ "data": [], "meta": meta, "links": { "next": "https://upstream.example" } }),
        )
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let reply = gateway.list("token", json!({})).await;
    assert_eq!(reply.list()["edges"], json!([]));
    assert_eq!(reply.list()["pageInfo"]["hasNextPage"], false);
}

#[tokio::test]
async fn behind_the_end_there_is_nothing_and_no_fault() {
    for tells in Pagination::EACH {
        let upstream = Upstream::answering(move |call| List::of(30, tells).page(call)).await;
        let gateway = Gateway::before(upstream.url(), &[]).await;
        for place in ["29", "30", "34", "1000", "4294967295", "34:15"] {
            let after = cursor(&format!("appointments:{place}"));
            let reply = gateway.list("token", json!({ "first": 10, "after": after })).await;
            assert_eq!(reply.list()["edges"], json!([]), "{tells:?}, behind {place}");
            assert_eq!(reply.list()["pageInfo"]["hasNextPage"], false, "{tells:?}, behind {place}");
        }
    }
}

/// A list in which every third place holds something without an id.
fn with_gaps(call: &Call) -> UpstreamResponse {
    List::of(50, Pagination::Meta).page_of(call, |n| match n % 3 {
        1 => json!({ "reference": "no id" }),
        _ => json!({ "id": id(n) }),
    })
}

#[tokio::test]
async fn items_without_an_id_are_errors_and_positions_stay() {
    let upstream = Upstream::answering(with_gaps).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let reply = gateway.list("token", json!({ "first": 6 })).await;
    let kept = [0, 2, 3, 5].map(id).to_vec();
    let window = &reply.body["data"]["appointments"];
    assert_eq!(ids_of(&window["edges"]), kept);
    assert_eq!(window["nodes"], json!(kept.iter().map(|id| json!({ "id": id })).collect::<Vec<_>>()));
    assert_eq!(window["totalCount"], 50);
    let invalid = |field| (format!(r#"["appointments","{field}"]"#), "UPSTREAM_INVALID_RESPONSE");
    assert_eq!(reply.paths_and_codes(), [invalid("edges"), invalid("nodes")]);
    // From any of them the list goes on behind its own place.
    for (edge, next) in [(0, 2), (1, 3), (3, 6)] {
        let after = &window["edges"][edge]["cursor"];
        let reply = gateway.list("token", json!({ "first": 2, "after": after })).await;
        assert_eq!(reply.body["data"]["appointments"]["edges"][0]["node"]["id"], id(next));
    }
}

#[tokio::test]
async fn a_walk_gets_past_items_without_an_id() {
    let upstream = Upstream::answering(with_gaps).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    for first in [1, 2, 7] {
        let (mut seen, mut after) = (Vec::new(), Value::Null);
        for _ in 0..=50 {
            let reply = gateway.list("token", json!({ "first": first, "after": after })).await;
            let window = &reply.body["data"]["appointments"];
            seen.extend(ids_of(&window["edges"]));
            if window["pageInfo"]["hasNextPage"] == false {
                break;
            }
            after = window["pageInfo"]["endCursor"].clone();
        }
        let expected = (0..50).filter(|n| n % 3 != 1).map(id).collect::<Vec<_>>();
        assert_eq!(seen, expected, "in windows of {first}");
    }
}
