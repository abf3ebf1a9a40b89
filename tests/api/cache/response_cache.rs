//! The response cache never changes a response: it serves no data of other callers, none from before a change or a
//! rejection, no expired data and no partial responses.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::support::{
    Call, Gate, Gateway, GatewayResponse, Issuer, KeyFile, List, Pagination, RequestForm, TIMEOUT, Upstream,
    UpstreamResponse, id, ids, jwt,
};

/// Longer than a test takes.
const LONG: [(&str, &str); 3] =
    [("cache.ttl", "10m"), ("cache.list_ttl", "10m"), ("cache.absence_ttl", "10m")];

/// Personal data among the fields, so that answers of several are worth compressing.
const FIELDS: &str =
    "id reference status claimant { name phoneNumber email dateOfBirth data { name value } }";

fn one(n: usize) -> String {
    format!("{{ appointment(id: {:?}) {{ {FIELDS} }} }}", id(n))
}

fn many(ids: &[String]) -> String {
    format!("{{ appointmentsByIds(ids: {ids:?}) {{ {FIELDS} }} }}")
}

const LIST: &str = "{ appointments(first: 10) { nodes { id reference status } totalCount } }";

fn listing(call: &Call) -> UpstreamResponse {
    match call.id.as_str() {
        "appointments" if !call.is_change() => List::of(3, Pagination::Meta).page(call),
        _ if call.is_change() => call.changed(),
        _ => call.appointment(),
    }
}

/// The call from which each appointment of `appointmentsByIds` came.
#[track_caller]
fn nths(reply: &GatewayResponse) -> Vec<String> {
    let all = reply.body["data"]["appointmentsByIds"].as_array().unwrap();
    all.iter().map(|it| it["status"].as_str().unwrap_or("null").to_owned()).collect()
}

async fn hits(gateway: &Gateway) -> f64 {
    gateway.response_cache_lookups().await.0
}

/// Asks until the answer is one that was kept, which has to be the third time at the latest.
async fn hot(gateway: &Gateway, way: RequestForm, token: &str, query: &str) -> GatewayResponse {
    let mut reply = way.ask(gateway, token, query).await;
    for _ in 0..2 {
        let before = hits(gateway).await;
        let again = way.ask(gateway, token, query).await;
        assert_eq!(again.body, reply.body, "{way:?}");
        if hits(gateway).await > before {
            return again;
        }
        reply = again;
    }
    panic!("{way:?}: {query} is never answered from the cache: {reply:?}");
}

#[tokio::test]
async fn identical_requests_are_served_from_cache_and_counted() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &LONG).await;
    let query = many(&ids(0..20));
    let first = RequestForm::POST.ask(&gateway, "token", &query).await;
    assert_eq!(first.body["data"]["appointmentsByIds"][19]["claimant"]["name"], "Philomena Canarybird");
    let mut asked = 1.0;
    for way in RequestForm::EACH {
        for _ in 0..4 {
            let reply = way.ask(&gateway, "token", &query).await;
            assert_eq!((reply.status, &reply.body), (200, &first.body), "{way:?}");
            assert_eq!(reply.headers["content-type"], format!("{}; charset=utf-8", way.accept));
            let storable = if way.is_get { "private, no-cache" } else { "no-store" };
            assert_eq!(reply.headers["cache-control"], storable);
            assert!(reply.headers.contains_key("x-request-id"));
            asked += 1.0;
        }
    }
    assert_eq!(upstream.calls(), 20);
    // Each form under each media type was carried out once.
    assert_eq!(gateway.response_cache_lookups().await, (asked - 4.0, 4.0));
    let metrics = gateway.metrics().await;
    for (name, value) in [
        ("gateway_operations_total{kind=\"query\"}", asked),
        ("gateway_appointments_total{from=\"new_call\"}", 20.0),
        ("gateway_appointments_total{from=\"cache\"}", 20.0 * (asked - 1.0)),
        ("gateway_cache_entries{cache=\"answers\"}", 8.0),
    ] {
        assert_eq!(metrics[name], value, "{name}");
    }
}

