//! Retries: of transient failures only, with backoff, within a budget, not before the `Retry-After` of the upstream,
//! and never of changes (invariant 8).

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use serde_json::json;
use tokio::{
    net::TcpSocket,
    time::{sleep, timeout},
};

use crate::support::{
    Call, ChangeKind, Gate, Gateway, KeyFile, List, Pagination, TIMEOUT, Upstream, UpstreamResponse, id, ids,
    served, service_token,
};

const TWICE: (&str, &str) = ("upstream.retries", "2");

type Case = (&'static str, fn(&Call) -> UpstreamResponse);

/// Transient failures.
const TRANSIENT: [Case; 8] = [
    ("429", |_| UpstreamResponse::status(429)),
    ("502", |_| UpstreamResponse::status(502)),
    ("503", |_| UpstreamResponse::status(503)),
    ("504", |_| UpstreamResponse::status(504)),
    ("cut before the head", |_| UpstreamResponse::cut()),
    ("cut in the head", |call| call.appointment().short_of(120)),
    ("cut in the body", |call| call.appointment().short_of(5)),
    ("never", |_| UpstreamResponse::never()),
];

#[tokio::test]
async fn transient_failures_are_retried_unnoticed_by_the_client() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[TWICE, ("upstream.timeout", "1s")]).await;
    for (n, (_, script)) in TRANSIENT.into_iter().enumerate() {
        upstream.on(&id(n), move |call| if call.nth < 3 { script(call) } else { call.appointment() });
    }
    // Together more than the budget has at first, so each by itself after calls that earn some more.
    for (n, (case, _)) in TRANSIENT.into_iter().enumerate() {
        gateway.appointments("token", &ids(100 * (n + 1)..100 * (n + 1) + 10)).await;
        let reply = gateway.appointment("token", &id(n)).await;
        assert_eq!(*reply.appointment(), served(&id(n), "token", 3), "{case}");
        assert_eq!(upstream.calls_for(&id(n)), 3, "{case}");
    }
    let metrics = gateway.metrics().await;
    for (after, times) in [("rate_limited", 2.0), ("failed", 6.0), ("unreachable", 6.0), ("timeout", 2.0)] {
        assert_eq!(
            metrics[&format!("gateway_upstream_retries_total{{after=\"{after}\"}}")],
            times,
            "{after}"
        );
        assert_eq!(
            metrics[&format!("gateway_upstream_calls_total{{outcome=\"{after}\"}}")],
            times,
            "{after}"
        );
    }
    assert_eq!(metrics["gateway_upstream_calls_total{outcome=\"ok\"}"], 88.0);
    assert_eq!(metrics["gateway_upstream_call_duration_seconds_count"], 104.0);
    assert_eq!(metrics["gateway_upstream_retries_withheld_total"], 0.0);
    assert_eq!(metrics["gateway_upstream_under_way"], 0.0);
}

#[tokio::test]
async fn pages_of_the_list_are_retried_too() {
    let upstream = Upstream::answering(|call| match call.nth {
        1 => UpstreamResponse::status(503),
        2 => UpstreamResponse::cut(),
        _ => List::of(3, Pagination::Meta).page(call),
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[TWICE]).await;
    let reply = gateway.list("token", json!({ "first": 3 })).await;
    assert_eq!(reply.list()["nodes"].as_array().map(Vec::len), Some(3));
    assert_eq!(upstream.calls(), 3);
}

#[tokio::test]
async fn definite_responses_are_not_retried() {
    let cases: [(Case, &[&str]); 8] = [
        (("401", |_| UpstreamResponse::status(401)), &["UNAUTHENTICATED"]),
        (("403", |_| UpstreamResponse::status(403)), &["FORBIDDEN"]),
        (("404", |_| UpstreamResponse::status(404)), &[]),
        (("400", |_| UpstreamResponse::status(400)), &["UPSTREAM_INVALID_RESPONSE"]),
        (("422", |_| UpstreamResponse::status(422)), &["UPSTREAM_INVALID_RESPONSE"]),
        (("500", |_| UpstreamResponse::status(500)), &["UPSTREAM_UNAVAILABLE"]),
        (("302", |_| UpstreamResponse::status(302)), &["UPSTREAM_INVALID_RESPONSE"]),
        (("garbage", |_| UpstreamResponse::text(200, "text/html", "}{")), &["UPSTREAM_INVALID_RESPONSE"]),
    ];
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[TWICE]).await;
    for (n, ((case, script), codes)) in cases.into_iter().enumerate() {
        upstream.on(&id(n), script);
        assert_eq!(gateway.appointment("token", &id(n)).await.codes(), codes, "{case}");
        assert_eq!(upstream.calls_for(&id(n)), 1, "{case}");
    }
}

