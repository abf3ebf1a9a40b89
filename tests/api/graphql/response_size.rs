//! The size of a response: above `limits.answer` an error replaces the data, on every transport, and the gateway
//! allocates no more than for a response at the limit.

use serde_json::{Value, json};

use crate::support::{
    Call, Events, Gateway, List, Pagination, RequestForm, Socket, Upstream, UpstreamResponse, id, peak_memory,
};

const LARGE: usize = 200_000;

/// Above `limits.answer` with its buffers, and far below the answers that the tests ask for.
const MEMORY: u64 = 48 << 10;

/// An upstream with appointments of 200 KB each.
async fn large_upstream() -> Upstream {
    Upstream::answering(|call| match call.number("page") {
        Some(_) => List::of(2, Pagination::Meta).page_of(call, |n| large(&id(n))),
        None => large_answer(call),
    })
    .await
}

fn large(id: &str) -> Value {
    json!({ "id": id, "reference": "x".repeat(LARGE), "url": "y".repeat(LARGE), "status": "booked" })
}

fn large_answer(call: &Call) -> UpstreamResponse {
    let id = call.path.split('/').nth(4).unwrap_or_default();
    UpstreamResponse::json(200, &json!({ "data": large(id) }))
}

/// `count` aliases of a large field.
fn aliases(count: usize) -> String {
    (0..count).map(|n| format!("a{n}: reference ")).collect()
}

