//! `x-request-timeout`: a client shortens the deadline of one request.

use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::support::{
    Events, Gate, Gateway, GatewayResponse, RequestForm, Socket, TIMEOUT, Upstream, UpstreamResponse, id,
    served,
};

/// Nothing ends a request but its own timeout.
const PATIENT: [(&str, &str); 2] = [("upstream.timeout", "60s"), ("http.deadline", "60s")];

fn query(n: usize) -> String {
    format!("{{ appointment(id: {:?}) {{ id reference status }} }}", id(n))
}

fn within(request: RequestBuilder, timeout: &str) -> RequestBuilder {
    request.header("x-request-timeout", timeout)
}

async fn silent() -> Upstream {
    Upstream::answering(|_| UpstreamResponse::never()).await
}

#[tokio::test]
async fn a_request_and_its_calls_end_at_its_timeout() {
    let upstream = silent().await;
    let gateway = Gateway::before(upstream.url(), &PATIENT).await;
    for (n, form) in [RequestForm::POST, RequestForm::GET].into_iter().enumerate() {
        let reply =
            GatewayResponse::of(within(form.request(&gateway, Some("token"), &query(1)), "200ms")).await;
        assert_eq!(reply.paths_and_codes(), [("[\"appointment\"]".to_owned(), "UPSTREAM_TIMEOUT")]);
        upstream.until(|seen| seen.hung_up == n + 1).await;
    }
    let mut events = Events::of(within(Events::request(&gateway, "token", &query(1)), "200ms")).await;
    assert_eq!(events.next().await["errors"][0]["extensions"]["code"], "UPSTREAM_TIMEOUT");
    events.completed().await;
    upstream.until(|seen| seen.hung_up == 3).await;
}

#[tokio::test]
async fn data_that_arrives_in_time_is_served() {
    let upstream = silent().await;
    upstream.on(&id(1), |call| call.appointment());
    let gateway = Gateway::before(upstream.url(), &PATIENT).await;
    let query = format!(
        "{{ a: appointment(id: {:?}) {{ id reference status }} b: appointment(id: {:?}) {{ id }} }}",
        id(1),
        id(2)
    );
    let request = RequestForm::POST.request(&gateway, Some("token"), &query);
    let reply = GatewayResponse::of(within(request, "500ms")).await;
    assert_eq!(reply.body["data"], json!({ "a": served(&id(1), "token", 1), "b": Value::Null }));
    assert_eq!(reply.paths_and_codes(), [("[\"b\"]".to_owned(), "UPSTREAM_TIMEOUT")]);
}

