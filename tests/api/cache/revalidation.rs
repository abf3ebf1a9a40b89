//! Revalidation: expired entries with validators are renewed by conditional requests (RFC 9110, section 13; RFC 9111,
//! section 4.3), unless a change or a revocation has ended them.
//!
//! Most responses here have `Cache-Control: no-cache`, so that each read revalidates them at once.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::{
    Call, Gate, Gateway, GatewayResponse, List, Pagination, Upstream, UpstreamResponse, id, ids, listed,
    served,
};

/// A short TTL, and a pause that exceeds it.
const SHORT: [(&str, &str); 2] = [("cache.ttl", "300ms"), ("cache.list_ttl", "300ms")];
const LONGER: Duration = Duration::from_millis(450);

const MODIFIED: &str = "Wed, 21 Oct 2015 07:28:00 GMT";

type Headers = &'static [(&'static str, &'static str)];

/// The kinds of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Appointment,
    Page,
}

impl Kind {
    const EACH: [Self; 2] = [Self::Appointment, Self::Page];

    async fn read(self, gateway: &Gateway, token: &str) -> GatewayResponse {
        match self {
            Self::Appointment => gateway.appointment(token, &id(1)).await,
            Self::Page => gateway.list(token, json!({ "first": 5 })).await,
        }
    }

    /// The number of the call that brought the data.
    #[track_caller]
    fn call_of(self, reply: &GatewayResponse) -> String {
        let status = match self {
            Self::Appointment => &reply.appointment()["status"],
            Self::Page => &reply.list()["edges"][0]["node"]["status"],
        };
        status.as_str().unwrap().to_owned()
    }
}

/// The data of a call, marked with its number. Items of a page are incomplete, so that none is cached by itself.
fn data(call: &Call) -> UpstreamResponse {
    if call.id != "appointments" {
        return call.appointment();
    }
    let item = |n: usize| json!({ "id": id(n), "status": format!("call {}", call.nth) });
    UpstreamResponse::json(200, &List::of(5, Pagination::Meta).body_of(call, item))
}

fn with(response: UpstreamResponse, headers: &[(&str, &str)]) -> UpstreamResponse {
    headers.iter().fold(response, |response, (name, value)| response.with(name, value))
}

/// An upstream whose data has these headers, and which answers conditional calls with a 304 of its own headers.
async fn unchanged(of_data: Headers, of_304: Headers) -> Upstream {
    Upstream::answering(move |call| {
        if call.is_conditional() {
            with(UpstreamResponse::not_modified(), of_304)
        } else {
            with(data(call), of_data)
        }
    })
    .await
}

const TAGGED: Headers = &[("ETag", "\"a\""), ("Cache-Control", "no-cache")];

/// The conditions of all calls that are not changes.
fn conditions(upstream: &Upstream) -> Vec<bool> {
    upstream
        .seen(|seen| seen.calls.iter().filter(|call| !call.is_change()).map(Call::is_conditional).collect())
}

