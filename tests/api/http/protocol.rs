//! GraphQL over HTTP: methods, media types, parameters, and helpful errors for everything else.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Gateway, GatewayResponse};

const GRAPHQL: &str = "application/graphql-response+json";
const JSON: &str = "application/json";
const TYPENAME: &str = r#"{"query":"{ __typename }"}"#;

async fn post(
    gateway: &Gateway,
    headers: &[(&str, &str)],
    body: impl Into<reqwest::Body>,
) -> GatewayResponse {
    let request = gateway.request(Method::POST, "/graphql");
    GatewayResponse::of(
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(body),
    )
    .await
}

async fn get(gateway: &Gateway, accept: &str, parameters: &[(&str, &str)]) -> GatewayResponse {
    let path = format!("/graphql?{}", serde_urlencoded::to_string(parameters).unwrap());
    GatewayResponse::of(gateway.request(Method::GET, &path).header("accept", accept)).await
}

fn content_type(reply: &GatewayResponse) -> &str {
    reply.headers["content-type"].to_str().unwrap()
}

#[tokio::test]
async fn get_and_post_respond_alike_in_the_accepted_media_type() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let served = json!({ "data": { "__typename": "Query" } });
    for (accept, expected) in [
        (GRAPHQL, "application/graphql-response+json; charset=utf-8"),
        (JSON, "application/json; charset=utf-8"),
        ("application/json; charset=utf-8", "application/json; charset=utf-8"),
        (
            "application/graphql-response+json, application/json;q=0.9",
            "application/graphql-response+json; charset=utf-8",
        ),
        ("application/json;q=0.1, */*;q=0.05", "application/json; charset=utf-8"),
    ] {
        for reply in [
            get(&gateway, accept, &[("query", "{ __typename }")]).await,
            post(&gateway, &[("content-type", JSON), ("accept", accept)], TYPENAME).await,
        ] {
            assert_eq!(
                (reply.status, content_type(&reply), &reply.body),
                (200, expected, &served),
                "{accept}"
            );
            assert_eq!(reply.headers["cache-control"], "no-store");
        }
    }
    let silent = post(&gateway, &[("content-type", "application/json; charset=UTF-8")], TYPENAME).await;
    assert_eq!((silent.status, content_type(&silent)), (200, "application/json; charset=utf-8"));
}

#[tokio::test]
async fn request_errors_have_their_code_for_any_media_type() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let by_id = "query ($id: UUID!) { appointment(id: $id) { id } }";
    for (query, variables, code) in [
        ("{", Value::Null, "GRAPHQL_PARSE_FAILED"),
        ("", Value::Null, "GRAPHQL_PARSE_FAILED"),
        ("{ nothing }", Value::Null, "GRAPHQL_VALIDATION_FAILED"),
        ("{ appointment { id } }", Value::Null, "GRAPHQL_VALIDATION_FAILED"),
        ("{ ...missing }", Value::Null, "GRAPHQL_VALIDATION_FAILED"),
        ("mutation { change }", Value::Null, "GRAPHQL_VALIDATION_FAILED"),
        (by_id, json!({}), "BAD_USER_INPUT"),
        (by_id, json!({ "id": null }), "BAD_USER_INPUT"),
        (by_id, json!({ "id": "private text" }), "BAD_USER_INPUT"),
        (by_id, json!({ "id": { "deep": "private text" } }), "BAD_USER_INPUT"),
    ] {
        let body = json!({ "query": query, "variables": variables }).to_string();
        let rejected = if code == "GRAPHQL_PARSE_FAILED" { 400 } else { 422 };
        for (accept, status) in [(GRAPHQL, rejected), (JSON, 200)] {
            let reply = post(&gateway, &[("content-type", JSON), ("accept", accept)], body.clone()).await;
            let message = reply.rejected(status, code);
            assert!(!message.contains("private"), "{message}");
        }
    }
}

