//! Mutations: the calls upstream and the responses to the client. A change is sent at most once.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::support::{
    APPOINTMENT_AT, CREATED, Call, ChangeKind, Gate, Gateway, GatewayResponse, RequestForm, UPSTREAM_TEXT,
    Upstream, UpstreamResponse, id,
};

#[tokio::test]
async fn a_change_is_one_call_and_returns_the_new_state() {
    let upstream = Upstream::answering(Call::changed).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let base = "/api/v1/appointments";
    for (kind, method, path, body, now) in [
        (
            ChangeKind::Create,
            "POST",
            base.to_owned(),
            json!({ "appointment_at": APPOINTMENT_AT }),
            (CREATED.to_owned(), "created"),
        ),
        (
            ChangeKind::Update,
            "PATCH",
            format!("{base}/{}", id(1)),
            json!({ "status": "waiting" }),
            (id(1), "waiting"),
        ),
        (ChangeKind::Cancel, "POST", format!("{base}/{}/cancel", id(1)), json!({}), (id(1), "cancelled")),
    ] {
        let before = upstream.calls();
        let reply = kind.make(&gateway).await;
        assert_eq!(*reply.changed(), json!({ "id": now.0, "reference": "token", "status": now.1 }));
        let calls = upstream.seen(|seen| seen.calls[before..].to_vec());
        let [call] = &calls[..] else { panic!("{} calls for {kind:?}", calls.len()) };
        assert_eq!((call.method.as_str(), &call.path, call.json()), (method, &path, body));
        assert_eq!(call.header("content-type"), Some("application/json"));
        assert_eq!(call.header("accept"), Some("application/json"));
        assert_eq!(call.headers.iter().filter(|(name, _)| name == "authorization").count(), 1);
        assert_eq!(call.token(), "token");
    }
}

#[tokio::test]
async fn a_reason_is_sent_with_the_cancellation() {
    let upstream = Upstream::answering(Call::changed).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let query = "mutation ($id: UUID!, $reason: String) { cancelAppointment(id: $id, reason: $reason) { userErrors { message } } }";
    for (reason, expected) in [
        (json!({ "reason": "Ill, \"very\" 🦀" }), json!({ "cancellation_reason": "Ill, \"very\" 🦀" })),
        (json!({ "reason": "" }), json!({ "cancellation_reason": "" })),
        (json!({ "reason": null }), json!({})),
        (json!({}), json!({})),
    ] {
        let mut variables = reason;
        variables["id"] = json!(id(1).to_uppercase());
        gateway.query_with(Some("token"), query, variables).await.payload();
        let call = upstream.seen(|seen| seen.calls.last().unwrap().clone());
        assert_eq!(
            (call.path.as_str(), call.json()),
            (&*format!("/api/v1/appointments/{}/cancel", id(1)), expected)
        );
    }
}

#[tokio::test]
async fn a_success_that_shows_nothing_is_a_success_with_null() {
    for kind in ChangeKind::EACH {
        for answer in [
            UpstreamResponse::text(204, "text/plain", ""),
            UpstreamResponse::text(200, "application/json", ""),
            UpstreamResponse::text(202, "text/plain", "\r\n"),
            UpstreamResponse::text(200, "text/html", "\u{feff}\n"),
            // Complete JSON that is not an appointment.
            UpstreamResponse::text(200, "application/json", "null"),
            UpstreamResponse::text(201, "application/json", "{}"),
            UpstreamResponse::text(200, "application/json", "[]"),
            UpstreamResponse::text(200, "text/plain", "\"OK\""),
            UpstreamResponse::text(200, "text/plain", "true"),
            UpstreamResponse::text(200, "application/json", "\u{feff}{\"message\": \"Accepted.\"}"),
            UpstreamResponse::status(200),
            UpstreamResponse::status(202),
            UpstreamResponse::json(200, &json!({ "data": null })),
            UpstreamResponse::json(200, &json!({ "data": [] })),
            UpstreamResponse::json(200, &json!({ "data": { "reference": UPSTREAM_TEXT } })),
            UpstreamResponse::json(200, &json!({ "data": { "id": 7 } })),
            UpstreamResponse::json(200, &json!({ "id": id(1) })),
        ] {
            let upstream = Upstream::answering(move |_| answer.clone()).await;
            let gateway = Gateway::before(upstream.url(), &[]).await;
            let reply = kind.make(&gateway).await;
            assert_eq!(*reply.payload(), json!({ "appointment": null, "userErrors": [] }), "{kind:?}");
            assert_eq!(upstream.calls(), 1);
        }
    }
}