#[tokio::test]
async fn byte_equal_requests_of_two_callers_are_isolated() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &LONG).await;
    let query = many(&ids(0..5));
    let tokens = (0..6).map(|n| format!("token-{n}")).collect::<Vec<_>>();
    for _ in 0..4 {
        let asked = RequestForm::EACH.iter().flat_map(|way| tokens.iter().map(move |token| (way, token)));
        let replies = asked.clone().map(|(way, token)| way.ask(&gateway, token, &query));
        for ((way, token), reply) in asked.clone().zip(join_all(replies).await) {
            let all = reply.body["data"]["appointmentsByIds"].as_array().unwrap();
            assert!(all.iter().all(|it| it["reference"] == **token), "{way:?} as {token}: {reply:?}");
        }
    }
    assert_eq!(upstream.calls(), 5 * tokens.len());
    assert!(hits(&gateway).await > 100.0);
    // Missing and malformed tokens are rejected as without the cache.
    for way in RequestForm::EACH {
        // As a whole, or at each appointment.
        let (status, errors) = if way.accept == "application/json" { (200, 5) } else { (401, 1) };
        let missing = way.request(&gateway, None, &query);
        let malformed = way.request(&gateway, None, &query).header("authorization", "Basic a");
        for request in [missing, malformed] {
            let reply = GatewayResponse::of(request).await;
            assert_eq!((reply.status, reply.codes()), (status, vec!["UNAUTHENTICATED"; errors]), "{way:?}");
        }
    }
}

#[tokio::test]
async fn subjects_and_keys_are_isolated_unless_configured_to_share() {
    for (share, calls) in [("false", 3), ("true", 1)] {
        let issuer = Issuer::new("key-1");
        let upstream = Upstream::with_tokens().await;
        upstream.show_keys_of(&[&issuer]);
        let keys = KeyFile::of(&["alice"]);
        let settings =
            [LONG.as_slice(), &[("callers.share_cache", share), ("callers.api_keys_file", keys.path())]];
        let gateway = Gateway::for_issuer(&upstream, &settings.concat()).await;
        let query = one(1);
        for round in 0..3 {
            for way in RequestForm::EACH {
                for (nth, token) in
                    [&issuer.token("alice"), &issuer.token("bob"), keys.key(0)].iter().enumerate()
                {
                    let status =
                        if share == "true" { "call 1".to_owned() } else { format!("call {}", nth + 1) };
                    let reply = way.ask(&gateway, token, &query).await;
                    assert_eq!(reply.appointment()["status"], status, "{share}, {round}, {way:?}");
                }
            }
        }
        assert_eq!(upstream.calls_for(&id(1)), calls);
        assert!(hits(&gateway).await > 40.0);
        let unknown = RequestForm::POST.ask(&gateway, &Issuer::new("key-1").token("alice"), &query).await;
        assert_eq!(unknown.codes(), ["UNAUTHENTICATED"]);
    }
}

