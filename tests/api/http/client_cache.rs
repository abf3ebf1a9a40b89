//! HTTP caching by clients: entity tags, 304, `Cache-Control`, `Vary` and `Cache-Status`. A client's copy passes the
//! same validity check as a cached response.

use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::sleep,
};

use crate::support::{
    Call, Gate, Gateway, GatewayResponse, Issuer, KeyFile, List, Pagination, RequestForm, Upstream,
    UpstreamResponse, id, ids, jwt,
};

/// Longer than a test takes.
const LONG: [(&str, &str); 3] =
    [("cache.ttl", "10m"), ("cache.list_ttl", "10m"), ("cache.absence_ttl", "10m")];

const VALIDATE: &str = "private, no-cache";
const VARY: &str = "Authorization, Accept, Accept-Encoding, Origin";
const HIT: &str = "appointments-gateway; hit; ttl=";
const MISS: &str = "appointments-gateway; fwd=miss";
const STORED: &str = "appointments-gateway; fwd=miss; stored";
const BYPASS: &str = "appointments-gateway; fwd=bypass";

const LIST: &str = "{ appointments(first: 10) { nodes { id reference status } totalCount } }";

fn one(n: usize) -> String {
    format!("{{ appointment(id: {:?}) {{ id reference status }} }}", id(n))
}

/// About 800 bytes, worth compressing when repeated.
fn many() -> String {
    format!("{{ appointmentsByIds(ids: {:?}) {{ id reference status }} }}", ids(0..8))
}

fn header<'a>(reply: &'a GatewayResponse, name: &str) -> &'a str {
    let values = reply.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>();
    assert!(values.len() < 2, "{name}: {values:?}");
    values.first().copied().unwrap_or_default()
}

fn get(gateway: &Gateway, token: &str, query: &str) -> RequestBuilder {
    RequestForm::GET.request(gateway, Some(token), query)
}

async fn ask(gateway: &Gateway, token: &str, query: &str) -> GatewayResponse {
    GatewayResponse::of(get(gateway, token, query)).await
}

/// A GET by a client that has a copy with this tag.
async fn validate(gateway: &Gateway, token: &str, query: &str, tag: &str) -> GatewayResponse {
    GatewayResponse::of(get(gateway, token, query).header("if-none-match", tag)).await
}

/// The tag of a complete response that may be stored.
#[track_caller]
fn tag(reply: &GatewayResponse) -> String {
    assert_eq!((reply.status, header(reply, "vary")), (200, VARY), "{reply:?}");
    assert!(reply.body["data"].is_object() && reply.body.get("errors").is_none(), "{reply:?}");
    assert!(header(reply, "cache-control").starts_with("private, "), "{reply:?}");
    let tag = header(reply, "etag");
    assert_eq!(tag.trim_start_matches("W/").trim_matches('"').len(), 22, "{reply:?}");
    tag.to_owned()
}

#[track_caller]
fn assert_not_modified(reply: &GatewayResponse, tag: &str) {
    assert_eq!((reply.status, &reply.body), (304, &json!("")), "{reply:?}");
    assert_eq!((header(reply, "etag"), header(reply, "vary")), (tag, VARY), "{reply:?}");
    assert!(header(reply, "cache-control").starts_with("private, "), "{reply:?}");
    assert!(!header(reply, "x-request-id").is_empty() && !header(reply, "date").is_empty(), "{reply:?}");
    for name in ["content-type", "content-length", "content-encoding", "content-security-policy"] {
        assert_eq!(header(reply, name), "", "{name}: {reply:?}");
    }
}

#[track_caller]
fn assert_not_storable(reply: &GatewayResponse, what: &str) {
    assert_ne!(reply.status, 304, "{what}: {reply:?}");
    assert_eq!(
        (header(reply, "cache-control"), header(reply, "etag")),
        ("no-store", ""),
        "{what}: {reply:?}"
    );
}

fn listing(call: &Call) -> UpstreamResponse {
    match call.id.as_str() {
        "appointments" if !call.is_change() => List::of(3, Pagination::Meta).page(call),
        _ if call.is_change() => call.changed(),
        _ => call.appointment(),
    }
}

/// An appointment without a trace of the call, so that repeated calls bring equal content.
fn constant(call: &Call) -> UpstreamResponse {
    UpstreamResponse::json(200, &json!({ "data": { "id": call.id, "reference": "same", "status": "same" } }))
}

