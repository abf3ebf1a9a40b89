//! Every copy of upstream data passes the same validity check when served: cached appointments and pages, cached
//! responses, the state of subscriptions, calls in flight. A definite response ends a copy; an outage does not.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::sleep};

use crate::support::{
    Call, Gate, Gateway, GatewayResponse, List, Pagination, RequestForm, Transport, Upstream,
    UpstreamResponse, id, ids, served, whole,
};

type Script = fn(&Call) -> UpstreamResponse;

const TEN: List = List { length: 10, pagination: Pagination::Meta, cap: usize::MAX };

/// The list, single appointments and changes, none of them refused.
fn healthy(call: &Call) -> UpstreamResponse {
    match call {
        _ if call.is_change() => call.changed(),
        _ if call.id == "appointments" => TEN.page(call),
        _ => call.appointment(),
    }
}

/// Nothing expires during a test.
const LONG: [(&str, &str); 3] =
    [("cache.ttl", "10m"), ("cache.list_ttl", "10m"), ("cache.absence_ttl", "10m")];

/// Entries expire soon, and are usable on an error for long after. Absence is not cached.
const SOON_STALE: [(&str, &str); 5] = [
    ("cache.ttl", "100ms"),
    ("cache.list_ttl", "100ms"),
    ("cache.absence_ttl", "0"),
    ("cache.stale_if_error", "10m"),
    ("upstream.timeout", "500ms"),
];

/// Past the TTL of [`SOON_STALE`].
const EXPIRED: Duration = Duration::from_millis(150);

/// No poll falls into a test but the first one and those that an event causes.
const NO_POLLS: [(&str, &str); 2] = [("live.fast_interval", "10m"), ("live.slow_interval", "10m")];

/// Polls follow one another closely.
const QUICK_POLLS: [(&str, &str); 2] = [("live.fast_interval", "10ms"), ("live.slow_interval", "20ms")];

/// Time in which an implementation that serves an old state would have served it.
const MOMENT: Duration = Duration::from_millis(200);

/// Statuses that refuse, with their codes.
const REFUSALS: [(u16, &str); 3] = [(401, "UNAUTHENTICATED"), (403, "FORBIDDEN"), (404, "NOT_FOUND")];

/// Definite answers that are neither an appointment nor a refusal that the API documents.
const UNUSABLE: [(&str, Script); 22] = [
    ("204", |_| UpstreamResponse::text(204, "text/plain", "")),
    ("206", |call| status_of(call, 206)),
    ("300", |_| UpstreamResponse::status(300)),
    ("302 without a location", |_| UpstreamResponse::status(302)),
    ("302 to another host", |_| UpstreamResponse::status(302).with("Location", "http://other.example/")),
    ("304 to an unconditional request", |_| UpstreamResponse::text(304, "text/plain", "")),
    ("400", |_| UpstreamResponse::status(400)),
    ("402", |_| UpstreamResponse::status(402)),
    ("405", |_| UpstreamResponse::status(405)),
    ("409", |_| UpstreamResponse::status(409)),
    ("410", |_| UpstreamResponse::status(410)),
    ("418", |_| UpstreamResponse::status(418)),
    ("422", |_| UpstreamResponse::status(422)),
    ("423", |_| UpstreamResponse::status(423)),
    ("451", |_| UpstreamResponse::status(451)),
    ("another id", |_| UpstreamResponse::json(200, &json!({ "data": { "id": id(2), "status": "another" } }))),
    ("not JSON", |_| UpstreamResponse::text(200, "application/json", "<html>")),
    ("HTML", |_| UpstreamResponse::text(200, "text/html", "<html>")),
    ("an empty body", |_| UpstreamResponse::text(200, "application/json", "")),
    ("no data", |_| UpstreamResponse::json(200, &json!({ "message": "none" }))),
    ("data null", |_| UpstreamResponse::json(200, &json!({ "data": null }))),
    ("no id", |_| UpstreamResponse::json(200, &json!({ "data": { "status": "no id" } }))),
];