/// In service mode data outlives tokens, but expired tokens are rejected.
#[tokio::test]
async fn expired_callers_receive_nothing() {
    let issuer = Issuer::new("key-1");
    let upstream = Upstream::with_tokens().await;
    upstream.show_keys_of(&[&issuer]);
    let gateway =
        Gateway::for_issuer(&upstream, &[LONG.as_slice(), &[("callers.leeway", "0")]].concat()).await;
    let token = issuer.token_with("alice", json!({ "exp": crate::support::issuer::now() + 3 }));
    hot(&gateway, RequestForm::POST, &token, &one(1)).await;
    let refused = async {
        while RequestForm::POST.ask(&gateway, &token, &one(1)).await.codes().is_empty() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(TIMEOUT, refused).await.expect("its time comes");
    assert_eq!(RequestForm::POST.ask(&gateway, &token, &one(1)).await.codes(), ["UNAUTHENTICATED"]);
    let renewed = RequestForm::POST.ask(&gateway, &issuer.token("alice"), &one(1)).await;
    assert_eq!((renewed.appointment()["status"].as_str(), upstream.calls_for(&id(1))), (Some("call 1"), 1));
}

#[tokio::test]
async fn after_a_change_no_caller_receives_older_data() {
    for changer in ["token", "other"] {
        for way in RequestForm::EACH {
            let upstream = Upstream::answering(listing).await;
            let gateway = Gateway::before(upstream.url(), &LONG).await;
            let query = many(&ids(0..3));
            hot(&gateway, way, "token", LIST).await;
            hot(&gateway, way, "token", &query).await;
            gateway.update(changer, &id(1), json!({ "status": "changed" })).await.changed();
            let expected = if changer == "token" { "changed" } else { "call 1" };
            for _ in 0..3 {
                let reply = way.ask(&gateway, "token", &query).await;
                assert_eq!(nths(&reply), ["listed", expected, "listed"], "{changer}, {way:?}");
            }
            let calls = upstream.calls_for("appointments");
            hot(&gateway, way, "token", LIST).await;
            assert_eq!(upstream.calls_for("appointments"), calls + 1, "{changer}, {way:?}");
        }
    }
}

#[tokio::test]
async fn created_appointments_appear_in_the_next_list() {
    let upstream = Upstream::answering(listing).await;
    let gateway = Gateway::before(upstream.url(), &LONG).await;
    hot(&gateway, RequestForm::POST, "token", LIST).await;
    gateway
        .create("other", json!({ "appointmentAt": "2026-08-01T09:00:00Z", "durationInMinutes": 15 }))
        .await
        .changed();
    let calls = upstream.calls_for("appointments");
    RequestForm::POST.ask(&gateway, "token", LIST).await.list();
    assert_eq!(upstream.calls_for("appointments"), calls + 1);
}

#[tokio::test]
async fn an_unknown_outcome_bypasses_the_response_cache() {
    let upstream = Upstream::answering(|call| match call.is_change() {
        true => UpstreamResponse::cut(),
        false => call.appointment(),
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &LONG).await;
    hot(&gateway, RequestForm::POST, "token", &one(1)).await;
    let reply = gateway.update("other", &id(1), json!({ "status": "lost" })).await;
    assert_eq!(reply.codes(), ["OUTCOME_UNKNOWN"]);
    let before = hits(&gateway).await;
    for nth in 2..5 {
        let reply = RequestForm::POST.ask(&gateway, "token", &one(1)).await;
        assert_eq!(reply.appointment()["status"], format!("call {nth}"));
    }
    assert_eq!(hits(&gateway).await, before);
}

#[tokio::test]
async fn changes_in_flight_bypass_the_response_cache() {
    let gate = Gate::shut();
    let upstream = Upstream::answering({
        let gate = gate.clone();
        move |call| if call.is_change() { call.changed().once(&gate) } else { call.appointment() }
    })
    .await;
    let gateway = Arc::new(Gateway::before(upstream.url(), &LONG).await);
    hot(&gateway, RequestForm::POST, "token", &one(1)).await;
    let changing = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.update("other", &id(1), json!({ "status": "changed" })).await }
    });
    upstream.until_called(2).await;
    let before = hits(&gateway).await;
    // The change may take effect at any moment, so nothing older is served and nothing is stored.
    assert_eq!(RequestForm::POST.ask(&gateway, "token", &one(1)).await.appointment()["status"], "call 2");
    assert_eq!(RequestForm::POST.ask(&gateway, "token", &one(1)).await.appointment()["status"], "call 3");
    assert_eq!(hits(&gateway).await, before);
    gate.open();
    changing.await.unwrap().changed();
    assert_eq!(RequestForm::POST.ask(&gateway, "token", &one(1)).await.appointment()["status"], "call 4");
    hot(&gateway, RequestForm::POST, "token", &one(1)).await;
}

#[tokio::test]
async fn only_the_expired_one_of_twenty_is_fetched() {
    for way in RequestForm::EACH {
        let upstream = Upstream::start().await;
        upstream.on(&id(7), |call| call.appointment().with("Cache-Control", "max-age=1"));
        let gateway = Gateway::before(upstream.url(), &LONG).await;
        let query = many(&ids(0..20));
        hot(&gateway, way, "token", &query).await;
        assert_eq!(upstream.calls(), 20);
        sleep(Duration::from_millis(1200)).await;
        let reply = way.ask(&gateway, "token", &query).await;
        let expected = (0..20).map(|n| if n == 7 { "call 2" } else { "call 1" }).collect::<Vec<_>>();
        assert_eq!(nths(&reply), expected, "{way:?}");
        assert_eq!(upstream.calls(), 21, "{way:?}");
    }
}