#[tokio::test]
async fn complete_responses_to_get_are_validated_by_tag() {
    let upstream = Upstream::answering(listing).await;
    let gateway = Gateway::before(upstream.url(), &LONG).await;
    for query in [one(1), many(), LIST.to_owned(), "{ __typename }".to_owned()] {
        let first = ask(&gateway, "token", &query).await;
        let etag = tag(&first);
        assert_eq!(header(&first, "cache-control"), VALIDATE);
        let calls = upstream.calls();
        for list in [
            etag.clone(),
            format!("W/{etag}"),
            format!("\"other\", {etag}"),
            format!("W/\"a,b\",W/{etag} , \"c\""),
            format!("{}-gzip\"", etag.trim_end_matches('"')),
            "*".to_owned(),
        ] {
            let reply = validate(&gateway, "token", &query, &list).await;
            assert_not_modified(&reply, &etag);
            assert_eq!(header(&reply, "cache-control"), VALIDATE);
        }
        let unlisted = ["\"other\"", "\"*\"", "W/\"\"", "", &etag[2..]].map(str::to_owned);
        for list in unlisted.into_iter().chain([format!("\"x{}", &etag[1..])]) {
            let reply = validate(&gateway, "token", &query, &list).await;
            assert_eq!((tag(&reply), &reply.body), (etag.clone(), &first.body), "{list}");
        }
        assert_eq!(upstream.calls(), calls, "{query}");
    }
    // Several lines are one list.
    let etag = tag(&ask(&gateway, "token", &one(1)).await);
    let request = get(&gateway, "token", &one(1)).header("if-none-match", "\"a\"");
    assert_not_modified(&GatewayResponse::of(request.header("if-none-match", &etag)).await, &etag);
}

#[tokio::test]
async fn a_hit_yields_304_without_execution() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &LONG).await;
    let first = ask(&gateway, "token", &one(1)).await;
    assert_eq!(header(&first, "cache-status"), STORED);
    let executed = gateway.metrics().await["gateway_documents_total{from=\"cache\"}"];
    for _ in 0..5 {
        let reply = validate(&gateway, "token", &one(1), &tag(&first)).await;
        assert_not_modified(&reply, &tag(&first));
        assert!(header(&reply, "cache-status").starts_with(HIT), "{reply:?}");
    }
    assert_eq!(upstream.calls(), 1);
    let metrics = gateway.metrics().await;
    assert_eq!(metrics["gateway_documents_total{from=\"cache\"}"], executed);
    assert_eq!(metrics["gateway_requests_total{status=\"3xx\"}"], 5.0);
    assert_eq!(metrics["gateway_operations_total{kind=\"query\"}"], 6.0);
    assert_eq!(gateway.response_cache_lookups().await, (5.0, 1.0));
}

#[tokio::test]
async fn all_other_responses_may_not_be_stored() {
    let upstream = Upstream::answering(|call| match call.id.as_str() {
        it if it == id(403) => UpstreamResponse::status(403),
        it if it == id(500) => UpstreamResponse::status(500),
        it if it == id(7) => {
            UpstreamResponse::json(200, &json!({ "data": { "id": call.id, "created_at": "nonsense" } }))
        }
        _ => call.appointment(),
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &LONG).await;
    let malformed = format!("{{ appointment(id: {:?}) {{ id createdAt }} }}", id(7));
    let mutation = format!("mutation {{ cancelAppointment(id: {:?}) {{ appointment {{ id }} }} }}", id(1));
    let subscription = format!("subscription {{ appointment(id: {:?}) {{ id }} }}", id(1));
    let form = RequestForm::GET;
    for accept in [form.accept, "application/json"] {
        let form = form.accepting(accept);
        for (what, request) in [
            ("a denied appointment", form.request(&gateway, Some("token"), &one(403))),
            ("a failed appointment", form.request(&gateway, Some("token"), &one(500))),
            ("a malformed field", form.request(&gateway, Some("token"), &malformed)),
            ("a syntax error", form.request(&gateway, Some("token"), "{")),
            ("an invalid document", form.request(&gateway, Some("token"), "{ nothing }")),
            ("a mutation by GET", form.request(&gateway, Some("token"), &mutation)),
            ("a subscription", form.request(&gateway, Some("token"), &subscription)),
            ("no token", form.request(&gateway, None, &one(1))),
            ("no token, public data", form.request(&gateway, None, "{ __typename }")),
            ("a malformed token", form.request(&gateway, None, &one(1)).header("authorization", "Basic a")),
        ] {
            for (list, request) in [("", request.try_clone().unwrap()), ("*", request)] {
                let request = if list.is_empty() { request } else { request.header("if-none-match", list) };
                let reply = GatewayResponse::of(request).await;
                assert_not_storable(&reply, what);
                // A cache that ignores `no-store` still keeps callers apart.
                assert_eq!(header(&reply, "vary"), VARY, "{what}");
            }
        }
        for query in [one(1), mutation.clone(), "{ __typename }".to_owned()] {
            let form = RequestForm { is_get: false, ..form };
            let request = form.request(&gateway, Some("token"), &query).header("if-none-match", "*");
            assert_not_storable(&GatewayResponse::of(request).await, &query);
        }
    }
    let events = form.accepting("text/event-stream").request(&gateway, Some("token"), &one(1));
    assert_not_storable(&GatewayResponse::of(events.header("if-none-match", "*")).await, "an event stream");
    for path in ["/livez", "/nothing", "/graphiql.json"] {
        let reply =
            GatewayResponse::of(gateway.request(Method::GET, path).header("if-none-match", "*")).await;
        assert_not_storable(&reply, path);
    }
}

#[tokio::test]
async fn head_has_the_headers_of_get_and_no_body() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &LONG).await;
    let query = serde_urlencoded::to_string([("query", one(1))]).unwrap();
    let head = || {
        let request = gateway.request(Method::HEAD, &format!("/graphql?{query}"));
        request.header("accept", RequestForm::GET.accept).bearer_auth(gateway.secret("token"))
    };
    for _ in 0..2 {
        let (of_head, of_get) = (GatewayResponse::of(head()).await, ask(&gateway, "token", &one(1)).await);
        assert_eq!((of_head.status, &of_head.body), (200, &json!("")));
        for name in ["etag", "vary", "cache-control", "content-type", "content-length", "x-frame-options"] {
            assert!(!header(&of_get, name).is_empty(), "{name}");
            assert_eq!(header(&of_head, name), header(&of_get, name), "{name}");
        }
        let reply = GatewayResponse::of(head().header("if-none-match", tag(&of_get))).await;
        assert_not_modified(&reply, &tag(&of_get));
    }
    assert_eq!(upstream.calls(), 1);
    let mutation = serde_urlencoded::to_string([("query", "mutation { __typename }")]).unwrap();
    let request = gateway.request(Method::HEAD, &format!("/graphql?{mutation}"));
    let reply = GatewayResponse::of(request.header("accept", RequestForm::GET.accept)).await;
    assert_eq!((reply.status, header(&reply, "allow")), (405, "POST"));
}

