//! A cached appointment never outlives its TTL, a stricter `Cache-Control` of the upstream, or the `exp` of the
//! caller's JWT. Failures are never cached as data (invariants 2 and 5).
//!
//! Caching is tested with long TTLs, expiry with short ones and a longer pause, so a slow machine makes these tests
//! slower, but not wrong.

use std::time::Duration;

use serde_json::Value;

use crate::support::{Call, Gateway, Upstream, UpstreamResponse, id, jwt, served};

/// A TTL for tests of expiry, and a longer pause.
const SHORT: &str = "300ms";
const LONGER: Duration = Duration::from_millis(450);

/// As [`LONGER`], for the whole seconds in which HTTP and JWTs count.
const LONGER_THAN_A_SECOND: Duration = Duration::from_millis(1200);

/// How many calls two readings of one id make, with a pause between them.
async fn calls_for_two(
    settings: &[(&str, &str)],
    token: &str,
    pause: Duration,
    script: fn(&Call) -> UpstreamResponse,
) -> usize {
    let upstream = Upstream::answering(script).await;
    let gateway = Gateway::before(upstream.url(), settings).await;
    let first = gateway.appointment(token, &id(1)).await;
    tokio::time::sleep(pause).await;
    let second = gateway.appointment(token, &id(1)).await;
    // Found or not, with an error or without: both times the same, but for which call it came from.
    assert_eq!(first.codes(), second.codes());
    assert_eq!(first.body["data"]["appointment"].is_null(), second.body["data"]["appointment"].is_null());
    upstream.calls()
}

#[tokio::test]
async fn an_appointment_is_cached_for_its_ttl() {
    assert_eq!(calls_for_two(&[], "token", Duration::ZERO, Call::appointment).await, 1);
    assert_eq!(calls_for_two(&[("cache.ttl", SHORT)], "token", LONGER, Call::appointment).await, 2);
}

#[tokio::test]
async fn cache_hits_equal_the_fetched_data_until_expiry() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[("cache.ttl", "1s")]).await;
    let first = gateway.appointment("token", &id(1)).await;
    assert_eq!(*first.appointment(), served(&id(1), "token", 1));
    tokio::time::sleep(LONGER_THAN_A_SECOND).await;
    assert_eq!(*gateway.appointment("token", &id(1)).await.appointment(), served(&id(1), "token", 2));
}

#[tokio::test]
async fn reading_does_not_prolong_the_time_to_live() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[("cache.ttl", SHORT)]).await;
    for _ in 0..10 {
        gateway.appointment("token", &id(1)).await;
        tokio::time::sleep(LONGER / 5).await;
    }
    // Readings over more than twice the time to live, none of them as long as that after the one before.
    assert!(upstream.calls() >= 2);
}

#[tokio::test]
async fn with_a_time_to_live_of_zero_each_operation_asks() {
    assert_eq!(calls_for_two(&[("cache.ttl", "0")], "token", Duration::ZERO, Call::appointment).await, 2);
}

#[tokio::test]
async fn a_cache_of_size_zero_keeps_nothing() {
    assert_eq!(calls_for_two(&[("cache.size", "0")], "token", Duration::ZERO, Call::appointment).await, 2);
}

#[tokio::test]
async fn an_absence_has_a_time_to_live_of_its_own() {
    let absent = |_: &Call| UpstreamResponse::status(404);
    let with = async |key, value, pause| calls_for_two(&[(key, value)], "token", pause, absent).await;
    assert_eq!(with("cache.absence_ttl", "60s", Duration::ZERO).await, 1);
    assert_eq!(with("cache.absence_ttl", SHORT, LONGER).await, 2);
    assert_eq!(with("cache.absence_ttl", "0", Duration::ZERO).await, 2);
    // That of appointments has no say in it.
    let settings = [("cache.ttl", "0"), ("cache.absence_ttl", "60s")];
    assert_eq!(calls_for_two(&settings, "token", Duration::ZERO, absent).await, 1);
}

#[tokio::test]
async fn new_appointments_appear_when_cached_absence_expires() {
    let upstream = Upstream::answering(|call| match call.nth {
        1 => UpstreamResponse::status(404),
        _ => call.appointment(),
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[("cache.absence_ttl", SHORT)]).await;
    assert_eq!(*gateway.appointment("token", &id(1)).await.appointment(), Value::Null);
    tokio::time::sleep(LONGER).await;
    assert_eq!(*gateway.appointment("token", &id(1)).await.appointment(), served(&id(1), "token", 2));
}

#[tokio::test]
async fn an_absence_is_one_callers() {
    let upstream = Upstream::answering(|call| match call.token() {
        "blind" => UpstreamResponse::status(404),
        _ => call.appointment(),
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[("cache.absence_ttl", "60s")]).await;
    for _ in 0..2 {
        assert_eq!(*gateway.appointment("blind", &id(1)).await.appointment(), Value::Null);
        assert_eq!(*gateway.appointment("sees", &id(1)).await.appointment(), served(&id(1), "sees", 2));
    }
    assert_eq!(upstream.calls(), 2);
}

#[tokio::test]
async fn cache_control_shortens_and_never_lengthens() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[("cache.absence_ttl", "30s")]).await;
    let kept: &[&[(&str, &str)]] = &[
        &[],
        &[("Cache-Control", "private")],
        &[("Cache-Control", "private, max-age=60")],
        &[("Cache-Control", "max-age=60"), ("Age", "10")],
        &[("Cache-Control", "s-maxage=0")],
        // The framework's default; see src/upstream/cache_control.rs.
        &[("Cache-Control", "no-cache, private")],
        &[("Cache-Control", "private, no-cache")],
    ];
    let not_kept: &[&[(&str, &str)]] = &[
        &[("Cache-Control", "no-store")],
        &[("Cache-Control", "No-Store, private")],
        &[("Cache-Control", "max-age=60, no-store")],
        &[("Cache-Control", "max-age=60"), ("Cache-Control", "no-store")],
        &[("Cache-Control", "no-cache")],
        &[("Cache-Control", "no-cache, private, must-revalidate")],
        &[("Cache-Control", "max-age=0")],
        &[("Cache-Control", "max-age=60"), ("Age", "60")],
        &[("Cache-Control", "max-age=60"), ("Age", "4000")],
    ];
    let cases = kept.iter().map(|it| (it, 1)).chain(not_kept.iter().map(|it| (it, 2)));
    for (case, (headers, calls)) in cases.enumerate() {
        for (n, absent) in [(2 * case, false), (2 * case + 1, true)] {
            upstream.on(&id(n), move |call| {
                let answer = if absent { UpstreamResponse::status(404) } else { call.appointment() };
                headers.iter().fold(answer, |answer, (name, value)| answer.with(name, value))
            });
            gateway.appointment("token", &id(n)).await;
            gateway.appointment("token", &id(n)).await;
            assert_eq!(upstream.calls_for(&id(n)), calls, "{headers:?}, absent: {absent}");
        }
    }
}