#[tokio::test]
async fn a_304_renews_an_expired_entry() {
    let both: Headers = &[("ETag", "\"a\""), ("Last-Modified", MODIFIED)];
    for (validators, expected) in [
        (&[("ETag", "\"a\"")][..], [Some("\"a\""), None]),
        (&[("ETag", "W/\"a\"")], [Some("W/\"a\""), None]),
        (&[("Last-Modified", MODIFIED)], [None, Some(MODIFIED)]),
        (both, [Some("\"a\""), Some(MODIFIED)]),
    ] {
        for kind in Kind::EACH {
            let upstream = unchanged(validators, &[]).await;
            let settings = [&SHORT[..], &[("cache.stale_if_error", "0")]].concat();
            let gateway = Gateway::before(upstream.url(), &settings).await;
            assert_eq!(kind.call_of(&kind.read(&gateway, "token").await), "call 1");
            for calls in [2, 3] {
                sleep(LONGER).await;
                let reply = kind.read(&gateway, "token").await;
                assert_eq!(kind.call_of(&reply), "call 1", "{validators:?}");
                assert_eq!(reply.body.get("extensions"), None, "it is not stale");
                assert_eq!(upstream.calls(), calls, "{validators:?}, {kind:?}");
                let last = upstream.seen(|seen| seen.calls.last().unwrap().clone());
                assert_eq!(last.conditions(), expected, "{kind:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_renewed_entry_is_fresh_for_its_ttl() {
    for kind in Kind::EACH {
        let upstream = unchanged(TAGGED, &[("ETag", "\"a\""), ("Cache-Control", "max-age=600")]).await;
        let settings = [("cache.ttl", "10m"), ("cache.list_ttl", "10m")];
        let gateway = Gateway::before(upstream.url(), &settings).await;
        for _ in 0..5 {
            assert_eq!(kind.call_of(&kind.read(&gateway, "token").await), "call 1");
        }
        assert_eq!(conditions(&upstream), [false, true], "{kind:?}");
    }
}

#[tokio::test]
async fn a_304_has_the_freshness_of_its_headers() {
    for (of_data, of_304, expected) in [
        // Without the header, that of the data still holds, at the age of the 304.
        (TAGGED, &[][..], &[false, true, true, true][..]),
        (&[("ETag", "\"a\""), ("Cache-Control", "max-age=60"), ("Age", "60")], &[], &[false, true]),
        (
            &[("ETag", "\"a\""), ("Cache-Control", "max-age=60"), ("Age", "60")],
            &[("Age", "60")],
            &[false, true, true, true],
        ),
        (TAGGED, &[("Cache-Control", "max-age=0")], &[false, true, true, true]),
        (TAGGED, &[("Cache-Control", "private")], &[false, true]),
        (TAGGED, &[("Cache-Control", "no-store")], &[false, true, false, true]),
    ] {
        for kind in Kind::EACH {
            let upstream = unchanged(of_data, of_304).await;
            let settings = [("cache.ttl", "10m"), ("cache.list_ttl", "10m")];
            let gateway = Gateway::before(upstream.url(), &settings).await;
            for _ in 0..4 {
                kind.call_of(&kind.read(&gateway, "token").await);
            }
            assert_eq!(conditions(&upstream), expected, "{kind:?}: {of_data:?}, {of_304:?}");
        }
    }
}

#[tokio::test]
async fn changed_data_replaces_the_entry_and_its_validators() {
    for kind in Kind::EACH {
        let upstream = Upstream::answering(|call| {
            let etag = format!("\"{}\"", call.nth);
            data(call).with("ETag", &etag).with("Cache-Control", "no-cache")
        })
        .await;
        let gateway = Gateway::before(upstream.url(), &[]).await;
        for n in 1..=3 {
            assert_eq!(kind.call_of(&kind.read(&gateway, "token").await), format!("call {n}"));
        }
        let tags = upstream.seen(|seen| {
            seen.calls.iter().map(|call| call.conditions()[0].map(str::to_owned)).collect::<Vec<_>>()
        });
        assert_eq!(tags, [None, Some("\"1\"".to_owned()), Some("\"2\"".to_owned())], "{kind:?}");
    }
}

#[tokio::test]
async fn a_304_about_another_response_is_disregarded() {
    for (of_data, of_304, is_confirmed) in [
        (TAGGED, &[("ETag", "W/\"a\"")][..], true),
        (&[("ETag", "W/\"a\""), ("Cache-Control", "no-cache")], &[("ETag", "\"a\"")], true),
        (TAGGED, &[("ETag", "\"b\"")], false),
        (&[("Last-Modified", MODIFIED), ("Cache-Control", "no-cache")], &[("Last-Modified", MODIFIED)], true),
        (
            &[("Last-Modified", MODIFIED), ("Cache-Control", "no-cache")],
            &[("Last-Modified", "Wed, 21 Oct 2015 07:29:00 GMT")],
            false,
        ),
    ] {
        for kind in Kind::EACH {
            let upstream = unchanged(of_data, of_304).await;
            let gateway = Gateway::before(upstream.url(), &[]).await;
            kind.read(&gateway, "token").await;
            let reply = kind.read(&gateway, "token").await;
            let expected = if is_confirmed { ("call 1", 2) } else { ("call 3", 3) };
            assert_eq!((kind.call_of(&reply).as_str(), upstream.calls()), expected, "{kind:?}: {of_304:?}");
        }
    }
}

#[tokio::test]
async fn a_304_without_a_condition_is_an_error() {
    for kind in Kind::EACH {
        // The second response to the conditional request is one to an unconditional request.
        let upstream = Upstream::answering(|call| match call.nth {
            1 => with(data(call), TAGGED),
            _ => UpstreamResponse::not_modified().with("ETag", "\"b\""),
        })
        .await;
        let gateway = Gateway::before(upstream.url(), &[]).await;
        kind.call_of(&kind.read(&gateway, "token").await);
        for _ in 0..2 {
            assert_eq!(kind.read(&gateway, "token").await.codes(), ["UPSTREAM_INVALID_RESPONSE"]);
        }
        assert_eq!(conditions(&upstream), [false, true, false, false], "{kind:?}: the error ends the entry");
    }
}

#[tokio::test]
async fn unusable_validators_make_no_condition() {
    let long = format!("\"{}\"", "a".repeat(300));
    let cases: [&[(&str, &str)]; 7] = [
        &[],
        &[("ETag", &long)],
        &[("ETag", "a")],
        &[("ETag", "*")],
        &[("ETag", "\"a\""), ("ETag", "\"b\"")],
        &[("Last-Modified", "yesterday")],
        // A change within the same second would go unnoticed.
        &[("Last-Modified", MODIFIED), ("Date", MODIFIED)],
    ];
    for case in cases {
        let headers: Vec<_> =
            case.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let upstream = Upstream::answering(move |call| {
            let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            with(data(call), &headers.collect::<Vec<_>>()).with("Cache-Control", "no-cache")
        })
        .await;
        let gateway = Gateway::before(upstream.url(), &[]).await;
        for kind in Kind::EACH {
            kind.read(&gateway, "token").await;
            kind.read(&gateway, "token").await;
        }
        assert_eq!(conditions(&upstream), [false; 4], "{case:?}");
    }
}

#[tokio::test]
async fn no_condition_is_shared_between_callers() {
    for kind in Kind::EACH {
        let upstream = unchanged(TAGGED, &[]).await;
        let gateway = Gateway::before(upstream.url(), &[]).await;
        for token in ["token", "other", "token", "other"] {
            kind.call_of(&kind.read(&gateway, token).await);
        }
        assert_eq!(conditions(&upstream), [false, false, true, true], "{kind:?}");
    }
}

#[tokio::test]
async fn entries_from_before_a_change_are_fetched_in_full() {
    let outcomes: [fn(&Call) -> UpstreamResponse; 3] =
        [Call::changed, |_| UpstreamResponse::text(204, "text/plain", ""), |_| UpstreamResponse::cut()];
    for outcome in outcomes {
        for kind in Kind::EACH {
            let upstream = Upstream::answering(move |call| {
                if call.is_change() {
                    outcome(call)
                } else if call.is_conditional() {
                    // It would be wrong to believe this.
                    UpstreamResponse::not_modified()
                } else {
                    with(data(call), TAGGED)
                }
            })
            .await;
            let gateway = Gateway::before(upstream.url(), &[("cache.ttl", "1ms")]).await;
            for token in ["token", "other"] {
                kind.read(&gateway, token).await;
            }
            gateway.update("token", &id(1), json!({ "status": "waiting" })).await;
            sleep(Duration::from_millis(20)).await;
            for token in ["token", "other"] {
                kind.read(&gateway, token).await;
            }
            assert_eq!(conditions(&upstream), [false; 4], "{kind:?}");
        }
    }
}

#[tokio::test]
async fn a_rejected_change_leaves_entries_to_revalidate() {
    for kind in Kind::EACH {
        let upstream = Upstream::answering(|call| match call.is_change() {
            true => UpstreamResponse::json(422, &json!({ "errors": { "status": ["no"] } })),
            false if call.is_conditional() => UpstreamResponse::not_modified(),
            false => with(data(call), TAGGED),
        })
        .await;
        let gateway = Gateway::before(upstream.url(), &[]).await;
        kind.read(&gateway, "token").await;
        gateway.update("token", &id(1), json!({ "status": "waiting" })).await;
        assert_eq!(kind.call_of(&kind.read(&gateway, "token").await), "call 1");
        assert_eq!(conditions(&upstream), [false, true], "{kind:?}");
    }
}

#[tokio::test]
async fn a_304_from_before_a_change_renews_nothing() {
    for kind in Kind::EACH {
        let gate = Gate::shut();
        let upstream = Upstream::answering({
            let gate = gate.clone();
            move |call| match call.is_change() {
                true => call.changed(),
                false if call.is_conditional() => {
                    UpstreamResponse::not_modified().with("Cache-Control", "max-age=600").once(&gate)
                }
                false => with(data(call), TAGGED),
            }
        })
        .await;
        let settings = [("upstream.timeout", "60s"), ("http.deadline", "60s")];
        let gateway = Arc::new(Gateway::before(upstream.url(), &settings).await);
        kind.read(&gateway, "token").await;
        let waiting = tokio::spawn({
            let gateway = gateway.clone();
            async move { kind.read(&gateway, "token").await }
        });
        upstream.until_called(2).await;
        // By another caller, so that its response is not cached for this one.
        gateway.update("other", &id(1), json!({ "status": "waiting" })).await.changed();
        gate.open();
        kind.call_of(&waiting.await.unwrap());
        kind.call_of(&kind.read(&gateway, "token").await);
        assert_eq!(conditions(&upstream), [false, true, false], "{kind:?}");
    }
}

#[tokio::test]
async fn revoked_entries_are_never_revalidated() {
    for status in [401, 403, 404, 410, 451] {
        for kind in Kind::EACH {
            let upstream = Upstream::answering(move |call| match call.nth {
                2 => UpstreamResponse::status(status),
                _ if call.is_conditional() => UpstreamResponse::not_modified(),
                _ => with(data(call), TAGGED),
            })
            .await;
            let gateway = Gateway::before(upstream.url(), &[("cache.absence_ttl", "0")]).await;
            kind.call_of(&kind.read(&gateway, "token").await);
            kind.read(&gateway, "token").await;
            assert_eq!(kind.call_of(&kind.read(&gateway, "token").await), "call 3", "{kind:?}: {status}");
            assert_eq!(conditions(&upstream), [false, true, false], "{kind:?}: {status}");
        }
    }
}

#[tokio::test]
async fn a_401_to_another_request_ends_revalidation() {
    let upstream = unchanged(TAGGED, &[]).await;
    upstream.on(&id(9), |_| UpstreamResponse::status(401));
    let gateway = Gateway::before(upstream.url(), &[]).await;
    for kind in Kind::EACH {
        kind.call_of(&kind.read(&gateway, "token").await);
        assert_eq!(gateway.appointment("token", &id(9)).await.codes(), ["UNAUTHENTICATED"]);
        kind.call_of(&kind.read(&gateway, "token").await);
    }
    assert_eq!(conditions(&upstream), [false; 6]);
}

#[tokio::test]
async fn retries_carry_the_same_condition() {
    for kind in Kind::EACH {
        let upstream = Upstream::answering(|call| match call.nth {
            1 => with(data(call), TAGGED),
            2 | 3 => UpstreamResponse::status(503),
            _ => UpstreamResponse::not_modified(),
        })
        .await;
        let gateway = Gateway::before(upstream.url(), &[("upstream.retries", "2")]).await;
        for _ in 0..2 {
            assert_eq!(kind.call_of(&kind.read(&gateway, "token").await), "call 1");
        }
        assert_eq!(conditions(&upstream), [false, true, true, true], "{kind:?}");
    }
}

#[tokio::test]
async fn hedged_calls_carry_the_same_condition() {
    let upstream = Upstream::start().await;
    let settings = [("upstream.hedge_percent", "100"), ("upstream.timeout", "60s"), ("http.deadline", "60s")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    for n in 1000..1040 {
        gateway.appointment("token", &id(n)).await.appointment();
    }
    upstream.on(&id(1), |call| match call.nth {
        1 => with(call.appointment(), TAGGED),
        2 => UpstreamResponse::never(),
        _ => UpstreamResponse::not_modified(),
    });
    for _ in 0..2 {
        assert_eq!(*gateway.appointment("token", &id(1)).await.appointment(), served(&id(1), "token", 1));
    }
    let conditions = upstream.seen(|seen| {
        let calls = seen.calls.iter().filter(|call| call.id == id(1));
        calls.map(Call::is_conditional).collect::<Vec<_>>()
    });
    assert_eq!(conditions, [false, true, true]);
}

#[tokio::test]
async fn concurrent_readers_share_one_conditional_call() {
    let gate = Gate::shut();
    let upstream = Upstream::answering({
        let gate = gate.clone();
        move |call| match call.nth {
            1 => with(call.appointment(), TAGGED),
            _ => UpstreamResponse::not_modified().once(&gate),
        }
    })
    .await;
    let gateway = Arc::new(Gateway::before(upstream.url(), &[("upstream.timeout", "60s")]).await);
    gateway.appointment("token", &id(1)).await.appointment();
    let readers: Vec<_> = (0..10)
        .map(|_| {
            let gateway = gateway.clone();
            tokio::spawn(async move { gateway.appointment("token", &id(1)).await })
        })
        .collect();
    upstream.until_called(2).await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(upstream.seen(|seen| seen.max_in_flight), 1);
    gate.open();
    for reader in readers {
        assert_eq!(*reader.await.unwrap().appointment(), served(&id(1), "token", 1));
    }
}

#[tokio::test]
async fn entries_are_kept_for_revalidation_as_configured() {
    for (settings, is_conditional) in [
        (&[("cache.stale_if_error", "0")][..], true),
        (&[("cache.keep_expired", "0")], true),
        (&[("cache.stale_if_error", "0"), ("cache.keep_expired", "0")], false),
        (&[("cache.size", "0"), ("cache.list_size", "0")], false),
    ] {
        let upstream = unchanged(&[("ETag", "\"a\"")], &[]).await;
        let settings = [&SHORT[..], settings].concat();
        let gateway = Gateway::before(upstream.url(), &settings).await;
        for kind in Kind::EACH {
            kind.read(&gateway, "token").await;
        }
        sleep(LONGER).await;
        for kind in Kind::EACH {
            kind.read(&gateway, "token").await;
        }
        assert_eq!(conditions(&upstream), [false, false, is_conditional, is_conditional], "{settings:?}");
    }
    let off = [("cache.ttl", "0"), ("cache.list_ttl", "0")];
    let upstream = unchanged(TAGGED, &[]).await;
    let gateway = Gateway::before(upstream.url(), &off).await;
    for kind in [Kind::Appointment, Kind::Appointment, Kind::Page, Kind::Page] {
        kind.read(&gateway, "token").await;
    }
    assert_eq!(conditions(&upstream), [false; 4], "caching is off");
}

#[tokio::test]
async fn a_renewed_page_renews_its_appointments() {
    let upstream = Upstream::answering(|call| match call.is_conditional() {
        true => UpstreamResponse::not_modified().with("Cache-Control", "max-age=600"),
        false => with(List::of(3, Pagination::Meta).page_of(call, |n| listed(n, call.token())), TAGGED),
    })
    .await;
    let settings = [("cache.ttl", "10m"), ("cache.list_ttl", "10m")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    for _ in 0..2 {
        gateway.list("token", json!({ "first": 3 })).await.list();
    }
    let reply = gateway.appointments("token", &ids(0..3)).await;
    assert_eq!(reply.body["data"]["appointmentsByIds"][2]["status"], "listed");
    assert_eq!(conditions(&upstream), [false, true]);
}

#[tokio::test]
async fn an_outage_leaves_the_entry_for_later() {
    let upstream = Upstream::answering(|call| match call.nth {
        1 => call.appointment().with("ETag", "\"a\""),
        2 => UpstreamResponse::status(500),
        _ => UpstreamResponse::not_modified(),
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &SHORT).await;
    gateway.appointment("token", &id(1)).await.appointment();
    sleep(LONGER).await;
    let stale = gateway.appointment("token", &id(1)).await;
    assert_eq!(stale.body["extensions"]["stale"][0]["path"], json!(["appointment"]));
    let renewed = gateway.appointment("token", &id(1)).await;
    assert_eq!((renewed.appointment(), renewed.body.get("extensions")), (&served(&id(1), "token", 1), None));
    assert_eq!(conditions(&upstream), [false, true, true]);
}

#[tokio::test]
async fn pollers_revalidate_without_a_cache() {
    for setting in [("cache.size", "0"), ("cache.ttl", "0")] {
        let upstream = Upstream::answering(|call| match call.is_conditional() {
            true => UpstreamResponse::not_modified(),
            false => call.appointment().with("ETag", "\"a\""),
        })
        .await;
        let settings = [("live.fast_interval", "10ms"), ("live.slow_interval", "20ms"), setting];
        let gateway = Gateway::before(upstream.url(), &settings).await;
        let mut events = gateway.watch("token", &id(1)).await;
        assert_eq!(events.next().await, served(&id(1), "token", 1));
        upstream.until_called(4).await;
        assert_eq!(conditions(&upstream)[..4], [false, true, true, true], "{setting:?}");
    }
}

#[tokio::test]
async fn the_sandbox_is_revalidated() {
    let gateway = Gateway::on_sandbox(&SHORT).await;
    let id = gateway.sandbox_ids().await.remove(0);
    let first = gateway.appointment("sandbox-all", &id).await;
    sleep(LONGER).await;
    let second = gateway.appointment("sandbox-all", &id).await;
    assert_eq!(first.appointment(), second.appointment());
    assert_ne!(*first.appointment(), Value::Null);
    let metrics = gateway.metrics().await;
    assert_eq!(metrics["gateway_revalidations_total{outcome=\"unchanged\"}"], 1.0);
}