#[tokio::test]
async fn cached_responses_expire_with_their_appointments() {
    let upstream = Upstream::answering(|call| match call.id.as_str() {
        "appointments" => List::of(3, Pagination::Meta).page(call),
        id if id == crate::support::id(2) => UpstreamResponse::status(404),
        _ => call.appointment(),
    })
    .await;
    let settings = [("cache.ttl", "300ms"), ("cache.absence_ttl", "300ms"), ("cache.list_ttl", "300ms")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    for query in [one(1).as_str(), &one(2), LIST] {
        let before = upstream.calls();
        // The last is past the time of the first, and none much later than the one before.
        for _ in 0..6 {
            RequestForm::POST.ask(&gateway, "token", query).await;
            sleep(Duration::from_millis(100)).await;
        }
        assert!(upstream.calls() >= before + 2, "{query}");
    }
    assert!(hits(&gateway).await > 0.0);
}

#[tokio::test]
async fn cached_absence_is_served_for_its_ttl() {
    let upstream = Upstream::answering(|_| UpstreamResponse::status(404)).await;
    let gateway = Gateway::before(upstream.url(), &LONG).await;
    let reply = hot(&gateway, RequestForm::POST, "token", &one(1)).await;
    assert_eq!((reply.body, upstream.calls()), (json!({ "data": { "appointment": null } }), 1));
    let gateway = Gateway::before(upstream.url(), &[("cache.absence_ttl", "0")]).await;
    for calls in 2..5 {
        RequestForm::POST.ask(&gateway, "token", &one(1)).await;
        assert_eq!(upstream.calls(), calls);
    }
    assert_eq!(hits(&gateway).await, 0.0);
}

/// Another operation of the caller learns that it may not see one of twenty any more.
#[tokio::test]
async fn rejected_data_is_not_served_again() {
    for (status, code) in [(401, Some("UNAUTHENTICATED")), (403, Some("FORBIDDEN")), (404, None)] {
        for way in RequestForm::EACH {
            let upstream = Upstream::answering(listing).await;
            let gateway = Gateway::before(upstream.url(), &LONG).await;
            let query = many(&ids(0..20));
            for token in ["token", "other"] {
                // Appointments from lists replace cached ones.
                hot(&gateway, way, token, LIST).await;
                hot(&gateway, way, token, &query).await;
            }
            upstream.on(&id(2), move |_| UpstreamResponse::status(status));
            gateway.update("token", &id(2), json!({ "status": "x" })).await;
            let (calls, lists) = (upstream.calls(), upstream.calls_for("appointments"));
            let reply = way.ask(&gateway, "token", &query).await;
            assert_eq!(reply.body["data"]["appointmentsByIds"][2], Value::Null, "{status}, {way:?}");
            assert_eq!(reply.codes().first().copied(), code, "{status}, {way:?}");
            // The first 401 of an operation ends its other calls.
            let expected = if status == 401 { 1..=20 } else { 1..=1 };
            assert!(expected.contains(&(upstream.calls() - calls)), "{status}, {way:?}");
            way.ask(&gateway, "token", LIST).await.list();
            assert_eq!(upstream.calls_for("appointments"), lists + 1, "{status}, {way:?}");
            // It is the caller's alone.
            let (calls, before) = (upstream.calls(), hits(&gateway).await);
            way.ask(&gateway, "other", &query).await;
            way.ask(&gateway, "other", LIST).await;
            assert_eq!((upstream.calls(), hits(&gateway).await), (calls, before + 2.0), "{status}, {way:?}");
        }
    }
}

#[tokio::test]
async fn nothing_outlives_the_token_that_fetched_it() {
    let upstream = Upstream::answering(listing).await;
    let gateway = Gateway::before(upstream.url(), &LONG).await;
    let token = jwt(3);
    for query in [&one(1), LIST] {
        hot(&gateway, RequestForm::POST, &token, query).await;
    }
    let (calls, before) = (upstream.calls(), hits(&gateway).await);
    sleep(Duration::from_millis(3200)).await;
    // Whether it is still good is the upstream's to say, each time.
    for more in [2, 4] {
        for query in [&one(1), LIST] {
            RequestForm::POST.ask(&gateway, &token, query).await;
        }
        assert_eq!(upstream.calls(), calls + more);
    }
    assert_eq!(hits(&gateway).await, before);
}

#[tokio::test]
async fn stale_marks_have_the_current_age() {
    for setting in ["cache.stale_if_error", "cache.stale_while_revalidate"] {
        let upstream = Upstream::answering(listing).await;
        let settings = [("cache.ttl", "300ms"), ("cache.list_ttl", "300ms"), (setting, "10m")];
        let gateway = Gateway::before(upstream.url(), &settings).await;
        let queries = [one(1), LIST.to_owned()];
        for query in &queries {
            RequestForm::POST.ask(&gateway, "token", query).await;
        }
        upstream.on(&id(1), |_| UpstreamResponse::status(500));
        upstream.on("appointments", |_| UpstreamResponse::status(500));
        sleep(Duration::from_millis(400)).await;
        let before = hits(&gateway).await;
        for age in [0, 1] {
            for query in &queries {
                for _ in 0..2 {
                    let reply = RequestForm::POST.ask(&gateway, "token", query).await;
                    let stale = &reply.body["extensions"]["stale"];
                    assert_eq!(stale.as_array().map(Vec::len), Some(1), "{setting}: {reply:?}");
                    assert!(stale[0]["ageSeconds"].as_u64() >= Some(age), "{setting}: {reply:?}");
                }
            }
            sleep(Duration::from_millis(1000)).await;
        }
        assert_eq!(hits(&gateway).await, before, "{setting}");
    }
}

#[tokio::test]
async fn failed_and_partial_responses_are_not_cached() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &LONG).await;
    let failures: [fn(&Call) -> UpstreamResponse; 6] = [
        |_| UpstreamResponse::status(403),
        |_| UpstreamResponse::status(429),
        |_| UpstreamResponse::status(500),
        |_| UpstreamResponse::cut(),
        |_| UpstreamResponse::text(200, "text/html", "<html>"),
        // It is kept, and its answer has an error at the field each time.
        |call| UpstreamResponse::json(200, &json!({ "data": { "id": call.id, "reference": ["7"] } })),
    ];
    for failure in failures {
        upstream.on(&id(9), failure);
        for query in [many(&[id(9)]), many(&ids(7..11))] {
            for _ in 0..3 {
                let reply = RequestForm::POST.ask(&gateway, "token", &query).await;
                assert_eq!(reply.codes().len(), 1, "{reply:?}");
            }
        }
    }
    // Request errors are detected each time.
    for wrong in ["{", "{ nothing }", "{ appointment(id: 1) { id } }"] {
        for _ in 0..2 {
            let (status, code) = match wrong {
                "{" => (400, "GRAPHQL_PARSE_FAILED"),
                _ => (422, "GRAPHQL_VALIDATION_FAILED"),
            };
            RequestForm::POST.ask(&gateway, "token", wrong).await.rejected(status, code);
        }
    }
    assert_eq!(hits(&gateway).await, 0.0);
}

