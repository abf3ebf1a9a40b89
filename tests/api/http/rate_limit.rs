//! The rate limit per caller, from outside. `src/http/rate_limit` tests the token bucket with a simulated clock.

use reqwest::Method;
use serde_json::json;

use crate::support::{
    Events, Gateway, GatewayResponse, KeyFile, RawConnection, Socket, Upstream, codes, id, raw,
};

/// One a second, so that a burst takes long to come back, and bursts are spent faster than that.
const SLOWLY: [(&str, &str); 2] = [("rate_limit.per_second", "1"), ("rate_limit.burst", "3")];

fn query() -> String {
    format!(r#"{{ appointment(id: "{}") {{ id }} }}"#, id(1))
}

/// Asks until it is refused, and returns how often it was served, and the refusal.
async fn until_refused(mut ask: impl AsyncFnMut() -> GatewayResponse) -> (usize, GatewayResponse) {
    for served in 0..100 {
        let reply = ask().await;
        if reply.codes() == ["RATE_LIMITED"] {
            return (served, reply);
        }
    }
    panic!("it is never refused")
}

#[track_caller]
fn assert_refused(reply: &GatewayResponse) {
    reply.rejected(429, "RATE_LIMITED");
    assert_eq!(reply.headers["retry-after"], "1");
    let extensions = json!({
        "code": "RATE_LIMITED", "limit": "rate_limit.per_second", "maximum": 1, "retryAfterSeconds": 1
    });
    assert_eq!(reply.body["errors"][0]["extensions"], extensions);
}

#[tokio::test]
async fn each_caller_has_a_burst_of_its_own() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &SLOWLY).await;
    for token in [Some("one"), Some("other"), None] {
        let (served, refused) = until_refused(async || gateway.query(token, &query()).await).await;
        assert!(served >= 3, "{token:?}: {served}");
        assert_refused(&refused);
    }
    assert_eq!(gateway.rejections("rate_limit.per_second").await, 3.0);
    assert_eq!(upstream.calls(), 2, "one for each token");
}

/// Rejected in the common form, for any accepted media type.
#[tokio::test]
async fn it_is_a_json_response_under_every_media_type() {
    let gateway = Gateway::on_sandbox(&SLOWLY).await;
    for accept in ["application/json", "application/graphql-response+json", "text/event-stream", "*/*"] {
        let ask = async || {
            let request = gateway.request(Method::POST, "/graphql").bearer_auth(accept.len());
            let request = request.header("content-type", "application/json").header("accept", accept);
            GatewayResponse::of(request.body(raw::query("{ __typename }"))).await
        };
        let (served, refused) = until_refused(ask).await;
        assert!(served >= 3);
        assert_refused(&refused);
    }
    let (served, refused) = until_refused(async || {
        let request = gateway.request(Method::GET, "/graphql?query=%7B__typename%7D").bearer_auth("get");
        GatewayResponse::of(request.header("accept", "application/json")).await
    })
    .await;
    assert!(served >= 3);
    assert_refused(&refused);
}

#[tokio::test]
async fn rejected_operations_count_and_other_requests_do_not() {
    let gateway = Gateway::on_sandbox(&SLOWLY).await;
    let (refused_otherwise, refused) = until_refused(async || {
        let request =
            gateway.request(Method::POST, "/graphql").bearer_auth("a").header("content-type", "text/plain");
        GatewayResponse::of(request.body("{")).await
    })
    .await;
    assert!(refused_otherwise >= 3);
    assert_refused(&refused);
    for _ in 0..10 {
        for path in ["/livez", "/readyz", "/metrics", "/", "/graphiql.json"] {
            let reply = GatewayResponse::of(gateway.request(Method::GET, path).bearer_auth("a")).await;
            assert_eq!(reply.status, 200, "{path}");
        }
    }
}

/// A client that is refused while it sends reads why, and its connection serves on.
#[tokio::test]
async fn a_connection_serves_on_after_it() {
    let gateway = Gateway::on_sandbox(&SLOWLY).await;
    let body = " ".repeat(200_000) + &raw::query("{ __typename }");
    let mut raw = RawConnection::connect(&gateway).await;
    let mut refused = 0;
    for _ in 0..20 {
        let reply = raw.exchange(raw::post("Authorization: Bearer a\r\n", &body)).await;
        refused += usize::from(reply.status == 429);
    }
    assert!(refused > 1, "{refused}");
    let other = raw.exchange(raw::post("Authorization: Bearer b\r\n", &body)).await;
    assert_eq!(other.parsed().body, json!({ "data": { "__typename": "Query" } }));
}

