//! Read your writes: after a change through this gateway, no caller reads the previous state from it (invariant 2).

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::support::{
    CREATED, Call, ChangeKind, Gateway, List, Pagination, TIMEOUT, Upstream, UpstreamResponse, id, listed,
    served,
};

/// Nothing expires while a test runs, and nothing is given up.
pub const PATIENT: [(&str, &str); 4] =
    [("cache.ttl", "10m"), ("cache.list_ttl", "10m"), ("upstream.timeout", "60s"), ("http.deadline", "60s")];

/// Lists, appointments and changes, none of them refused.
pub fn answer(call: &Call) -> UpstreamResponse {
    match call {
        _ if call.is_change() => call.changed(),
        _ if call.id == "appointments" => List::of(3, Pagination::Meta).page(call),
        _ => call.appointment(),
    }
}

pub fn gets(upstream: &Upstream) -> usize {
    upstream.seen(|seen| seen.calls.iter().filter(|call| !call.is_change()).count())
}

pub async fn read(gateway: &Gateway, token: &str) -> Value {
    gateway.appointment(token, &id(1)).await.appointment().clone()
}

pub fn status(status: &str) -> Value {
    json!({ "id": id(1), "reference": "token", "status": status })
}

#[tokio::test]
async fn the_author_of_a_change_reads_its_response_without_a_call() {
    let upstream = Upstream::answering(answer).await;
    let gateway = Gateway::before(upstream.url(), &PATIENT).await;
    assert_eq!(read(&gateway, "token").await, served(&id(1), "token", 1));
    for (kind, expected) in [(ChangeKind::Update, "waiting"), (ChangeKind::Cancel, "cancelled")] {
        assert_eq!(*kind.make(&gateway).await.changed(), status(expected));
        assert_eq!(read(&gateway, "token").await, status(expected));
    }
    let created = ChangeKind::Create.make(&gateway).await.changed().clone();
    assert_eq!(*gateway.appointment("token", CREATED).await.appointment(), created);
    assert_eq!(gets(&upstream), 1);
}

#[tokio::test]
async fn other_callers_refetch_after_a_change() {
    for kind in [ChangeKind::Update, ChangeKind::Cancel] {
        let upstream = Upstream::answering(answer).await;
        let gateway = Gateway::before(upstream.url(), &PATIENT).await;
        for (n, token) in ["a", "b"].into_iter().enumerate() {
            assert_eq!(read(&gateway, token).await, served(&id(1), token, n + 1));
            gateway.appointment(token, &id(2)).await.appointment();
        }
        kind.make(&gateway).await.changed();
        for (n, token) in ["a", "b"].into_iter().enumerate() {
            assert_eq!(read(&gateway, token).await, served(&id(1), token, n + 3), "{kind:?}");
            assert_eq!(*gateway.appointment(token, &id(2)).await.appointment(), served(&id(2), token, n + 1));
        }
        assert_eq!(gets(&upstream), 6, "each was asked for once more, and another appointment was not");
    }
}

#[tokio::test]
async fn an_absence_is_forgotten_after_a_change_too() {
    let upstream = Upstream::answering(|call| match (call.is_change(), call.nth) {
        (false, 1) => UpstreamResponse::status(404),
        _ => answer(call),
    })
    .await;
    let gateway =
        Gateway::before(upstream.url(), &[&PATIENT[..], &[("cache.absence_ttl", "10m")]].concat()).await;
    assert_eq!(read(&gateway, "other").await, Value::Null);
    ChangeKind::Update.make(&gateway).await.changed();
    assert_eq!(read(&gateway, "other").await, served(&id(1), "other", 2));
}

#[tokio::test]
async fn all_callers_refetch_lists_after_a_change() {
    for kind in ChangeKind::EACH {
        let upstream = Upstream::answering(answer).await;
        let gateway = Gateway::before(upstream.url(), &PATIENT).await;
        let both = async || {
            for token in ["token", "other"] {
                gateway.list(token, json!({})).await.list();
            }
            gets(&upstream)
        };
        assert_eq!((both().await, both().await), (2, 2));
        kind.make(&gateway).await.changed();
        assert_eq!((both().await, both().await), (4, 4), "{kind:?}");
    }
}