#[tokio::test]
async fn uncacheable_data_is_fetched_for_each_request() {
    let upstream = Upstream::answering(|call| call.appointment().with("Cache-Control", "no-store")).await;
    let gateway = Gateway::before(upstream.url(), &LONG).await;
    for nth in 1..4 {
        let reply = RequestForm::POST.ask(&gateway, "token", &one(1)).await;
        assert_eq!(reply.appointment()["status"], format!("call {nth}"));
    }
    assert_eq!(hits(&gateway).await, 0.0);
}

#[tokio::test]
async fn mutations_are_never_cached() {
    let upstream = Upstream::answering(listing).await;
    let gateway = Gateway::before(upstream.url(), &LONG).await;
    let change = format!("mutation {{ cancelAppointment(id: {:?}) {{ appointment {{ status }} }} }}", id(1));
    for count in 1..4 {
        for mutation in [change.as_str(), "mutation { __typename }"] {
            assert_eq!(RequestForm::POST.ask(&gateway, "token", mutation).await.codes(), [""; 0]);
            let refused = RequestForm::GET.ask(&gateway, "token", mutation).await;
            refused.rejected(405, "BAD_REQUEST");
        }
        assert_eq!(upstream.calls(), count);
    }
    assert_eq!(hits(&gateway).await, 0.0);
    assert_eq!(gateway.metrics().await["gateway_operations_total{kind=\"mutation\"}"], 6.0);
}