#[tokio::test]
async fn the_tag_of_one_caller_never_validates_for_another() {
    for settings in [&LONG[..], &[("cache.ttl", "0")], &[("cache.answers_size", "0")]] {
        let upstream = Upstream::answering(constant).await;
        let gateway = Gateway::before(upstream.url(), settings).await;
        let tokens = ["alice", "bob", "carol"];
        for query in [one(1), many(), "{ __typename }".to_owned()] {
            let mut tags = Vec::new();
            let mut bodies = Vec::new();
            for token in tokens {
                let reply = ask(&gateway, token, &query).await;
                tags.push(tag(&reply));
                bodies.push(reply.body);
            }
            assert!(bodies.iter().all(|body| *body == bodies[0]), "equal content");
            for (owner, etag) in tags.iter().enumerate() {
                for (asking, token) in tokens.iter().enumerate() {
                    let reply = validate(&gateway, token, &query, etag).await;
                    if owner == asking {
                        assert_not_modified(&reply, etag);
                    } else {
                        assert_eq!((tag(&reply), &reply.body), (tags[asking].clone(), &bodies[0]));
                    }
                }
                let anonymous =
                    RequestForm::GET.request(&gateway, None, &query).header("if-none-match", etag);
                assert_not_storable(&GatewayResponse::of(anonymous).await, "without a token");
            }
        }
    }
}

#[tokio::test]
async fn subjects_have_tags_of_their_own_unless_they_share() {
    for share in [false, true] {
        let issuer = Issuer::new("key-1");
        let upstream = Upstream::with_tokens().await;
        upstream.show_keys_of(&[&issuer]);
        upstream.on(&id(1), constant);
        let keys = KeyFile::of(&["alice"]);
        let shared = share.to_string();
        let settings =
            [LONG.as_slice(), &[("callers.share_cache", &shared), ("callers.api_keys_file", keys.path())]];
        let gateway = Gateway::for_issuer(&upstream, &settings.concat()).await;
        let etag = tag(&ask(&gateway, &issuer.token("alice"), &one(1)).await);
        // Another token of the same subject.
        let renewed = issuer.token_with("alice", json!({ "jti": "renewed" }));
        assert_not_modified(&validate(&gateway, &renewed, &one(1), &etag).await, &etag);
        for other in [&issuer.token("bob"), keys.key(0)] {
            let reply = validate(&gateway, other, &one(1), &etag).await;
            if share {
                assert_not_modified(&reply, &etag);
            } else {
                assert_ne!(tag(&reply), etag);
            }
        }
        let unknown = validate(&gateway, &Issuer::new("key-1").token("alice"), &one(1), &etag).await;
        assert_not_storable(&unknown, "an invalid token");
        assert_eq!(unknown.codes(), ["UNAUTHENTICATED"]);
    }
}