#[tokio::test]
async fn upstream_retries_bounds_the_attempts() {
    for (retries, calls) in [("0", 1), ("1", 2), ("4", 5)] {
        let upstream = Upstream::answering(|_| UpstreamResponse::status(503)).await;
        let gateway = Gateway::before(upstream.url(), &[("upstream.retries", retries)]).await;
        assert_eq!(gateway.appointment("token", &id(1)).await.codes(), ["UPSTREAM_UNAVAILABLE"]);
        assert_eq!(upstream.calls(), calls, "{retries} retries");
    }
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_tried_again() {
    // Bound but not listening: the port is reserved, and connections to it fail.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    let gateway = Gateway::before(&url, &[TWICE]).await;
    assert_eq!(gateway.appointment("token", &id(1)).await.codes(), ["UPSTREAM_UNAVAILABLE"]);
    let metrics = gateway.metrics().await;
    assert_eq!(metrics["gateway_upstream_calls_total{outcome=\"unreachable\"}"], 3.0);
}

#[tokio::test]
async fn a_change_is_sent_once_whatever_may_pass() {
    let settings =
        [("upstream.retries", "10"), ("upstream.retry_percent", "100"), ("upstream.timeout", "1s")];
    for (case, script) in TRANSIENT {
        let upstream = Upstream::answering(script).await;
        let gateway = Gateway::before(upstream.url(), &settings).await;
        for (n, kind) in ChangeKind::EACH.into_iter().enumerate() {
            assert_eq!(kind.make(&gateway).await.codes().len(), 1, "{kind:?}: {case}");
            assert_eq!(upstream.calls(), n + 1, "{kind:?}: {case}");
        }
    }
}

/// Bounds what an outage is made worse by: of `n` requests, no more than a percentage is asked for again, beside the
/// first ten.
#[tokio::test]
async fn the_retry_budget_bounds_calls_to_a_failing_upstream() {
    const REQUESTS: usize = 200;
    let upstream = Upstream::answering(|_| UpstreamResponse::status(503)).await;
    let settings = [("upstream.retries", "10"), ("upstream.retry_percent", "20")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    for part in 0..REQUESTS / 20 {
        let reply = gateway.appointments("token", &ids(20 * part..20 * (part + 1))).await;
        assert_eq!(reply.codes(), ["UPSTREAM_UNAVAILABLE"; 20]);
    }
    let calls = upstream.calls();
    assert!(
        calls > REQUESTS && calls <= REQUESTS + REQUESTS / 5 + 10,
        "{calls} calls for {REQUESTS} requests"
    );
    let metrics = gateway.metrics().await;
    assert!(metrics["gateway_upstream_retries_withheld_total"] > 100.0);
    assert_eq!(metrics["gateway_upstream_retries_total{after=\"failed\"}"], (calls - REQUESTS) as f64);
}

async fn until_counted(gateway: &Gateway, series: &str) {
    let counted = async {
        while gateway.metrics().await[series] == 0.0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(TIMEOUT, counted).await.expect("it is counted");
}

/// When an id was asked for.
#[derive(Clone, Default)]
struct Times(Arc<Mutex<Vec<(String, Instant)>>>);

impl Times {
    fn note(&self, call: &Call) {
        self.0.lock().unwrap().push((call.id.clone(), Instant::now()));
    }

    fn of(&self, id: &str) -> Vec<Instant> {
        self.0.lock().unwrap().iter().filter(|(it, _)| it == id).map(|(_, at)| *at).collect()
    }
}

#[tokio::test]
async fn retries_respect_retry_after() {
    let times = Times::default();
    let upstream = Upstream::answering({
        let times = times.clone();
        move |call| {
            times.note(call);
            let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(3));
            let (status, wait) = match call.id.as_str() {
                it if it == id(1) => (429, "1"),
                it if it == id(2) => (503, "1"),
                // A date has whole seconds, of which this one may be nearly over.
                _ => (429, date.as_str()),
            };
            if call.nth == 1 {
                UpstreamResponse::status(status).with("Retry-After", wait)
            } else {
                call.appointment()
            }
        }
    })
    .await;
    let settings = [TWICE, ("http.deadline", "60s")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let reply = gateway.appointments("token", &ids(1..4)).await;
    assert_eq!(reply.paths_and_codes(), []);
    for (n, least) in [(1, 1), (2, 1), (3, 2)] {
        let [first, second] = times.of(&id(n))[..] else { panic!("two calls for {n}") };
        assert!(second - first >= Duration::from_secs(least), "{n}: {:?}", second - first);
    }
}

#[tokio::test]
async fn a_retry_after_past_the_deadline_is_returned_at_once() {
    let far = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(86_400));
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[TWICE, ("http.deadline", "20s")]).await;
    for (n, (status, wait, code, seconds)) in [
        (429, "3600", "RATE_LIMITED", 3600),
        (503, "3600", "UPSTREAM_UNAVAILABLE", 3600),
        // Were it waited for, the deadline would come first, with another code.
        (429, "30", "RATE_LIMITED", 30),
        (429, far.as_str(), "RATE_LIMITED", 3600),
    ]
    .into_iter()
    .enumerate()
    {
        let wait = wait.to_owned();
        upstream.on(&id(n), move |_| UpstreamResponse::status(status).with("Retry-After", &wait));
        let reply = gateway.appointment("token", &id(n)).await;
        assert_eq!(reply.codes(), [code]);
        assert_eq!(reply.body["errors"][0]["extensions"]["retryAfterSeconds"], seconds);
        assert_eq!(upstream.calls_for(&id(n)), 1);
    }
}

#[tokio::test]
async fn calls_in_backoff_hold_no_concurrency_slot() {
    let upstream = Upstream::answering(|call| match (call.id == id(1), call.nth) {
        (true, 1) => UpstreamResponse::status(503).with("Retry-After", "2"),
        _ => call.appointment(),
    })
    .await;
    let settings = [TWICE, ("upstream.max_concurrent", "1"), ("http.deadline", "60s")];
    let gateway = Arc::new(Gateway::before(upstream.url(), &settings).await);
    let waiting = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.appointment("token", &id(1)).await }
    });
    upstream.until_called(1).await;
    assert_eq!(*gateway.appointment("token", &id(2)).await.appointment(), served(&id(2), "token", 1));
    assert_eq!(*waiting.await.unwrap().appointment(), served(&id(1), "token", 2));
    let order = upstream.seen(|seen| seen.calls.iter().map(|call| call.id.clone()).collect::<Vec<_>>());
    assert_eq!(order, [id(1), id(2), id(1)]);
}