#[tokio::test]
async fn uncacheable_mutation_responses_still_invalidate() {
    for answered in [
        |call: &Call| call.changed().with("Cache-Control", "no-store"),
        |_: &Call| UpstreamResponse::text(204, "text/plain", ""),
    ] {
        let upstream =
            Upstream::answering(move |call| if call.is_change() { answered(call) } else { answer(call) })
                .await;
        let gateway = Gateway::before(upstream.url(), &PATIENT).await;
        assert_eq!(read(&gateway, "token").await, served(&id(1), "token", 1));
        ChangeKind::Update.make(&gateway).await.payload();
        assert_eq!(read(&gateway, "token").await, served(&id(1), "token", 2));
    }
}

async fn refusing(refused: u16) -> Upstream {
    Upstream::answering(
        move |call| if call.is_change() { UpstreamResponse::status(refused) } else { answer(call) },
    )
    .await
}

#[tokio::test]
async fn rejected_changes_leave_the_cache_unchanged() {
    for refused in [400, 415, 422, 429] {
        let upstream = refusing(refused).await;
        let gateway = Gateway::before(upstream.url(), &PATIENT).await;
        gateway.list("token", json!({})).await.list();
        for kind in ChangeKind::EACH {
            kind.make(&gateway).await;
        }
        gateway.list("token", json!({})).await.list();
        assert_eq!(read(&gateway, "token").await, listed(1, "token"));
        assert_eq!(gets(&upstream), 1, "after {refused}");
    }
}

/// Gone, in another state, or no longer permitted: the caller does not receive the older copy.
#[tokio::test]
async fn a_different_state_after_a_change_is_fetched_anew() {
    for refused in [401, 403, 404, 409] {
        let upstream = refusing(refused).await;
        let gateway = Gateway::before(upstream.url(), &PATIENT).await;
        read(&gateway, "token").await;
        read(&gateway, "other").await;
        assert_eq!(gets(&upstream), 2);
        ChangeKind::Update.make(&gateway).await;
        read(&gateway, "other").await;
        assert_eq!(gets(&upstream), 2, "another caller was told nothing by {refused}");
        read(&gateway, "token").await;
        assert_eq!(gets(&upstream), 3, "after {refused}");
    }
}

#[tokio::test]
async fn a_change_that_may_have_been_made_outdates_as_one_that_was() {
    type Script = fn(&Call) -> UpstreamResponse;
    let cases: [(&str, Script); 7] = [
        ("cut", |_| UpstreamResponse::cut()),
        ("cut in the body", |call| call.changed().short_of(5)),
        ("garbage", |_| UpstreamResponse::text(200, "text/html", "<html>")),
        ("500", |_| UpstreamResponse::status(500)),
        ("503", |_| UpstreamResponse::status(503)),
        ("302", |_| UpstreamResponse::status(302)),
        ("408", |_| UpstreamResponse::status(408)),
    ];
    for (case, script) in cases {
        let upstream =
            Upstream::answering(move |call| if call.is_change() { script(call) } else { answer(call) }).await;
        let gateway = Gateway::before(upstream.url(), &PATIENT).await;
        for kind in [ChangeKind::Update, ChangeKind::Cancel] {
            let before = gets(&upstream);
            for token in ["token", "other"] {
                gateway.list(token, json!({})).await.list();
                read(&gateway, token).await;
            }
            let primed = gets(&upstream);
            assert!(primed > before || before == 0, "{case}");
            assert_eq!(kind.make(&gateway).await.codes().len(), 1, "{case}");
            for token in ["token", "other"] {
                assert_ne!(read(&gateway, token).await["status"], "listed", "{case}");
                gateway.list(token, json!({})).await.list();
            }
            assert_eq!(gets(&upstream), primed + 4, "{kind:?}: {case}");
            ChangeKind::Create.make(&gateway).await;
            gateway.list("token", json!({})).await.list();
            assert_eq!(gets(&upstream), primed + 5, "{case}: one that was perhaps made is perhaps in lists");
        }
    }
}

#[tokio::test]
async fn reads_during_an_unknown_outcome_are_repeated_once() {
    let upstream =
        Upstream::answering(|call| if call.is_change() { UpstreamResponse::cut() } else { answer(call) })
            .await;
    let gateway = Gateway::before(upstream.url(), &[("cache.ttl", "10m"), ("upstream.timeout", "1s")]).await;
    assert_eq!(ChangeKind::Update.make(&gateway).await.codes(), ["OUTCOME_UNKNOWN"]);
    assert_eq!(read(&gateway, "other").await, served(&id(1), "other", 1));
    let again = async {
        while read(&gateway, "other").await == served(&id(1), "other", 1) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(TIMEOUT, again).await.expect("it is asked for again once the change must have arrived");
    assert_eq!(gets(&upstream), 2);
}