/// The usual appointment under an unusual status.
fn status_of(call: &Call, status: u16) -> UpstreamResponse {
    UpstreamResponse::json(status, &json!({ "data": { "id": call.id, "status": "unusual" } }))
}

/// Answers that are no answer: the upstream cannot say.
const OUTAGES: [(&str, Script); 11] = [
    ("408", |_| UpstreamResponse::status(408)),
    ("429", |_| UpstreamResponse::status(429)),
    ("500", |_| UpstreamResponse::status(500)),
    ("501", |_| UpstreamResponse::status(501)),
    ("503", |_| UpstreamResponse::status(503)),
    ("507", |_| UpstreamResponse::status(507)),
    ("599", |_| UpstreamResponse::status(599)),
    ("no answer", |_| UpstreamResponse::never()),
    ("a broken connection", |_| UpstreamResponse::cut()),
    ("a truncated body", |call| call.appointment().short_of(3)),
    ("a truncated chunk", |_| UpstreamResponse::chunked("{}").short_of(4)),
];

#[track_caller]
fn is_stale(reply: &GatewayResponse) -> bool {
    reply.body["extensions"]["stale"].as_array().is_some_and(|stale| !stale.is_empty())
}

/// The ways in which a caller that watches `id(1)` learns that the upstream refuses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Query,
    Change,
    /// A 401 to a query for another appointment.
    Elsewhere,
}

impl Route {
    const EACH: [Self; 3] = [Self::Query, Self::Change, Self::Elsewhere];

    fn can_be(self, status: u16) -> bool {
        self != Self::Elsewhere || status == 401
    }

    /// A query reaches the upstream only once the cached appointment has expired.
    fn settings(self) -> Vec<(&'static str, &'static str)> {
        match self {
            Self::Query => vec![("cache.ttl", "100ms"), ("cache.absence_ttl", "10m")],
            Self::Change | Self::Elsewhere => LONG.to_vec(),
        }
    }

    /// Has "token" refused with `status`; the upstream answers `then` to later calls for `id(1)`.
    async fn refuse(self, gateway: &Gateway, upstream: &Upstream, status: u16, then: Script) {
        sleep(EXPIRED).await;
        let is_refused = AtomicBool::new(self == Self::Elsewhere);
        upstream.on(&id(1), move |call| {
            if is_refused.swap(true, Ordering::SeqCst) {
                then(call)
            } else {
                UpstreamResponse::status(status)
            }
        });
        upstream.on(&id(2), move |_| UpstreamResponse::status(status));
        let reply = match self {
            Self::Query => gateway.appointment("token", &id(1)).await,
            Self::Change => gateway.update("token", &id(1), json!({ "status": "waiting" })).await,
            Self::Elsewhere => gateway.appointment("token", &id(2)).await,
        };
        assert!(reply.body["data"].as_object().is_none_or(|data| data.values().all(Value::is_null)));
    }
}

/// Calls `test` with a gateway whose caller "token" watches `id(1)`, for each kind of rejection.
async fn each_refusal(test: impl AsyncFn(&Gateway, &Upstream, Transport, Route, (u16, &str))) {
    for transport in Transport::EACH {
        for refusal in REFUSALS {
            for route in Route::EACH.into_iter().filter(|route| route.can_be(refusal.0)) {
                let upstream = Upstream::answering(healthy).await;
                let settings = [&NO_POLLS[..], &route.settings()].concat();
                let gateway = Gateway::before(upstream.url(), &settings).await;
                test(&gateway, &upstream, transport, route, refusal).await;
            }
        }
    }
}

/// The same response to every call.
fn refusing(status: u16) -> Script {
    match status {
        401 => |_| UpstreamResponse::status(401),
        403 => |_| UpstreamResponse::status(403),
        _ => |_| UpstreamResponse::status(404),
    }
}

#[tokio::test]
async fn new_subscribers_receive_no_state_from_before_a_rejection() {
    each_refusal(async |gateway, upstream, transport, route, (status, code)| {
        let mut early = gateway.subscribe(transport, "token", &id(1)).await;
        assert_eq!(early.status().await, "call 1");
        route.refuse(gateway, upstream, status, refusing(status)).await;
        let mut late = gateway.subscribe(transport, "token", &id(1)).await;
        assert_eq!(late.end().await, code, "{transport:?}, {route:?}");
    })
    .await;
}

