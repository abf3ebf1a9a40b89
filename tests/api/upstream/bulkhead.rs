//! Concurrent and waiting upstream calls are bounded by configuration keys (invariants 6 and 8).

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use crate::support::{Call, Gate, Gateway, Upstream, UpstreamResponse, id, ids, served};

#[tokio::test]
async fn no_more_calls_are_under_way_at_once_than_allowed() {
    let gate = Gate::shut();
    let upstream = Upstream::answering({
        let gate = gate.clone();
        move |call| call.appointment().once(&gate)
    })
    .await;
    let settings = [("upstream.max_concurrent", "3"), ("upstream.timeout", "60s"), ("http.deadline", "60s")];
    let gateway = Arc::new(Gateway::before(upstream.url(), &settings).await);
    // Two callers and an operation of many ids each: the bound is the process's.
    let operations = ["one", "two"].map(|token| {
        let gateway = gateway.clone();
        tokio::spawn(async move { gateway.appointments(token, &ids(0..15)).await })
    });
    upstream.until(|seen| seen.in_flight == 3).await;
    // Time for a fourth to arrive, if there were one.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(upstream.calls(), 3);
    gate.open();
    for operation in operations {
        let reply = operation.await.unwrap();
        assert_eq!(reply.paths_and_codes(), [], "who waited is served");
    }
    assert_eq!(upstream.calls(), 30);
    assert_eq!(upstream.seen(|seen| seen.max_in_flight), 3);
}

#[tokio::test]
async fn waiting_calls_are_bounded_and_abandoned_ones_free_their_place() {
    let upstream = Upstream::answering(|_| UpstreamResponse::never()).await;
    let settings = [
        ("upstream.max_concurrent", "2"),
        ("upstream.max_waiting", "3"),
        ("upstream.timeout", "60s"),
        ("http.deadline", "2s"),
    ];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let reply = gateway.appointments("token", &ids(0..12)).await;
    assert_eq!(reply.body["data"]["appointmentsByIds"], json!(vec![Value::Null; 12]));
    let count = |code| reply.codes().iter().filter(|it| **it == code).count();
    assert_eq!((count("UPSTREAM_TIMEOUT"), count("OVERLOADED")), (5, 7), "two under way, three waiting");
    assert_eq!(gateway.rejections("upstream.max_waiting").await, 7.0);
    let errors = reply.body["errors"].as_array().unwrap();
    for error in errors.iter().filter(|error| error["extensions"]["code"] == "OVERLOADED") {
        assert_eq!(error["extensions"]["retryAfterSeconds"], 1);
    }

    // All gave up in one moment: a call that had its turn in that moment was cut as the two were, and no other was sent.
    upstream.until(|seen| seen.hung_up == seen.calls.len()).await;
    let given_up = upstream.calls();
    assert!((2..=5).contains(&given_up), "{given_up}");
    // Their places are free a moment after the far side has seen them go.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    for n in 20..25 {
        upstream.on(&id(n), Call::appointment);
    }
    let reply = gateway.appointments("token", &ids(20..25)).await;
    let expected = (20..25).map(|n| served(&id(n), "token", 1)).collect::<Vec<_>>();
    assert_eq!(reply.body, json!({ "data": { "appointmentsByIds": expected } }));
    assert_eq!(upstream.calls(), given_up + 5);
}

#[tokio::test]
async fn without_a_queue_excess_calls_fail_and_cached_data_is_served() {
    let gate = Gate::shut();
    let upstream = Upstream::start().await;
    upstream.on(&id(0), {
        let gate = gate.clone();
        move |call| call.appointment().once(&gate)
    });
    let settings = [
        ("upstream.max_concurrent", "1"),
        ("upstream.max_waiting", "0"),
        ("upstream.timeout", "60s"),
        ("http.deadline", "60s"),
    ];
    let gateway = Arc::new(Gateway::before(upstream.url(), &settings).await);
    gateway.appointment("token", &id(1)).await;
    let busy = [(); 2].map(|()| {
        let gateway = gateway.clone();
        tokio::spawn(async move { gateway.appointment("token", &id(0)).await })
    });
    upstream.until_called(2).await;
    let reply = gateway.appointments("token", &ids(1..3)).await;
    assert_eq!(reply.paths_and_codes(), [(r#"["appointmentsByIds",1]"#.to_owned(), "OVERLOADED")]);
    assert_eq!(reply.body["data"]["appointmentsByIds"][0], served(&id(1), "token", 1), "it takes no call");
    gate.open();
    for operation in busy {
        assert_eq!(
            *operation.await.unwrap().appointment(),
            served(&id(0), "token", 1),
            "joining takes none either"
        );
    }
}

#[tokio::test]
async fn the_cache_is_bounded_in_bytes() {
    // Each is some 4 KiB, of which 64 KiB hold no more than a few.
    let upstream = Upstream::answering(|call| {
        UpstreamResponse::json(200, &json!({ "data": { "id": call.id, "url": "x".repeat(4096) } }))
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[("cache.size", "64KiB")]).await;
    for round in 1..=2 {
        for part in 0..10 {
            let reply = gateway.appointments("token", &ids(100 * part..100 * (part + 1))).await;
            assert_eq!(reply.paths_and_codes(), [], "round {round}");
        }
    }
    // Some recently read entries may remain: the cache evicts in batches.
    let again = upstream.calls() - 1000;
    assert!(again > 800, "{again} of 1000 were asked for again");
}
