//! GraphQL over server-sent events, in distinct connections mode.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Event, Events, Gateway, GatewayResponse, Upstream, UpstreamResponse, id, peak_memory};

const ALL: &str = "sandbox-all";

fn watch(id: &str) -> String {
    format!(r#"subscription {{ appointmentChanged(id: "{id}") {{ id interpreterLanguage }} }}"#)
}

fn change(id: &str, language: &str) -> String {
    format!(
        r#"mutation {{ updateAppointment(id: "{id}", input: {{ interpreterLanguage: "{language}" }})
            {{ appointment {{ interpreterLanguage }} }} }}"#
    )
}

fn codes(answer: &Value) -> Vec<&str> {
    let errors = answer["errors"].as_array().unwrap();
    errors.iter().map(|error| error["extensions"]["code"].as_str().unwrap()).collect()
}

/// A GET that accepts an event stream.
fn get(gateway: &Gateway, query: &str) -> reqwest::RequestBuilder {
    let query = serde_urlencoded::to_string([("query", query)]).unwrap();
    gateway.request(Method::GET, &format!("/graphql?{query}")).header("accept", "text/event-stream")
}

#[tokio::test]
async fn everything_runs_and_a_change_is_seen() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let id = gateway.sandbox_ids().await.remove(0);
    let mut posted = Events::open(&gateway, ALL, &watch(&id)).await;
    let mut got = Events::of(get(&gateway, &watch(&id)).bearer_auth(ALL)).await;
    for events in [&mut posted, &mut got] {
        assert_eq!(events.next().await["data"]["appointmentChanged"]["id"], json!(id));
    }
    let mut changing = Events::open(&gateway, ALL, &change(&id, "xx")).await;
    let appointment = json!({ "interpreterLanguage": "xx" });
    assert_eq!(
        changing.next().await,
        json!({ "data": { "updateAppointment": { "appointment": appointment } } })
    );
    changing.completed().await;
    for events in [&mut posted, &mut got] {
        let appointment = json!({ "id": id, "interpreterLanguage": "xx" });
        assert_eq!(events.next().await, json!({ "data": { "appointmentChanged": appointment } }));
    }
    let mut asking = Events::open(&gateway, ALL, "{ __typename }").await;
    assert_eq!(asking.next().await, json!({ "data": { "__typename": "Query" } }));
    asking.completed().await;
}

#[tokio::test]
async fn request_errors_arrive_as_an_event() {
    let gateway = Gateway::on_sandbox(&[]).await;
    for (query, code) in [
        ("{", "GRAPHQL_PARSE_FAILED"),
        ("{ nothing }", "GRAPHQL_VALIDATION_FAILED"),
        ("subscription { nothing }", "GRAPHQL_VALIDATION_FAILED"),
        ("query ($id: UUID!) { appointment(id: $id) { id } }", "BAD_USER_INPUT"),
    ] {
        let mut events = Events::open(&gateway, ALL, query).await;
        let answer = events.next().await;
        assert_eq!((answer.get("data"), codes(&answer)), (None, vec![code]), "{query}");
        events.completed().await;
    }
    for (token, id, code) in
        [(ALL, id(404), "NOT_FOUND"), ("wrong", gateway.sandbox_ids().await.remove(0), "UNAUTHENTICATED")]
    {
        let mut events = Events::open(&gateway, token, &watch(&id)).await;
        let answer = events.next().await;
        assert_eq!((&answer["data"], codes(&answer)), (&Value::Null, vec![code]));
        events.completed().await;
    }
}

#[tokio::test]
async fn malformed_requests_are_rejected_before_the_stream() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let post = |body: &str| {
        gateway
            .request(Method::POST, "/graphql")
            .header("content-type", "application/json")
            .header("accept", "text/event-stream")
            .body(body.to_owned())
    };
    let watch = watch(&gateway.sandbox_ids().await[0]);
    let query = json!({ "query": watch }).to_string();
    for (request, status, text) in [
        (post("{}"), 400, "query"),
        (post("{"), 400, "JSON"),
        // An EventSource of another site's page can send this.
        (get(&gateway, &watch), 403, "CSRF"),
        (get(&gateway, &change(&id(1), "xx")).bearer_auth(ALL), 405, "POST"),
        // The single connection mode.
        (gateway.request(Method::PUT, "/graphql"), 405, "distinct connections"),
        (gateway.request(Method::DELETE, "/graphql?operationId=1"), 405, "distinct connections"),
        (post(&query).header("x-graphql-event-stream-token", "1"), 400, "distinct connections"),
    ] {
        assert!(GatewayResponse::of(request).await.rejected(status, "BAD_REQUEST").contains(text), "{text}");
    }
    let plain = |accept| {
        gateway
            .request(Method::POST, "/graphql")
            .header("content-type", "application/json")
            .header("accept", accept)
            .body(query.clone())
    };
    for accept in ["application/json", "application/graphql-response+json", "*/*"] {
        let reply = GatewayResponse::of(plain(accept)).await;
        let text = reply.rejected(400, "BAD_REQUEST");
        assert!(text.contains("text/event-stream") && text.contains("graphql-transport-ws"), "{text}");
    }
}

