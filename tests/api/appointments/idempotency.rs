//! Repeated mutations with an `Idempotency-Key`: each change is sent once, and each client learns its outcome.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::support::{
    CREATED, Call, ChangeKind, Event, Events, Gate, Gateway, GatewayResponse, KeyFile, Keyed, RawConnection,
    TIMEOUT, Upstream, UpstreamResponse, id,
    persisted_query::{by_hash, registering},
    raw,
};

const KEY: &str = "8e03978e-40d5-43dd-bc93-6894a57f9324";

/// Time in which a request could be sent again, if it was.
const MOMENT: Duration = Duration::from_millis(100);

fn keyed(kind: ChangeKind) -> Keyed {
    Keyed::of("token", KEY, kind.operation())
}

/// An upstream that answers changes as `script` says.
async fn upstream(script: impl Fn(&Call) -> UpstreamResponse + Send + Sync + 'static) -> Upstream {
    Upstream::answering(move |call| if call.is_change() { script(call) } else { call.appointment() }).await
}

fn changes(upstream: &Upstream) -> usize {
    // The gateway's own token is requested with POST, too.
    upstream.seen(|seen| seen.calls.iter().filter(|call| call.is_change() && call.id != "token").count())
}

async fn count(gateway: &Gateway, outcome: &str) -> f64 {
    gateway.metrics().await[&format!("gateway_idempotent_changes_total{{outcome=\"{outcome}\"}}")]
}

async fn records(gateway: &Gateway) -> f64 {
    gateway.metrics().await["gateway_cache_entries{cache=\"idempotency_records\"}"]
}

#[tokio::test]
async fn a_repeat_gets_the_outcome_and_sends_nothing() {
    for kind in ChangeKind::EACH {
        let upstream = upstream(Call::changed).await;
        let gateway = Gateway::before(upstream.url(), &[]).await;
        let first = keyed(kind).send(&gateway).await;
        first.changed();
        for _ in 0..3 {
            let again = keyed(kind).send(&gateway).await;
            assert_eq!((again.status, &again.body), (first.status, &first.body), "{kind:?}");
        }
        assert_eq!(upstream.calls(), 1, "{kind:?}: the appointment is cached, too");
        keyed(kind).with_key("another").send(&gateway).await.changed();
        kind.make(&gateway).await.changed();
        assert_eq!(changes(&upstream), 3, "{kind:?}: another key, and none");
        assert_eq!((count(&gateway, "sent").await, count(&gateway, "replayed").await), (2.0, 3.0));
    }
}

#[tokio::test]
async fn a_repeat_reads_the_appointment_anew() {
    let upstream = upstream(Call::changed).await;
    let gateway = Gateway::before(upstream.url(), &[("cache.ttl", "0")]).await;
    keyed(ChangeKind::Create).send(&gateway).await.changed();
    for nth in 1..3 {
        let again = keyed(ChangeKind::Create).send(&gateway).await;
        let expected = json!({ "id": CREATED, "reference": "token", "status": format!("call {nth}") });
        assert_eq!(again.changed(), &expected);
    }
    let without_appointment = ChangeKind::Create.operation();
    let query = without_appointment.0.replace("appointment { id reference status }", "");
    let mutation = Keyed::of("token", "another", (query, without_appointment.1));
    for _ in 0..2 {
        assert_eq!(mutation.send(&gateway).await.payload(), &json!({ "userErrors": [] }));
    }
    assert_eq!((changes(&upstream), upstream.calls()), (2, 4), "an appointment is read if it is selected");
}

