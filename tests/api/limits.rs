//! Each key of `limits.*`: what is at the limit is served, what is one above is refused by the limit's name.

use serde_json::{Value, json};

use crate::support::{Gateway, Raw, Reply, raw};

/// Served with `key` at `limit`, and refused with `key` one lower, naming it.
async fn assert_limits(key: &str, limit: usize, query: &str) {
    assert_limits_with(key, limit, "", query).await;
}

async fn assert_limits_with(key: &str, limit: usize, unit: &str, query: &str) {
    let with = async |limit: usize| {
        let gateway = Gateway::on_sandbox(&[(&format!("limits.{key}"), &format!("{limit}{unit}"))]).await;
        gateway.query(Some("sandbox-all"), query).await
    };
    let served = with(limit).await;
    assert_eq!((served.status, served.body.get("errors")), (200, None), "limits.{key}={limit}: {served:?}");
    let refused = with(limit - 1).await;
    refused.refused(400, "QUERY_TOO_COMPLEX");
    let extensions = &refused.body["errors"][0]["extensions"];
    assert_eq!(extensions["limit"], json!(key), "{refused:?}");
    assert_eq!(extensions["maximum"], json!(limit - 1), "{refused:?}");
    if extensions.get("value").is_some() {
        assert_eq!(extensions["value"], json!(limit), "{refused:?}");
    }
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
    // GraphQL, section 6.4.4: a field that must not be null takes what it stands in with it, here everything.
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
async fn limits_body_bounds_the_body() {
    let gateway = Gateway::on_sandbox(&[("limits.body", "1KiB")]).await;
    let padded = |length: usize| format!("{:length$}", raw::query("{ __typename }"));
    assert_eq!(Raw::once(&gateway, raw::post("", &padded(1024))).await.status, 200);
    let refused = Raw::once(&gateway, raw::post("", &padded(1025))).await.cooked();
    assert!(refused.refused(413, "BAD_REQUEST").contains("limits.body"));
}

/// As they are on the wire, but for the first line, of which only the target counts.
#[tokio::test]
async fn limits_headers_bounds_the_target_and_the_headers() {
    let gateway = Gateway::on_sandbox(&[("limits.headers", "1KiB")]).await;
    let with = async |length: usize| {
        let headers = "Host: gateway\r\nX-Filler: ";
        let filler = "x".repeat(length - "/livez".len() - headers.len() - 2);
        Raw::once(&gateway, format!("GET /livez HTTP/1.1\r\n{headers}{filler}\r\n\r\n")).await.cooked()
    };
    assert_eq!(with(1024).await.status, 200);
    assert!(with(1025).await.refused(431, "BAD_REQUEST").contains("limits.headers"));
    let long = format!("/{}", "x".repeat(1024));
    Reply::of(gateway.request(reqwest::Method::GET, &long)).await.refused(431, "BAD_REQUEST");
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
        }
    }
}

/// What GraphiQL asks before a person has typed anything.
#[tokio::test]
async fn the_standard_introspection_query_is_within_the_defaults() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let reply = gateway.query(None, include_str!("../fixtures/introspection.graphql")).await;
    assert_eq!((reply.status, reply.body.get("errors")), (200, None));
    let types = reply.body["data"]["__schema"]["types"].as_array().unwrap();
    assert!(types.iter().any(|it| it["name"] == "Appointment"));
}