#[tokio::test]
async fn max_age_shortens_the_ttl() {
    let one_second = |call: &Call| call.appointment().with("Cache-Control", "max-age=1");
    assert_eq!(calls_for_two(&[], "token", LONGER_THAN_A_SECOND, one_second).await, 2);
    let one_second_left =
        |call: &Call| call.appointment().with("Cache-Control", "max-age=60").with("Age", "59");
    assert_eq!(calls_for_two(&[], "token", LONGER_THAN_A_SECOND, one_second_left).await, 2);
}

#[tokio::test]
async fn max_age_does_not_extend_the_ttl() {
    let minute = |call: &Call| call.appointment().with("Cache-Control", "max-age=60");
    assert_eq!(calls_for_two(&[("cache.ttl", SHORT)], "token", LONGER, minute).await, 2);
}

#[tokio::test]
async fn nothing_outlives_the_token_that_fetched_it() {
    assert_eq!(calls_for_two(&[], &jwt(3600), Duration::ZERO, Call::appointment).await, 1);
    // Past the end of the token the gateway still passes it on: whether it is good is the upstream's to say.
    assert_eq!(calls_for_two(&[], &jwt(1), LONGER_THAN_A_SECOND, Call::appointment).await, 2);
    assert_eq!(calls_for_two(&[], &jwt(0), Duration::ZERO, Call::appointment).await, 2);
    assert_eq!(calls_for_two(&[], &jwt(-60), Duration::ZERO, Call::appointment).await, 2);
    assert_eq!(calls_for_two(&[], &jwt(-60), Duration::ZERO, |_| UpstreamResponse::status(404)).await, 2);
}

#[tokio::test]
async fn failures_are_never_cached() {
    let upstream = Upstream::start().await;
    let settings = [("upstream.timeout", "1s"), ("upstream.max_response", "8KiB")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let failures: [fn(&Call) -> UpstreamResponse; 11] = [
        |_| UpstreamResponse::status(401),
        |_| UpstreamResponse::status(403),
        |_| UpstreamResponse::status(429),
        |_| UpstreamResponse::status(500),
        // `max-age` on a failure is ignored.
        |_| UpstreamResponse::status(500).with("Cache-Control", "max-age=60"),
        |_| UpstreamResponse::status(403).with("Cache-Control", "max-age=60"),
        |_| UpstreamResponse::never(),
        |_| UpstreamResponse::cut(),
        |_| UpstreamResponse::raw("what is this?"),
        |_| UpstreamResponse::text(200, "text/html", "<html>"),
        |call| call.appointment().short_of(3),
    ];
    for (n, failure) in failures.into_iter().enumerate() {
        upstream.on(&id(n), move |call| if call.nth <= 2 { failure(call) } else { call.appointment() });
        for _ in 0..2 {
            let reply = gateway.appointment("token", &id(n)).await;
            assert_eq!(
                (reply.codes().len(), &reply.body["data"]["appointment"]),
                (1, &Value::Null),
                "failure {n}"
            );
        }
        for _ in 0..2 {
            let reply = gateway.appointment("token", &id(n)).await;
            assert_eq!(*reply.appointment(), served(&id(n), "token", 3), "failure {n}");
        }
        assert_eq!(upstream.calls_for(&id(n)), 3, "failure {n}");
    }
}

#[tokio::test]
async fn a_rejection_replaces_an_expired_entry() {
    for (status, code) in [(401, "UNAUTHENTICATED"), (403, "FORBIDDEN"), (500, "UPSTREAM_UNAVAILABLE")] {
        let upstream = Upstream::answering(move |call| match call.nth {
            1 | 4 => call.appointment(),
            _ => UpstreamResponse::status(status),
        })
        .await;
        let settings = [("cache.ttl", SHORT), ("cache.stale_if_error", "0")];
        let gateway = Gateway::before(upstream.url(), &settings).await;
        assert_eq!(*gateway.appointment("token", &id(1)).await.appointment(), served(&id(1), "token", 1));
        tokio::time::sleep(LONGER).await;
        for _ in 0..2 {
            let reply = gateway.appointment("token", &id(1)).await;
            assert_eq!(
                reply.paths_and_codes(),
                [(r#"["appointment"]"#.to_owned(), code)],
                "nothing stale is served"
            );
        }
        assert_eq!(*gateway.appointment("token", &id(1)).await.appointment(), served(&id(1), "token", 4));
    }
}