/// Several operations share a call; the first may have no time left for a repetition for which another has.
#[tokio::test]
async fn a_shared_call_is_repeated_for_as_long_as_the_last_one_waits() {
    let gate = Gate::shut();
    let upstream = Upstream::answering({
        let gate = gate.clone();
        move |call| match call.nth {
            1 => UpstreamResponse::status(503).with("Retry-After", "4").once(&gate),
            _ => call.appointment(),
        }
    })
    .await;
    let settings = [TWICE, ("upstream.timeout", "60s"), ("http.deadline", "6s")];
    let gateway = Arc::new(Gateway::before(upstream.url(), &settings).await);
    let ask = || {
        let gateway = gateway.clone();
        tokio::spawn(async move { gateway.appointment("token", &id(1)).await })
    };
    let first = ask();
    upstream.until_called(1).await;
    sleep(Duration::from_secs(3)).await;
    let last = ask();
    sleep(Duration::from_millis(300)).await;
    gate.open();
    assert_eq!(first.await.unwrap().codes(), ["UPSTREAM_TIMEOUT"]);
    assert_eq!(*last.await.unwrap().appointment(), served(&id(1), "token", 2));
    assert_eq!(upstream.calls(), 2);
}

const PAUSED: [(&str, &str); 3] = [TWICE, ("upstream.max_paused", "10"), ("http.deadline", "60s")];