/// The copies from before are outdated, whether the upstream shows the appointment or not.
#[tokio::test]
async fn a_success_that_shows_nothing_ends_older_copies() {
    let upstream = Upstream::answering(|call| match call.is_change() {
        true => UpstreamResponse::status(202),
        false => call.appointment(),
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    for (n, kind) in [ChangeKind::Update, ChangeKind::Cancel].into_iter().enumerate() {
        let status = format!("call {}", n + 1);
        for _ in 0..2 {
            assert_eq!(gateway.appointment("token", &id(1)).await.appointment()["status"], status);
        }
        kind.make(&gateway).await.payload();
    }
}

#[tokio::test]
async fn a_404_that_is_not_of_the_api_is_no_absence() {
    let html = |status| move |_: &Call| UpstreamResponse::text(status, "text/html", UPSTREAM_TEXT);
    for answer in [404, 410].map(html) {
        let upstream = Upstream::answering(answer).await;
        let gateway = Gateway::before(upstream.url(), &[]).await;
        for (n, kind) in ChangeKind::EACH.into_iter().enumerate() {
            assert_eq!(kind.make(&gateway).await.codes(), ["UPSTREAM_INVALID_RESPONSE"], "{kind:?}");
            assert_eq!(upstream.calls(), n + 1);
        }
    }
}

/// The status alone tells that the change was not made.
#[tokio::test]
async fn the_body_of_a_rejection_need_not_be_complete() {
    for (status, code) in [(404, Some("UPSTREAM_INVALID_RESPONSE")), (409, Some("CONFLICT")), (422, None)] {
        for stalls in [false, true] {
            let upstream = Upstream::answering(move |_| {
                let answer = UpstreamResponse::status(status);
                if stalls { answer.stalled_at(5) } else { answer.short_of(5) }
            })
            .await;
            let gateway = Gateway::before(upstream.url(), &[("upstream.timeout", "1s")]).await;
            let reply = ChangeKind::Update.make(&gateway).await;
            assert_eq!(reply.codes(), code.into_iter().collect::<Vec<_>>(), "{status}, {stalls}");
            assert_eq!(upstream.calls(), 1);
        }
    }
}

#[tokio::test]
async fn upstream_rejections_become_user_errors_with_our_names() {
    let secret = "ada@secret.example";
    let upstream = Upstream::answering(move |_| {
        let about = |text: &str| json!([format!("{UPSTREAM_TEXT}: {text}")]);
        let errors = json!({
            "appointment_at": about("The appointment at field is required."),
            "claimant.email": about(&format!("{secret} must be a valid email address.")),
            "features_bandwidth": about("The selected features bandwidth is invalid."),
            "cancellation_reason": about("The cancellation reason must be a string."),
            "internal_column": about("is odd"),
        });
        UpstreamResponse::json(422, &json!({ "message": UPSTREAM_TEXT, "errors": errors }))
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[("log.level", "trace")]).await;
    for kind in ChangeKind::EACH {
        let before = upstream.calls();
        let reply = kind.make(&gateway).await;
        assert_eq!(reply.payload()["appointment"], Value::Null);
        let mut told = reply.payload()["userErrors"].as_array().unwrap().clone();
        told.sort_by_key(|error| error["field"].to_string());
        let expected = json!([
            { "field": ["appointmentAt"], "message": "This field is required." },
            { "field": ["claimant", "email"], "message": "Must be an e-mail address." },
            { "field": ["features", "bandwidth"], "message": "Must be one of the allowed values." },
            { "field": ["reason"], "message": "Must be a string." },
            { "field": null, "message": "The appointments service rejected this value." },
        ]);
        assert_eq!(json!(told), expected, "{kind:?}");
        assert_eq!(upstream.calls() - before, 1);
        for text in [UPSTREAM_TEXT, secret, "internal_column", "odd"] {
            assert!(!reply.body.to_string().contains(text), "{text} in {}", reply.body);
            assert!(!gateway.stderr().contains(text), "{text} in the log");
        }
    }
}

#[tokio::test]
async fn rejections_with_unreadable_bodies_count() {
    for body in ["", "<html>", "{}", r#"{"errors": {}}"#, r#"{"errors": "no"}"#, "[1, 2]"] {
        let upstream = Upstream::answering(|_| UpstreamResponse::text(422, "application/json", body)).await;
        let gateway = Gateway::before(upstream.url(), &[]).await;
        let reply = ChangeKind::Update.make(&gateway).await;
        let message = "The appointments service rejected this input without naming a field.";
        assert_eq!(reply.payload()["userErrors"], json!([{ "field": null, "message": message }]), "{body}");
    }
}

#[tokio::test]
async fn every_other_status_has_its_code_and_is_not_tried_again() {
    let cases = [
        (400, "UPSTREAM_INVALID_RESPONSE"),
        (401, "UNAUTHENTICATED"),
        (403, "FORBIDDEN"),
        (404, "NOT_FOUND"),
        (410, "NOT_FOUND"),
        (409, "CONFLICT"),
        (429, "RATE_LIMITED"),
        (500, "UPSTREAM_UNAVAILABLE"),
        (502, "UPSTREAM_UNAVAILABLE"),
        (503, "UPSTREAM_UNAVAILABLE"),
        (504, "UPSTREAM_UNAVAILABLE"),
    ];
    for (status, code) in cases {
        let upstream =
            Upstream::answering(move |_| UpstreamResponse::status(status).with("Retry-After", "3")).await;
        let gateway = Gateway::before(upstream.url(), &[("log.level", "trace")]).await;
        for (n, kind) in ChangeKind::EACH.into_iter().enumerate() {
            let reply = kind.make(&gateway).await;
            let code = match (kind, code) {
                // A create names no resource, so a 404 is not an absence.
                (ChangeKind::Create, "NOT_FOUND") => "UPSTREAM_INVALID_RESPONSE",
                _ => code,
            };
            assert_eq!(reply.paths_and_codes(), [(format!("[\"{}\"]", kind.field()), code)], "{status}");
            assert_eq!((reply.status, &reply.body["data"]), (294, &Value::Null));
            let wait = if status == 429 { json!(3) } else { Value::Null };
            assert_eq!(reply.body["errors"][0]["extensions"]["retryAfterSeconds"], wait);
            assert!(!reply.body.to_string().contains(UPSTREAM_TEXT));
            assert_eq!(upstream.calls(), n + 1, "{kind:?} at {status}");
        }
        assert!(!gateway.stderr().contains(UPSTREAM_TEXT));
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        let upstream = Upstream::answering(move |call| match call.id.as_str() {
            "elsewhere" => call.changed(),
            _ => UpstreamResponse::status(status).with("Location", "/elsewhere"),
        })
        .await;
        let gateway = Gateway::before(upstream.url(), &[]).await;
        for (n, kind) in ChangeKind::EACH.into_iter().enumerate() {
            assert_eq!(kind.make(&gateway).await.codes(), ["UPSTREAM_INVALID_RESPONSE"], "{status}");
            assert_eq!(upstream.calls(), n + 1, "{kind:?} at {status}");
        }
    }
}

#[tokio::test]
async fn no_token_no_call() {
    let upstream = Upstream::answering(Call::changed).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let query = format!("mutation {{ cancelAppointment(id: \"{}\") {{ userErrors {{ message }} }} }}", id(1));
    gateway.query(None, &query).await.rejected(401, "UNAUTHENTICATED");
    let form = RequestForm::POST.accepting("application/json");
    let reply = GatewayResponse::of(form.request(&gateway, None, &query)).await;
    assert_eq!(reply.paths_and_codes(), [(r#"["cancelAppointment"]"#.to_owned(), "UNAUTHENTICATED")]);
    assert_eq!(reply.body["data"], Value::Null);
    assert_eq!(upstream.calls(), 0);
}

#[tokio::test]
async fn a_change_is_not_made_over_get() {
    let upstream = Upstream::answering(Call::changed).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let query = format!("mutation {{ cancelAppointment(id: \"{}\") {{ userErrors {{ message }} }} }}", id(1));
    let query = serde_urlencoded::to_string([("query", query)]).unwrap();
    let request = gateway
        .request(reqwest::Method::GET, &format!("/graphql?{query}"))
        .header("accept", "application/graphql-response+json")
        .bearer_auth("token");
    let reply = GatewayResponse::of(request).await;
    assert_eq!((reply.status, reply.codes()), (405, vec!["BAD_REQUEST"]));
    assert_eq!(upstream.calls(), 0);
}

/// Three changes in one operation.
fn three() -> String {
    let cancel = |n| format!("a{n}: cancelAppointment(id: \"{}\") {{ appointment {{ status }} }}", id(n));
    format!("mutation {{ {} {} {} }}", cancel(1), cancel(2), cancel(3))
}

#[tokio::test]
async fn changes_of_one_operation_run_serially() {
    let gate = Gate::shut();
    let upstream = Upstream::answering({
        let gate = gate.clone();
        move |call| call.changed().once(&gate)
    })
    .await;
    let gateway = Arc::new(Gateway::before(upstream.url(), &[]).await);
    let asked = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.query(Some("token"), &three()).await }
    });
    upstream.until_called(1).await;
    // Time in which the others could begin, if they did not wait.
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert_eq!(upstream.calls(), 1);
    gate.open();
    let cancelled = json!({ "appointment": { "status": "cancelled" } });
    let reply = asked.await.unwrap();
    assert_eq!(reply.body, json!({ "data": { "a1": cancelled, "a2": cancelled, "a3": cancelled } }));
    let paths = upstream.seen(|seen| seen.calls.iter().map(|call| call.path.clone()).collect::<Vec<_>>());
    assert_eq!(paths, [1, 2, 3].map(|n| format!("/api/v1/appointments/{}/cancel", id(n))));
    assert_eq!(upstream.seen(|seen| seen.max_in_flight), 1);
}

#[tokio::test]
async fn a_failed_change_has_an_error_at_its_path() {
    let upstream = Upstream::answering(|call| match call.path.contains(&id(2)) {
        true => UpstreamResponse::status(409),
        false => call.changed(),
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let reply = gateway.query(Some("token"), &three()).await;
    assert_eq!(reply.paths_and_codes(), [(r#"["a2"]"#.to_owned(), "CONFLICT")]);
    assert_eq!((reply.status, &reply.body["data"]), (294, &Value::Null));
    // The first was made; whether the third is begun after a failure is left open (GraphQL, section 6.4.4), but none is
    // sent twice.
    let calls = upstream.calls();
    assert!((2..=3).contains(&calls), "{calls} calls");
    assert!(upstream.seen(|seen| seen.calls.iter().all(|call| call.nth == 1)));
}