#[tokio::test]
async fn a_rejection_on_any_route_triggers_a_poll() {
    each_refusal(async |gateway, upstream, transport, route, (status, code)| {
        let mut own = gateway.subscribe(transport, "token", &id(1)).await;
        assert_eq!(own.status().await, "call 1");
        let mut other = gateway.subscribe(transport, "other", &id(1)).await;
        assert_eq!(other.status().await, "call 2");
        route.refuse(gateway, upstream, status, refusing(status)).await;
        assert_eq!(own.end().await, code, "{transport:?}, {route:?}");
        // Another caller was refused nothing, so its poller asks for nothing.
        other.shows_nothing(MOMENT).await;
        let gets_as = |token: &str| {
            upstream.seen(|seen| {
                let is_get = |call: &&Call| !call.is_change() && call.id == id(1) && call.token() == token;
                seen.calls.iter().filter(is_get).count()
            })
        };
        let most = if route == Route::Query { 3 } else { 2 };
        assert!((2..=most).contains(&gets_as("token")), "{transport:?}, {route:?}: {}", gets_as("token"));
        assert_eq!(gets_as("other"), 1, "{transport:?}, {route:?}");
    })
    .await;
}

#[tokio::test]
async fn an_outage_after_a_rejection_restores_no_old_state() {
    each_refusal(async |gateway, upstream, transport, route, (status, _)| {
        let mut early = gateway.subscribe(transport, "token", &id(1)).await;
        assert_eq!(early.status().await, "call 1");
        route.refuse(gateway, upstream, status, |_| UpstreamResponse::status(500)).await;
        let mut late = gateway.subscribe(transport, "token", &id(1)).await;
        late.shows_nothing(MOMENT).await;
        // A change by another caller has the pollers ask, now that the upstream is healthy again.
        upstream.on(&id(1), healthy);
        gateway.update("other", &id(1), json!({ "status": "waiting" })).await.changed();
        assert_ne!(late.status().await, "call 1", "{transport:?}, {route:?}");
    })
    .await;
}

#[tokio::test]
async fn an_invalid_poll_response_ends_the_state_for_new_subscribers() {
    for (n, (case, answer)) in UNUSABLE.into_iter().enumerate().filter(|(_, (case, _))| *case != "410") {
        let transport = Transport::EACH[n % 2];
        let upstream = Upstream::answering(healthy).await;
        let gateway = Gateway::before(upstream.url(), &[&QUICK_POLLS[..], &LONG].concat()).await;
        let mut early = gateway.subscribe(transport, "token", &id(1)).await;
        assert_eq!(early.status().await, "call 1", "{case}");
        upstream.on(&id(1), answer);
        upstream.until_polled(3).await;
        let mut late = gateway.subscribe(transport, "token", &id(1)).await;
        late.shows_nothing(MOMENT).await;
        // The copy in the cache has ended too.
        let reply = gateway.appointment("token", &id(1)).await;
        assert_eq!(reply.codes(), ["UPSTREAM_INVALID_RESPONSE"], "{case}");
        let before = upstream.calls_for(&id(1));
        upstream.on(&id(1), healthy);
        let status = late.status().await;
        let nth: usize = status.strip_prefix("call ").unwrap().parse().unwrap();
        assert!(nth >= before, "{case}: {status}");
    }
}

#[tokio::test]
async fn during_an_outage_new_subscribers_receive_no_expired_state() {
    for (n, (case, outage)) in OUTAGES.into_iter().enumerate() {
        let (transport, stale_if_error) = (Transport::EACH[n % 2], ["100ms", "10m"][n / 2 % 2]);
        let settings =
            [("cache.ttl", "300ms"), ("cache.stale_if_error", stale_if_error), ("upstream.timeout", "100ms")];
        let upstream = Upstream::answering(healthy).await;
        let gateway = Gateway::before(upstream.url(), &[&QUICK_POLLS[..], &settings].concat()).await;
        let mut early = gateway.subscribe(transport, "token", &id(1)).await;
        early.status().await;
        upstream.on(&id(1), outage);
        upstream.until_polled(2).await;
        sleep(Duration::from_millis(600)).await;
        let mut late = gateway.subscribe(transport, "token", &id(1)).await;
        late.shows_nothing(MOMENT).await;
        let before = upstream.calls_for(&id(1));
        upstream.on(&id(1), healthy);
        let status = late.status().await;
        let nth: usize = status.strip_prefix("call ").unwrap().parse().unwrap();
        assert!(nth >= before, "{case}: {status}");
    }
}

