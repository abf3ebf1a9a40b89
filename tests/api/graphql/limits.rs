//! Limits of a request: input at the limit is served, input above is rejected, and the error names the limit.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Gateway, GatewayResponse, RawConnection, Upstream, raw};

/// Served with `key` at `limit`, and refused with `key` one lower, naming it.
async fn assert_limits(key: &str, limit: usize, query: &str) {
    assert_limits_with(key, limit, "", query).await;
}

async fn assert_limits_with(key: &str, limit: usize, unit: &str, query: &str) {
    let upstream = Upstream::start().await;
    let with = async |limit: usize| {
        let setting = (&*format!("limits.{key}"), &*format!("{limit}{unit}"));
        let gateway = Gateway::before(upstream.url(), &[setting]).await;
        let reply = gateway.query(Some("token"), query).await;
        let is_refused = f64::from(u8::from(reply.body.get("data").is_none()));
        assert_eq!(gateway.rejections(key).await, is_refused, "limits.{key}={limit}: {reply:?}");
        reply
    };
    let served = with(limit).await;
    assert_eq!((served.status, served.body.get("errors")), (200, None), "limits.{key}={limit}: {served:?}");
    let refused = with(limit - 1).await;
    refused.rejected(422, "QUERY_TOO_COMPLEX");
    let extensions = &refused.body["errors"][0]["extensions"];
    assert_eq!(extensions["limit"], json!(key), "{refused:?}");
    assert_eq!(extensions["maximum"], json!(limit - 1), "{refused:?}");
    assert_eq!(extensions["value"], json!(limit), "{refused:?}");
    assert_eq!(upstream.calls(), 0, "nothing is asked for before the limits");
}

#[tokio::test]
async fn limits_query_bounds_the_bytes_of_the_text() {
    let query = "{ __typename } # é";
    assert_limits_with("query", query.len(), "B", query).await;
}

#[tokio::test]
async fn limits_tokens_bounds_the_words_and_signs() {
    assert_limits("tokens", 5, "{ a: __typename } # a comment is none, nor, is, a, comma").await;
    assert_limits("tokens", 12, "{ appointmentsByIds(ids: [] , ) { id } }").await;
}

#[tokio::test]
async fn limits_depth_bounds_how_deep_selections_nest() {
    assert_limits("depth", 2, "{ appointmentsByIds(ids: []) { id } }").await;
    assert_limits("depth", 3, "{ appointmentsByIds(ids: []) { features { bandwidth } } }").await;
    // A fragment is a level.
    assert_limits("depth", 3, "{ appointmentsByIds(ids: []) { ...F } } fragment F on Appointment { id }")
        .await;
    assert_limits("depth", 3, "{ ... { appointmentsByIds(ids: []) { id } } }").await;
    // Introspection is no exception, nor is a fragment that has its name.
    assert_limits("depth", 4, "{ __schema { types { fields { name } } } }").await;
    assert_limits("depth", 4, "{ ...__schema } fragment __schema on Query { __schema { types { name } } }")
        .await;
    // From fragment to fragment, however many: the text itself nests no deeper than two.
    let chain = (0..200).map(|n| format!("fragment f{n} on Query {{ ...f{} }} ", n + 1)).collect::<String>();
    let gateway = Gateway::on_sandbox(&[]).await;
    let query = format!("{{ ...f0 }} {chain} fragment f200 on Query {{ __typename }}");
    let reply = gateway.query(None, &query).await;
    assert_eq!(reply.body["errors"][0]["extensions"]["value"], json!(202), "{reply:?}");
}

#[tokio::test]
async fn limits_fields_counts_fields_each_time_a_fragment_is_used() {
    assert_limits("fields", 3, "{ appointmentsByIds(ids: []) { id phase } }").await;
    let twice = "{ appointmentsByIds(ids: []) { ...F ...F } } fragment F on Appointment { id phase }";
    assert_limits("fields", 5, twice).await;
}