#[tokio::test]
async fn each_process_has_its_own_tag_key() {
    let upstream = Upstream::answering(constant).await;
    let mut tags = Vec::new();
    for _ in 0..2 {
        tags.push(tag(&ask(&Gateway::before(upstream.url(), &LONG).await, "token", &one(1)).await));
    }
    assert_ne!(tags[0], tags[1]);
}

#[tokio::test]
async fn each_representation_has_its_own_tag() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &LONG).await;
    let form = |accept, takes| RequestForm::GET.accepting(accept).taking(takes);
    let mut tags = Vec::new();
    for accept in [RequestForm::GET.accept, "application/json"] {
        for (takes, is_weak) in [("", false), ("br", true), ("gzip", true)] {
            let mut last =
                GatewayResponse::of(form(accept, takes).request(&gateway, Some("token"), &many())).await;
            // The second request is the first that finds a cached response to compress.
            for _ in 0..2 {
                last =
                    GatewayResponse::of(form(accept, takes).request(&gateway, Some("token"), &many())).await;
            }
            assert_eq!(header(&last, "content-encoding"), takes);
            // The bytes of a compressed response depend on the effort.
            assert_eq!(tag(&last).starts_with("W/"), is_weak, "{takes}: {last:?}");
            tags.push((accept, takes, tag(&last)));
        }
    }
    for (accept, takes, etag) in &tags {
        for (other, _, other_tag) in &tags {
            assert_eq!(other_tag == etag, std::ptr::eq(other_tag, etag));
            let request = form(other, "br, gzip").request(&gateway, Some("token"), &many());
            let reply = GatewayResponse::of(request.header("if-none-match", etag)).await;
            // A client that accepts the coding of its copy may use it.
            if accept == other {
                assert_not_modified(&reply, etag);
            } else {
                assert_ne!(tag(&reply), *etag);
            }
        }
        let request = form(accept, "").request(&gateway, Some("token"), &many());
        let reply = GatewayResponse::of(request.header("if-none-match", etag)).await;
        assert_eq!(reply.status, if takes.is_empty() { 304 } else { 200 }, "{takes}");
    }
    assert_eq!(upstream.calls(), 8);
}

/// The first response is executed and compressed fast, later ones are cached and compressed well.
#[tokio::test]
async fn a_copy_stays_valid_when_the_response_is_compressed_again() {
    let upstream = Upstream::start().await;
    for takes in ["br", "gzip"] {
        for query in
            [many(), format!("{{ appointmentsByIds(ids: {:?}) {{ id reference status }} }}", ids(0..40))]
        {
            let gateway = Gateway::before(upstream.url(), &LONG).await;
            let request = || RequestForm::GET.taking(takes).request(&gateway, Some("token"), &query);
            let etag = tag(&GatewayResponse::of(request()).await);
            for _ in 0..3 {
                let reply = GatewayResponse::of(request().header("if-none-match", &etag)).await;
                assert_not_modified(&reply, &etag);
                GatewayResponse::of(request()).await;
            }
        }
    }
}

#[tokio::test]
async fn equal_content_of_a_new_execution_yields_304() {
    for (ttl, size, status) in [("0", "1MiB", MISS), ("0", "0", BYPASS), ("100ms", "1MiB", STORED)] {
        let settings = [("cache.ttl", ttl), ("cache.answers_size", size)];
        let upstream = Upstream::answering(constant).await;
        let gateway = Gateway::before(upstream.url(), &settings).await;
        let etag = tag(&ask(&gateway, "token", &one(1)).await);
        sleep(Duration::from_millis(150)).await;
        let reply = validate(&gateway, "token", &one(1), &etag).await;
        assert_not_modified(&reply, &etag);
        assert_eq!(header(&reply, "cache-status"), status, "{settings:?}");
        assert_eq!(upstream.calls(), 2);
        upstream.on(&id(1), Call::appointment);
        sleep(Duration::from_millis(150)).await;
        let reply = validate(&gateway, "token", &one(1), &etag).await;
        assert_eq!(reply.appointment()["reference"], "token", "{settings:?}");
        assert_ne!(tag(&reply), etag);
    }
}

#[tokio::test]
async fn after_a_change_no_older_copy_is_confirmed() {
    for changer in ["token", "other"] {
        let upstream = Upstream::answering(listing).await;
        let gateway = Gateway::before(upstream.url(), &LONG).await;
        // Appointments from a list replace cached ones, so the list comes first.
        let list = tag(&ask(&gateway, "token", LIST).await);
        let tags = [(one(1), tag(&ask(&gateway, "token", &one(1)).await)), (LIST.to_owned(), list)];
        for (query, etag) in &tags {
            assert_not_modified(&validate(&gateway, "token", query, etag).await, etag);
        }
        gateway.update(changer, &id(1), json!({ "status": "changed" })).await.changed();
        let reply = validate(&gateway, "token", &one(1), &tags[0].1).await;
        assert_ne!(tag(&reply), tags[0].1, "{changer}");
        let calls = upstream.calls_for("appointments");
        // The list is read again, and proves to be unchanged.
        assert_not_modified(&validate(&gateway, "token", LIST, &tags[1].1).await, &tags[1].1);
        assert_eq!(upstream.calls_for("appointments"), calls + 1, "{changer}");
    }
}