#[tokio::test]
async fn retry_after_pauses_the_reads_of_its_caller_only() {
    let upstream = Upstream::start().await;
    upstream.on(&id(1), |_| UpstreamResponse::status(429).with("Retry-After", "3600"));
    let gateway = Gateway::before(upstream.url(), &PAUSED).await;
    assert_eq!(gateway.appointment("token", &id(2)).await.codes(), [""; 0]);
    assert_eq!(gateway.appointment("token", &id(1)).await.codes(), ["RATE_LIMITED"]);
    for reply in [
        gateway.appointment("token", &id(1)).await,
        gateway.appointment("token", &id(3)).await,
        gateway.list("token", json!({ "first": 3 })).await,
    ] {
        assert_eq!(reply.codes(), ["RATE_LIMITED"]);
        let seconds = reply.body["errors"][0]["extensions"]["retryAfterSeconds"].as_u64();
        assert!(seconds.is_some_and(|seconds| (3500..=3600).contains(&seconds)), "{seconds:?}");
    }
    assert_eq!(upstream.calls(), 2);
    assert_eq!(gateway.metrics().await["gateway_upstream_paused_total"], 3.0);
    assert_eq!(*gateway.appointment("token", &id(2)).await.appointment(), served(&id(2), "token", 1), "kept");
    assert_eq!(*gateway.appointment("other", &id(3)).await.appointment(), served(&id(3), "other", 1));
    // A change is somebody's one deed: whether it is allowed, the upstream says.
    upstream.on(&id(4), Call::changed);
    gateway.update("token", &id(4), json!({ "status": "waiting" })).await.changed();
}

#[tokio::test]
async fn retry_after_of_a_change_pauses_its_callers_reads() {
    let upstream = Upstream::start().await;
    upstream.on(&id(1), |_| UpstreamResponse::status(429).with("Retry-After", "3600"));
    let gateway = Gateway::before(upstream.url(), &PAUSED).await;
    gateway.update("token", &id(1), json!({ "status": "waiting" })).await;
    assert_eq!(gateway.appointment("token", &id(2)).await.codes(), ["RATE_LIMITED"]);
    assert_eq!(gateway.appointment("other", &id(2)).await.codes(), [""; 0]);
    assert_eq!(upstream.calls(), 2);
}

