//! Bounds of the response cache. Rate limits and size limits also apply to cached responses.

use reqwest::Method;
use serde_json::json;

use crate::support::{
    Call, Events, Gate, Gateway, GatewayResponse, RawConnection, RequestForm, Socket, Upstream,
    UpstreamResponse, id, ids, raw,
};

const LONG: (&str, &str) = ("cache.ttl", "10m");

fn one(n: usize) -> String {
    format!("{{ appointment(id: {:?}) {{ id reference status }} }}", id(n))
}

#[tokio::test]
async fn many_different_requests_take_no_more_than_the_bound() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[LONG, ("cache.answers_size", "64KiB")]).await;
    let of_answers =
        async |what: &str| gateway.metrics().await[&format!("gateway_cache_{what}{{cache=\"answers\"}}")];
    for n in 0..300 {
        // Compressed ones count like any other.
        let way = RequestForm::EACH[n % RequestForm::EACH.len()];
        let query = format!(
            "{{ appointmentsByIds(ids: {:?}) {{ id reference claimant {{ name email }} }} }}",
            ids(0..4)
        );
        let query = format!("{query} # {n}");
        for _ in 0..2 {
            way.ask(&gateway, "token", &query).await;
        }
        if n % 50 == 0 {
            assert!(of_answers("size_bytes").await <= 65_536.0);
        }
    }
    let (entries, size) = (of_answers("entries").await, of_answers("size_bytes").await);
    assert!((10.0..100.0).contains(&entries) && (40_000.0..=65_536.0).contains(&size), "{entries}, {size}");
    assert_eq!(upstream.calls(), 4);
    // Oversized responses are not cached.
    let query =
        format!("{{ appointmentsByIds(ids: {:?}) {{ id {} }} }}", ids(0..4), "reference ".repeat(30_000));
    for _ in 0..3 {
        RequestForm::POST.ask(&gateway, "token", &query).await;
    }
    assert!(of_answers("size_bytes").await <= 65_536.0);
}

#[tokio::test]
async fn large_callers_evict_nothing_of_small_ones() {
    let upstream = Upstream::start().await;
    let settings = [LONG, ("cache.answers_size", "128KiB"), ("cache.caller_share", "10")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    for n in 0..5 {
        RequestForm::POST.ask(&gateway, "quiet", &one(n)).await;
    }
    for n in 0..300 {
        RequestForm::POST.ask(&gateway, "noisy", &format!("{} # {n}", one(n % 10))).await;
    }
    let before = gateway.response_cache_lookups().await;
    for n in 0..5 {
        RequestForm::POST.ask(&gateway, "quiet", &one(n)).await;
    }
    assert_eq!(gateway.response_cache_lookups().await, (before.0 + 5.0, before.1));
}

#[tokio::test]
async fn it_can_be_switched_off() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[LONG, ("cache.answers_size", "0")]).await;
    for way in RequestForm::EACH {
        for _ in 0..3 {
            assert_eq!(way.ask(&gateway, "token", &one(1)).await.appointment()["status"], "call 1");
        }
    }
    let metrics = gateway.metrics().await;
    assert_eq!(metrics["gateway_answer_lookups_total{outcome=\"hit\"}"], 0.0);
    assert_eq!(metrics["gateway_cache_entries{cache=\"answers\"}"], 0.0);
    assert_eq!(upstream.calls(), 1);
}

