//! Stale-if-error and stale-while-revalidate: stale data is marked, and stays within the bounds set by configuration,
//! upstream, token, rejections and changes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::{
    Call, Events, Gate, Gateway, GatewayResponse, KeyFile, List, Pagination, Socket, Upstream,
    UpstreamResponse, id, jwt, listed, served,
};

/// Short times, and a pause that exceeds them.
const SHORT: &str = "300ms";
const LONGER: Duration = Duration::from_millis(450);

/// Entries expire soon, and may be served stale for long.
const SOON_STALE: [(&str, &str); 4] = [
    ("cache.ttl", SHORT),
    ("cache.list_ttl", SHORT),
    ("cache.stale_if_error", "10m"),
    ("upstream.timeout", "500ms"),
];

const QUERY: &str = "query ($id: UUID!) { it: appointment(id: $id) { status } }";

type Script = fn(&Call) -> UpstreamResponse;

/// The ways in which an upstream is not there.
const OUTAGES: [(&str, Script); 7] = [
    ("429", |_| UpstreamResponse::status(429)),
    ("500", |_| UpstreamResponse::status(500)),
    ("503", |_| UpstreamResponse::status(503).with("Cache-Control", "no-store")),
    ("504", |_| UpstreamResponse::text(504, "text/html", "<html>")),
    ("timeout", |_| UpstreamResponse::never()),
    ("cut", |_| UpstreamResponse::cut()),
    ("cut in the body", |call| call.appointment().short_of(3)),
];

/// An upstream that answers as `good` does until it fails as `bad` does, and a gateway that has fetched `id(1)` as `token`
/// and waited until that is past its time.
async fn after(good: Script, bad: Script, settings: &[(&str, &str)], token: &str) -> (Upstream, Gateway) {
    let upstream = Upstream::answering(good).await;
    let gateway = Gateway::before(upstream.url(), &[&SOON_STALE[..], settings].concat()).await;
    assert_eq!(*gateway.appointment(token, &id(1)).await.appointment(), served(&id(1), token, 1));
    upstream.on(&id(1), bad);
    sleep(LONGER).await;
    (upstream, gateway)
}

/// The paths that are said to be stale.
fn stale(reply: &Value) -> Vec<Value> {
    let stale = reply["extensions"]["stale"].as_array().map_or(&[][..], Vec::as_slice);
    assert!(stale.iter().all(|stale| stale["ageSeconds"].is_u64()), "{reply}");
    stale.iter().map(|stale| stale["path"].clone()).collect()
}

#[track_caller]
fn assert_stale(reply: &GatewayResponse, expected: &Value) {
    assert_eq!(reply.appointment(), expected);
    assert_eq!(stale(&reply.body), [json!(["appointment"])]);
}