#[tokio::test]
async fn limits_root_fields_counts_fields_at_the_top() {
    assert_limits("root_fields", 2, "{ __typename appointmentsByIds(ids: []) { id phase url } }").await;
    assert_limits(
        "root_fields",
        3,
        "{ ... { __typename } ...F } fragment F on Query { a: __typename b: __typename }",
    )
    .await;
}

#[tokio::test]
async fn limits_aliases_counts_aliases_wherever_they_are() {
    assert_limits("aliases", 1, "{ a: __typename }").await;
    assert_limits("aliases", 3, "{ appointmentsByIds(ids: []) { a: id b: id } c: __typename }").await;
}

#[tokio::test]
async fn limits_directives_counts_every_use_of_a_fragment() {
    assert_limits(
        "directives",
        2,
        "{ a: __typename @skip(if: false) ... @include(if: true) { b: __typename } }",
    )
    .await;
    let twice = "{ appointmentsByIds(ids: []) { ...__type ...__type @skip(if: false) } } \
                 fragment __type on Appointment { id @skip(if: false) phase @include(if: true) }";
    assert_limits("directives", 5, twice).await;
}

/// The names that a library might take for introspection, and pass over.
#[tokio::test]
async fn fragments_by_any_name_count_and_end() {
    let gateway = Gateway::on_sandbox(&[("limits.aliases", "3")]).await;
    for name in ["__schema", "__type", "__typename", "fragment", "query", "Query"] {
        let fragment = format!("fragment {name} on Query {{ a: __typename b: __typename }}");
        let ask = async |query: String| gateway.query(None, &format!("{query} {fragment}")).await;
        assert_eq!(ask(format!("{{ ...{name} }}")).await.status, 200, "{name}");
        let reply = ask(format!("{{ ...{name} ... {{ ...{name} }} }}")).await;
        assert_eq!(reply.body["errors"][0]["extensions"]["value"], json!(4), "{name}: {reply:?}");
        let cycle =
            format!("{{ __typename }} fragment {name} on Query {{ __schema {{ types {{ ...{name} }} }} }}");
        gateway.query(None, &cycle).await.rejected(422, "GRAPHQL_VALIDATION_FAILED");
    }
}

#[tokio::test]
async fn limits_ids_bounds_the_ids_of_one_field() {
    let gateway = Gateway::on_sandbox(&[("limits.ids", "2")]).await;
    let id = gateway.sandbox_ids().await.remove(0);
    let query = "query ($ids: [UUID!]!) { appointmentsByIds(ids: $ids) { id } }";
    let ask = async |count: usize| {
        gateway.query_with(Some("sandbox-all"), query, json!({ "ids": vec![&id; count] })).await
    };
    assert_eq!(ask(2).await.body, json!({ "data": { "appointmentsByIds": [{ "id": id }, { "id": id }] } }));
    let refused = ask(3).await;
    assert_eq!(refused.codes(), ["BAD_USER_INPUT"]);
    assert!(refused.body["errors"][0]["message"].as_str().unwrap().contains("limits.ids"));
    assert_eq!(refused.body["errors"][0]["path"], json!(["appointmentsByIds"]));
    let extensions = json!({ "code": "BAD_USER_INPUT", "limit": "ids", "maximum": 2, "value": 3 });
    assert_eq!(refused.body["errors"][0]["extensions"], extensions);
    assert_eq!(gateway.rejections("ids").await, 1.0);
    // GraphQL, section 6.4.4: a null non-null field makes its parent null, here the whole data.
    assert_eq!(refused.body.get("data"), Some(&Value::Null), "{refused:?}");
    let beside = format!(r#"{{ t: __typename appointmentsByIds(ids: ["{id}", "{id}", "{id}"]) {{ id }} }}"#);
    let refused = gateway.query(Some("sandbox-all"), &beside).await;
    assert_eq!(refused.body.get("data"), Some(&Value::Null), "{refused:?}");
}

#[tokio::test]
async fn a_hundred_ids_are_served_by_default() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let ids: Vec<_> = (0..100).map(|_| uuid::Uuid::new_v4()).collect();
    let query = "query ($ids: [UUID!]!) { appointmentsByIds(ids: $ids) { id } }";
    let reply = gateway.query_with(Some("sandbox-all"), query, json!({ "ids": ids })).await;
    assert_eq!(reply.body, json!({ "data": { "appointmentsByIds": vec![Value::Null; 100] } }));
}