#[tokio::test]
async fn queued_reads_respect_a_later_retry_after() {
    let gate = Gate::shut();
    let upstream = Upstream::answering({
        let gate = gate.clone();
        move |call| match call.id == id(1) {
            true => UpstreamResponse::status(429).with("Retry-After", "3600").once(&gate),
            false => call.appointment(),
        }
    })
    .await;
    let settings = [&PAUSED[..], &[("upstream.max_concurrent", "1")]].concat();
    let gateway = Arc::new(Gateway::before(upstream.url(), &settings).await);
    let read = |n| {
        let gateway = gateway.clone();
        tokio::spawn(async move { gateway.appointment("token", &id(n)).await })
    };
    let first = read(1);
    upstream.until_called(1).await;
    let queued = read(2);
    until_counted(&gateway, "gateway_upstream_waiting").await;
    gate.open();
    assert_eq!(first.await.unwrap().codes(), ["RATE_LIMITED"]);
    assert_eq!(queued.await.unwrap().codes(), ["RATE_LIMITED"]);
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn in_service_mode_retry_after_pauses_the_gateway() {
    let upstream = Upstream::answering(|call| match call.id.as_str() {
        "token" => service_token(call, 3600),
        _ => UpstreamResponse::status(429).with("Retry-After", "3600"),
    })
    .await;
    let keys = KeyFile::of(&["one", "other"]);
    let settings = [&PAUSED[..], &[("callers.api_keys_file", keys.path())]].concat();
    let gateway = Gateway::of_service(&upstream, &settings).await;
    for caller in [0, 1] {
        assert_eq!(gateway.appointment(keys.key(caller), &id(caller)).await.codes(), ["RATE_LIMITED"]);
    }
    assert_eq!(upstream.calls_for_appointments(), 1, "the upstream sees one client");
}

#[tokio::test]
async fn requests_wait_for_a_retry_after_within_their_deadline() {
    let times = Times::default();
    let upstream = Upstream::answering({
        let times = times.clone();
        move |call| {
            times.note(call);
            match (call.id == id(1), call.nth) {
                (true, 1) => UpstreamResponse::status(429).with("Retry-After", "2"),
                _ => call.appointment(),
            }
        }
    })
    .await;
    let gateway = Arc::new(Gateway::before(upstream.url(), &PAUSED).await);
    let first = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.appointment("token", &id(1)).await }
    });
    upstream.until_called(1).await;
    until_counted(&gateway, "gateway_upstream_retries_total{after=\"rate_limited\"}").await;
    let reply = gateway.appointments("token", &ids(2..5)).await;
    assert_eq!(reply.paths_and_codes(), []);
    assert_eq!(*first.await.unwrap().appointment(), served(&id(1), "token", 2));
    let told = times.of(&id(1))[0];
    for n in 2..5 {
        let [at] = times.of(&id(n))[..] else { panic!("one call for {n}") };
        assert!(at - told >= Duration::from_secs(2), "{n}: {:?}", at - told);
    }
}

#[tokio::test]
async fn polls_are_not_retried() {
    let upstream = Upstream::start().await;
    upstream.on(&id(1), |_| UpstreamResponse::status(503));
    let settings = [TWICE, ("live.fast_interval", "1h"), ("live.slow_interval", "1h")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let mut events = gateway.watch("token", &id(1)).await;
    upstream.until_called(1).await;
    // Longer than any pause before a repetition.
    events.nothing(Duration::from_millis(500)).await;
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn a_revalidation_with_waiters_is_retried() {
    let gate = Gate::shut();
    let upstream = Upstream::answering({
        let gate = gate.clone();
        move |call| if call.nth == 1 { UpstreamResponse::status(503).once(&gate) } else { call.appointment() }
    })
    .await;
    let settings = [TWICE, ("live.fast_interval", "1h"), ("live.slow_interval", "1h")];
    let gateway = Arc::new(Gateway::before(upstream.url(), &settings).await);
    let mut events = gateway.watch("token", &id(1)).await;
    upstream.until_called(1).await;
    let query = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.appointment("token", &id(1)).await }
    });
    until_counted(&gateway, "gateway_operations_total{kind=\"query\"}").await;
    // From there it is not far to the call that is under way.
    sleep(Duration::from_secs(1)).await;
    gate.open();
    assert_eq!(*query.await.unwrap().appointment(), served(&id(1), "token", 2));
    assert_eq!(events.status().await, "call 2");
    assert_eq!(upstream.calls(), 2);
}

#[tokio::test]
async fn a_call_without_waiters_is_not_retried() {
    let upstream = Upstream::answering(|_| UpstreamResponse::status(503).with("Retry-After", "3")).await;
    let gateway = Arc::new(Gateway::before(upstream.url(), &[TWICE, ("http.deadline", "60s")]).await);
    let client = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.appointment("token", &id(1)).await }
    });
    until_counted(&gateway, "gateway_upstream_retries_total{after=\"failed\"}").await;
    client.abort();
    sleep(Duration::from_secs(4)).await;
    assert_eq!(upstream.calls(), 1);
}