/// Cache hits are not executed, so they need no concurrency slot.
#[tokio::test]
async fn cached_responses_bypass_the_concurrency_limit() {
    let gate = Gate::shut();
    let upstream = Upstream::answering({
        let gate = gate.clone();
        move |call: &Call| if call.id == id(9) { call.appointment().once(&gate) } else { call.appointment() }
    })
    .await;
    let settings = [LONG, ("limits.operations", "1"), ("limits.operations_waiting", "0")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    for way in RequestForm::EACH {
        for _ in 0..2 {
            way.ask(&gateway, "token", &one(1)).await;
        }
    }
    let slow = one(9);
    let meanwhile = async {
        upstream.until_called(2).await;
        for way in RequestForm::EACH {
            assert_eq!(
                way.ask(&gateway, "token", &one(1)).await.appointment()["status"],
                "call 1",
                "{way:?}"
            );
            way.ask(&gateway, "token", &one(2)).await.rejected(503, "OVERLOADED");
        }
        gate.open();
    };
    let (reply, ()) = futures_util::join!(RequestForm::POST.ask(&gateway, "token", &slow), meanwhile);
    assert_eq!(reply.appointment()["id"], id(9));
}

#[tokio::test]
async fn cached_responses_count_against_the_rate_limit() {
    let upstream = Upstream::start().await;
    let settings = [LONG, ("rate_limit.per_second", "1"), ("rate_limit.burst", "3")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let mut refused = 0;
    for _ in 0..100 {
        let reply = RequestForm::POST.ask(&gateway, "token", &one(1)).await;
        if reply.status == 429 {
            reply.rejected(429, "RATE_LIMITED");
            refused += 1;
        }
    }
    assert!(refused > 50, "{refused}");
}

/// Requests are validated on cache hits, too.
#[tokio::test]
async fn cached_responses_obey_the_limits() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[LONG, ("limits.body", "1KiB")]).await;
    let body = raw::query(&one(1));
    for _ in 0..3 {
        RequestForm::POST.ask(&gateway, "token", &one(1)).await.appointment();
        RequestForm::GET.ask(&gateway, "token", &one(1)).await.appointment();
    }
    let post = |body: &str| {
        let request = gateway.request(Method::POST, "/graphql").bearer_auth("token-canary-token");
        request.header("content-type", "application/json").body(body.to_owned())
    };
    for (request, status) in [
        (post(&format!("{body}{}", " ".repeat(1024))), 413),
        (post(&body).header("content-encoding", "gzip"), 415),
        (post(&body).header("accept", "image/png"), 406),
        (post(&body).header("x-graphql-event-stream-token", "a"), 400),
        (gateway.request(Method::POST, "/graphql").bearer_auth("token-canary-token").body(body.clone()), 415),
    ] {
        GatewayResponse::of(request).await.rejected(status, "BAD_REQUEST");
    }
    // A link of a page of another site.
    let get = RequestForm::GET.accepting("*/*").request(&gateway, None, &one(1));
    GatewayResponse::of(get).await.rejected(403, "BAD_REQUEST");
    for method in [Method::PUT, Method::DELETE, Method::OPTIONS, Method::PATCH] {
        let request =
            gateway.request(method, "/graphql").bearer_auth("token-canary-token").body(body.clone());
        GatewayResponse::of(request).await.rejected(405, "BAD_REQUEST");
    }
    let head =
        GatewayResponse::of(gateway.request(Method::HEAD, "/graphql").bearer_auth("token-canary-token"))
            .await;
    assert_eq!((head.status, head.body), (400, json!("")));
}

#[tokio::test]
async fn a_body_in_pieces_is_the_same_request() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[LONG]).await;
    let body = raw::query(&one(1));
    let head = "POST /graphql HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n\
                Authorization: Bearer token\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunks = |length: usize| {
        let pieces = body.as_bytes().chunks(length).map(|it| String::from_utf8_lossy(it).into_owned());
        let chunks = pieces.map(|piece| format!("{:x}\r\n{piece}\r\n", piece.len())).collect::<String>();
        format!("{head}{chunks}0\r\n\r\n")
    };
    let mut connection = RawConnection::connect(&gateway).await;
    for length in [1, 7, 1000] {
        let reply = connection.exchange(chunks(length)).await.parsed();
        assert_eq!(reply.appointment()["status"], "call 1");
    }
    assert_eq!(gateway.response_cache_lookups().await, (2.0, 1.0));
}

#[tokio::test]
async fn event_streams_and_websockets_do_without_it() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[LONG]).await;
    for _ in 0..3 {
        let mut events = Events::open(&gateway, "token", &one(1)).await;
        assert_eq!(events.next().await["data"]["appointment"]["status"], "call 1");
        let mut socket = Socket::connect(&gateway, "token").await;
        socket.subscribe("1", &one(1)).await;
        assert_eq!(socket.receive().await["payload"]["data"]["appointment"]["status"], "call 1");
    }
    assert_eq!(gateway.response_cache_lookups().await, (0.0, 0.0));
    assert_eq!(gateway.metrics().await["gateway_cache_entries{cache=\"answers\"}"], 0.0);
}

/// Hits of the response cache count as reads of the appointments, which therefore stay cached.
#[tokio::test]
async fn cached_responses_keep_their_appointments_in_use() {
    let upstream = Upstream::answering(|call| match call.token() {
        "hot" => call.appointment(),
        _ => UpstreamResponse::status(404),
    })
    .await;
    // If no caller exceeds its share, the least recently used entries are evicted.
    let settings =
        [LONG, ("cache.absence_ttl", "10m"), ("cache.size", "128KiB"), ("cache.caller_share", "50")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    for n in 0..400 {
        assert_eq!(
            RequestForm::POST.ask(&gateway, "hot", &one(0)).await.appointment()["status"],
            "call 1",
            "{n}"
        );
        gateway.appointment(&format!("cold-{n}"), &id(n)).await;
    }
    assert!(gateway.metrics().await["gateway_evictions_total{cause=\"room\"}"] > 50.0);
}
