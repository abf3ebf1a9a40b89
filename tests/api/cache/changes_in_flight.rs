//! Once a change is sent, no caller receives an older copy: not while the change is in flight, not after its client
//! disconnects, and not while its outcome is unknown.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::write_then_read::{PATIENT, gets};
use crate::support::{
    Call, ChangeKind, Gate, Gateway, GatewayResponse, List, Pagination, RequestForm, TIMEOUT, Transport,
    Upstream, UpstreamResponse, UpstreamState, id, ids,
};

const CALLERS: [&str; 2] = ["token", "other"];

const FIELDS: &str = "{ id reference status claimant { name phoneNumber email dateOfBirth } }";

fn one() -> String {
    format!("{{ it: appointment(id: {:?}) {FIELDS} }}", id(1))
}

fn many() -> String {
    format!("{{ it: appointmentsByIds(ids: {:?}) {FIELDS} }}", ids(0..3))
}

fn list() -> String {
    format!("{{ it: appointments(first: 3) {{ nodes {FIELDS} totalCount }} }}")
}

/// The status of `id(1)` in an answer to any of the three queries.
#[track_caller]
fn status_in(reply: &GatewayResponse) -> &str {
    assert_eq!(reply.body.get("errors"), None);
    assert_eq!(reply.body.get("extensions"), None);
    let it = &reply.body["data"]["it"];
    let nodes = it.get("nodes").unwrap_or(it);
    nodes.get(1).unwrap_or(nodes)["status"].as_str().expect("a status")
}

/// An upstream that applies every change at once, and answers it as `answer` says once the gate is open. What is read
/// from it tells whether a change was applied before.
async fn applying(gate: &Gate, answer: fn(&Call) -> UpstreamResponse) -> Upstream {
    let (gate, state) = (gate.clone(), UpstreamState::of("old"));
    Upstream::answering(move |call| {
        if call.is_change() {
            state.set("new");
            return answer(call).once(&gate);
        }
        if call.id == "appointments" {
            let item = |n| json!({ "id": id(n), "reference": call.token(), "status": state.get() });
            return List::of(3, Pagination::Meta).page_of(call, item);
        }
        state.answer(call)
    })
    .await
}

async fn before(upstream: &Upstream, settings: &[(&str, &str)]) -> Arc<Gateway> {
    Arc::new(Gateway::before(upstream.url(), &[&PATIENT[..], settings].concat()).await)
}

/// Sends a change as "token", and waits until the upstream has it.
async fn begin(kind: ChangeKind, gateway: &Arc<Gateway>, upstream: &Upstream) -> JoinHandle<GatewayResponse> {
    let before = upstream.calls();
    let change = tokio::spawn({
        let gateway = gateway.clone();
        async move { kind.make(&gateway).await }
    });
    upstream.until(|seen| seen.calls[before..].iter().any(Call::is_change)).await;
    change
}

/// Has every caller cache everything, also as finished answers in every form.
async fn fill(gateway: &Gateway) {
    for token in CALLERS {
        for way in RequestForm::EACH {
            for query in [list(), one(), many()] {
                for _ in 0..2 {
                    assert_eq!(status_in(&way.ask(gateway, token, &query).await), "old");
                }
            }
        }
    }
    assert!(gateway.response_cache_lookups().await.0 > 0.0);
}

