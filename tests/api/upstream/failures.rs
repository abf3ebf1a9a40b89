//! A failing id never fails its siblings, and a slow id never delays other operations (invariant 4). Each upstream
//! failure has its error, which never contains text of the upstream.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::net::TcpSocket;

use crate::support::{
    Call, Gate, Gateway, GatewayResponse, UPSTREAM_TEXT, Upstream, UpstreamResponse, id, ids, served,
};

/// Of 20 ids, one is unknown, one forbidden, one fails, one is never answered and one is answered with garbage.
async fn upstream_with_five_broken_ids() -> Upstream {
    let upstream = Upstream::start().await;
    upstream.on(&id(2), |_| UpstreamResponse::status(404));
    upstream.on(&id(5), |_| UpstreamResponse::status(403));
    upstream.on(&id(7), |_| UpstreamResponse::status(500));
    upstream.on(&id(11), |_| UpstreamResponse::never());
    upstream.on(&id(19), |_| UpstreamResponse::text(200, "application/json", "}{ garbage"));
    upstream
}

const FAULTS: [(usize, &str); 4] = [
    (5, "FORBIDDEN"),
    (7, "UPSTREAM_UNAVAILABLE"),
    (11, "UPSTREAM_TIMEOUT"),
    (19, "UPSTREAM_INVALID_RESPONSE"),
];

fn expected(n: usize) -> Value {
    if [2, 5, 7, 11, 19].contains(&n) { Value::Null } else { served(&id(n), "token", 1) }
}

/// `place` says where in the answer the id with a number is.
fn assert_faults(reply: &GatewayResponse, place: impl Fn(usize) -> Value) {
    let mut expected = FAULTS.map(|(n, code)| (place(n).to_string(), code));
    expected.sort();
    assert_eq!(reply.paths_and_codes(), expected);
}

/// The clocks that may end the call that is never answered: of the call, or of the operation.
const CLOCKS: [[(&str, &str); 2]; 2] = [
    [("upstream.timeout", "2s"), ("http.deadline", "60s")],
    [("upstream.timeout", "60s"), ("http.deadline", "2s")],
];

#[tokio::test]
async fn five_failing_ids_of_twenty_leave_fifteen_in_a_list() {
    for clocks in CLOCKS {
        let upstream = upstream_with_five_broken_ids().await;
        let gateway = Gateway::before(upstream.url(), &clocks).await;
        let reply = gateway.appointments("token", &ids(0..20)).await;
        assert_eq!(reply.status, 294);
        let list = (0..20).map(expected).collect::<Vec<_>>();
        assert_eq!(reply.body["data"], json!({ "appointmentsByIds": list }));
        assert_faults(&reply, |n| json!(["appointmentsByIds", n]));
        assert_eq!(upstream.calls(), 20);
    }
}

#[tokio::test]
async fn five_failing_ids_of_twenty_leave_fifteen_in_separate_fields() {
    let upstream = upstream_with_five_broken_ids().await;
    let gateway = Gateway::before(upstream.url(), &CLOCKS[0]).await;
    let field = |n: usize| format!("a{n}: appointment(id: \"{}\") {{ id reference status }}", id(n));
    let query = format!("{{ {} }}", (0..20).map(field).collect::<Vec<_>>().join(" "));
    let reply = gateway.query(Some("token"), &query).await;
    assert_eq!(reply.status, 294);
    let fields = (0..20).map(|n| (format!("a{n}"), expected(n))).collect::<serde_json::Map<_, _>>();
    assert_eq!(reply.body["data"], Value::Object(fields));
    assert_faults(&reply, |n| json!([format!("a{n}")]));
    assert_eq!(upstream.calls(), 20);
}

#[tokio::test]
async fn a_slow_id_of_one_operation_does_not_delay_another() {
    let gate = Gate::shut();
    let upstream = Upstream::start().await;
    upstream.on(&id(0), {
        let gate = gate.clone();
        move |call| call.appointment().once(&gate)
    });
    let settings = [("upstream.timeout", "60s"), ("http.deadline", "60s")];
    let gateway = Arc::new(Gateway::before(upstream.url(), &settings).await);
    let slow = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.appointments("token", &ids(0..3)).await }
    });
    upstream.until_called(3).await;
    // The same caller and another one, for ids that the slow operation asks for too, and for others.
    for token in ["token", "other"] {
        let reply = gateway.appointments(token, &ids(1..5)).await;
        assert_eq!(reply.paths_and_codes(), []);
    }
    assert!(!slow.is_finished());
    gate.open();
    let expected = (0..3).map(|n| served(&id(n), "token", 1)).collect::<Vec<_>>();
    assert_eq!(slow.await.unwrap().body, json!({ "data": { "appointmentsByIds": expected } }));
}