#[tokio::test]
async fn during_a_change_each_copy_is_checked_upstream() {
    for is_lost in [false, true] {
        let gate = Gate::shut();
        let upstream = Upstream::answering({
            let gate = gate.clone();
            move |call| match call.is_change() {
                true if is_lost => UpstreamResponse::cut(),
                true => call.changed().once(&gate),
                false => constant(call),
            }
        })
        .await;
        let gateway = std::sync::Arc::new(Gateway::before(upstream.url(), &LONG).await);
        let etag = tag(&ask(&gateway, "token", &one(1)).await);
        let changing = tokio::spawn({
            let gateway = gateway.clone();
            async move { gateway.update("other", &id(1), json!({ "status": "changed" })).await }
        });
        upstream.until_called(2).await;
        if is_lost {
            // Its outcome is unknown, so it may still take effect.
            changing.await.unwrap();
        }
        for calls in 3..6 {
            assert_not_modified(&validate(&gateway, "token", &one(1), &etag).await, &etag);
            assert_eq!(upstream.calls(), calls, "{is_lost}");
        }
        upstream.on(&id(1), Call::appointment);
        assert_ne!(tag(&validate(&gateway, "token", &one(1), &etag).await), etag, "{is_lost}");
        gate.open();
    }
}

#[tokio::test]
async fn revoked_copies_are_not_confirmed() {
    for (status, code) in [(401, Some("UNAUTHENTICATED")), (403, Some("FORBIDDEN")), (404, None)] {
        let upstream = Upstream::answering(listing).await;
        let gateway = Gateway::before(upstream.url(), &LONG).await;
        let (both, others) = (many(), tag(&ask(&gateway, "other", &many()).await));
        let etag = tag(&ask(&gateway, "token", &both).await);
        assert_not_modified(&validate(&gateway, "token", &both, &etag).await, &etag);
        upstream.on(&id(2), move |call| match call.token() {
            "token" => UpstreamResponse::status(status),
            _ => listing(call),
        });
        gateway.update("token", &id(2), json!({ "status": "x" })).await;
        for list in [etag.as_str(), "*"] {
            let reply = validate(&gateway, "token", &both, list).await;
            match code {
                Some(code) => {
                    assert_not_storable(&reply, code);
                    assert!(reply.codes().contains(&code), "{reply:?}");
                }
                // The absence is the new content.
                None if list == "*" => assert_eq!(reply.status, 304),
                None => assert_ne!(tag(&reply), etag),
            }
        }
        let calls = upstream.calls_for(&id(2));
        assert_not_modified(&validate(&gateway, "other", &both, &others).await, &others);
        assert_eq!(upstream.calls_for(&id(2)), calls, "{status}: the copies of others are theirs");
    }
}