#[tokio::test]
async fn the_length_of_a_window_has_a_bound() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let refused = gateway.query(Some("token"), "{ appointments(first: 101) { totalCount } }").await;
    let extensions = json!({ "code": "BAD_USER_INPUT", "limit": "first", "maximum": 100, "value": 101 });
    assert_eq!(refused.body["errors"][0]["extensions"], extensions, "{refused:?}");
    assert_eq!((gateway.rejections("first").await, upstream.calls()), (1.0, 0));
}

#[tokio::test]
async fn limits_body_bounds_the_body() {
    let gateway = Gateway::on_sandbox(&[("limits.body", "1KiB")]).await;
    let padded = |length: usize| format!("{:length$}", raw::query("{ __typename }"));
    assert_eq!(RawConnection::once(&gateway, raw::post("", &padded(1024))).await.status, 200);
    let refused = RawConnection::once(&gateway, raw::post("", &padded(1025))).await.parsed();
    assert!(refused.rejected(413, "BAD_REQUEST").contains("limits.body"));
    let extensions = json!({ "code": "BAD_REQUEST", "limit": "body", "maximum": 1024 });
    assert_eq!(refused.body["errors"][0]["extensions"], extensions);
    assert_eq!(gateway.rejections("body").await, 1.0);
}

#[tokio::test]
async fn limits_header_count_bounds_the_headers() {
    for limit in [10, 99, 100, 150] {
        let gateway = Gateway::on_sandbox(&[("limits.header_count", &limit.to_string())]).await;
        let with = async |count: usize| {
            let headers = (1..count).map(|n| format!("X-{n}: x\r\n")).collect::<String>();
            RawConnection::once(&gateway, format!("GET /livez HTTP/1.1\r\nHost: g\r\n{headers}\r\n"))
                .await
                .parsed()
        };
        assert_eq!(with(limit).await.status, 200, "{limit}");
        let refused = with(limit + 1).await;
        assert!(refused.rejected(431, "BAD_REQUEST").contains("limits.header_count"), "{refused:?}");
        let extensions =
            json!({ "code": "BAD_REQUEST", "limit": "header_count", "maximum": limit, "value": limit + 1 });
        assert_eq!(refused.body["errors"][0]["extensions"], extensions);
        assert_eq!(gateway.rejections("header_count").await, 1.0);
        with(limit + 200).await.rejected(431, "BAD_REQUEST");
    }
}

#[tokio::test]
async fn limits_uri_bounds_the_address() {
    let gateway = Gateway::on_sandbox(&[("limits.uri", "1KiB"), ("limits.headers", "128KiB")]).await;
    let with = async |length: usize| {
        let address = format!("/livez?{}", "x".repeat(length - "/livez?".len()));
        RawConnection::once(&gateway, format!("GET {address} HTTP/1.1\r\nHost: g\r\n\r\n")).await.parsed()
    };
    assert_eq!(with(1024).await.status, 200);
    let refused = with(1025).await;
    assert!(refused.rejected(414, "BAD_REQUEST").contains("limits.uri"));
    let extensions = json!({ "code": "BAD_REQUEST", "limit": "uri", "maximum": 1024, "value": 1025 });
    assert_eq!(refused.body["errors"][0]["extensions"], extensions);
    // Heads that hyper does not read either.
    with(70_000).await.rejected(414, "BAD_REQUEST");
    assert_eq!(gateway.rejections("uri").await, 2.0);
}