#[track_caller]
fn assert_failed(reply: &GatewayResponse, code: &str) {
    assert_eq!(reply.paths_and_codes(), [(r#"["appointment"]"#.to_owned(), code)]);
    assert_eq!(reply.body.get("extensions"), None);
}

#[tokio::test]
async fn upstream_failures_are_bridged_with_marked_stale_data() {
    for (outage, script) in OUTAGES {
        let (upstream, gateway) = after(Call::appointment, script, &[], "token").await;
        for _ in 0..2 {
            assert_stale(&gateway.appointment("token", &id(1)).await, &served(&id(1), "token", 1));
        }
        // Only callers that had it cached receive it.
        let other = gateway.appointment("other", &id(1)).await;
        assert_eq!((other.codes().len(), other.body.get("extensions")), (1, None), "{outage}");
        // And only until there is something fresh.
        upstream.on(&id(1), Call::appointment);
        let reply = gateway.appointment("token", &id(1)).await;
        assert_eq!(reply.body.get("extensions"), None, "{outage}");
        assert_ne!(*reply.appointment(), served(&id(1), "token", 1), "{outage}");
        assert!(gateway.metrics().await["gateway_appointments_total{from=\"stale\"}"] == 2.0, "{outage}");
    }
}

#[tokio::test]
async fn an_upstream_that_is_gone_or_has_no_turn_left_is_an_outage() {
    let (upstream, gateway) = after(Call::appointment, Call::appointment, &[], "token").await;
    drop(upstream);
    assert_stale(&gateway.appointment("token", &id(1)).await, &served(&id(1), "token", 1));

    let settings =
        [("upstream.max_concurrent", "1"), ("upstream.max_waiting", "0"), ("upstream.timeout", "10m")];
    let (upstream, gateway) = after(Call::appointment, Call::appointment, &settings, "token").await;
    upstream.on(&id(2), |_| UpstreamResponse::never());
    let (blocked, gateway) = (Arc::new(gateway), &id(2));
    let waiting = tokio::spawn({
        let (gateway, id) = (blocked.clone(), gateway.clone());
        async move { gateway.appointment("token", &id).await }
    });
    upstream.until(|seen| seen.in_flight == 1).await;
    assert_stale(&blocked.appointment("token", &id(1)).await, &served(&id(1), "token", 1));
    waiting.abort();
}

#[tokio::test]
async fn a_request_at_its_deadline_receives_stale_data() {
    let settings = [("http.deadline", "600ms"), ("upstream.timeout", "10m")];
    let (_upstream, gateway) =
        after(Call::appointment, |_| UpstreamResponse::never(), &settings, "token").await;
    assert_stale(&gateway.appointment("token", &id(1)).await, &served(&id(1), "token", 1));
}

#[tokio::test]
async fn stale_marks_have_the_age_of_the_data_and_the_path() {
    let (_upstream, gateway) =
        after(Call::appointment, |_| UpstreamResponse::status(500), &[], "token").await;
    sleep(Duration::from_millis(1000)).await;
    let query = "query ($ids: [UUID!]!, $id: UUID!) {
        many: appointmentsByIds(ids: $ids) { status }
        again: appointment(id: $id) { status }
    }";
    let variables = json!({ "ids": [id(2), id(1), id(2)], "id": id(1) });
    let reply = gateway.query_with(Some("token"), query, variables).await;
    let fresh = json!({ "status": "call 1" });
    assert_eq!(reply.body["data"], json!({ "many": [fresh, fresh, fresh], "again": fresh }));
    let mut paths = stale(&reply.body);
    paths.sort_by_key(Value::to_string);
    assert_eq!(paths, [json!(["again"]), json!(["many", 1])]);
    let ages = reply.body["extensions"]["stale"].as_array().unwrap().iter().map(|it| &it["ageSeconds"]);
    for age in ages {
        assert!((1..60).contains(&age.as_u64().unwrap()), "{age}");
    }
}

#[tokio::test]
async fn every_transport_says_it() {
    let (_upstream, gateway) =
        after(Call::appointment, |_| UpstreamResponse::status(500), &[], "token").await;
    let query = format!("{{ it: appointment(id: \"{}\") {{ status }} }}", id(1));
    let data = json!({ "it": { "status": "call 1" } });
    let assert_said = |answer: &Value| {
        assert_eq!((&answer["data"], answer.get("errors")), (&data, None), "{answer}");
        assert_eq!(stale(answer), [json!(["it"])]);
    };
    assert_said(&gateway.query_with(Some("token"), QUERY, json!({ "id": id(1) })).await.body);
    let get = gateway
        .request(
            reqwest::Method::GET,
            &format!("/graphql?{}", serde_urlencoded::to_string([("query", &query)]).unwrap()),
        )
        .header("accept", "application/json")
        .bearer_auth(gateway.secret("token"));
    assert_said(&GatewayResponse::of(get).await.body);
    let mut events = Events::open(&gateway, "token", &query).await;
    assert_said(&events.next().await);
    events.completed().await;
    let mut socket = Socket::connect(&gateway, "token").await;
    socket.subscribe("1", &query).await;
    assert_said(&socket.receive().await["payload"]);
}

#[tokio::test]
async fn subscriptions_never_send_stale_data() {
    let (upstream, gateway) = after(
        Call::appointment,
        |call| if call.nth <= 3 { UpstreamResponse::status(500) } else { call.appointment() },
        &[("live.fast_interval", "100ms"), ("live.slow_interval", "200ms")],
        "token",
    )
    .await;
    let mut events = gateway.watch("token", &id(1)).await;
    assert_eq!(events.next().await, served(&id(1), "token", 4));
    assert!(upstream.calls_for(&id(1)) >= 4);
}

#[tokio::test]
async fn beyond_the_bound_a_failure_is_a_failure() {
    for bound in ["0", "100ms"] {
        let settings = [("cache.stale_if_error", bound)];
        let (_upstream, gateway) =
            after(Call::appointment, |_| UpstreamResponse::status(500), &settings, "token").await;
        assert_failed(&gateway.appointment("token", &id(1)).await, "UPSTREAM_UNAVAILABLE");
    }
}

#[tokio::test]
async fn the_upstream_may_say_less_and_not_more() {
    // The configured bound, the upstream's bound, and whether stale data is served.
    let cases: [(&str, Script, bool); 9] = [
        ("10m", |call| call.appointment().with("Cache-Control", "max-age=60"), true),
        ("10m", |call| call.appointment().with("Cache-Control", "private, stale-if-error=60"), true),
        ("10m", |call| call.appointment().with("Cache-Control", "no-cache, private"), true),
        ("10m", |call| call.appointment().with("Cache-Control", "stale-if-error=0"), false),
        ("10m", |call| call.appointment().with("Cache-Control", "must-revalidate"), false),
        ("10m", |call| call.appointment().with("Cache-Control", "max-age=60, proxy-revalidate"), false),
        ("10m", |call| call.appointment().with("Cache-Control", "no-store"), false),
        ("10m", |call| call.appointment().with("Cache-Control", "no-cache"), false),
        ("0", |call| call.appointment().with("Cache-Control", "stale-if-error=60"), false),
    ];
    for (case, (bound, script, is_served)) in cases.into_iter().enumerate() {
        let settings = [("cache.stale_if_error", bound)];
        let (_upstream, gateway) = after(script, |_| UpstreamResponse::status(500), &settings, "token").await;
        let reply = gateway.appointment("token", &id(1)).await;
        if is_served {
            assert_stale(&reply, &served(&id(1), "token", 1));
        } else {
            assert_failed(&reply, "UPSTREAM_UNAVAILABLE");
        }
        assert_eq!(reply.body["data"]["appointment"].is_null(), !is_served, "case {case}");
    }
}

#[tokio::test]
async fn definite_errors_are_never_replaced_by_stale_data() {
    let refusals: [(Script, &str); 4] = [
        (|_| UpstreamResponse::status(401), "UNAUTHENTICATED"),
        (|_| UpstreamResponse::status(403), "FORBIDDEN"),
        (|_| UpstreamResponse::status(418), "UPSTREAM_INVALID_RESPONSE"),
        (|_| UpstreamResponse::text(200, "text/html", "<html>"), "UPSTREAM_INVALID_RESPONSE"),
    ];
    for (script, code) in refusals {
        let (_upstream, gateway) = after(Call::appointment, script, &[], "token").await;
        assert_failed(&gateway.appointment("token", &id(1)).await, code);
    }
}

#[tokio::test]
async fn after_a_rejection_no_failure_allows_stale_data() {
    for status in [401, 403, 404] {
        let (upstream, gateway) =
            after(Call::appointment, |_| UpstreamResponse::status(500), &[], "token").await;
        assert_stale(&gateway.appointment("token", &id(1)).await, &served(&id(1), "token", 1));
        upstream.on(&id(1), move |_| UpstreamResponse::status(status));
        gateway.appointment("token", &id(1)).await;
        upstream.on(&id(1), |_| UpstreamResponse::status(500));
        // That there is none may be known for a while (cache.absence_ttl); that there was one is not.
        let reply = gateway.appointment("token", &id(1)).await;
        assert_eq!((&reply.body["data"]["appointment"], stale(&reply.body)), (&Value::Null, Vec::new()));
    }
}

#[tokio::test]
async fn that_there_is_none_is_never_served_beyond_its_time() {
    let upstream = Upstream::answering(|_| UpstreamResponse::status(404)).await;
    let settings =
        [&SOON_STALE[..], &[("cache.absence_ttl", SHORT), ("cache.stale_while_revalidate", "10m")]];
    let gateway = Gateway::before(upstream.url(), &settings.concat()).await;
    assert_eq!(*gateway.appointment("token", &id(1)).await.appointment(), Value::Null);
    upstream.on(&id(1), |_| UpstreamResponse::status(500));
    sleep(LONGER).await;
    assert_failed(&gateway.appointment("token", &id(1)).await, "UPSTREAM_UNAVAILABLE");
}

#[tokio::test]
async fn nothing_is_served_past_the_end_of_the_token() {
    let token = jwt(2);
    let settings = [("cache.stale_while_revalidate", "10m")];
    let (_upstream, gateway) =
        after(Call::appointment, |_| UpstreamResponse::status(500), &settings, &token).await;
    sleep(Duration::from_millis(2000)).await;
    assert_failed(&gateway.appointment(&token, &id(1)).await, "UPSTREAM_UNAVAILABLE");
}

#[tokio::test]
async fn nothing_from_before_a_change_is_served() {
    let changes: [(Script, &str); 2] = [
        (
            |call| {
                if call.is_change() {
                    UpstreamResponse::raw("HTTP/1.1 204 Said\r\n\r\n")
                } else {
                    UpstreamResponse::status(500)
                }
            },
            "made",
        ),
        (
            |call| if call.is_change() { UpstreamResponse::cut() } else { UpstreamResponse::status(500) },
            "lost",
        ),
    ];
    for (script, change) in changes {
        let settings = [("cache.stale_while_revalidate", "10m")];
        let (_upstream, gateway) = after(Call::appointment, script, &settings, "token").await;
        // By anybody.
        gateway.update("other", &id(1), json!({ "interpreterLanguage": change })).await;
        assert_failed(&gateway.appointment("token", &id(1)).await, "UPSTREAM_UNAVAILABLE");
    }
}

#[tokio::test]
async fn a_list_is_served_stale_as_its_appointments_are() {
    let list = List::of(10, Pagination::Meta);
    let upstream = Upstream::answering(move |call| {
        if call.id == "appointments" { list.page(call) } else { UpstreamResponse::status(500) }
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &SOON_STALE).await;
    let fresh = gateway.list("token", json!({ "first": 3 })).await;
    assert_eq!(fresh.body.get("extensions"), None);
    upstream.on("appointments", |_| UpstreamResponse::status(500));
    sleep(LONGER).await;
    let reply = gateway.list("token", json!({ "first": 3 })).await;
    assert_eq!(reply.list(), fresh.list());
    assert_eq!(stale(&reply.body), [json!(["appointments"])]);
    assert_stale(&gateway.appointment("token", &id(0)).await, &listed(0, "token"));
    assert_eq!(gateway.list("other", json!({ "first": 3 })).await.codes(), ["UPSTREAM_UNAVAILABLE"]);
    // After any change, no list from before it.
    gateway.update("token", &id(5), json!({ "interpreterLanguage": "xx" })).await;
    assert_eq!(gateway.list("token", json!({ "first": 3 })).await.codes(), ["UPSTREAM_UNAVAILABLE"]);
}

/// A 401 to the gateway's own token, and to a fresh one, is a refusal as any other.
#[tokio::test]
async fn a_rejected_service_token_allows_no_stale_data() {
    let upstream = Upstream::with_tokens().await;
    let list = List::of(10, Pagination::Meta);
    upstream.on("appointments", move |call| list.page(call));
    let keys = KeyFile::of(&["alice"]);
    let settings = [&SOON_STALE[..], &[("callers.api_keys_file", keys.path())]].concat();
    let gateway = Gateway::of_service(&upstream, &settings).await;
    let key = keys.key(0);
    gateway.list(key, json!({ "first": 3 })).await.list();
    gateway.appointment(key, &id(7)).await.appointment();
    gateway.appointment(key, &id(8)).await.appointment();
    sleep(LONGER).await;
    let everything = ["appointments".to_owned(), id(7), id(8)];
    for (status, is_served) in [(500, true), (401, false), (500, false)] {
        for subject in &everything {
            upstream.on(subject, move |_| UpstreamResponse::status(status));
        }
        if status == 401 {
            gateway.update(key, &id(8), json!({ "interpreterLanguage": "xx" })).await;
            upstream.on(&id(8), |_| UpstreamResponse::status(500));
        }
        let replies = [
            gateway.list(key, json!({ "first": 3 })).await,
            gateway.appointment(key, &id(7)).await,
            gateway.appointment(key, &id(8)).await,
        ];
        for (subject, reply) in everything.iter().zip(replies) {
            assert_eq!(stale(&reply.body).len() == 1, is_served, "{status}: {subject}: {reply:?}");
            assert_eq!(
                reply.codes() == ["UPSTREAM_UNAVAILABLE"],
                !is_served,
                "{status}: {subject}: {reply:?}"
            );
        }
    }
}

#[tokio::test]
async fn during_revalidation_the_entry_is_served_at_once() {
    let gate = Gate::shut();
    let upstream = Upstream::answering({
        let gate = gate.clone();
        move |call| if call.nth == 1 { call.appointment() } else { call.appointment().once(&gate) }
    })
    .await;
    let settings = [("cache.ttl", "1s"), ("cache.stale_while_revalidate", "10m")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    gateway.appointment("token", &id(1)).await.appointment();
    sleep(Duration::from_millis(1200)).await;
    // The response is held back: a request that waited for it would never end.
    for _ in 0..5 {
        assert_stale(&gateway.appointment("token", &id(1)).await, &served(&id(1), "token", 1));
    }
    upstream.until_called(2).await;
    assert_eq!(upstream.calls(), 2, "it is asked for once, however many are served meanwhile");
    gate.open();
    loop {
        let reply = gateway.appointment("token", &id(1)).await;
        if reply.body.get("extensions").is_none() {
            assert_eq!(*reply.appointment(), served(&id(1), "token", 2), "nobody had to wait for it");
            break;
        }
        assert_stale(&reply, &served(&id(1), "token", 1));
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!((upstream.calls(), upstream.seen(|seen| seen.hung_up)), (2, 0));
}

#[tokio::test]
async fn lists_are_revalidated_in_the_same_way() {
    let list = List::of(10, Pagination::Meta);
    let upstream = Upstream::answering(move |call| {
        if call.nth == 1 { list.page(call) } else { list.page(call).once(&Gate::shut()) }
    })
    .await;
    let settings = [&SOON_STALE[..2], &[("cache.stale_while_revalidate", "10m")]].concat();
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let fresh = gateway.list("token", json!({})).await;
    sleep(LONGER).await;
    for _ in 0..3 {
        let reply = gateway.list("token", json!({})).await;
        assert_eq!(reply.list(), fresh.list());
        assert_eq!(stale(&reply.body), [json!(["appointments"])]);
    }
    upstream.until_called(2).await;
    assert_eq!(upstream.calls(), 2);
}

#[tokio::test]
async fn a_rejected_revalidation_ends_the_entry() {
    for status in [401, 403, 404] {
        let settings = [("cache.stale_while_revalidate", "10m"), ("cache.absence_ttl", "10m")];
        let (upstream, gateway) = after(Call::appointment, Call::appointment, &settings, "token").await;
        upstream.on(&id(1), move |_| UpstreamResponse::status(status));
        assert_stale(&gateway.appointment("token", &id(1)).await, &served(&id(1), "token", 1));
        loop {
            let reply = gateway.appointment("token", &id(1)).await;
            if stale(&reply.body).is_empty() {
                assert_eq!(reply.body["data"]["appointment"], Value::Null, "{status}");
                break;
            }
            sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn how_long_meanwhile_lasts_has_a_bound() {
    let cases: [(&str, Script); 3] = [
        ("100ms", Call::appointment),
        ("10m", |call| call.appointment().with("Cache-Control", "stale-while-revalidate=0")),
        ("10m", |call| call.appointment().with("Cache-Control", "must-revalidate")),
    ];
    for (bound, script) in cases {
        let settings = [("cache.stale_while_revalidate", bound)];
        let (_upstream, gateway) = after(script, script, &settings, "token").await;
        let reply = gateway.appointment("token", &id(1)).await;
        assert_eq!((reply.appointment(), reply.body.get("extensions")), (&served(&id(1), "token", 2), None));
    }
}

#[tokio::test]
async fn failed_revalidations_keep_the_entry() {
    let failures = Arc::new(AtomicUsize::new(0));
    let settings = [("cache.stale_while_revalidate", "10m")];
    let (upstream, gateway) = after(Call::appointment, Call::appointment, &settings, "token").await;
    upstream.on(&id(1), {
        let failures = failures.clone();
        move |_| {
            failures.fetch_add(1, Ordering::SeqCst);
            UpstreamResponse::status(500)
        }
    });
    while failures.load(Ordering::SeqCst) < 3 {
        assert_stale(&gateway.appointment("token", &id(1)).await, &served(&id(1), "token", 1));
        sleep(Duration::from_millis(5)).await;
    }
}
