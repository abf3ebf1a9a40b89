//! Real shared caches between clients and the gateway, the Debian packages of Varnish and nginx: the response to one user
//! never reaches another, not even through a cache that is configured to ignore `Cache-Control`.
//!
//! `cargo test --test caches` runs them. They need Varnish and nginx, so they are not part of a plain `cargo test`.
//! `tests/run` installs both. The cache of a real browser is in `tests/clients`.

#![expect(unreachable_pub, reason = "a test binary has no public API")]
#![expect(clippy::unwrap_used, reason = "shared test code fails as a test does")]

#[path = "../nginx/nginx.rs"]
mod nginx;
#[path = "../api/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the black-box tests, which use all of it")]
mod support;
mod varnish;

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join;
use reqwest::RequestBuilder;
use serde_json::json;
use tokio::time::sleep;

use nginx::Nginx;
use support::{Call, Gateway, GatewayResponse, Upstream, UpstreamResponse, id};
use varnish::Varnish;

const USERS: [&str; 2] = ["alice", "bob"];

const ROUNDS: usize = 3;

/// A number whose appointment is the same for both users.
const EQUAL: usize = 2;

/// The numbers of the requested appointments.
const NUMBERS: [usize; 2] = [1, EQUAL];

/// The behaviour of a shared cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Storage {
    /// Stores nothing, as the gateway demands.
    Nothing,
    /// Stores nothing, and drops `If-None-Match`.
    NothingWithoutTags,
    /// Stores every response, although the gateway forbids it.
    Everything,
    /// Stores every response for a second, and then revalidates its copy by tag.
    Validated,
}

async fn upstream() -> Upstream {
    Upstream::answering(|call: &Call| match call.id == id(EQUAL) {
        true => UpstreamResponse::json(200, &json!({ "data": { "id": call.id, "reference": "equal" } })),
        false => call.appointment(),
    })
    .await
}

/// Sends the same requests of each user in turn through the cache at `base`: without a tag, with the user's own tag,
/// and with the other user's. Returns the number of responses by their `X-Cache`.
async fn take_turns(gateway: &Gateway, base: &str, storage: Storage) -> BTreeMap<String, usize> {
    let mut answers = BTreeMap::new();
    let mut tags = BTreeMap::<_, String>::new();
    for round in 0..ROUNDS {
        for number in NUMBERS {
            for (nth, user) in USERS.iter().enumerate() {
                let other = USERS[1 - nth];
                let request = || get(gateway, base, number).bearer_auth(gateway.secret(user));
                let reply = GatewayResponse::of(request()).await;
                let what = format!("{user}, appointment {number}, round {round}: {reply:?}");
                let expected = if number == EQUAL { "equal" } else { user };
                let is_own = |reply: &GatewayResponse| {
                    reply.status == 200 && reply.body["data"]["appointment"]["reference"] == expected
                };
                assert!(is_own(&reply), "{what}");
                let cache = reply.headers.get("x-cache").map_or("none", |value| value.to_str().unwrap());
                *answers.entry(cache.to_owned()).or_default() += 1;
                let tag = reply.headers["etag"].to_str().unwrap().to_owned();
                let again = GatewayResponse::of(request().header("if-none-match", &tag)).await;
                if storage == Storage::NothingWithoutTags {
                    assert!(is_own(&again), "{what}: {again:?}");
                } else {
                    assert_eq!((again.status, &again.body), (304, &json!("")), "{what}: {again:?}");
                }
                if let Some(others_tag) = tags.get(&(other, number)) {
                    assert_ne!(others_tag.trim_start_matches("W/"), tag.trim_start_matches("W/"), "{what}");
                    let reply = GatewayResponse::of(request().header("if-none-match", others_tag)).await;
                    assert!(is_own(&reply), "with the other user's tag, {what}: {reply:?}");
                }
                tags.insert((*user, number), tag);
            }
            let anonymous = GatewayResponse::of(get(gateway, base, number)).await;
            assert_eq!(
                (anonymous.status, anonymous.codes()),
                (401, vec!["UNAUTHENTICATED"]),
                "{anonymous:?}"
            );
        }
        if storage == Storage::Validated && round + 1 < ROUNDS {
            sleep(Duration::from_millis(2100)).await;
        }
    }
    answers
}

fn get(gateway: &Gateway, base: &str, number: usize) -> RequestBuilder {
    let query = format!("{{ appointment(id: {:?}) {{ id reference }} }}", id(number));
    let query = serde_urlencoded::to_string([("query", query)]).unwrap();
    let request = gateway.client().get(format!("{base}/graphql?{query}"));
    request.header("accept", "application/graphql-response+json").header("accept-encoding", "gzip")
}