const SECRET: &str = "very-secret-token";

#[tokio::test]
async fn upstream_failures_have_their_code_and_hide_upstream_text() {
    type Case = (&'static str, fn(&Call) -> UpstreamResponse, &'static str);
    let cases: &[Case] = &[
        ("403", |_| UpstreamResponse::status(403), "FORBIDDEN"),
        ("429", |_| UpstreamResponse::status(429), "RATE_LIMITED"),
        ("500", |_| UpstreamResponse::status(500), "UPSTREAM_UNAVAILABLE"),
        (
            "502 from a load balancer",
            |_| UpstreamResponse::text(502, "text/html", UPSTREAM_TEXT),
            "UPSTREAM_UNAVAILABLE",
        ),
        ("503 with nothing", |_| UpstreamResponse::text(503, "text/plain", ""), "UPSTREAM_UNAVAILABLE"),
        ("504", |_| UpstreamResponse::status(504), "UPSTREAM_UNAVAILABLE"),
        ("599", |_| UpstreamResponse::status(599), "UPSTREAM_UNAVAILABLE"),
        ("no content", |_| UpstreamResponse::raw("HTTP/1.1 204 Said\r\n\r\n"), "UPSTREAM_INVALID_RESPONSE"),
        ("400", |_| UpstreamResponse::status(400), "UPSTREAM_INVALID_RESPONSE"),
        ("418", |_| UpstreamResponse::status(418), "UPSTREAM_INVALID_RESPONSE"),
        ("422", |_| UpstreamResponse::status(422), "UPSTREAM_INVALID_RESPONSE"),
        ("302 to nowhere", |_| UpstreamResponse::status(302), "UPSTREAM_INVALID_RESPONSE"),
        ("cut before the head", |_| UpstreamResponse::cut(), "UPSTREAM_UNAVAILABLE"),
        ("cut in the head", |call| call.appointment().short_of(120), "UPSTREAM_UNAVAILABLE"),
        ("cut in the body", |call| call.appointment().short_of(5), "UPSTREAM_UNAVAILABLE"),
        (
            "cut between chunks",
            |_| UpstreamResponse::chunked(UPSTREAM_TEXT).short_of(5),
            "UPSTREAM_UNAVAILABLE",
        ),
        ("no HTTP", |_| UpstreamResponse::raw(format!("220 {UPSTREAM_TEXT}\r\n")), "UPSTREAM_UNAVAILABLE"),
        ("never", |_| UpstreamResponse::never(), "UPSTREAM_TIMEOUT"),
        ("never the rest of the head", |call| call.appointment().stalled_at(120), "UPSTREAM_TIMEOUT"),
        ("never the rest of the body", |call| call.appointment().stalled_at(1), "UPSTREAM_TIMEOUT"),
        (
            "too large",
            |_| UpstreamResponse::text(200, "application/json", &"[".repeat(8193)),
            "UPSTREAM_INVALID_RESPONSE",
        ),
        (
            "too large, unannounced",
            |_| UpstreamResponse::chunked(&" ".repeat(8193)),
            "UPSTREAM_INVALID_RESPONSE",
        ),
        // The declared length suffices to reject the response.
        (
            "too large, announced and never sent",
            |_| UpstreamResponse::text(200, "application/json", &" ".repeat(100_000)).stalled_at(99_990),
            "UPSTREAM_INVALID_RESPONSE",
        ),
        ("nothing", |_| UpstreamResponse::text(200, "application/json", ""), "UPSTREAM_INVALID_RESPONSE"),
        ("HTML", |_| UpstreamResponse::text(200, "text/html", UPSTREAM_TEXT), "UPSTREAM_INVALID_RESPONSE"),
        (
            "half of the JSON",
            |call| {
                UpstreamResponse::text(
                    200,
                    "application/json",
                    &format!(r#"{{"data": {{"id": "{}", "#, call.id),
                )
            },
            "UPSTREAM_INVALID_RESPONSE",
        ),
        ("no data", |_| UpstreamResponse::status(200), "UPSTREAM_INVALID_RESPONSE"),
        ("null", |_| UpstreamResponse::json(200, &json!({ "data": null })), "UPSTREAM_INVALID_RESPONSE"),
        (
            "a list",
            |call| UpstreamResponse::json(200, &json!({ "data": [{ "id": call.id }] })),
            "UPSTREAM_INVALID_RESPONSE",
        ),
        (
            "no id",
            |_| UpstreamResponse::json(200, &json!({ "data": { "reference": UPSTREAM_TEXT } })),
            "UPSTREAM_INVALID_RESPONSE",
        ),
        (
            "id of a wrong kind",
            |_| UpstreamResponse::json(200, &json!({ "data": { "id": 17 } })),
            "UPSTREAM_INVALID_RESPONSE",
        ),
        (
            "another id",
            |_| UpstreamResponse::json(200, &json!({ "data": { "id": id(9999) } })),
            "UPSTREAM_INVALID_RESPONSE",
        ),
    ];
    let upstream = Upstream::start().await;
    let settings = [("upstream.timeout", "2s"), ("upstream.max_response", "8KiB"), ("log.level", "trace")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    for (n, (_, script, _)) in cases.iter().enumerate() {
        upstream.on(&id(n), *script);
    }
    // All in one operation: the slow ones together, and none of them harms another.
    let field = |n: usize| format!("a{n}: appointment(id: \"{}\") {{ id }}", id(n));
    let query = format!("{{ {} }}", (0..=cases.len()).map(field).collect::<Vec<_>>().join(" "));
    let reply = gateway.query(Some(SECRET), &query).await;

    for (n, (name, _, code)) in cases.iter().enumerate() {
        let path = json!([format!("a{n}")]);
        let errors = reply.body["errors"].as_array().unwrap().iter().filter(|error| error["path"] == path);
        let codes = errors.map(|error| error["extensions"]["code"].clone()).collect::<Vec<_>>();
        assert_eq!(codes, [*code], "{name}");
        assert_eq!(reply.body["data"][format!("a{n}")], Value::Null, "{name}");
        assert_eq!(upstream.calls_for(&id(n)), 1, "{name}");
    }
    assert_eq!(reply.codes().len(), cases.len());
    assert_eq!(reply.body["data"][format!("a{}", cases.len())], json!({ "id": id(cases.len()) }));
    // By itself: a 401 ends the other calls of its operation.
    upstream.on(&id(200), |_| UpstreamResponse::status(401));
    let rejected = gateway.appointment(SECRET, &id(200)).await;
    assert_eq!(rejected.codes(), ["UNAUTHENTICATED"]);
    let (answer, log) = (reply.body.to_string() + &rejected.body.to_string(), gateway.stderr());
    for secret in [UPSTREAM_TEXT, SECRET] {
        assert!(!answer.contains(secret), "{secret} in {answer}");
        assert!(!log.contains(secret), "{secret} in the log: {log}");
    }
    // The operator may read where the upstream is, clients may not.
    assert!(!answer.contains(upstream.url().trim_start_matches("http://")), "{answer}");
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_unavailable() {
    // Bound but not listening: the port is reserved, and connections to it fail.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let gateway = Gateway::before(&format!("http://{address}"), &[]).await;
    let reply = gateway.appointment("token", &id(1)).await;
    assert_eq!(reply.paths_and_codes(), [(r#"["appointment"]"#.to_owned(), "UPSTREAM_UNAVAILABLE")]);
    assert!(!reply.body.to_string().contains(&address));
}

#[tokio::test]
async fn a_limited_rate_says_when_to_come_back_if_the_upstream_does() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    for (n, (value, expected)) in
        [(Some("7"), json!(7)), (Some("0"), json!(0)), (Some("soon"), Value::Null), (None, Value::Null)]
            .into_iter()
            .enumerate()
    {
        upstream.on(&id(n), move |_| match value {
            Some(value) => UpstreamResponse::status(429).with("Retry-After", value),
            None => UpstreamResponse::status(429),
        });
        let reply = gateway.appointment("token", &id(n)).await;
        assert_eq!(reply.codes(), ["RATE_LIMITED"]);
        assert_eq!(reply.body["errors"][0]["extensions"]["retryAfterSeconds"], expected, "{value:?}");
    }
}

#[tokio::test]
async fn upstream_responses_at_the_size_limit_are_read() {
    let upstream = Upstream::start().await;
    let sized = |call: &Call| format!("{:<8192}", json!({ "data": { "id": call.id } }));
    upstream.on(&id(1), move |call| UpstreamResponse::text(200, "application/json", &sized(call)));
    upstream.on(&id(2), move |call| UpstreamResponse::chunked(&sized(call)));
    // The declared media type does not matter: the id decides.
    upstream.on(&id(3), |call| {
        UpstreamResponse::text(200, "text/html", &json!({ "data": { "id": call.id } }).to_string())
    });
    upstream
        .on(&id(4), |call| UpstreamResponse::json(200, &json!({ "data": { "id": call.id.to_uppercase() } })));
    let gateway = Gateway::before(upstream.url(), &[("upstream.max_response", "8KiB")]).await;
    let reply = gateway.appointments("token", &ids(1..5)).await;
    let expected =
        (1..5).map(|n| json!({ "id": id(n), "reference": null, "status": null })).collect::<Vec<_>>();
    assert_eq!(reply.body, json!({ "data": { "appointmentsByIds": expected } }));
}

/// A proxy, or another application at a wrong base path, says nothing about the appointment.
#[tokio::test]
async fn a_404_that_is_not_of_the_api_is_no_absence() {
    for status in [404, 410] {
        for body in
            ["", "<html>Not Found</html>", "Not Found", "\"Not Found\"", "null", "[1]", r#"{"message": "#]
        {
            let upstream =
                Upstream::answering(move |_| UpstreamResponse::text(status, "application/json", body)).await;
            let gateway = Gateway::before(upstream.url(), &[]).await;
            for calls in 1..=2 {
                let reply = gateway.appointment("token", &id(1)).await;
                assert_eq!(reply.codes(), ["UPSTREAM_INVALID_RESPONSE"], "{status}: {body}");
                assert_eq!(upstream.calls(), calls, "{status}: {body}");
            }
        }
    }
}

#[tokio::test]
async fn a_404_of_the_api_is_an_absence_in_any_notation() {
    for body in [r#"{"message": "No query results"}"#, "{}", "[]", "\u{feff}{}"] {
        let upstream = Upstream::answering(move |_| UpstreamResponse::text(404, "text/html", body)).await;
        let gateway = Gateway::before(upstream.url(), &[]).await;
        for _ in 0..2 {
            assert_eq!(*gateway.appointment("token", &id(1)).await.appointment(), Value::Null, "{body}");
        }
        assert_eq!(upstream.calls(), 1, "{body}");
    }
}

#[tokio::test]
async fn status_410_means_absent() {
    let upstream = Upstream::answering(|_| UpstreamResponse::status(410)).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    assert_eq!(*gateway.appointment("token", &id(1)).await.appointment(), Value::Null);
}

#[tokio::test]
async fn redirects_are_followed_on_the_upstream_and_nowhere_else() {
    let other = Upstream::start().await;
    let upstream = Upstream::answering({
        let other = other.url().to_owned();
        move |call| {
            let to = |target: String| UpstreamResponse::status(302).with("Location", &target);
            match call.path.strip_prefix("/api/v1/appointments/") {
                Some(it) if it == id(1) => to(format!("/moved/{it}")),
                Some(it) if it == id(2) => to(format!("{other}/api/v1/appointments/{it}")),
                Some(it) if it == id(3) => to(call.path.clone()),
                Some(it) => to(format!("//{}/{it}", other.trim_start_matches("http://"))),
                None => call.appointment(),
            }
        }
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let reply = gateway.appointments("token", &ids(1..5)).await;
    let expected = json!({ "appointmentsByIds": [served(&id(1), "token", 1), null, null, null] });
    assert_eq!(reply.body["data"], expected);
    let invalid = |n| (format!(r#"["appointmentsByIds",{n}]"#), "UPSTREAM_INVALID_RESPONSE");
    assert_eq!(reply.paths_and_codes(), [invalid(1), invalid(2), invalid(3)]);
    assert_eq!(other.seen(|seen| seen.connections), 0, "the token goes to no other host");
    assert_eq!(upstream.calls_for(&id(3)), 4, "a circle is left after three redirects");
}

/// User information in the address of a redirect must not become a credential.
#[tokio::test]
async fn a_redirect_with_user_information_sends_no_basic_credential() {
    let upstream = Upstream::answering(move |call| {
        let host = call.header("host").unwrap();
        match call.path.strip_prefix("/api/v1/appointments") {
            Some(rest) => {
                let target = format!("http://user:canary-page@{host}/moved{rest}");
                UpstreamResponse::status(307).with("Location", &target)
            }
            None => call.appointment(),
        }
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    gateway.appointment("token", &id(1)).await;
    gateway.list("token", json!({})).await;
    let moved = upstream.seen(|seen| seen.calls.clone());
    assert!(moved.len() >= 2, "both were asked for");
    for call in moved {
        let credentials = call.headers.iter().filter(|(name, _)| name == "authorization");
        let credentials = credentials.map(|(_, value)| value.split(' ').next().unwrap()).collect::<Vec<_>>();
        assert_eq!((credentials, call.token()), (vec!["Bearer"], "token"), "{}", call.path);
    }
}

#[tokio::test]
async fn a_failure_is_one_operations_and_not_the_next_ones() {
    let upstream = Upstream::answering(|call| match call.nth {
        1 => UpstreamResponse::cut(),
        2 => UpstreamResponse::status(503),
        _ => call.appointment().after(Duration::from_millis(10)),
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    for expected in [&["UPSTREAM_UNAVAILABLE"][..], &["UPSTREAM_UNAVAILABLE"], &[]] {
        assert_eq!(gateway.appointment("token", &id(1)).await.codes(), expected);
    }
}