#[tokio::test]
async fn expired_and_withdrawn_callers_receive_no_304() {
    let issuer = Issuer::new("key-1");
    let upstream = Upstream::with_tokens().await;
    upstream.show_keys_of(&[&issuer]);
    let settings = [LONG.as_slice(), &[("callers.leeway", "0"), ("http.client_cache", "fresh")]].concat();
    let gateway = Gateway::for_issuer(&upstream, &settings).await;
    let token = issuer.token_with("alice", json!({ "exp": crate::support::issuer::now() + 3 }));
    let reply = ask(&gateway, &token, &one(1)).await;
    let etag = tag(&reply);
    // The client's copy ends with the token, although the data stays fresh.
    let max_age = header(&reply, "cache-control").strip_prefix("private, max-age=");
    assert!(max_age.is_none_or(|seconds| seconds.parse::<u64>().unwrap() <= 3), "{reply:?}");
    loop {
        let reply = validate(&gateway, &token, &one(1), &etag).await;
        if reply.status != 304 {
            assert_not_storable(&reply, "an expired token");
            assert_eq!(reply.codes(), ["UNAUTHENTICATED"]);
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    // The same caller with a new token.
    assert_not_modified(&validate(&gateway, &issuer.token("alice"), &one(1), &etag).await, &etag);
    assert_eq!(upstream.calls_for(&id(1)), 1);
}

/// The upstream alone knows whether a passed-through token is still good.
#[tokio::test]
async fn past_its_expiry_a_token_is_checked_upstream() {
    let upstream = Upstream::answering(constant).await;
    let gateway = Gateway::before(upstream.url(), &LONG).await;
    let token = jwt(2);
    let etag = tag(&ask(&gateway, &token, &one(1)).await);
    assert_not_modified(&validate(&gateway, &token, &one(1), &etag).await, &etag);
    sleep(Duration::from_millis(2100)).await;
    let calls = upstream.calls();
    assert_not_modified(&validate(&gateway, &token, &one(1), &etag).await, &etag);
    assert_eq!(upstream.calls(), calls + 1);
    upstream.on(&id(1), |_| UpstreamResponse::status(401));
    assert_not_storable(&validate(&gateway, &token, &one(1), &etag).await, "a rejected token");
}

#[tokio::test]
async fn stale_data_may_not_be_stored() {
    for settings in [("cache.stale_if_error", "10m"), ("cache.stale_while_revalidate", "10m")] {
        let upstream = Upstream::answering(constant).await;
        let gateway = Gateway::before(upstream.url(), &[("cache.ttl", "100ms"), settings]).await;
        let etag = tag(&ask(&gateway, "token", &one(1)).await);
        upstream.on(&id(1), |_| UpstreamResponse::status(503));
        sleep(Duration::from_millis(150)).await;
        for list in [etag.as_str(), "*"] {
            let reply = validate(&gateway, "token", &one(1), list).await;
            assert_not_storable(&reply, settings.0);
            assert!(reply.body["extensions"]["stale"].is_array(), "{reply:?}");
        }
    }
}

#[tokio::test]
async fn data_that_the_upstream_forbids_to_cache_may_not_be_stored() {
    for settings in [&[][..], &[("cache.ttl", "0"), ("cache.list_ttl", "0"), ("cache.absence_ttl", "0")]] {
        for directives in ["no-store", "private, no-store, max-age=60"] {
            let upstream = Upstream::answering(move |call| match call.id.as_str() {
                "appointments" => List::of(3, Pagination::Meta).page(call).with("Cache-Control", directives),
                it if it == id(2) => UpstreamResponse::status(404).with("Cache-Control", directives),
                it if it == id(3) => call.appointment(),
                _ => call.appointment().with("Cache-Control", directives),
            })
            .await;
            let gateway = Gateway::before(upstream.url(), settings).await;
            let mixed = format!("{{ appointmentsByIds(ids: {:?}) {{ id }} }}", ids(3..5));
            for query in [one(1).as_str(), LIST, &one(2), &mixed] {
                for _ in 0..2 {
                    let reply = validate(&gateway, "token", query, "*").await;
                    assert_not_storable(&reply, query);
                    assert_eq!((reply.status, header(&reply, "cache-status")), (200, MISS));
                }
            }
            assert_eq!(header(&ask(&gateway, "token", &one(3)).await, "cache-control"), VALIDATE);
        }
    }
}

#[tokio::test]
async fn fresh_sends_the_shortest_remaining_freshness() {
    let upstream = Upstream::answering(|call| match call.id.as_str() {
        "appointments" => List::of(3, Pagination::Meta).page(call),
        it if it == id(20) => call.appointment().with("Cache-Control", "max-age=20"),
        _ => call.appointment(),
    })
    .await;
    let settings = [("http.client_cache", "fresh"), ("cache.ttl", "10m"), ("cache.list_ttl", "60s")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let max_age = |reply: &GatewayResponse| -> u64 {
        header(reply, "cache-control").strip_prefix("private, max-age=").unwrap().parse().unwrap()
    };
    let both = format!(
        "{{ one: appointment(id: {:?}) {{ id }} two: appointment(id: {:?}) {{ id }} }}",
        id(10),
        id(20)
    );
    let with_list = format!("{{ appointment(id: {:?}) {{ id }} appointments {{ nodes {{ id }} }} }}", id(10));
    for (query, bound) in [(one(10), 600), (one(20), 20), (both, 20), (with_list, 60)] {
        let first = ask(&gateway, "token", &query).await;
        // Slow machines take a while.
        assert!((bound / 2..=bound).contains(&max_age(&first)), "{query}: {first:?}");
        sleep(Duration::from_millis(1000)).await;
        for reply in
            [ask(&gateway, "token", &query).await, validate(&gateway, "token", &query, &tag(&first)).await]
        {
            // It counts from now, so a copy never outlives the data behind it.
            assert!((bound / 2..max_age(&first)).contains(&max_age(&reply)), "{query}: {reply:?}");
            let ttl = header(&reply, "cache-status").strip_prefix(HIT).unwrap().parse::<u64>().unwrap();
            assert!((bound / 2..bound).contains(&ttl), "{query}: {reply:?}");
        }
    }
    // Without data of the upstream there is no freshness.
    assert_eq!(header(&ask(&gateway, "token", "{ __typename }").await, "cache-control"), VALIDATE);
    assert!((15..=30).contains(&max_age(&ask(&gateway, &jwt(30), &one(10)).await)));
    let post = RequestForm::POST.ask(&gateway, "token", &one(10)).await;
    assert_not_storable(&post, "a POST");
}

#[tokio::test]
async fn fresh_without_a_response_cache_knows_the_freshness() {
    let upstream = Upstream::start().await;
    let settings = [("http.client_cache", "fresh"), ("cache.ttl", "10m"), ("cache.answers_size", "0")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    for _ in 0..2 {
        let reply = ask(&gateway, "token", &one(1)).await;
        assert!(header(&reply, "cache-control").starts_with("private, max-age=5"), "{reply:?}");
    }
    let gateway =
        Gateway::before(upstream.url(), &[("http.client_cache", "fresh"), ("cache.ttl", "900ms")]).await;
    assert_eq!(header(&ask(&gateway, "token", &one(1)).await, "cache-control"), VALIDATE);
}

#[tokio::test]
async fn off_lets_clients_store_nothing() {
    let upstream = Upstream::start().await;
    let gateway =
        Gateway::before(upstream.url(), &[LONG.as_slice(), &[("http.client_cache", "off")]].concat()).await;
    for _ in 0..3 {
        for list in ["*", "\"a\""] {
            let reply = validate(&gateway, "token", &one(1), list).await;
            assert_not_storable(&reply, list);
            assert_eq!(
                (reply.appointment()["status"].as_str(), header(&reply, "vary")),
                (Some("call 1"), "")
            );
        }
    }
}

#[tokio::test]
async fn cache_status_distinguishes_hit_miss_and_bypass() {
    let upstream = Upstream::answering(listing).await;
    let gateway = Gateway::before(upstream.url(), &LONG).await;
    for (form, expected) in [(RequestForm::POST, STORED), (RequestForm::GET, STORED)] {
        let first = form.ask(&gateway, "token", &one(1)).await;
        assert_eq!(header(&first, "cache-status"), expected);
        let second = form.ask(&gateway, "token", &one(1)).await;
        let ttl = header(&second, "cache-status").strip_prefix(HIT).unwrap().parse::<u64>().unwrap();
        assert!((1..=600).contains(&ttl), "{ttl}");
    }
    let status = |reply: &GatewayResponse| header(reply, "cache-status").to_owned();
    assert_eq!(status(&RequestForm::POST.ask(&gateway, "token", "{ __typename }").await), MISS);
    assert_eq!(status(&gateway.update("token", &id(1), json!({ "status": "x" })).await), MISS);
    let anonymous = RequestForm::POST.request(&gateway, None, "{ __typename }");
    assert_eq!(status(&GatewayResponse::of(anonymous).await), BYPASS);
    let rejected = RequestForm::POST.ask(&gateway, "token", "{ nothing }").await;
    assert_eq!(status(&rejected), "", "not looked up for its own sake");
    // A response that is larger than the whole cache.
    let gateway = Gateway::before(upstream.url(), &[("cache.answers_size", "1KiB")]).await;
    for _ in 0..2 {
        assert_eq!(status(&RequestForm::GET.ask(&gateway, "token", &many()).await), MISS);
    }
}

#[tokio::test]
async fn pages_of_allowed_origins_can_validate_copies() {
    let upstream = Upstream::start().await;
    let origins = ("http.origins", "https://app.example");
    let gateway = Gateway::before(upstream.url(), &[LONG.as_slice(), &[origins]].concat()).await;
    let preflight = gateway.request(Method::OPTIONS, "/graphql").header("origin", "https://app.example");
    let preflight = GatewayResponse::of(preflight.header("access-control-request-method", "GET")).await;
    let allowed = header(&preflight, "access-control-allow-headers").split(',').collect::<Vec<_>>();
    assert!(allowed.contains(&"if-none-match"), "{allowed:?}");
    let first = get(&gateway, "token", &one(1)).header("origin", "https://app.example");
    let etag = tag(&GatewayResponse::of(first).await);
    let again = get(&gateway, "token", &one(1)).header("if-none-match", &etag);
    let reply = GatewayResponse::of(again.header("origin", "https://app.example")).await;
    assert_not_modified(&reply, &etag);
    assert_eq!(header(&reply, "access-control-allow-origin"), "https://app.example");
    let exposed = header(&reply, "access-control-expose-headers").split(',').collect::<Vec<_>>();
    assert!(exposed.contains(&"etag") && exposed.contains(&"cache-status"), "{exposed:?}");
    // The copy of a page of another origin is the same, and stays unreadable.
    let other = get(&gateway, "token", &one(1)).header("if-none-match", &etag);
    let reply = GatewayResponse::of(other.header("origin", "https://evil.example")).await;
    assert_not_modified(&reply, &etag);
    assert_eq!(header(&reply, "access-control-allow-origin"), "");
}

#[tokio::test]
async fn the_rate_limit_counts_304() {
    let upstream = Upstream::start().await;
    let rate = [("rate_limit.per_second", "1"), ("rate_limit.burst", "3")];
    let gateway = Gateway::before(upstream.url(), &[LONG.as_slice(), &rate].concat()).await;
    let etag = tag(&ask(&gateway, "token", &one(1)).await);
    let mut limited = 0;
    for _ in 0..20 {
        let reply = validate(&gateway, "token", &one(1), &etag).await;
        if reply.status == 429 {
            assert_not_storable(&reply, "too many");
            limited += 1;
        }
    }
    assert!(limited > 0);
}

/// `-- --nocapture` prints the figures of docs/performance.md.
#[tokio::test]
#[expect(clippy::print_stdout, reason = "the figures are for the reader")]
async fn a_screen_polled_a_thousand_times_costs_fewer_bytes() {
    const POLLS: usize = 1000;
    let gateway = Gateway::on_sandbox(&LONG).await;
    let screen = "{ appointments(first: 20) { totalCount nodes { id reference status phase appointmentAt \
                  durationInMinutes interpreterLanguage claimant { name phoneNumber } } } }";
    let query = serde_urlencoded::to_string([("query", screen)]).unwrap();
    for takes in ["identity", "gzip"] {
        let request = |condition: &str| {
            format!(
                "GET /graphql?{query} HTTP/1.1\r\nHost: gateway\r\nAccept: application/graphql-response+json\r\n\
                 Accept-Encoding: {takes}\r\nAuthorization: Bearer sandbox-all\r\n{condition}\r\n"
            )
        };
        let mut connection = TcpStream::connect(gateway.address()).await.unwrap();
        // From the third response on, it is the compressed one of the cache.
        let mut tag = String::new();
        for _ in 0..3 {
            let (head, _) = exchange(&mut connection, &request("")).await;
            tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().to_owned();
        }
        let mut received = Vec::new();
        for (condition, status) in [(String::new(), "200"), (format!("If-None-Match: {tag}\r\n"), "304")] {
            let mut bytes = 0;
            for _ in 0..POLLS {
                let (head, length) = exchange(&mut connection, &request(&condition)).await;
                assert_eq!(head.split(' ').nth(1), Some(status), "{head}");
                bytes += length;
            }
            println!("{takes}, {status}: {bytes} bytes for {POLLS} polls, {} each", bytes / POLLS);
            received.push(bytes);
        }
        // The heads of both responses count too.
        let least = if takes == "gzip" { 3 } else { 10 };
        assert!(received[1] * least < received[0], "{takes}: {received:?}");
        assert!(received[1] / POLLS < 450, "{takes}: {received:?}");
    }
}

/// Sends a request, and returns the head of the response and the length of the response in bytes.
async fn exchange(connection: &mut TcpStream, request: &str) -> (String, usize) {
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    loop {
        assert!(connection.read_buf(&mut bytes).await.unwrap() > 0, "the connection is closed");
        let Some(end) = bytes.windows(4).position(|it| it == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let body = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length = end + 4 + body.map_or(0, |length| length.parse::<usize>().unwrap());
        if bytes.len() >= length {
            return (head, length);
        }
    }
}

/// A client that revalidates its copies sees the upstream's current data, like a client without copies.
#[tokio::test]
async fn clients_with_and_without_copies_see_the_same_data() {
    let upstream = Upstream::answering(listing).await;
    let gateway = Gateway::before(upstream.url(), &[("cache.ttl", "10m"), ("cache.list_ttl", "30ms")]).await;
    let mut copies = std::collections::HashMap::<String, (String, Value)>::new();
    for step in 0..60 {
        let token = ["alice", "bob"][step % 2];
        let query = match step % 3 {
            0 => one(1),
            1 => many(),
            _ => LIST.to_owned(),
        };
        match step % 7 {
            3 => drop(gateway.update(token, &id(1), json!({ "status": format!("step {step}") })).await),
            5 => sleep(Duration::from_millis(40)).await,
            _ => {}
        }
        let key = format!("{token} {query}");
        let copy = copies.get(&key).cloned().unwrap_or_default();
        let reply = validate(&gateway, token, &query, &copy.0).await;
        let seen = if reply.status == 304 { copy.1 } else { reply.body.clone() };
        let plain = RequestForm::POST.ask(&gateway, token, &query).await;
        assert_eq!(seen, plain.body, "step {step}: {query}");
        if reply.status == 200 {
            copies.insert(key, (tag(&reply), reply.body));
        }
    }
}