#[tokio::test]
async fn malformed_parameters_are_named_but_not_echoed() {
    let gateway = Gateway::on_sandbox(&[]).await;
    for (body, told) in [
        ("", "valid JSON"),
        ("{", "valid JSON"),
        (r#"{"query": "private" "#, "valid JSON"),
        (r#"{"query": private}"#, "valid JSON"),
        (r#"{"query": "{ __typename }"} private"#, "valid JSON"),
        (r#"{"query": "private", "query": "{ a }"}"#, "duplicate"),
        (r#""private""#, "must be a JSON object"),
        ("17", "must be a JSON object"),
        ("null", "must be a JSON object"),
        ("[]", "Array has no operations"),
        ("{}", "\"query\" is missing"),
        (r#"{"query": null}"#, "\"query\" is missing"),
        (r#"{"query": 17}"#, "\"query\" must be a string"),
        (r#"{"query": ["private"]}"#, "\"query\" must be a string"),
        (r#"{"query": "{ a }", "operationName": 17}"#, "\"operationName\" must be a string"),
        (r#"{"query": "{ a }", "variables": "private"}"#, "\"variables\" must be an object"),
        (r#"{"query": "{ a }", "variables": ["private"]}"#, "\"variables\" must be an object"),
        (r#"{"query": "{ a }", "extensions": 17}"#, "\"extensions\" must be an object"),
    ] {
        let malformed = if told == "valid JSON" { 400 } else { 422 };
        for (accept, status) in [(GRAPHQL, malformed), (JSON, 400)] {
            let reply = post(&gateway, &[("content-type", JSON), ("accept", accept)], body).await;
            let message = reply.rejected(status, "BAD_REQUEST");
            assert!(message.contains(told) && !message.contains("private"), "{body}: {message}");
        }
    }
    for (parameters, told) in [
        (&[][..], "\"query\" is missing"),
        (&[("query", "{ a }"), ("query", "private")], "\"query\" is duplicated"),
        (&[("query", "{ a }"), ("variables", "private")], "\"variables\" is not valid JSON"),
        (&[("query", "{ a }"), ("variables", "17")], "\"variables\" must be an object"),
        (&[("query", "{ a }"), ("extensions", "[]")], "\"extensions\" must be an object"),
    ] {
        let reply = get(&gateway, JSON, parameters).await;
        let message = reply.rejected(400, "BAD_REQUEST");
        assert!(message.contains(told) && !message.contains("private"), "{parameters:?}: {message}");
    }
}

#[tokio::test]
async fn other_methods_receive_the_allow_header() {
    let gateway = Gateway::on_sandbox(&[]).await;
    for (path, methods, allow) in [
        ("/graphql", &[Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS][..], "GET, HEAD, POST"),
        ("/", &[Method::POST, Method::DELETE], "GET, HEAD"),
        ("/readyz", &[Method::POST], "GET, HEAD"),
    ] {
        for method in methods {
            let reply = GatewayResponse::of(gateway.request(method.clone(), path)).await;
            reply.rejected(405, "BAD_REQUEST");
            assert_eq!(reply.headers["allow"], allow, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn media_types_that_are_not_spoken_are_406_and_415() {
    let gateway = Gateway::on_sandbox(&[]).await;
    for accept in
        ["text/html", "image/png, text/*", "application/json;q=0", "application/json; charset=utf-16", "?"]
    {
        let reply = post(&gateway, &[("content-type", JSON), ("accept", accept)], TYPENAME).await;
        assert!(reply.rejected(406, "BAD_REQUEST").contains("application/graphql-response+json"));
    }
    for content_type in
        ["application/graphql", "application/json; charset=latin1", "application/xml", "json", ""]
    {
        let reply = post(&gateway, &[("content-type", content_type)], TYPENAME).await;
        assert!(reply.rejected(415, "BAD_REQUEST").contains("Content-Type: application/json"));
    }
    post(&gateway, &[], TYPENAME).await.rejected(415, "BAD_REQUEST");
    let packed = post(&gateway, &[("content-type", JSON), ("content-encoding", "gzip")], TYPENAME).await;
    assert!(packed.rejected(415, "BAD_REQUEST").contains("Content-Encoding"));
}

/// A person who opens the endpoint in a browser.
#[tokio::test]
async fn a_406_names_graphiql_only_if_it_is_served() {
    let production = [("profile", "production"), ("sandbox.enabled", "true")];
    let both = [&production[..], &[("graphiql.enabled", "true")]].concat();
    for (settings, is_served) in
        [(&[][..], true), (&production, false), (&both, true), (&[("graphiql.enabled", "false")], false)]
    {
        let gateway = Gateway::on_sandbox(settings).await;
        let request = gateway.request(Method::GET, "/graphql").header("accept", "text/html");
        let reply = GatewayResponse::of(request).await;
        let message = reply.rejected(406, "BAD_REQUEST");
        assert_eq!(message.contains("GraphiQL"), is_served, "{message}");
        let page = GatewayResponse::of(gateway.request(Method::GET, "/")).await;
        assert_eq!(page.status == 200, is_served);
    }
}

#[tokio::test]
async fn requests_possible_without_cors_preflight_are_rejected() {
    let gateway = Gateway::on_sandbox(&[]).await;
    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain;application/json",
    ] {
        post(&gateway, &[("content-type", content_type)], TYPENAME).await.rejected(415, "BAD_REQUEST");
    }
    let bare = gateway.request(Method::GET, "/graphql?query=%7B__typename%7D");
    let reply = GatewayResponse::of(bare.try_clone().unwrap()).await;
    assert!(reply.rejected(403, "BAD_REQUEST").contains("Accept: application/json"));
    GatewayResponse::of(bare.try_clone().unwrap().header("accept", "*/*")).await.rejected(403, "BAD_REQUEST");
    for (name, value) in [("accept", JSON), ("authorization", "Bearer a"), ("graphql-require-preflight", "1")]
    {
        assert_eq!(
            GatewayResponse::of(bare.try_clone().unwrap().header(name, value)).await.status,
            200,
            "{name}"
        );
    }
    // No preflight grants the permission either.
    let preflight = gateway
        .request(Method::OPTIONS, "/graphql")
        .header("origin", "https://elsewhere.example")
        .header("access-control-request-method", "POST");
    let reply = GatewayResponse::of(preflight).await;
    assert!(!reply.headers.keys().any(|name| name.as_str().starts_with("access-control-")));
}

#[tokio::test]
async fn mutations_over_get_are_rejected_before_validation() {
    let gateway = Gateway::on_sandbox(&[]).await;
    for accept in [GRAPHQL, JSON] {
        let reply = get(&gateway, accept, &[("query", "mutation { cancelAppointment }")]).await;
        reply.rejected(405, "BAD_REQUEST");
        assert_eq!(reply.headers["allow"], "POST");
    }
    let chosen = &[("query", "query A { __typename } mutation B { x }"), ("operationName", "B")];
    get(&gateway, JSON, chosen).await.rejected(405, "BAD_REQUEST");
}

#[tokio::test]
async fn unknown_routes_are_json_too() {
    let gateway = Gateway::on_sandbox(&[]).await;
    for path in
        ["/nothing", "/graphql//", "/assets/", "/assets/nothing.js", "/assets/..%2Findex.html", "//", "/%ff"]
    {
        for method in [Method::GET, Method::POST] {
            let reply = GatewayResponse::of(gateway.request(method.clone(), path)).await;
            // A known path under another method is told so.
            let status = if method == Method::POST && path.starts_with("/assets/") && path.len() > 8 {
                405
            } else {
                404
            };
            reply.rejected(status, "BAD_REQUEST");
        }
    }
}