/// Checks that the cache behaved as configured: otherwise the test would prove nothing.
fn assert_answers(answers: &BTreeMap<String, usize>, storage: Storage) {
    let of = |cache: &str| answers.get(cache).copied().unwrap_or_default();
    let (hits, total) = (of("HIT"), answers.values().sum::<usize>());
    match storage {
        Storage::Nothing | Storage::NothingWithoutTags => assert_eq!(hits, 0, "{answers:?}"),
        Storage::Everything => assert_eq!(hits, total - USERS.len() * NUMBERS.len(), "{answers:?}"),
        Storage::Validated => assert_eq!(of("MISS"), total, "{answers:?}"),
    }
}

/// A gateway with the default of `http.client_cache`, and one whose responses stay fresh.
async fn gateways(upstream: &Upstream) -> [Gateway; 2] {
    let ttl = ("cache.ttl", "10m");
    [
        Gateway::before(upstream.url(), &[ttl]).await,
        Gateway::before(upstream.url(), &[ttl, ("http.client_cache", "fresh")]).await,
    ]
}

#[tokio::test]
async fn nginx_serves_no_response_to_another_user() {
    const IGNORE: &str = "proxy_ignore_headers Cache-Control Expires;";
    let cache = "proxy_cache_path cache keys_zone=c:1m; proxy_cache c; proxy_cache_key $request_uri; \
                 add_header X-Cache $upstream_cache_status always;";
    let upstream = upstream().await;
    for gateway in gateways(&upstream).await {
        for (storage, directives) in [
            (Storage::Nothing, String::new()),
            (
                Storage::Nothing,
                "gzip on; gzip_proxied any; gzip_types application/graphql-response+json; gzip_min_length 1;"
                    .to_owned(),
            ),
            (Storage::NothingWithoutTags, cache.to_owned()),
            (Storage::Nothing, format!("{cache} proxy_set_header If-None-Match $http_if_none_match;")),
            (Storage::Everything, format!("{cache} {IGNORE} proxy_cache_valid any 1h;")),
        ] {
            let nginx = Nginx::before(&gateway, &directives).await;
            assert_answers(&take_turns(&gateway, &nginx.base, storage).await, storage);
        }
    }
}

#[tokio::test]
async fn varnish_serves_no_response_to_another_user() {
    // The built-in rules never look up requests with an Authorization header.
    const LOOK_UP: &str = r#"sub vcl_recv {
        if (req.method == "GET" || req.method == "HEAD") { unset req.http.Cookie; return (hash); }
    }"#;
    const STORE: &str = "sub vcl_backend_response { set beresp.ttl = 1h; return (deliver); }";
    let upstream = upstream().await;
    for gateway in gateways(&upstream).await {
        for (storage, rules) in [
            (Storage::Nothing, String::new()),
            (Storage::Nothing, LOOK_UP.to_owned()),
            (Storage::Everything, format!("{LOOK_UP} {STORE}")),
        ] {
            let varnish = Varnish::before(&gateway, &rules).await;
            assert_answers(&take_turns(&gateway, &varnish.base, storage).await, storage);
        }
    }
}

/// The caches revalidate their copies by tag. The gateway answers 304 only for copies of the same user.
#[tokio::test]
async fn expired_copies_of_caches_are_validated_for_their_user_only() {
    let upstream = upstream().await;
    let gateway = Gateway::before(upstream.url(), &[("cache.ttl", "10m")]).await;
    let nginx = Nginx::before(
        &gateway,
        "proxy_cache_path cache keys_zone=c:1m; proxy_cache c; proxy_cache_key $request_uri; \
         proxy_cache_revalidate on; proxy_ignore_headers Cache-Control Expires; proxy_cache_valid any 1s; \
         add_header X-Cache $upstream_cache_status always;",
    )
    .await;
    let varnish = Varnish::before(
        &gateway,
        "sub vcl_recv { unset req.http.Cookie; return (hash); }
         sub vcl_backend_response {
            set beresp.ttl = 1s; set beresp.grace = 0s; set beresp.keep = 1h; return (deliver);
         }",
    )
    .await;
    let (by_nginx, by_varnish) = join(
        take_turns(&gateway, &nginx.base, Storage::Validated),
        take_turns(&gateway, &varnish.base, Storage::Validated),
    )
    .await;
    // The copies of both users after each pause.
    let (copies, validated) = (USERS.len() * NUMBERS.len(), USERS.len() * NUMBERS.len() * (ROUNDS - 1));
    assert_eq!(
        by_nginx,
        BTreeMap::from([("MISS".to_owned(), copies), ("REVALIDATED".to_owned(), validated)])
    );
    assert_answers(&by_varnish, Storage::Validated);
    let confirmed = gateway.metrics().await["gateway_requests_total{status=\"3xx\"}"];
    assert!(confirmed >= 2.0 * validated as f64, "{confirmed}");
}