/// Small requests for answers of 10 to 60 MB.
fn queries() -> [(&'static str, String); 5] {
    let fields = "reference url ";
    let root = (0..25).map(|n| format!("a{n}: appointment(id: {:?}) {{ {fields} }} ", id(1)));
    let ids = vec![id(1); 40];
    let by_ids = (0..3).map(|n| format!("a{n}: appointmentsByIds(ids: {ids:?}) {{ {fields} }} "));
    [
        ("aliases", format!("{{ {} }}", root.collect::<String>())),
        ("ids", format!("{{ {} }}", by_ids.collect::<String>())),
        ("nodes", format!("{{ appointments(first: 2) {{ nodes {{ {} }} }} }}", aliases(30))),
        ("edges", format!("{{ appointments(first: 2) {{ edges {{ node {{ {} }} }} }} }}", aliases(30))),
        ("one appointment", format!("{{ appointment(id: {:?}) {{ {} }} }}", id(1), aliases(50))),
    ]
}

/// That `answer` has the error of `limits.answer` in place of all data, at `path`.
#[track_caller]
fn assert_too_large(answer: &Value, maximum: u64) {
    let fields = answer.as_object().unwrap().keys().collect::<Vec<_>>();
    assert_eq!(fields, ["data", "errors"], "{fields:?}");
    assert_eq!(answer["data"], Value::Null);
    let errors = answer["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{errors:?}");
    let extensions = &errors[0]["extensions"];
    assert_eq!(
        extensions,
        &json!({ "code": "QUERY_TOO_COMPLEX", "limit": "answer", "maximum": maximum }),
        "{errors:?}"
    );
    assert!(errors[0]["message"].as_str().unwrap().contains("limits.answer"), "{errors:?}");
}

#[tokio::test]
async fn an_oversized_response_is_an_error_on_every_transport() {
    let upstream = large_upstream().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let mut socket = Socket::connect(&gateway, "token").await;
    gateway.query(Some("token"), &format!("{{ appointment(id: {:?}) {{ reference }} }}", id(1))).await;
    let before = peak_memory(&gateway);
    let mut refused = 0.0;
    for (name, query) in queries() {
        for way in RequestForm::EACH {
            let reply = way.ask(&gateway, "token", &query).await;
            let status = if way.accept == "application/json" { 200 } else { 294 };
            assert_eq!(reply.status, status, "{name} {way:?}");
            assert_too_large(&reply.body, 8 << 20);
        }
        let mut events = Events::open(&gateway, "token", &query).await;
        assert_too_large(&events.next().await, 8 << 20);
        events.completed().await;
        socket.subscribe(name, &query).await;
        let message = socket.receive().await;
        assert_eq!((&message["type"], &message["id"]), (&json!("next"), &json!(name)));
        assert_too_large(&message["payload"], 8 << 20);
        assert_eq!(socket.receive().await, json!({ "type": "complete", "id": name }));
        refused += RequestForm::EACH.len() as f64 + 2.0;
    }
    assert_eq!(gateway.rejections("answer").await, refused);
    let more = peak_memory(&gateway) - before;
    assert!(more < MEMORY, "{more} KiB");
    // None of it is in the answer cache.
    let metrics = gateway.metrics().await;
    assert_eq!(metrics["gateway_answer_lookups_total{outcome=\"hit\"}"], 0.0);
}

#[tokio::test]
async fn a_response_at_the_limit_is_served() {
    let upstream = large_upstream().await;
    let query = format!("{{ appointment(id: {:?}) {{ {} }} }}", id(1), aliases(3));
    let length = json!({ "data": { "appointment": {
        "a0": "x".repeat(LARGE), "a1": "x".repeat(LARGE), "a2": "x".repeat(LARGE)
    } } })
    .to_string()
    .len();
    let at = Gateway::before(upstream.url(), &[("limits.answer", &format!("{length}B"))]).await;
    let below = Gateway::before(upstream.url(), &[("limits.answer", &format!("{}B", length - 1))]).await;
    for way in RequestForm::EACH {
        let reply = way.ask(&at, "token", &query).await;
        assert_eq!(reply.body.get("errors"), None, "{way:?}");
        assert_too_large(&way.ask(&below, "token", &query).await.body, length as u64 - 1);
    }
    for (gateway, is_served) in [(&at, true), (&below, false)] {
        let mut events = Events::open(gateway, "token", &query).await;
        assert_eq!(events.next().await.get("errors").is_none(), is_served);
        let mut socket = Socket::connect(gateway, "token").await;
        socket.subscribe("1", &query).await;
        assert_eq!(socket.receive().await["payload"].get("errors").is_none(), is_served);
    }
}

#[tokio::test]
async fn errors_names_and_cursors_count() {
    // Each value of the list is malformed; there is no other appointment.
    let upstream = Upstream::answering(|call| match call.number("page") {
        Some(_) => List::of(100, Pagination::Meta).page_of(
            call,
            |n| json!({ "id": id(n), "reference": [], "status": {}, "claimant": { "data": [{ "id": [] }] } }),
        ),
        None => UpstreamResponse::status(500),
    })
    .await;
    let settings = [("limits.answer", "8KiB"), ("limits.query", "64KiB")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let ids = (200..300).map(id).collect::<Vec<_>>();
    let long = "x".repeat(1000);
    for query in [
        "{ appointments(first: 100) { nodes { reference status claimant { data { id } } } } }".to_owned(),
        "{ appointments(first: 100) { edges { node { reference status } } } }".to_owned(),
        format!("{{ appointmentsByIds(ids: {ids:?}) {{ id }} }}"),
        format!("{{ appointments(first: 100) {{ nodes {{ {long}: id }} }} }}"),
        format!("{{ appointments(first: 100) {{ edges {{ {long}: cursor }} }} }}"),
        format!("{{ appointments(first: 100) {{ edges {{ {long}: __typename }} }} }}"),
        "{ __schema { types { name description fields { name description } } } }".to_owned(),
    ] {
        let reply = RequestForm::POST.ask(&gateway, "token", &query).await;
        assert_eq!(reply.status, 294, "{query}");
        assert!(reply.body.get("errors").is_some(), "{query}");
        assert_too_large(&reply.body, 8 << 10);
    }
    // Malformed values are served where there is room.
    let reply = RequestForm::POST
        .ask(&gateway, "token", "{ appointments(first: 2) { nodes { reference status } } }")
        .await;
    assert_eq!(reply.codes(), ["UPSTREAM_INVALID_RESPONSE"; 4]);
    assert_eq!(reply.body["data"]["appointments"]["nodes"][1], json!({ "reference": null, "status": null }));
}

/// An upstream reply of 1 MB can make a hundred thousand errors, and each can be asked for under many names.
#[tokio::test]
async fn errors_of_malformed_values_take_bounded_memory() {
    let upstream = Upstream::answering(|call| {
        let entries = vec![json!({ "id": [], "name": {}, "value": [] }); 25_000];
        UpstreamResponse::json(200, &json!({ "data": { "id": call.id, "claimant": { "data": entries } } }))
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let one =
        |fields: &str| format!("{{ appointment(id: {:?}) {{ claimant {{ data {{ {fields} }} }} }} }}", id(1));
    RequestForm::POST.ask(&gateway, "token", &one("required")).await;
    let before = peak_memory(&gateway);
    let fields = (0..45).map(|n| format!("a{n}: value ")).collect::<String>();
    assert_too_large(&RequestForm::POST.ask(&gateway, "token", &one(&fields)).await.body, 8 << 20);
    let more = peak_memory(&gateway) - before;
    assert!(more < MEMORY, "{more} KiB");
}

#[tokio::test]
async fn a_change_with_a_large_response_keeps_its_fields() {
    let upstream = large_upstream().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let change = |alias: &str, number: usize, fields: &str| {
        format!(
            "{alias}: cancelAppointment(id: {:?}) {{ __typename appointment {{ {fields} }} userErrors {{ message }} }} ",
            id(number)
        )
    };
    let large = aliases(45);
    let query = format!("mutation {{ {} {} }}", change("one", 1, &large), change("two", 2, "id reference"));
    let payload = json!({ "__typename": "AppointmentPayload", "appointment": null, "userErrors": [] });
    let expected = json!({ "one": payload, "two": payload });
    let check = |answer: &Value| {
        assert_eq!(answer["data"], expected);
        let errors = answer["errors"].as_array().unwrap();
        for (error, field) in errors.iter().zip(["one", "two"]) {
            assert_eq!(error["path"], json!([field, "appointment"]), "{errors:?}");
            assert_eq!(error["extensions"]["limit"], json!("answer"), "{errors:?}");
            assert_eq!(error["extensions"]["code"], json!("QUERY_TOO_COMPLEX"), "{errors:?}");
            assert!(error["message"].as_str().unwrap().contains("change was applied"), "{errors:?}");
            assert!(error["locations"].is_array(), "{errors:?}");
        }
        assert_eq!(errors.len(), 2);
    };
    let reply = gateway.query(Some("token"), &query).await;
    assert_eq!(reply.status, 294);
    check(&reply.body);
    check(&Events::open(&gateway, "token", &query).await.next().await);
    let mut socket = Socket::connect(&gateway, "token").await;
    socket.subscribe("1", &query).await;
    let message = socket.receive().await;
    assert_eq!(message["type"], json!("next"));
    check(&message["payload"]);
    assert_eq!(upstream.calls(), 6, "each change was sent once for each request");
}

#[tokio::test]
async fn oversized_user_errors_still_report_the_rejection() {
    let upstream = Upstream::answering(|_| {
        let errors = (0..2_000).map(|n| (format!("field_{n}"), json!(["is wrong"])));
        let errors = errors.collect::<serde_json::Map<_, _>>();
        UpstreamResponse::json(422, &json!({ "message": "invalid", "errors": errors }))
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[("limits.answer", "4KiB")]).await;
    let reply = gateway.update("token", &id(1), json!({ "interpreterLanguage": "xx" })).await;
    let payload = &reply.body["data"]["updateAppointment"];
    assert_eq!(payload["appointment"], Value::Null);
    let reasons = payload["userErrors"].as_array().unwrap();
    assert!((1..100).contains(&reasons.len()), "{} reasons", reasons.len());
    assert!(reasons.iter().all(|reason| reason["message"].is_string()), "{reasons:?}");
    let error = &reply.body["errors"][0];
    assert_eq!(error["path"], json!(["updateAppointment", "userErrors"]), "{error}");
    assert_eq!(error["extensions"]["limit"], json!("answer"), "{error}");
    assert!(reply.body.to_string().len() < 6 << 10);
}

#[tokio::test]
async fn an_oversized_event_is_an_error_and_the_next_is_served() {
    let upstream = Upstream::answering(|call| {
        // The first state, and the one after the change.
        let length = if call.nth == 1 { 20_000 } else { 10 };
        let data = json!({ "id": call.id, "reference": "x".repeat(length), "status": call.nth.to_string() });
        UpstreamResponse::json(200, &json!({ "data": data }))
    })
    .await;
    let settings =
        [("limits.answer", "16KiB"), ("live.fast_interval", "20ms"), ("live.slow_interval", "20ms")];
    let query = |n| format!("subscription {{ appointmentChanged(id: {:?}) {{ id reference }} }}", id(n));
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let mut events = Events::open(&gateway, "token", &query(1)).await;
    assert_too_large(&events.next().await, 16 << 10);
    assert_eq!(events.next().await["data"]["appointmentChanged"]["reference"], json!("x".repeat(10)));

    let mut socket = Socket::connect(&gateway, "token").await;
    socket.subscribe("1", &query(2)).await;
    let message = socket.receive().await;
    assert_eq!(message["type"], json!("next"));
    assert_too_large(&message["payload"], 16 << 10);
    let message = socket.receive().await;
    assert_eq!(message["payload"]["data"]["appointmentChanged"]["reference"], json!("x".repeat(10)));
}