#[tokio::test]
async fn accept_with_both_types_streams_subscriptions_only() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let watch = watch(&gateway.sandbox_ids().await[0]);
    let ask = |query: &str, accept: &str| {
        gateway
            .request(Method::POST, "/graphql")
            .bearer_auth(ALL)
            .header("content-type", "application/json")
            .header("accept", accept)
            .body(json!({ "query": query }).to_string())
    };
    for (accept, query_is_streamed) in [
        ("application/json, text/event-stream", false),
        ("text/event-stream;q=0.5, application/graphql-response+json", false),
        ("text/event-stream, application/json", true),
        ("application/json;q=0.9, text/event-stream", true),
    ] {
        let first = Events::of(ask(&watch, accept)).await.next().await;
        assert!(first["data"]["appointmentChanged"].is_object(), "{accept}");
        let reply = GatewayResponse::of(ask("{ __typename }", accept)).await;
        let is_streamed = reply.headers["content-type"].to_str().unwrap().starts_with("text/event-stream");
        assert_eq!(is_streamed, query_is_streamed, "{accept}");
    }
}

#[tokio::test]
async fn idle_streams_send_keep_alives_past_the_deadline() {
    let settings = [("live.keep_alive", "50ms"), ("http.deadline", "200ms")];
    let gateway = Gateway::on_sandbox(&settings).await;
    let id = gateway.sandbox_ids().await.remove(0);
    let mut events = Events::open(&gateway, ALL, &watch(&id)).await;
    events.next().await;
    for _ in 0..10 {
        assert_eq!(events.any().await, Event::Comment);
    }
    // By now more than twice the time that a request has.
    gateway.query(Some(ALL), &change(&id, "xx")).await;
    assert_eq!(events.next().await["data"]["appointmentChanged"]["interpreterLanguage"], json!("xx"));
}

#[tokio::test]
async fn a_query_has_its_deadline_here_too() {
    let upstream = Upstream::answering(|_| UpstreamResponse::never()).await;
    let gateway = Gateway::before(upstream.url(), &[("http.deadline", "100ms")]).await;
    let query = format!(r#"{{ appointment(id: "{}") {{ id }} }}"#, id(1));
    let mut events = Events::open(&gateway, "token", &query).await;
    assert_eq!(codes(&events.next().await), ["UPSTREAM_TIMEOUT"]);
    events.completed().await;
}

#[tokio::test]
async fn a_slow_reader_finds_the_latest_state_and_no_queue() {
    // Four megabytes an event, another one each time that the upstream is asked.
    let upstream = Upstream::answering(|call| {
        let reference = call.nth.to_string().repeat(200_000 / call.nth.to_string().len());
        let status = call.nth.to_string();
        UpstreamResponse::json(
            200,
            &json!({ "data": { "id": call.id, "reference": reference, "status": status } }),
        )
    })
    .await;
    let settings = [("live.fast_interval", "20ms"), ("live.slow_interval", "20ms")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let fields = (0..20).map(|n| format!("a{n}: reference")).collect::<Vec<_>>().join(" ");
    let query = format!(r#"subscription {{ appointmentChanged(id: "{}") {{ status {fields} }} }}"#, id(1));
    let mut events = Events::open(&gateway, "token", &query).await;
    let status = |answer: Value| -> usize {
        answer["data"]["appointmentChanged"]["status"].as_str().unwrap().parse().unwrap()
    };
    assert!(status(events.next().await) >= 1);
    let memory = peak_memory(&gateway);
    let late = upstream.calls() + 60;
    upstream.until_called(late).await;
    // The events in flight when reading stopped, and then the current state.
    let mut count = 1;
    while status(events.next().await) < late - 1 {
        count += 1;
    }
    assert!(count <= 6, "{count} events");
    let more = peak_memory(&gateway).saturating_sub(memory);
    assert!(more < 100 << 10, "{more} KiB");
}

#[tokio::test]
async fn shutdown_completes_streams_and_requests() {
    let mut gateway = Gateway::on_sandbox(&[("sandbox.latency", "500ms")]).await;
    let ids = gateway.sandbox_ids().await;
    let mut watching = Events::open(&gateway, ALL, &watch(&ids[0])).await;
    watching.next().await;
    // The head of the answer is there as soon as the query is being run.
    let query = format!(r#"{{ appointment(id: "{}") {{ id }} }}"#, ids[1]);
    let mut asking = Events::open(&gateway, ALL, &query).await;
    gateway.terminate();
    watching.completed().await;
    assert_eq!(asking.next().await["data"]["appointment"]["id"], json!(ids[1]));
    asking.completed().await;
    assert_eq!(gateway.ended().await.code(), Some(0));
    assert!(gateway.stderr().contains("drained"), "{}", gateway.stderr());
}