/// A gateway with a caller "token" whose first call for `id(1)` and for the list waits at the gate.
async fn with_slow_calls(gate: &Gate) -> (Upstream, Arc<Gateway>) {
    let gate = gate.clone();
    let upstream = Upstream::answering(move |call| match (call.is_change(), call.nth) {
        (false, 1) => healthy(call).once(&gate),
        _ => healthy(call),
    })
    .await;
    let settings = [("upstream.timeout", "60s"), ("http.deadline", "60s")];
    let gateway = Gateway::before(upstream.url(), &[&LONG[..], &NO_POLLS, &settings].concat()).await;
    (upstream, Arc::new(gateway))
}

fn read_one(gateway: &Arc<Gateway>) -> JoinHandle<GatewayResponse> {
    let gateway = gateway.clone();
    tokio::spawn(async move { gateway.appointment("token", &id(1)).await })
}

fn read_list(gateway: &Arc<Gateway>) -> JoinHandle<GatewayResponse> {
    let gateway = gateway.clone();
    tokio::spawn(async move { gateway.list("token", json!({})).await })
}

/// A 401 to a call for another appointment, or a refused change of this one.
async fn refused_meanwhile(gateway: &Gateway, upstream: &Upstream, status: u16) {
    match status {
        401 => {
            upstream.on(&id(2), |_| UpstreamResponse::status(401));
            assert_eq!(gateway.appointment("token", &id(2)).await.codes(), ["UNAUTHENTICATED"]);
        }
        _ => {
            upstream.on("cancel", move |_| UpstreamResponse::status(status));
            assert_eq!(gateway.cancel("token", &id(1)).await.codes().len(), 1);
        }
    }
}

#[tokio::test]
async fn queries_after_a_rejection_join_no_older_call() {
    for (status, code) in REFUSALS {
        let gate = Gate::shut();
        let (upstream, gateway) = with_slow_calls(&gate).await;
        let early = read_one(&gateway);
        upstream.until_called(1).await;
        refused_meanwhile(&gateway, &upstream, status).await;
        upstream.on(&id(1), refusing(status));
        // The older call still waits, so an answer comes from a call of its own.
        let late = gateway.appointment("token", &id(1)).await;
        assert_eq!(late.body["data"]["appointment"], Value::Null);
        assert_eq!(late.codes(), if status == 404 { vec![] } else { vec![code] });
        assert!(!early.is_finished());
        assert_eq!(upstream.calls_for(&id(1)), 2, "{status}");
        gate.open();
        assert_eq!(*early.await.unwrap().appointment(), served(&id(1), "token", 1));
        // The older call stores nothing.
        let again = gateway.appointment("token", &id(1)).await;
        assert_eq!(again.body["data"]["appointment"], Value::Null, "{status}");
    }
}

#[tokio::test]
async fn list_queries_after_a_rejection_join_no_older_call() {
    for (status, _) in REFUSALS {
        let gate = Gate::shut();
        let (upstream, gateway) = with_slow_calls(&gate).await;
        let early = read_list(&gateway);
        upstream.until_called(1).await;
        refused_meanwhile(&gateway, &upstream, status).await;
        gateway.list("token", json!({})).await.list();
        assert!(!early.is_finished());
        assert_eq!(upstream.calls_for("appointments"), 2, "{status}");
        gate.open();
        early.await.unwrap().list();
        gateway.list("token", json!({})).await.list();
        assert_eq!(upstream.calls_for("appointments"), 2, "{status}: the newer page is stored");
    }
}