/// Waits until queries for `id(1)` and for the list are answered without a call.
async fn until_stored(gateway: &Gateway, upstream: &Upstream) {
    let stored = async {
        loop {
            let before = gets(upstream);
            for query in [list(), one()] {
                assert_eq!(status_in(&RequestForm::POST.ask(gateway, "other", &query).await), "new");
            }
            if gets(upstream) == before {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(TIMEOUT, stored).await.expect("copies are stored again");
}

#[tokio::test]
async fn during_a_change_no_caller_receives_an_older_copy() {
    for kind in [ChangeKind::Update, ChangeKind::Cancel] {
        let gate = Gate::shut();
        let upstream = applying(&gate, Call::changed).await;
        let gateway = before(&upstream, &[]).await;
        fill(&gateway).await;
        let change = begin(kind, &gateway, &upstream).await;
        for token in CALLERS {
            for way in RequestForm::EACH {
                for query in [one(), many(), list()] {
                    let before = gets(&upstream);
                    assert_eq!(
                        status_in(&way.ask(&gateway, token, &query).await),
                        "new",
                        "{kind:?}, {way:?}"
                    );
                    // Another appointment of the operation is served from the cache.
                    assert_eq!(gets(&upstream), before + 1, "{kind:?}, {way:?}: {query}");
                }
            }
        }
        assert!(!change.is_finished());
        gate.open();
        change.await.unwrap().changed();
        for token in CALLERS {
            for (query, is_own) in [(one(), token == "token"), (list(), false)] {
                let before = gets(&upstream);
                assert_ne!(status_in(&RequestForm::POST.ask(&gateway, token, &query).await), "old");
                assert_eq!(gets(&upstream), before + usize::from(!is_own), "{kind:?}, {token}: {query}");
            }
        }
        until_stored(&gateway, &upstream).await;
    }
}

#[tokio::test]
async fn during_a_create_no_caller_receives_an_older_page() {
    let gate = Gate::shut();
    let upstream = applying(&gate, Call::changed).await;
    let gateway = before(&upstream, &[]).await;
    fill(&gateway).await;
    let change = begin(ChangeKind::Create, &gateway, &upstream).await;
    for token in CALLERS {
        for way in RequestForm::EACH {
            let before = gets(&upstream);
            assert_eq!(status_in(&way.ask(&gateway, token, &list()).await), "new", "{way:?}");
            assert_eq!(gets(&upstream), before + 1, "{way:?}");
        }
    }
    gate.open();
    change.await.unwrap().changed();
    for token in CALLERS {
        let before = gets(&upstream);
        assert_eq!(status_in(&RequestForm::POST.ask(&gateway, token, &list()).await), "new");
        assert_eq!(gets(&upstream), before + 1);
    }
}

#[tokio::test]
async fn a_create_leaves_cached_appointments_as_they_are() {
    let gate = Gate::shut();
    let upstream = applying(&gate, Call::changed).await;
    let gateway = before(&upstream, &[]).await;
    fill(&gateway).await;
    let change = begin(ChangeKind::Create, &gateway, &upstream).await;
    let calls = gets(&upstream);
    for token in CALLERS {
        assert_eq!(status_in(&RequestForm::POST.ask(&gateway, token, &one()).await), "old");
    }
    assert_eq!(gets(&upstream), calls);
    gate.open();
    change.await.unwrap().changed();
}

#[tokio::test]
async fn calls_from_before_a_change_in_flight_are_not_joined() {
    let (slow, gate) = (Gate::shut(), Gate::shut());
    let state = UpstreamState::of("old");
    let upstream = Upstream::answering({
        let (slow, gate) = (slow.clone(), gate.clone());
        move |call| match (call.is_change(), call.nth) {
            (true, _) => {
                state.set("new");
                call.changed().once(&gate)
            }
            (false, 1) => state.answer(call).once(&slow),
            (false, _) => state.answer(call),
        }
    })
    .await;
    let gateway = before(&upstream, &[]).await;
    let early = tokio::spawn({
        let gateway = gateway.clone();
        async move { RequestForm::POST.ask(&gateway, "other", &one()).await }
    });
    upstream.until_called(1).await;
    let change = begin(ChangeKind::Update, &gateway, &upstream).await;
    assert_eq!(status_in(&RequestForm::POST.ask(&gateway, "other", &one()).await), "new");
    slow.open();
    assert_eq!(status_in(&early.await.unwrap()), "old", "it asked before the change");
    assert_eq!(status_in(&RequestForm::POST.ask(&gateway, "other", &one()).await), "new");
    gate.open();
    change.await.unwrap().changed();
    assert_eq!(status_in(&RequestForm::POST.ask(&gateway, "other", &one()).await), "new");
    assert_eq!(gets(&upstream), 4, "none but the last is stored");
    assert_eq!(status_in(&RequestForm::POST.ask(&gateway, "other", &one()).await), "new");
    assert_eq!(gets(&upstream), 4);
}

#[tokio::test]
async fn reads_during_a_change_share_a_call_that_is_not_stored() {
    let (slow, gate) = (Gate::shut(), Gate::shut());
    let upstream = Upstream::answering({
        let (slow, gate) = (slow.clone(), gate.clone());
        move |call| match (call.is_change(), call.id.as_str()) {
            (true, _) => call.changed().once(&gate),
            (false, it) if it == id(1) => call.appointment().once(&slow),
            (false, _) => call.appointment(),
        }
    })
    .await;
    let gateway = before(&upstream, &[]).await;
    let change = begin(ChangeKind::Update, &gateway, &upstream).await;
    let read = |n: usize| {
        let gateway = gateway.clone();
        // Each asks for an appointment of its own too, which shows when it has begun.
        tokio::spawn(async move { gateway.appointments("other", &[id(1), id(n)]).await })
    };
    let reads = (10..15).map(read).collect::<Vec<_>>();
    upstream.until(|seen| seen.calls.len() >= 7).await;
    assert_eq!(upstream.calls_for(&id(1)), 2, "the change and one call for all");
    // A call that is under way when the outcome arrives is not joined after it.
    gate.open();
    change.await.unwrap().changed();
    let late = read(20);
    upstream.until(|seen| seen.calls.iter().filter(|call| call.id == id(1)).count() >= 3).await;
    slow.open();
    for read in reads {
        assert_eq!(read.await.unwrap().body["data"]["appointmentsByIds"][0]["status"], "call 1");
    }
    assert_eq!(late.await.unwrap().body["data"]["appointmentsByIds"][0]["status"], "call 2");
    // Nor is it stored: the later one is.
    let reply = gateway.appointment("other", &id(1)).await;
    assert_eq!((reply.appointment()["status"].as_str(), upstream.calls_for(&id(1))), (Some("call 2"), 3));
}

#[tokio::test]
async fn a_new_subscriber_during_a_change_gets_no_older_state() {
    for transport in Transport::EACH {
        let gate = Gate::shut();
        let upstream = applying(&gate, |_| UpstreamResponse::text(204, "text/plain", "")).await;
        let settings = [("live.fast_interval", "10m"), ("live.slow_interval", "10m")];
        let gateway = before(&upstream, &settings).await;
        let mut early = Vec::new();
        for token in CALLERS {
            early.push(gateway.subscribe(transport, token, &id(1)).await);
            assert_eq!(early.last_mut().unwrap().status().await, "old");
        }
        let change = begin(ChangeKind::Cancel, &gateway, &upstream).await;
        let mut late = Vec::new();
        for token in CALLERS {
            late.push(gateway.subscribe(transport, token, &id(1)).await);
        }
        // One that waits for the outcome has not begun before this.
        sleep(Duration::from_millis(100)).await;
        gate.open();
        change.await.unwrap().payload();
        for subscription in late.iter_mut().chain(&mut early) {
            assert_eq!(subscription.status().await, "new", "{transport:?}");
        }
    }
}

/// Sends a change as "token" and hangs up once the upstream has it.
async fn begin_and_hang_up(kind: ChangeKind, gateway: &Gateway, upstream: &Upstream) {
    let query = match kind {
        ChangeKind::Create => {
            r#"mutation { createAppointment(input: { appointmentAt: "2031-03-01T09:00:00Z" }) { userErrors { message } } }"#
                .to_owned()
        }
        ChangeKind::Update => format!(
            r#"mutation {{ updateAppointment(id: "{}", input: {{ status: "waiting" }}) {{ userErrors {{ message }} }} }}"#,
            id(1)
        ),
        ChangeKind::Cancel => {
            format!(r#"mutation {{ cancelAppointment(id: "{}") {{ userErrors {{ message }} }} }}"#, id(1))
        }
    };
    let body = json!({ "query": query }).to_string();
    let request = format!(
        "POST /graphql HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        gateway.secret("token"),
        body.len()
    );
    let before = upstream.calls();
    let mut client = TcpStream::connect(gateway.address()).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    upstream.until(|seen| seen.calls[before..].iter().any(Call::is_change)).await;
    drop(client);
}

#[tokio::test]
async fn a_client_that_hangs_up_leaves_no_older_copy_behind() {
    for kind in ChangeKind::EACH {
        let gate = Gate::shut();
        let upstream = applying(&gate, Call::changed).await;
        let gateway = before(&upstream, &[]).await;
        fill(&gateway).await;
        begin_and_hang_up(kind, &gateway, &upstream).await;
        // Before and after the gateway has noticed.
        for _ in 0..3 {
            for token in CALLERS {
                let query = if matches!(kind, ChangeKind::Create) { list() } else { one() };
                let before = gets(&upstream);
                assert_eq!(
                    status_in(&RequestForm::POST.ask(&gateway, token, &query).await),
                    "new",
                    "{kind:?}"
                );
                assert_eq!(gets(&upstream), before + 1, "{kind:?}");
            }
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(upstream.seen(|seen| seen.hung_up), 0, "the change goes on");
        gate.open();
        if !matches!(kind, ChangeKind::Create) {
            until_stored(&gateway, &upstream).await;
        }
    }
}

#[tokio::test]
async fn a_client_deadline_leaves_the_outcome_of_a_change_open() {
    for kind in ChangeKind::EACH {
        let gate = Gate::shut();
        let upstream = applying(&gate, Call::changed).await;
        let gateway = before(&upstream, &[("http.deadline", "1s")]).await;
        fill(&gateway).await;
        let change = begin(kind, &gateway, &upstream).await;
        let query = if matches!(kind, ChangeKind::Create) { list() } else { one() };
        let assert_asked_anew = async || {
            for token in CALLERS {
                let before = gets(&upstream);
                assert_eq!(
                    status_in(&RequestForm::POST.ask(&gateway, token, &query).await),
                    "new",
                    "{kind:?}"
                );
                assert_eq!(gets(&upstream), before + 1, "{kind:?}");
            }
        };
        assert_asked_anew().await;
        // The client is told at its deadline. The answer of the upstream is still awaited.
        assert_eq!(change.await.unwrap().codes(), ["OUTCOME_UNKNOWN"], "{kind:?}");
        assert_eq!(upstream.seen(|seen| seen.hung_up), 0, "{kind:?}");
        assert_asked_anew().await;
        gate.open();
        if !matches!(kind, ChangeKind::Create) {
            until_stored(&gateway, &upstream).await;
        }
    }
}

#[tokio::test]
async fn after_an_unknown_outcome_caching_resumes_in_time() {
    // The answer is lost at once, or never comes and is given up.
    type Script = fn(&Call) -> UpstreamResponse;
    let cases: [(Script, bool); 2] = [(|_| UpstreamResponse::cut(), true), (Call::changed, false)];
    for (answer, is_lost) in cases {
        for kind in ChangeKind::EACH {
            let gate = Gate::shut();
            if is_lost {
                gate.open();
            }
            let upstream = applying(&gate, answer).await;
            let gateway = before(&upstream, &[("upstream.timeout", "1500ms")]).await;
            fill(&gateway).await;
            assert_eq!(kind.make(&gateway).await.codes(), ["OUTCOME_UNKNOWN"], "{kind:?}");
            let query = if matches!(kind, ChangeKind::Create) { list() } else { one() };
            for token in CALLERS {
                for _ in 0..2 {
                    let before = gets(&upstream);
                    assert_eq!(
                        status_in(&RequestForm::POST.ask(&gateway, token, &query).await),
                        "new",
                        "{kind:?}"
                    );
                    assert_eq!(gets(&upstream), before + 1, "{kind:?}: nothing is stored yet");
                }
            }
            if matches!(kind, ChangeKind::Create) {
                let stored = async {
                    loop {
                        let before = gets(&upstream);
                        RequestForm::POST.ask(&gateway, "other", &query).await;
                        if gets(&upstream) == before {
                            return;
                        }
                        sleep(Duration::from_millis(20)).await;
                    }
                };
                timeout(TIMEOUT, stored).await.expect("pages are stored again");
            } else {
                until_stored(&gateway, &upstream).await;
            }
        }
    }
}

#[tokio::test]
async fn an_applied_change_is_visible_before_its_response() {
    let upstream = applying(&Gate::shut(), Call::changed).await;
    let gateway = before(&upstream, &[("upstream.timeout", "1s")]).await;
    fill(&gateway).await;
    let change = begin(ChangeKind::Update, &gateway, &upstream).await;
    let mut reads = 0;
    while !change.is_finished() {
        for token in CALLERS {
            assert_eq!(
                status_in(&RequestForm::POST.ask(&gateway, token, &one()).await),
                "new",
                "read {reads}"
            );
            reads += 1;
        }
    }
    assert_eq!(change.await.unwrap().codes(), ["OUTCOME_UNKNOWN"]);
    for token in CALLERS {
        assert_eq!(status_in(&RequestForm::POST.ask(&gateway, token, &one()).await), "new");
    }
}

#[tokio::test]
async fn no_empty_list_after_a_create_of_unknown_outcome() {
    // The upstream has one appointment from the moment the create arrives.
    let answers: [fn(&Call) -> UpstreamResponse; 4] = [
        |_| UpstreamResponse::cut(),
        |_| UpstreamResponse::never(),
        |_| UpstreamResponse::status(500),
        |_| UpstreamResponse::text(200, "text/html", "<html>"),
    ];
    for answer in answers {
        let length = Arc::new(AtomicUsize::new(0));
        let upstream = Upstream::answering({
            let length = length.clone();
            move |call| {
                if call.is_change() {
                    length.store(1, Ordering::SeqCst);
                    return answer(call);
                }
                List::of(length.load(Ordering::SeqCst), Pagination::Meta).page(call)
            }
        })
        .await;
        let gateway = before(&upstream, &[("upstream.timeout", "500ms")]).await;
        let total = async |token: &str| gateway.list(token, json!({})).await.list()["totalCount"].clone();
        for token in CALLERS {
            assert_eq!((total(token).await, total(token).await), (json!(0), json!(0)));
        }
        let change = begin(ChangeKind::Create, &gateway, &upstream).await;
        for token in CALLERS {
            assert_eq!(total(token).await, json!(1), "while it is under way");
        }
        assert_eq!(change.await.unwrap().codes().len(), 1);
        for token in CALLERS {
            assert_eq!(total(token).await, json!(1), "after its outcome is unknown");
        }
    }
}

/// Changes of one caller, and those of several at once, end the copies of all.
#[tokio::test]
async fn two_changes_under_way_are_over_only_with_the_second() {
    let gates = [Gate::shut(), Gate::shut()];
    let number = Arc::new(Mutex::new(0));
    let upstream = Upstream::answering({
        let (gates, number) = (gates.clone(), number.clone());
        move |call| {
            if !call.is_change() {
                return call.appointment();
            }
            let mut number = number.lock().unwrap();
            *number += 1;
            UpstreamResponse::text(204, "text/plain", "").once(&gates[*number - 1])
        }
    })
    .await;
    let gateway = before(&upstream, &[]).await;
    let first = begin(ChangeKind::Cancel, &gateway, &upstream).await;
    let second = begin(ChangeKind::Cancel, &gateway, &upstream).await;
    let reads = async || {
        let before = gets(&upstream);
        for _ in 0..2 {
            gateway.appointment("other", &id(1)).await.appointment();
        }
        gets(&upstream) - before
    };
    assert_eq!(reads().await, 2);
    gates[0].open();
    first.await.unwrap().payload();
    assert_eq!(reads().await, 2, "the second is still under way");
    gates[1].open();
    second.await.unwrap().payload();
    assert_eq!(reads().await, 1);
}