type Case = (&'static str, fn(&Call) -> UpstreamResponse);

/// Definite and unknown outcomes.
const RECORDED: &[Case] = &[
    ("no content", |_| UpstreamResponse::text(204, "text/plain", "")),
    ("no appointment", |_| UpstreamResponse::text(200, "application/json", "{}")),
    ("rejected", |_| {
        UpstreamResponse::json(
            422,
            &json!({ "errors": { "claimant.email": ["no"], "status": ["no", "no"] } }),
        )
    }),
    ("forbidden", |_| UpstreamResponse::status(403)),
    ("not found", |_| UpstreamResponse::json(404, &json!({ "message": "Appointment not found." }))),
    ("conflict", |_| UpstreamResponse::status(409)),
    ("an unusual status", |_| UpstreamResponse::status(423)),
    ("a redirect", |_| UpstreamResponse::status(302)),
    ("a timeout of the upstream", |_| UpstreamResponse::status(408)),
    ("failed", |_| UpstreamResponse::status(500)),
    ("no server", |_| UpstreamResponse::status(503).with("Retry-After", "0")),
    ("lost", |_| UpstreamResponse::cut()),
    ("cut", |call| call.changed().short_of(5)),
    ("no JSON", |_| UpstreamResponse::text(200, "text/html", "<html>")),
    ("never", |_| UpstreamResponse::never()),
];

#[tokio::test]
async fn each_outcome_that_may_be_final_is_recorded() {
    for (case, script) in RECORDED {
        let upstream = upstream(script).await;
        let gateway = Gateway::before(upstream.url(), &[("upstream.timeout", "300ms")]).await;
        for (n, kind) in ChangeKind::EACH.into_iter().enumerate() {
            let mutation = keyed(kind).with_key(&format!("{KEY}-{n}"));
            let first = mutation.send(&gateway).await;
            let again = mutation.send(&gateway).await;
            assert_eq!((again.status, &again.body), (first.status, &first.body), "{kind:?}: {case}");
            assert_eq!(upstream.calls(), n + 1, "{kind:?}: {case}");
        }
    }
}

#[tokio::test]
async fn an_unknown_outcome_stays_unknown() {
    let upstream =
        upstream(|call| if call.nth == 1 { UpstreamResponse::cut() } else { call.changed() }).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    for _ in 0..3 {
        assert_eq!(keyed(ChangeKind::Create).send(&gateway).await.codes(), ["OUTCOME_UNKNOWN"]);
    }
    assert_eq!(changes(&upstream), 1);
}

/// Changes that the upstream has not made, for a reason that may pass.
const UNRECORDED: &[Case] = &[
    ("UNAUTHENTICATED", |_| UpstreamResponse::status(401)),
    ("RATE_LIMITED", |_| UpstreamResponse::status(429).with("Retry-After", "0")),
];

#[tokio::test]
async fn a_change_that_was_not_made_is_sent_again() {
    for (code, script) in UNRECORDED {
        let upstream = upstream(move |call| if call.nth < 3 { script(call) } else { call.changed() }).await;
        let gateway = Gateway::before(upstream.url(), &[]).await;
        for _ in 0..2 {
            assert_eq!(keyed(ChangeKind::Create).send(&gateway).await.codes(), [*code]);
            assert_eq!(records(&gateway).await, 0.0, "{code}");
        }
        let made = keyed(ChangeKind::Create).send(&gateway).await;
        assert_eq!(keyed(ChangeKind::Create).send(&gateway).await.changed(), made.changed(), "{code}");
        assert_eq!(changes(&upstream), 3, "{code}");
    }
}

#[tokio::test]
async fn an_open_breaker_records_nothing() {
    let upstream = upstream(|call| {
        if call.nth <= 5 && call.id == "appointments" {
            UpstreamResponse::status(500)
        } else {
            call.changed()
        }
    })
    .await;
    let breaker = [
        ("upstream.breaker_percent", "50"),
        ("upstream.breaker_calls", "5"),
        ("upstream.breaker_window", "60s"),
        ("upstream.breaker_pause", "1s"),
    ];
    let gateway = Gateway::before(upstream.url(), &breaker).await;
    for _ in 0..5 {
        ChangeKind::Create.make(&gateway).await;
    }
    let refused = keyed(ChangeKind::Create).send(&gateway).await;
    assert_eq!((refused.codes(), changes(&upstream)), (vec!["UPSTREAM_UNAVAILABLE"], 5));
    let made = async {
        while keyed(ChangeKind::Create).send(&gateway).await.codes() == ["UPSTREAM_UNAVAILABLE"] {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(TIMEOUT, made).await.expect("the change is made once the breaker closes");
    keyed(ChangeKind::Create).send(&gateway).await.changed();
    assert_eq!(changes(&upstream), 6);
}

#[tokio::test]
async fn invalid_requests_and_inputs_have_no_record() {
    let upstream = upstream(Call::changed).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let null = format!(
        "mutation {{ updateAppointment(id: \"{}\", input: {{ features: null }}) {{ userErrors {{ message }} }} }}",
        id(1)
    );
    for query in ["mutation {", "mutation { unknown }", null.as_str()] {
        let invalid = keyed(ChangeKind::Create).with_parameters(json!({ "query": query }));
        assert_eq!(invalid.send(&gateway).await.codes().len(), 1, "{query}");
    }
    assert_eq!((records(&gateway).await, changes(&upstream)), (0.0, 0));
    keyed(ChangeKind::Create).send(&gateway).await.changed();
}

#[tokio::test]
async fn requests_without_a_credential_have_no_record() {
    let upstream = upstream(Call::changed).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    for (accept, status) in [("application/graphql-response+json", 401), ("application/json", 200)] {
        let request = gateway
            .request(reqwest::Method::POST, "/graphql")
            .header("content-type", "application/json")
            .header("accept", accept)
            .header("idempotency-key", KEY)
            .body(keyed(ChangeKind::Create).parameters.to_string());
        let reply = GatewayResponse::of(request).await;
        assert_eq!((reply.status, reply.codes()), (status, vec!["UNAUTHENTICATED"]));
    }
    assert_eq!((records(&gateway).await, changes(&upstream)), (0.0, 0));
}

#[tokio::test]
async fn repeats_join_a_change_in_flight() {
    let gate = Gate::shut();
    let upstream = upstream({
        let gate = gate.clone();
        move |call| call.changed().once(&gate)
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[("upstream.timeout", "60s")]).await;
    let mutation = keyed(ChangeKind::Create);
    let replies = join_all((0..5).map(|_| mutation.send(&gateway)));
    let open = async {
        upstream.until_called(1).await;
        gateway.until_gauge("gateway_operations_in_flight", 5.0).await;
        sleep(MOMENT).await;
        gate.open();
    };
    let (replies, ()) = tokio::join!(replies, open);
    for reply in &replies {
        assert_eq!(reply.changed()["id"], CREATED);
    }
    assert_eq!(changes(&upstream), 1);
    assert_eq!(count(&gateway, "joined").await, 4.0);
}

#[tokio::test]
async fn a_hang_up_ends_neither_the_change_nor_its_record() {
    for repeats_in_flight in [true, false] {
        let gate = Gate::shut();
        let upstream = upstream({
            let gate = gate.clone();
            move |call| call.changed().once(&gate)
        })
        .await;
        let settings = [("upstream.timeout", "60s"), ("http.deadline", "60s")];
        let gateway = Gateway::before(upstream.url(), &settings).await;
        let mutation = keyed(ChangeKind::Create);
        let headers = format!(
            "Authorization: Bearer {}\r\nIdempotency-Key: \"{KEY}\"\r\n",
            gateway.secret(&mutation.token)
        );
        let stream = TcpStream::connect(gateway.address()).await.unwrap();
        let mut client = RawConnection::of(stream);
        client.send(raw::post(&headers, &mutation.parameters.to_string())).await.unwrap();
        upstream.until_called(1).await;
        drop(client);
        gateway.until_gauge("gateway_operations_in_flight", 0.0).await;
        let reply = if repeats_in_flight {
            let open = async {
                gateway.until_gauge("gateway_operations_in_flight", 1.0).await;
                sleep(MOMENT).await;
                gate.open();
            };
            tokio::join!(mutation.send(&gateway), open).0
        } else {
            gate.open();
            upstream.until(|seen| seen.in_flight == 0).await;
            mutation.send(&gateway).await
        };
        assert_eq!(reply.changed()["id"], CREATED, "{repeats_in_flight}");
        assert_eq!((changes(&upstream), upstream.seen(|seen| seen.hung_up)), (1, 0), "{repeats_in_flight}");
    }
}

#[tokio::test]
async fn a_repeat_after_a_timeout_learns_the_outcome() {
    let gate = Gate::shut();
    let upstream = upstream({
        let gate = gate.clone();
        move |call| call.changed().once(&gate)
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[("upstream.timeout", "60s")]).await;
    let mutation = keyed(ChangeKind::Create);
    for _ in 0..3 {
        let request = mutation.request(&gateway).header("x-request-timeout", "200ms");
        assert_eq!(GatewayResponse::of(request).await.codes(), ["OUTCOME_UNKNOWN"]);
    }
    gate.open();
    assert_eq!(mutation.send(&gateway).await.changed()["id"], CREATED);
    assert_eq!(changes(&upstream), 1);
}

#[tokio::test]
async fn a_repeat_takes_over_a_change_that_was_never_sent() {
    let gate = Gate::shut();
    let upstream = Upstream::answering({
        let gate = gate.clone();
        move |call| if call.is_change() { call.changed() } else { call.appointment().once(&gate) }
    })
    .await;
    let settings = [("upstream.max_concurrent", "1"), ("upstream.timeout", "60s"), ("http.deadline", "60s")];
    let gateway = Arc::new(Gateway::before(upstream.url(), &settings).await);
    let reading = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.appointment("token", &id(9)).await }
    });
    upstream.until_called(1).await;
    let mutation = keyed(ChangeKind::Create);
    let first = mutation.request(&gateway).header("x-request-timeout", "500ms");
    let second = async {
        gateway.until_gauge("gateway_upstream_waiting", 1.0).await;
        mutation.send(&gateway).await
    };
    let open = async {
        gateway.until_gauge("gateway_operations_in_flight", 3.0).await;
        gateway.until_gauge("gateway_operations_in_flight", 2.0).await;
        assert_eq!(changes(&upstream), 0);
        gate.open();
    };
    let (first, second, ()) = tokio::join!(GatewayResponse::of(first), second, open);
    assert_eq!(first.codes(), ["UPSTREAM_TIMEOUT"]);
    assert_eq!(second.changed()["id"], CREATED);
    assert_eq!(changes(&upstream), 1);
    reading.await.unwrap();
}

#[tokio::test]
async fn a_key_belongs_to_one_request() {
    let upstream = upstream(Call::changed).await;
    for statuses in ["2026", "2025"] {
        let gateway = Gateway::before(upstream.url(), &[("http.statuses", statuses)]).await;
        let before = changes(&upstream);
        let mutation = keyed(ChangeKind::Create);
        mutation.send(&gateway).await.changed();
        let with = |name: &str, value: Value| {
            let mut parameters = mutation.parameters.clone();
            parameters[name] = value;
            mutation.with_parameters(parameters)
        };
        let text = mutation.parameters["query"].as_str().unwrap();
        let mut variables = mutation.parameters["variables"].clone();
        variables["input"]["reference"] = "x".into();
        for (case, other) in [
            ("another document", keyed(ChangeKind::Cancel)),
            ("another text", with("query", format!("{text} ").into())),
            ("other variables", with("variables", variables)),
            ("an operation name", with("query", text.replace("mutation", "mutation Create").into())),
        ] {
            for accept in ["application/graphql-response+json", "application/json", "text/event-stream"] {
                let request = other.request_without_accept(&gateway).header("accept", accept);
                let reply = GatewayResponse::of(request).await;
                let message = reply.rejected(422, "BAD_USER_INPUT");
                assert!(message.contains("Idempotency-Key"), "{case}: {message}");
            }
        }
        assert_eq!(changes(&upstream), before + 1);
        assert_eq!(count(&gateway, "mismatch").await, 12.0);
        mutation.send(&gateway).await.changed();
        assert_eq!(changes(&upstream), before + 1, "a refused request leaves the record as it is");
    }
}

#[tokio::test]
async fn requests_of_equal_content_are_equal() {
    let upstream = upstream(Call::changed).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let input = r#"{ "appointmentAt": "2031-03-01T09:00:00Z", "claimant": { "name": "A", "email": null } }"#;
    let query = "mutation Create($input: CreateAppointmentInput!) { createAppointment(input: $input) { appointment { id } } }";
    let body = |variables: &str, document: &Value| {
        let mut body = document.to_string();
        body.pop();
        format!("{body}, \"operationName\": \"Create\", \"variables\": {variables}}}")
    };
    let reordered =
        r#"{ "claimant": { "email": null, "name": "A" }, "appointmentAt": "2031-03-01T09:00:00Z" }"#;
    for (n, (variables, document)) in [
        (format!("{{ \"input\": {input} }}"), json!({ "query": query })),
        (format!("{{ \"input\": {reordered} }}"), json!({ "query": query })),
        (format!("{{\"input\":{input}}}"), registering(query)),
        (format!("{{ \"input\": {input} }}"), by_hash(query)),
    ]
    .into_iter()
    .enumerate()
    {
        let request = keyed(ChangeKind::Create).request(&gateway).body(body(&variables, &document));
        let reply = GatewayResponse::of(request).await;
        let expected = json!({ "createAppointment": { "appointment": { "id": CREATED } } });
        assert_eq!(reply.body, json!({ "data": expected }), "{n}");
    }
    assert_eq!(changes(&upstream), 1);
}

#[tokio::test]
async fn recorded_changes_of_an_operation_are_not_sent_again() {
    let upstream = upstream(|call| match (call.id.as_str(), call.nth) {
        ("cancel", 1) => UpstreamResponse::status(429).with("Retry-After", "0"),
        _ => call.changed(),
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let query = format!(
        "mutation {{
            a: createAppointment(input: {{ appointmentAt: \"2031-03-01T09:00:00Z\" }}) {{ appointment {{ id status }} }}
            b: cancelAppointment(id: \"{0}\") {{ appointment {{ id status }} }}
            c: updateAppointment(id: \"{0}\", input: {{ status: \"late\" }}) {{ appointment {{ status }} }}
        }}",
        id(1)
    );
    let mutation = Keyed::of("token", KEY, (query, json!({})));
    let first = mutation.send(&gateway).await;
    assert_eq!(first.paths_and_codes(), [("[\"b\"]".to_owned(), "RATE_LIMITED")]);
    assert_eq!(changes(&upstream), 2, "the change after the failed one is not sent");
    for _ in 0..2 {
        let again = mutation.send(&gateway).await;
        let created = json!({ "appointment": { "id": CREATED, "status": "created" } });
        assert_eq!(again.body["data"]["a"], created);
        assert_eq!(again.body["data"]["c"], json!({ "appointment": { "status": "late" } }));
        assert_eq!(again.body.get("errors"), None);
        assert_eq!(changes(&upstream), 4, "one creation, two cancellations, one update");
    }
    let creations = upstream.calls_for("appointments");
    assert_eq!(creations, 1);
}

#[tokio::test]
async fn a_repeat_shows_each_change_after_it_was_made() {
    let gate = Gate::shut();
    let upstream = upstream({
        let gate = gate.clone();
        move |call| match call.id.as_str() {
            "cancel" => call.changed().once(&gate),
            _ => call.changed(),
        }
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[("upstream.timeout", "60s")]).await;
    let query = format!(
        "mutation {{
            a: updateAppointment(id: \"{0}\", input: {{ status: \"late\" }}) {{ appointment {{ status }} }}
            b: cancelAppointment(id: \"{0}\") {{ appointment {{ status }} }}
        }}",
        id(1)
    );
    let mutation = Keyed::of("token", KEY, (query, json!({})));
    let repeat = async {
        upstream.until_called(2).await;
        mutation.send(&gateway).await
    };
    let open = async {
        // The update, the cancellation, and a read for the repeat.
        upstream.until_called(3).await;
        sleep(MOMENT).await;
        gate.open();
    };
    let (first, repeat, ()) = tokio::join!(mutation.send(&gateway), repeat, open);
    assert_eq!(first.body.get("errors"), None);
    let status = |field: &str| &repeat.body["data"][field]["appointment"]["status"];
    assert_eq!((status("a"), status("b")), (&json!("call 1"), &json!("cancelled")), "{repeat:?}");
    assert_eq!(changes(&upstream), 2);
}

#[tokio::test]
async fn a_failed_change_keeps_later_ones_unsent_in_repeats() {
    let upstream = upstream(|call| match call.id.as_str() {
        "cancel" => UpstreamResponse::cut(),
        _ => call.changed(),
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let query = format!(
        "mutation {{
            a: cancelAppointment(id: \"{0}\") {{ appointment {{ id }} }}
            b: updateAppointment(id: \"{0}\", input: {{ status: \"late\" }}) {{ appointment {{ id }} }}
        }}",
        id(1)
    );
    let mutation = Keyed::of("token", KEY, (query, json!({})));
    for _ in 0..3 {
        let reply = mutation.send(&gateway).await;
        assert_eq!(reply.paths_and_codes(), [("[\"a\"]".to_owned(), "OUTCOME_UNKNOWN")]);
        assert_eq!(changes(&upstream), 1);
    }
}

#[tokio::test]
async fn a_repeat_shows_what_its_caller_may_read() {
    for (status, code) in [(401, "UNAUTHENTICATED"), (403, "FORBIDDEN"), (500, "UPSTREAM_UNAVAILABLE")] {
        let upstream = Upstream::answering(move |call| {
            if call.is_change() { call.changed() } else { UpstreamResponse::status(status) }
        })
        .await;
        let settings = [("cache.ttl", "0"), ("cache.stale_if_error", "0")];
        let gateway = Gateway::before(upstream.url(), &settings).await;
        let mutation = keyed(ChangeKind::Create);
        mutation.send(&gateway).await.changed();
        for _ in 0..2 {
            let again = mutation.send(&gateway).await;
            let path = "[\"createAppointment\",\"appointment\"]".to_owned();
            assert_eq!(again.paths_and_codes(), [(path, code)], "{status}");
            let payload = json!({ "appointment": null, "userErrors": [] });
            assert_eq!(again.body["data"], json!({ "createAppointment": payload }), "{status}");
        }
        assert_eq!(changes(&upstream), 1, "{status}");
    }
    let upstream = Upstream::answering(|call| match call.is_change() {
        true => call.changed(),
        false => UpstreamResponse::json(404, &json!({ "message": "Appointment not found." })),
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[("cache.ttl", "0")]).await;
    keyed(ChangeKind::Create).send(&gateway).await.changed();
    let again = keyed(ChangeKind::Create).send(&gateway).await;
    assert_eq!(again.changed(), &Value::Null, "it was made, and is gone");
}

#[tokio::test]
async fn callers_with_the_same_key_share_nothing() {
    let gate = Gate::shut();
    let upstream = upstream({
        let gate = gate.clone();
        move |call| call.changed().once(&gate)
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[("upstream.timeout", "60s")]).await;
    let mutation = keyed(ChangeKind::Create);
    let (one, other) = (mutation.by("one"), mutation.by("other"));
    let open = async {
        upstream.until_called(2).await;
        gate.open();
    };
    let (first, second, ()) = tokio::join!(one.send(&gateway), other.send(&gateway), open);
    assert_eq!(
        (&first.changed()["reference"], &second.changed()["reference"]),
        (&json!("one"), &json!("other"))
    );
    for (mutation, token) in [(&one, "one"), (&other, "other")] {
        assert_eq!(mutation.send(&gateway).await.changed()["reference"], token);
    }
    // The key of another caller's request does not belong to that request.
    let cancellation = keyed(ChangeKind::Cancel).by("third");
    cancellation.send(&gateway).await.changed();
    assert_eq!(changes(&upstream), 3);
    let tokens: Vec<_> = upstream.seen(|seen| {
        let calls = seen.calls.iter().filter(|call| call.is_change());
        calls.map(|call| call.token().to_owned()).collect()
    });
    assert_eq!(tokens.iter().filter(|token| *token == "one").count(), 1);
    assert_eq!(tokens.iter().filter(|token| *token == "other").count(), 1);
}

#[tokio::test]
async fn service_callers_with_a_shared_cache_have_records_of_their_own() {
    let upstream = Upstream::answering(|call| match call.id.as_str() {
        "token" => crate::support::service_token(call, 3600),
        _ if call.is_change() => call.changed(),
        _ => call.appointment(),
    })
    .await;
    let keys = KeyFile::of(&["alice", "bob", "alice"]);
    let settings = [("callers.api_keys_file", keys.path()), ("callers.share_cache", "true")];
    let gateway = Gateway::of_service(&upstream, &settings).await;
    // The third key is another one of the first identity.
    for (index, expected) in [(0, 1), (1, 2), (2, 2), (0, 2), (1, 2)] {
        let reply = keyed(ChangeKind::Create).by(keys.key(index)).send(&gateway).await;
        assert_eq!(reply.changed()["id"], CREATED);
        assert_eq!(changes(&upstream), expected, "{index}");
    }
    let other = keyed(ChangeKind::Cancel).by(keys.key(2)).send(&gateway).await;
    other.rejected(422, "BAD_USER_INPUT");
}

#[tokio::test]
async fn a_mutation_over_an_event_stream_is_sent_once() {
    let upstream = upstream(Call::changed).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let mutation = keyed(ChangeKind::Create);
    let event = async || {
        let request = mutation.request_without_accept(&gateway).header("accept", "text/event-stream");
        let mut events = Events::of(request).await;
        let Event::Next(response) = events.event().await else { panic!("a response") };
        events.completed().await;
        response
    };
    let first = event().await;
    assert_eq!(first["data"]["createAppointment"]["appointment"]["id"], CREATED);
    assert_eq!(event().await, first);
    assert_eq!(mutation.send(&gateway).await.body, first, "a repeat over another transport");
    assert_eq!(changes(&upstream), 1);
}