#[tokio::test]
async fn subscriptions_after_a_rejection_join_no_older_call() {
    for transport in Transport::EACH {
        for (status, code) in REFUSALS {
            let gate = Gate::shut();
            let (upstream, gateway) = with_slow_calls(&gate).await;
            let early = read_one(&gateway);
            upstream.until_called(1).await;
            refused_meanwhile(&gateway, &upstream, status).await;
            upstream.on(&id(1), refusing(status));
            // The older call still waits, so the error comes from a call of its own.
            let mut late = gateway.subscribe(transport, "token", &id(1)).await;
            assert_eq!(late.end().await, code, "{transport:?}");
            assert!(!early.is_finished());
            gate.open();
            early.await.unwrap().appointment();
        }
    }
}

/// A query of another caller still shares the call of that caller.
#[tokio::test]
async fn rejections_do_not_affect_calls_of_other_callers() {
    let gate = Gate::shut();
    let upstream = Upstream::answering({
        let gate = gate.clone();
        move |call| {
            if call.token() == "other" { healthy(call).once(&gate) } else { UpstreamResponse::status(401) }
        }
    })
    .await;
    let settings = [("upstream.timeout", "60s"), ("http.deadline", "60s")];
    let gateway = Arc::new(Gateway::before(upstream.url(), &settings).await);
    let read = |n: usize| {
        let gateway = gateway.clone();
        // Each asks for an appointment of its own too, which shows when it has begun.
        tokio::spawn(async move { gateway.appointments("other", &[id(1), id(n)]).await })
    };
    let early = read(10);
    upstream.until(|seen| seen.in_flight == 2).await;
    assert_eq!(gateway.appointment("token", &id(1)).await.codes(), ["UNAUTHENTICATED"]);
    let late = read(11);
    upstream.until(|seen| seen.in_flight >= 3).await;
    gate.open();
    assert_eq!(early.await.unwrap().codes(), [""; 0]);
    assert_eq!(late.await.unwrap().codes(), [""; 0]);
    assert_eq!(upstream.calls_for(&id(1)), 2);
}

#[tokio::test]
async fn every_kind_of_outage_leaves_a_stale_copy_usable() {
    for (case, outage) in OUTAGES {
        let upstream = Upstream::answering(healthy).await;
        let gateway = Gateway::before(upstream.url(), &SOON_STALE).await;
        gateway.list("token", json!({})).await.list();
        gateway.appointment("token", &id(20)).await.appointment();
        sleep(EXPIRED).await;
        for subject in [id(20), "appointments".to_owned()] {
            upstream.on(&subject, outage);
        }
        let one = gateway.appointment("token", &id(20)).await;
        assert_eq!((one.appointment(), is_stale(&one)), (&served(&id(20), "token", 1), true), "{case}");
        let list = gateway.list("token", json!({})).await;
        assert_eq!((list.list()["totalCount"].as_u64(), is_stale(&list)), (Some(10), true), "{case}");
    }
}

#[tokio::test]
async fn definite_responses_end_the_copy_and_pages_that_show_it() {
    let refusals = REFUSALS.map(|(status, code)| (code, refusing(status)));
    for (case, answer) in UNUSABLE.into_iter().chain(refusals) {
        let upstream = Upstream::answering(healthy).await;
        let gateway = Gateway::before(upstream.url(), &SOON_STALE).await;
        gateway.list("token", json!({ "first": 5 })).await.list();
        let end = gateway.list("token", json!({ "first": 5 })).await.list()["pageInfo"]["endCursor"].clone();
        let second = json!({ "first": 5, "after": end });
        gateway.list("token", second.clone()).await.list();
        sleep(EXPIRED).await;
        upstream.on(&id(1), answer);
        let reply = gateway.appointment("token", &id(1)).await;
        assert_eq!((&reply.body["data"]["appointment"], is_stale(&reply)), (&Value::Null, false), "{case}");
        for subject in ids(0..10).into_iter().chain(["appointments".to_owned()]) {
            upstream.on(&subject, |_| UpstreamResponse::status(500));
        }
        let reply = gateway.appointment("token", &id(1)).await;
        assert_eq!((reply.codes(), is_stale(&reply)), (vec!["UPSTREAM_UNAVAILABLE"], false), "{case}");
        let page = gateway.list("token", json!({ "first": 5 })).await;
        assert_eq!((page.codes(), is_stale(&page)), (vec!["UPSTREAM_UNAVAILABLE"], false), "{case}");
        // The page that does not show it, and its siblings, are usable, unless the token was rejected.
        let is_rejected = case == "UNAUTHENTICATED";
        for reply in [gateway.list("token", second).await, gateway.appointment("token", &id(2)).await] {
            assert_eq!(is_stale(&reply), !is_rejected, "{case}: {reply:?}");
        }
    }
}