#[tokio::test]
async fn clients_that_respect_retry_after_are_served() {
    let gateway = Gateway::on_sandbox(&SLOWLY).await;
    let ask = async || gateway.query(Some("a"), "{ __typename }").await;
    let (_, refused) = until_refused(ask).await;
    let wait = refused.body["errors"][0]["extensions"]["retryAfterSeconds"].as_u64().unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(wait)).await;
    assert_eq!(ask().await.body, json!({ "data": { "__typename": "Query" } }));
}

/// Over one WebSocket each operation counts, and one too many ends nothing but itself. It is the same caller's burst.
#[tokio::test]
async fn operations_over_a_websocket_count_each() {
    let gateway = Gateway::on_sandbox(&SLOWLY).await;
    let mut socket = Socket::connect(&gateway, "a").await;
    let mut served = 0;
    let error = loop {
        socket.subscribe("1", "{ __typename }").await;
        let message = socket.receive().await;
        if message["type"] == json!("error") {
            break message;
        }
        assert_eq!(socket.receive().await, json!({ "type": "complete", "id": "1" }));
        served += 1;
    };
    assert!((3..100).contains(&served), "{served}");
    assert_eq!((&error["id"], codes(&error)), (&json!("1"), vec!["RATE_LIMITED"]));
    assert_eq!(error["payload"][0]["extensions"]["retryAfterSeconds"], json!(1));
    socket.send_message(json!({ "type": "ping" })).await;
    assert_eq!(socket.receive().await, json!({ "type": "pong" }));
    let (_, refused) = until_refused(async || gateway.query(Some("a"), "{ __typename }").await).await;
    assert_refused(&refused);
    let mut other = Socket::connect(&gateway, "b").await;
    other.subscribe("1", "{ __typename }").await;
    assert_eq!(other.receive().await["type"], json!("next"));
}

/// Callers beyond the number of buckets are limited too, without affecting the counted callers.
#[tokio::test]
async fn callers_beyond_the_most_share_one_burst() {
    let settings =
        [("rate_limit.per_second", "1"), ("rate_limit.burst", "50"), ("rate_limit.max_callers", "2")];
    let gateway = Gateway::on_sandbox(&settings).await;
    let ask = async |token: &str| gateway.query(Some(token), "{ __typename }").await;
    for token in ["first", "second"] {
        assert_eq!(ask(token).await.status, 200);
    }
    let mut strangers = 0;
    let (served, refused) = until_refused(async || {
        strangers += 1;
        ask(&format!("stranger-{strangers}")).await
    })
    .await;
    // The two make room when their bursts are whole again, a second after they last asked.
    assert!((50..100).contains(&served), "{served}");
    assert_refused(&refused);
    assert_eq!(ask("first").await.body, json!({ "data": { "__typename": "Query" } }));
}

/// Callers that share a cache have separate rate limits.
#[tokio::test]
async fn known_callers_are_counted_apart_whatever_they_share() {
    let upstream = Upstream::with_tokens().await;
    let keys = KeyFile::of(&["alice", "bob", "alice"]);
    let shared = [("callers.api_keys_file", keys.path()), ("callers.share_cache", "true")];
    let gateway = Gateway::of_service(&upstream, &[&SLOWLY[..], &shared].concat()).await;
    for key in [0, 1] {
        let (served, refused) =
            until_refused(async || gateway.query(Some(keys.key(key)), "{ __typename }").await).await;
        assert!(served >= 3, "{served}");
        assert_refused(&refused);
    }
    // Two keys of one name are one caller.
    let (served, _) = until_refused(async || gateway.query(Some(keys.key(2)), "{ __typename }").await).await;
    assert!(served < 3, "{served}");
    // Unknown keys share one bucket. Beyond it each is rejected with its reason.
    let mut refused = 0;
    for stranger in 0..20 {
        let reply = gateway.query(Some(&format!("stranger-{stranger}")), "{ __typename }").await;
        if reply.status != 200 {
            reply.rejected(401, "UNAUTHENTICATED");
            refused += 1;
        }
    }
    assert!((1..=17).contains(&refused), "{refused}");
}

#[tokio::test]
async fn by_default_there_is_no_rate() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let mut raw = RawConnection::connect(&gateway).await;
    let asked = 500;
    raw.send(raw::post("", &raw::query("{ __typename }")).repeat(asked)).await.unwrap();
    for _ in 0..asked {
        assert_eq!(raw.reply().await.status, 200);
    }
    // Nor over an event stream.
    let mut events = Events::open(&gateway, "a", "{ __typename }").await;
    assert_eq!(events.next().await, json!({ "data": { "__typename": "Query" } }));
}