/// Requests that mean the same, or look alike, and are not the same.
#[tokio::test]
async fn cache_keys_cover_bytes_place_and_media_type() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &LONG).await;
    let query = one(1);
    let forms = [query.clone(), format!("{query} "), format!(" {query}"), query.replace("id ref", "id  ref")];
    for form in &forms {
        for way in [RequestForm::POST, RequestForm::GET, RequestForm::POST.accepting("application/json")] {
            let before = gateway.response_cache_lookups().await;
            let first = way.ask(&gateway, "token", form).await;
            assert_eq!(
                gateway.response_cache_lookups().await,
                (before.0, before.1 + 1.0),
                "{form:?}, {way:?}"
            );
            let again = way.ask(&gateway, "token", form).await;
            assert_eq!(gateway.response_cache_lookups().await.0, before.0 + 1.0, "{form:?}, {way:?}");
            assert_eq!(again.headers["content-type"], format!("{}; charset=utf-8", way.accept));
            assert_eq!(first.body, again.body);
        }
    }
    assert_eq!(upstream.calls(), 1);
    // Values of variables are of the request.
    let with = async |n: usize| {
        let reply = gateway.appointment("token", &id(n)).await;
        reply.appointment()["id"].as_str().unwrap().to_owned()
    };
    for _ in 0..3 {
        for n in [1, 2, 3] {
            assert_eq!(with(n).await, id(n));
        }
    }
}

/// Such callers are unverified: made-up tokens could fill the memory with entries that nothing ends.
#[tokio::test]
async fn responses_without_upstream_data_are_not_cached() {
    let upstream = Upstream::answering(|call| match call.token() {
        "good" => call.appointment(),
        _ => UpstreamResponse::status(401),
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &LONG).await;
    let nothing =
        ["{ __typename }", "{ __schema { queryType { name } } }", "{ appointmentsByIds(ids: []) { id } }"];
    for token in ["good", "made-up", "made-up-as-well"] {
        for query in nothing {
            for way in RequestForm::EACH {
                assert_eq!(way.ask(&gateway, token, query).await.codes(), [""; 0], "{token}, {query}");
                way.ask(&gateway, token, query).await;
            }
        }
    }
    for _ in 0..3 {
        assert_eq!(
            RequestForm::POST.ask(&gateway, "made-up", &one(1)).await.codes(),
            ["UNAUTHENTICATED"],
            "the upstream refuses it"
        );
    }
    assert_eq!(hits(&gateway).await, 0.0);
    assert_eq!(gateway.metrics().await["gateway_cache_entries{cache=\"answers\"}"], 0.0);
    let before = gateway.response_cache_lookups().await;
    gateway.query(None, "{ __typename }").await;
    assert_eq!(gateway.response_cache_lookups().await, before, "who has no token is nobody's equal");
    hot(&gateway, RequestForm::POST, "good", &one(1)).await;
}

/// A newer one of the same appointment takes the place of the older one, though neither is past its time.
#[tokio::test]
async fn newer_data_from_lists_replaces_cached_responses() {
    let upstream = Upstream::answering(listing).await;
    let gateway = Gateway::before(upstream.url(), &LONG).await;
    for way in RequestForm::EACH {
        assert!(!hot(&gateway, way, "token", &one(1)).await.appointment().is_null());
    }
    RequestForm::POST.ask(&gateway, "token", LIST).await.list();
    for way in RequestForm::EACH {
        for _ in 0..3 {
            assert_eq!(
                way.ask(&gateway, "token", &one(1)).await.appointment()["status"],
                "listed",
                "{way:?}"
            );
        }
    }
}

/// The operation waits for one id, and receives the other's state from before the change.
#[tokio::test]
async fn a_change_during_an_operation_prevents_caching_it() {
    let gate = Gate::shut();
    let upstream = Upstream::answering({
        let gate = gate.clone();
        move |call| match call.id == id(2) {
            true => call.appointment().once(&gate),
            false => listing(call),
        }
    })
    .await;
    let gateway = Arc::new(Gateway::before(upstream.url(), &LONG).await);
    let query = many(&[id(1), id(2)]);
    let waiting = tokio::spawn({
        let (gateway, query) = (gateway.clone(), query.clone());
        async move { RequestForm::POST.ask(&gateway, "token", &query).await }
    });
    timeout(TIMEOUT, async {
        while gateway.metrics().await["gateway_cache_entries{cache=\"appointments\"}"] < 1.0 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the first is there");
    gateway.update("token", &id(1), json!({ "status": "changed" })).await.changed();
    gate.open();
    assert_eq!(
        nths(&waiting.await.unwrap()),
        ["call 1", "call 1"],
        "who asked before is told what was so before"
    );
    for _ in 0..3 {
        assert_eq!(nths(&RequestForm::POST.ask(&gateway, "token", &query).await), ["changed", "call 1"]);
    }
}