#[tokio::test]
async fn no_retry_starts_after_the_timeout() {
    let upstream = Upstream::answering(|_| UpstreamResponse::status(503).with("Retry-After", "5")).await;
    let settings = [&PATIENT[..], &[("upstream.retries", "3")]].concat();
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let request = RequestForm::POST.request(&gateway, Some("token"), &query(1));
    let reply = GatewayResponse::of(within(request, "2s")).await;
    assert_eq!(reply.codes(), ["UPSTREAM_UNAVAILABLE"], "the upstream's error, without a wait");
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn waiters_for_the_same_call_keep_their_deadline() {
    let gate = Gate::shut();
    let upstream = Upstream::answering({
        let gate = gate.clone();
        move |call| call.appointment().once(&gate)
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &PATIENT).await;
    let request = RequestForm::POST.request(&gateway, Some("token"), &query(1));
    let patient = tokio::spawn(GatewayResponse::of(request));
    upstream.until_called(1).await;
    let hurried = within(RequestForm::GET.request(&gateway, Some("token"), &query(1)), "100ms");
    let hurried = GatewayResponse::of(hurried).await;
    gate.open();
    let patient = patient.await.unwrap();
    assert_eq!(*patient.appointment(), served(&id(1), "token", 1));
    assert_eq!(hurried.codes(), ["UPSTREAM_TIMEOUT"]);
    assert_eq!(upstream.calls(), 1);
}

/// A client cannot keep a copy in use by leaving before the upstream rejects it.
#[tokio::test]
async fn a_call_outlives_the_timeout_of_a_stale_response() {
    let upstream = Upstream::start().await;
    upstream.on(&id(1), |call| match call.nth {
        1 => call.appointment(),
        _ => UpstreamResponse::status(403).after(Duration::from_millis(300)),
    });
    let settings = [PATIENT.as_slice(), &[("cache.ttl", "50ms"), ("cache.stale_if_error", "10m")]].concat();
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let ask = async |timeout| {
        let request = RequestForm::POST.request(&gateway, Some("token"), &query(1));
        GatewayResponse::of(within(request, timeout)).await
    };
    assert_eq!(*ask("10s").await.appointment(), served(&id(1), "token", 1));
    sleep(Duration::from_millis(100)).await;
    let stale = ask("50ms").await;
    assert_eq!(stale.body["data"]["appointment"], served(&id(1), "token", 1));
    assert!(stale.body["extensions"]["stale"].is_array(), "{stale:?}");
    let is_ended = async || while !ask("50ms").await.body["data"]["appointment"].is_null() {};
    timeout(TIMEOUT, is_ended()).await.expect("the rejection ends the copy");
    assert_eq!(upstream.seen(|seen| seen.hung_up), 0);
    assert_eq!(ask("10s").await.codes(), ["FORBIDDEN"]);
}

#[tokio::test]
async fn the_outcome_of_a_sent_change_is_unknown() {
    let upstream = silent().await;
    let gateway = Gateway::before(upstream.url(), &PATIENT).await;
    let change = format!(
        "mutation {{ updateAppointment(id: {:?}, input: {{ status: \"waiting\" }}) {{ userErrors {{ message }} }} }}",
        id(1)
    );
    let request = RequestForm::POST.request(&gateway, Some("token"), &change);
    let reply = GatewayResponse::of(within(request, "300ms")).await;
    assert_eq!(reply.paths_and_codes(), [("[\"updateAppointment\"]".to_owned(), "OUTCOME_UNKNOWN")]);
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn a_timeout_never_lengthens_the_deadline() {
    let upstream = silent().await;
    let settings = [("upstream.timeout", "60s"), ("http.deadline", "300ms")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    for timeout in ["1h", "10000000h", "60s"] {
        let request = RequestForm::POST.request(&gateway, Some("token"), &query(1));
        assert_eq!(GatewayResponse::of(within(request, timeout)).await.codes(), ["UPSTREAM_TIMEOUT"]);
    }
}

#[tokio::test]
async fn a_sufficient_timeout_changes_nothing() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    for timeout in ["8s", " 9s ", "1m 30s", "5000000us"] {
        let request = RequestForm::POST.request(&gateway, Some("token"), &query(1));
        let reply = GatewayResponse::of(within(request, timeout)).await;
        assert_eq!(*reply.appointment(), served(&id(1), "token", 1), "{timeout}");
    }
}

#[tokio::test]
async fn invalid_timeouts_are_rejected() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    for timeout in ["", "0", "0ms", "-1s", "800", "soon", "1.5.2s", "ms", "999999999999999999999h"] {
        for form in [RequestForm::POST, RequestForm::GET] {
            let request = within(form.request(&gateway, Some("token"), &query(1)), timeout);
            let reply = GatewayResponse::of(request).await;
            let message = reply.rejected(400, "BAD_REQUEST");
            assert!(message.contains("x-request-timeout") && message.contains("800ms"), "{message}");
        }
    }
    let twice = within(within(RequestForm::POST.request(&gateway, Some("token"), &query(1)), "1s"), "2s");
    GatewayResponse::of(twice).await.rejected(400, "BAD_REQUEST");
    assert_eq!(upstream.calls(), 0);
}

#[tokio::test]
async fn subscriptions_and_websockets_have_no_timeout() {
    let upstream = Upstream::start().await;
    let gateway =
        Gateway::before(upstream.url(), &[("live.fast_interval", "50ms"), ("live.slow_interval", "50ms")])
            .await;
    let watch = format!("subscription {{ appointmentChanged(id: {:?}) {{ status }} }}", id(1));
    let mut events = Events::of(within(Events::request(&gateway, "token", &watch), "100ms")).await;
    assert_eq!(events.next().await["data"]["appointmentChanged"]["status"], "call 1");
    sleep(Duration::from_millis(300)).await;
    let later = upstream.calls();
    upstream.until_polled(2).await;
    assert!(events.next().await.get("errors").is_none(), "after {later} calls");
    for timeout in ["1ms", "soon"] {
        let socket = Socket::try_open(&gateway, &[("x-request-timeout", timeout)]).await;
        assert!(socket.is_ok(), "{timeout}");
    }
    let request = gateway.request(Method::POST, "/graphql").header("content-type", "application/json");
    let request = within(request.body(json!({ "query": "{ __typename }" }).to_string()), "1s");
    assert_eq!(GatewayResponse::of(request).await.body, json!({ "data": { "__typename": "Query" } }));
}