/// Bodies that trickle, and heads that do, hold their connections for a while and no longer.
#[tokio::test]
async fn slow_requests_give_up_their_places() {
    let settings =
        [("http.header_timeout", "400ms"), ("http.body_timeout", "400ms"), ("http.max_connections", "2")];
    let gateway = Gateway::on_sandbox(&settings).await;
    let head = "POST /graphql HTTP/1.1\r\nHost: g\r\nContent-Type: application/json\r\n";
    let mut slow_body = RawConnection::connect(&gateway).await;
    slow_body.send(format!("{head}Content-Length: 1000\r\n\r\n")).await.unwrap();
    let mut slow_head = RawConnection::connect(&gateway).await;
    slow_head.send(head).await.unwrap();
    let trickle = async {
        while slow_head.send("X-Y: z\r\n").await.is_ok() {
            let _ = slow_body.send(" ").await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        slow_head.closed().await;
        let refused = slow_body.reply().await.parsed();
        assert!(refused.rejected(408, "BAD_REQUEST").contains("http.body_timeout"));
        let extensions = json!({ "code": "BAD_REQUEST", "limit": "http.body_timeout" });
        assert_eq!(refused.body["errors"][0]["extensions"], extensions);
        slow_body.closed().await;
    };
    trickle.await;
    // Its places are free.
    let served = RawConnection::once(&gateway, raw::post("", &raw::query("{ __typename }"))).await;
    assert_eq!(served.status, 200);
    assert_eq!(gateway.rejections("http.body_timeout").await, 1.0);
    assert!(gateway.rejections("http.header_timeout").await >= 1.0);
}

/// As they are on the wire, but for the first line, of which only the target counts.
#[tokio::test]
async fn limits_headers_bounds_the_target_and_the_headers() {
    let gateway = Gateway::on_sandbox(&[("limits.headers", "1KiB")]).await;
    let with = async |length: usize| {
        let headers = "Host: gateway\r\nX-Filler: ";
        let filler = "x".repeat(length - "/livez".len() - headers.len() - 2);
        RawConnection::once(&gateway, format!("GET /livez HTTP/1.1\r\n{headers}{filler}\r\n\r\n"))
            .await
            .parsed()
    };
    assert_eq!(with(1024).await.status, 200);
    let refused = with(1025).await;
    assert!(refused.rejected(431, "BAD_REQUEST").contains("limits.headers"));
    let extensions = json!({ "code": "BAD_REQUEST", "limit": "headers", "maximum": 1024, "value": 1025 });
    assert_eq!(refused.body["errors"][0]["extensions"], extensions);
    let long = format!("/{}", "x".repeat(1024));
    GatewayResponse::of(gateway.request(reqwest::Method::GET, &long)).await.rejected(431, "BAD_REQUEST");
    assert_eq!(gateway.rejections("headers").await, 2.0);
}

#[tokio::test]
async fn limits_token_bounds_the_token() {
    for (limit, served) in [(11, true), (10, false)] {
        let gateway = Gateway::on_sandbox(&[("limits.token", &format!("{limit}B"))]).await;
        let id = gateway.sandbox_ids().await.remove(0);
        let reply =
            gateway.query(Some("sandbox-all"), &format!(r#"{{ appointment(id: "{id}") {{ id }} }}"#)).await;
        if served {
            assert_eq!(reply.body["data"]["appointment"]["id"], json!(id));
        } else {
            assert_eq!(reply.codes(), ["UNAUTHENTICATED"]);
            assert!(reply.body["errors"][0]["message"].as_str().unwrap().contains("limits.token"));
            assert_eq!(reply.body["errors"][0]["extensions"]["limit"], "token");
            assert_eq!(gateway.rejections("token").await, 1.0);
        }
    }
}

/// The introspection query that GraphiQL sends first.
#[tokio::test]
async fn the_standard_introspection_query_is_within_the_defaults() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let reply = gateway.query(None, include_str!("../../fixtures/introspection.graphql")).await;
    assert_eq!((reply.status, reply.body.get("errors")), (200, None));
    let types = reply.body["data"]["__schema"]["types"].as_array().unwrap();
    assert!(types.iter().any(|it| it["name"] == "Appointment"));
}
