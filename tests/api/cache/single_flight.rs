//! Single flight: one upstream GET per scope and id, for any number of concurrent operations (invariant 3). A waiter
//! that disconnects cancels nothing for the others, and each waiter has its own deadline.

use std::{
    collections::HashSet,
    slice,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use serde_json::json;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::support::{Call, Gate, Gateway, Upstream, UpstreamResponse, id, served};

const LATENCY: Duration = Duration::from_millis(50);

/// For operations that wait until the test releases them.
const PATIENT: [(&str, &str); 2] = [("upstream.timeout", "60s"), ("http.deadline", "60s")];

/// Asks for appointments on a connection of its own. Dropping the connection is hanging up.
async fn ask_and_hold(gateway: &Gateway, token: &str, ids: &[String]) -> TcpStream {
    let query = format!("{{ appointmentsByIds(ids: {ids:?}) {{ id }} }}");
    let body = json!({ "query": query }).to_string();
    let token = gateway.secret(token);
    let request = format!(
        "POST /graphql HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn two_hundred_operations_for_one_id_are_one_call() {
    let upstream = Upstream::answering(|call| call.appointment().after(LATENCY)).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let id = id(1);
    let replies = join_all((0..200).map(|_| gateway.appointment("token", &id))).await;
    for reply in &replies {
        assert_eq!(*reply.appointment(), served(&id, "token", 1));
    }
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn a_disconnecting_first_waiter_does_not_affect_199_others() {
    let (gate, shared) = (Gate::shut(), id(0));
    let upstream = Upstream::start().await;
    upstream.on(&shared, {
        let gate = gate.clone();
        move |call| call.appointment().once(&gate)
    });
    // Without the cache, so that only the call under way can serve them all.
    let settings = [&PATIENT[..], &[("upstream.max_concurrent", "256"), ("cache.ttl", "0")]].concat();
    let gateway = Arc::new(Gateway::before(upstream.url(), &settings).await);

    let first = ask_and_hold(&gateway, "token", slice::from_ref(&shared)).await;
    upstream.until_called(1).await;
    let others = (1..200).map(|n| {
        let (gateway, ids) = (gateway.clone(), [shared.clone(), id(n)]);
        tokio::spawn(async move { gateway.appointments("token", &ids).await })
    });
    let others = others.collect::<Vec<_>>();
    // Each asks for the shared id and then for one of its own: once that has arrived, it waits for the shared one.
    upstream.until_called(200).await;
    drop(first);
    tokio::time::sleep(LATENCY).await;
    gate.open();

    for (n, reply) in join_all(others).await.into_iter().enumerate() {
        let expected = [served(&shared, "token", 1), served(&id(n + 1), "token", 1)];
        assert_eq!(reply.unwrap().body, json!({ "data": { "appointmentsByIds": expected } }));
    }
    assert_eq!(upstream.calls_for(&shared), 1);
    assert_eq!(upstream.seen(|seen| seen.hung_up), 0);
}

#[tokio::test]
async fn ten_callers_of_the_same_id_share_no_call() {
    let upstream = Upstream::answering(|call| call.appointment().after(LATENCY)).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let tokens = (0..200).map(|n| format!("token-{}", n % 10)).collect::<Vec<_>>();
    let id = id(1);
    let replies = join_all(tokens.iter().map(|token| gateway.appointment(token, &id))).await;
    for (token, reply) in tokens.iter().zip(&replies) {
        assert_eq!(reply.appointment()["reference"], **token);
    }
    assert_eq!(upstream.calls(), 10);
    let asked =
        upstream.seen(|seen| seen.calls.iter().map(|call| call.token().to_owned()).collect::<HashSet<_>>());
    assert_eq!(asked.len(), 10, "one call for each token");
}

#[tokio::test]
async fn a_call_without_waiters_is_cancelled() {
    let upstream = Upstream::answering(|_| UpstreamResponse::never()).await;
    let gateway = Gateway::before(upstream.url(), &PATIENT).await;
    let mut waiting = Vec::new();
    for n in 1..=5 {
        waiting.push(ask_and_hold(&gateway, "token", &[id(0), id(n)]).await);
        upstream.until_called(1 + n).await;
    }
    // All but one leave: their own calls end, the shared one does not.
    let last = waiting.pop();
    drop(waiting);
    upstream.until(|seen| seen.hung_up == 4).await;
    assert_eq!(upstream.seen(|seen| seen.in_flight), 2);
    drop(last);
    upstream.until(|seen| seen.hung_up == 6).await;
    assert_eq!(upstream.seen(|seen| seen.in_flight), 0);

    // Nothing is left of the call that was ended: the next caller gets a new one.
    upstream.on(&id(0), Call::appointment);
    assert_eq!(*gateway.appointment("token", &id(0)).await.appointment(), served(&id(0), "token", 2));
}

#[tokio::test]
async fn a_call_is_cancelled_when_all_its_waiters_timed_out() {
    let upstream = Upstream::answering(|_| UpstreamResponse::never()).await;
    let settings = [("http.deadline", "300ms"), ("upstream.timeout", "60s")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let reply = gateway.appointment("token", &id(1)).await;
    assert_eq!(reply.paths_and_codes(), [(r#"["appointment"]"#.to_owned(), "UPSTREAM_TIMEOUT")]);
    upstream.until(|seen| seen.hung_up == 1 && seen.in_flight == 0).await;
}

#[tokio::test]
async fn each_waiter_has_its_own_deadline() {
    let gate = Gate::shut();
    let upstream = Upstream::answering({
        let gate = gate.clone();
        move |call| call.appointment().once(&gate)
    })
    .await;
    let settings = [("http.deadline", "3s"), ("upstream.timeout", "60s")];
    let gateway = Arc::new(Gateway::before(upstream.url(), &settings).await);
    let ask = || {
        let gateway = gateway.clone();
        tokio::spawn(async move { gateway.appointment("token", &id(1)).await })
    };
    let early = ask();
    upstream.until_called(1).await;
    // Half of the deadline: as much time for the late one to come before the early one is given up, as after that
    // for its answer.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let late = ask();
    let early = early.await.unwrap();
    assert_eq!(early.paths_and_codes(), [(r#"["appointment"]"#.to_owned(), "UPSTREAM_TIMEOUT")]);
    gate.open();
    assert_eq!(*late.await.unwrap().appointment(), served(&id(1), "token", 1));
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn completed_calls_serve_no_later_request() {
    let (first, second) = (Gate::shut(), Gate::shut());
    let upstream = Upstream::start().await;
    for (n, gate) in [(1, first.clone()), (2, second.clone())] {
        upstream.on(
            &id(n),
            move |call| if call.nth == 1 { call.appointment().once(&gate) } else { call.appointment() },
        );
    }
    let settings = [&PATIENT[..], &[("cache.ttl", "0")]].concat();
    let gateway = Arc::new(Gateway::before(upstream.url(), &settings).await);
    let ask = |ids: [String; 2]| {
        let gateway = gateway.clone();
        tokio::spawn(async move { gateway.appointments("token", &ids).await })
    };
    let slow = ask([id(1), id(2)]);
    upstream.until_called(2).await;
    let quick = ask([id(1), id(3)]);
    upstream.until_called(3).await;
    first.open();
    let expected = [served(&id(1), "token", 1), served(&id(3), "token", 1)];
    assert_eq!(quick.await.unwrap().body["data"]["appointmentsByIds"], json!(expected));

    // So the call has landed. The slow operation waited for it too and is not done yet, which keeps nothing for others.
    for nth in 2..5 {
        assert_eq!(*gateway.appointment("token", &id(1)).await.appointment(), served(&id(1), "token", nth));
    }
    second.open();
    let expected = [served(&id(1), "token", 1), served(&id(2), "token", 1)];
    assert_eq!(slow.await.unwrap().body["data"]["appointmentsByIds"], json!(expected));
}

#[tokio::test]
async fn requests_do_not_join_a_completed_call() {
    // The moment between the end of a call and the end of its last waiter cannot be held open from outside, so many
    // operations look for it. A response to one of them is old for every operation that begins after it.
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[("cache.ttl", "0")]).await;
    let (id, latest) = (id(1), AtomicUsize::new(0));
    let client = async || {
        for _ in 0..25 {
            let old = latest.load(Ordering::SeqCst);
            let reply = gateway.appointment("token", &id).await;
            let status = reply.appointment()["status"].as_str().unwrap();
            let nth = status.trim_start_matches("call ").parse().unwrap();
            assert!(nth > old, "call {nth} was served after call {old} had been");
            latest.fetch_max(nth, Ordering::SeqCst);
        }
    };
    join_all((0..20).map(|_| client())).await;
}

#[tokio::test]
async fn a_failure_is_shared_by_its_waiters_only() {
    let gate = Gate::shut();
    let upstream = Upstream::start().await;
    upstream.on(&id(0), {
        let gate = gate.clone();
        move |call| if call.nth == 1 { UpstreamResponse::status(500).once(&gate) } else { call.appointment() }
    });
    let gateway = Arc::new(Gateway::before(upstream.url(), &PATIENT).await);
    let waiting = (1..=20).map(|n| {
        let (gateway, ids) = (gateway.clone(), [id(0), id(n)]);
        tokio::spawn(async move { gateway.appointments("token", &ids).await })
    });
    let waiting = waiting.collect::<Vec<_>>();
    upstream.until_called(21).await;
    gate.open();
    for reply in join_all(waiting).await {
        let expected = [(r#"["appointmentsByIds",0]"#.to_owned(), "UPSTREAM_UNAVAILABLE")];
        assert_eq!(reply.unwrap().paths_and_codes(), expected);
    }
    assert_eq!(upstream.calls_for(&id(0)), 1);
    assert_eq!(*gateway.appointment("token", &id(0)).await.appointment(), served(&id(0), "token", 2));
}
