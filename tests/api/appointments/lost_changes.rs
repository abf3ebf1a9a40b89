//! Changes whose response is lost: the gateway neither repeats them nor guesses their outcome.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};

use crate::support::{
    Call, ChangeKind, Gate, Gateway, GatewayResponse, TIMEOUT, UPSTREAM_TEXT, Upstream, UpstreamResponse, id,
    served,
};

#[track_caller]
fn assert_unknown(reply: &GatewayResponse, kind: ChangeKind, case: &str) {
    assert_eq!(
        reply.paths_and_codes(),
        [(format!("[\"{}\"]", kind.field()), "OUTCOME_UNKNOWN")],
        "{kind:?}: {case}"
    );
    assert_eq!((reply.status, &reply.body["data"]), (294, &Value::Null), "{kind:?}: {case}");
    assert!(!reply.body.to_string().contains(UPSTREAM_TEXT), "{kind:?}: {case}");
}

fn changes(upstream: &Upstream) -> usize {
    upstream.seen(|seen| seen.calls.iter().filter(|call| call.is_change()).count())
}

type Case = (&'static str, fn(&Call) -> UpstreamResponse);

/// Everything but an answer.
const LOST: &[Case] = &[
    ("cut before the head", |_| UpstreamResponse::cut()),
    ("cut in the head", |call| call.changed().short_of(120)),
    ("cut in the body", |call| call.changed().short_of(5)),
    ("cut between chunks", |_| UpstreamResponse::chunked(UPSTREAM_TEXT).short_of(5)),
    ("no HTTP", |_| UpstreamResponse::raw(format!("220 {UPSTREAM_TEXT}\r\n"))),
    ("no JSON", |_| UpstreamResponse::text(200, "text/html", UPSTREAM_TEXT)),
    ("half of the JSON", |_| UpstreamResponse::text(201, "application/json", r#"{"data": {"id": "#)),
    ("half of a text", |_| UpstreamResponse::text(200, "application/json", r#"{"message": "made"#)),
    ("JSON and HTML", |_| UpstreamResponse::text(200, "application/json", "{}<br>")),
    ("a warning before the JSON", |_| UpstreamResponse::text(200, "application/json", "<b>Warning</b> {}")),
    ("no HTTP status of a change", |_| UpstreamResponse::text(202, "text/plain", UPSTREAM_TEXT)),
    ("too large", |_| UpstreamResponse::text(200, "application/json", &" ".repeat(8193))),
];

#[tokio::test]
async fn a_lost_response_leaves_the_outcome_unknown() {
    for (case, script) in LOST {
        let upstream =
            Upstream::answering(move |call| if call.is_change() { script(call) } else { call.appointment() })
                .await;
        let gateway = Gateway::before(upstream.url(), &[("upstream.max_response", "8KiB")]).await;
        for (n, kind) in ChangeKind::EACH.into_iter().enumerate() {
            assert_unknown(&kind.make(&gateway).await, kind, case);
            assert_eq!(changes(&upstream), n + 1, "{kind:?}: {case}");
        }
    }
}

#[tokio::test]
async fn a_connection_that_was_used_before_makes_no_difference() {
    let upstream =
        Upstream::answering(|call| if call.nth % 2 == 0 { UpstreamResponse::cut() } else { call.changed() })
            .await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    for (n, kind) in ChangeKind::EACH.into_iter().enumerate() {
        kind.make(&gateway).await.changed();
        assert_unknown(&kind.make(&gateway).await, kind, "cut on a connection that was used before");
        assert_eq!(changes(&upstream), 2 * (n + 1));
        let (first, second) = upstream.seen(|seen| {
            let [.., first, second] = &seen.calls[..] else { panic!("two calls") };
            (first.connection, second.connection)
        });
        assert_eq!(first, second, "both changes went over one connection");
    }
}

#[tokio::test]
async fn a_response_for_another_appointment_is_an_unknown_outcome() {
    let upstream = Upstream::answering(|call| match call.is_change() {
        true => UpstreamResponse::json(200, &json!({ "data": { "id": id(2), "status": "another" } })),
        false => call.appointment(),
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    for n in [1, 2] {
        gateway.appointment("token", &id(n)).await.appointment();
    }
    for kind in [ChangeKind::Update, ChangeKind::Cancel] {
        assert_unknown(&kind.make(&gateway).await, kind, "another appointment");
    }
    assert_eq!(*gateway.appointment("token", &id(1)).await.appointment(), served(&id(1), "token", 2));
    assert_eq!(*gateway.appointment("token", &id(2)).await.appointment(), served(&id(2), "token", 1));
}

#[tokio::test]
async fn an_unanswered_change_times_out_with_unknown_outcome() {
    let clocks = [
        [("upstream.timeout", "500ms"), ("http.deadline", "60s")],
        [("upstream.timeout", "60s"), ("http.deadline", "500ms")],
    ];
    for settings in clocks {
        let upstream = Upstream::answering(|_| UpstreamResponse::never()).await;
        let gateway = Gateway::before(upstream.url(), &settings).await;
        for (n, kind) in ChangeKind::EACH.into_iter().enumerate() {
            assert_unknown(&kind.make(&gateway).await, kind, "never answered");
            assert_eq!(changes(&upstream), n + 1);
        }
    }
}

#[tokio::test]
async fn a_change_that_could_not_be_sent_was_not_made() {
    // Bound but not listening: the port is reserved, and connections to it fail.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let gateway = Gateway::before(&format!("http://{address}"), &[]).await;
    for kind in ChangeKind::EACH {
        assert_eq!(kind.make(&gateway).await.codes(), ["UPSTREAM_UNAVAILABLE"], "{kind:?}");
    }
}

#[tokio::test]
async fn a_change_queued_until_its_deadline_is_not_sent() {
    let gate = Gate::shut();
    let upstream = Upstream::answering({
        let gate = gate.clone();
        move |call| if call.is_change() { call.changed() } else { call.appointment().once(&gate) }
    })
    .await;
    let settings = [("upstream.max_concurrent", "1"), ("upstream.timeout", "60s"), ("http.deadline", "2s")];
    let gateway = Arc::new(Gateway::before(upstream.url(), &settings).await);
    // Two waiters of one call hold its slot for longer than the deadline of either.
    let read = || {
        let gateway = gateway.clone();
        tokio::spawn(async move { gateway.appointment("token", &id(9)).await })
    };
    let early = read();
    upstream.until_called(1).await;
    let change = tokio::spawn({
        let gateway = gateway.clone();
        async move { ChangeKind::Update.make(&gateway).await }
    });
    sleep(Duration::from_millis(1000)).await;
    let late = read();
    assert_eq!(early.await.unwrap().codes(), ["UPSTREAM_TIMEOUT"]);
    assert_eq!(change.await.unwrap().codes(), ["UPSTREAM_TIMEOUT"]);
    gate.open();
    late.await.unwrap();
    // The slot is free and goes to the next waiter. A new request queues behind the change, if that still waits.
    gateway.appointment("token", &id(8)).await;
    assert_eq!(changes(&upstream), 0);
}

#[tokio::test]
async fn a_disconnecting_client_does_not_cancel_its_change() {
    let gate = Gate::shut();
    let upstream = Upstream::answering({
        let gate = gate.clone();
        move |call| if call.is_change() { call.changed().once(&gate) } else { call.appointment() }
    })
    .await;
    let settings = [("upstream.timeout", "60s"), ("http.deadline", "60s")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    for token in ["token", "other"] {
        assert_eq!(
            *gateway.appointment(token, &id(1)).await.appointment(),
            served(&id(1), token, if token == "token" { 1 } else { 2 })
        );
    }
    let query = format!("mutation {{ cancelAppointment(id: \"{}\") {{ userErrors {{ message }} }} }}", id(1));
    let body = json!({ "query": query }).to_string();
    let request = format!(
        "POST /graphql HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        gateway.secret("token"),
        body.len()
    );
    let mut client = TcpStream::connect(gateway.address()).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    upstream.until_called(3).await;
    drop(client);
    // Time in which the gateway could give up, if it did.
    sleep(Duration::from_millis(200)).await;
    assert_eq!(upstream.seen(|seen| (seen.in_flight, seen.hung_up)), (1, 0));
    // Reads in the meantime are fetched and not cached.
    assert_eq!(gateway.appointment("token", &id(1)).await.appointment()["status"], "call 3");
    gate.open();
    let noted = async {
        while gateway.appointment("token", &id(1)).await.appointment()["status"] != "cancelled" {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(TIMEOUT, noted).await.expect("the change is noted though nobody waited for it");
    let other = gateway.appointment("other", &id(1)).await;
    let nth = upstream.seen(|seen| seen.calls.iter().filter(|call| !call.is_change()).count());
    assert_eq!(*other.appointment(), served(&id(1), "other", nth));
    assert_eq!(changes(&upstream), 1);
}