#[tokio::test]
async fn a_definite_response_to_a_page_ends_the_callers_pages() {
    let refusals = REFUSALS.map(|(status, code)| (code, refusing(status)));
    let no_list: [(&str, Script); 1] = [("one appointment", |_| {
        UpstreamResponse::json(200, &json!({ "data": whole(json!({ "id": id(1) })) }))
    })];
    for (case, answer) in UNUSABLE.into_iter().chain(refusals).chain(no_list) {
        let upstream = Upstream::answering(healthy).await;
        let gateway = Gateway::before(upstream.url(), &SOON_STALE).await;
        for token in ["token", "other"] {
            gateway.list(token, json!({ "first": 5 })).await.list();
            gateway.list(token, json!({ "first": 3 })).await.list();
            gateway.appointment(token, &id(20)).await.appointment();
        }
        sleep(EXPIRED).await;
        upstream.on("appointments", answer);
        let reply = gateway.list("token", json!({ "first": 5 })).await;
        assert_eq!((reply.codes().len(), is_stale(&reply)), (1, false), "{case}");
        for subject in ["appointments".to_owned(), id(20)] {
            upstream.on(&subject, |_| UpstreamResponse::status(500));
        }
        for first in [5, 3] {
            let reply = gateway.list("token", json!({ "first": first })).await;
            assert_eq!((reply.codes(), is_stale(&reply)), (vec!["UPSTREAM_UNAVAILABLE"], false), "{case}");
            assert!(is_stale(&gateway.list("other", json!({ "first": first })).await), "{case}");
        }
        let reply = gateway.appointment("token", &id(20)).await;
        assert_eq!(is_stale(&reply), case != "UNAUTHENTICATED", "{case}: {reply:?}");
    }
}

#[tokio::test]
async fn definite_responses_end_cached_responses_of_their_pages() {
    const LIST: &str =
        "{ appointments(first: 5) { nodes { id reference status claimant { name email } } totalCount } }";
    for (n, (case, answer)) in UNUSABLE.into_iter().enumerate() {
        let way = RequestForm::EACH[n % RequestForm::EACH.len()];
        let upstream = Upstream::answering(healthy).await;
        // Appointments are not cached, so that a query for one of them reaches the upstream.
        let settings = [("cache.ttl", "0"), ("cache.list_ttl", "10m")];
        let gateway = Gateway::before(upstream.url(), &settings).await;
        for _ in 0..3 {
            way.ask(&gateway, "token", LIST).await.list();
        }
        assert_eq!((upstream.calls(), gateway.response_cache_lookups().await.0 >= 1.0), (1, true));
        upstream.on(&id(1), answer);
        gateway.appointment("token", &id(1)).await;
        way.ask(&gateway, "token", LIST).await.list();
        assert_eq!(upstream.calls_for("appointments"), 2, "{case}, {way:?}");
    }
}

#[tokio::test]
async fn only_a_404_is_cached_as_absence() {
    for (status, calls) in [(404, 1), (410, 3)] {
        let upstream = Upstream::answering(move |_| UpstreamResponse::status(status)).await;
        let gateway = Gateway::before(upstream.url(), &LONG).await;
        for _ in 0..3 {
            assert_eq!(*gateway.appointment("token", &id(1)).await.appointment(), Value::Null);
        }
        assert_eq!(upstream.calls(), calls, "{status}");
    }
}
