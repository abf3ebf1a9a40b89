//! `http.path`: the GraphQL endpoint under another path, and with a trailing slash.

use reqwest::Method;
use serde_json::json;

use crate::support::{FinishedRun, Gateway, GatewayResponse, RawConnection, handshake, program, raw};

async fn post(gateway: &Gateway, path: &str) -> GatewayResponse {
    let request = gateway
        .request(Method::POST, path)
        .header("content-type", "application/json")
        .body(raw::query("{ __typename }"));
    GatewayResponse::of(request).await
}

fn served() -> serde_json::Value {
    json!({ "data": { "__typename": "Query" } })
}

/// Every transport, with and without a trailing slash.
async fn assert_served_at(gateway: &Gateway, path: &str) {
    for path in [path.to_owned(), format!("{path}/")] {
        assert_eq!(post(gateway, &path).await.body, served(), "{path}");
        let get = gateway
            .request(Method::GET, &format!("{path}?query=%7B__typename%7D"))
            .header("accept", "application/json");
        assert_eq!(GatewayResponse::of(get).await.body, served(), "{path}");
        let stream = gateway
            .request(Method::POST, &path)
            .header("content-type", "application/json")
            .header("accept", "text/event-stream")
            .body(raw::query("{ __typename }"));
        let events = GatewayResponse::of(stream).await;
        assert!(events.body.as_str().unwrap().contains("event: next"), "{path}: {events:?}");
        let upgrade = handshake("GET", "").replace("GET /graphql ", &format!("GET {path} "));
        assert_eq!(RawConnection::once(gateway, upgrade).await.status, 101, "{path}");
    }
}

#[tokio::test]
async fn the_default_path_accepts_a_trailing_slash() {
    assert_served_at(&Gateway::on_sandbox(&[]).await, "/graphql").await;
}

#[tokio::test]
async fn the_endpoint_moves_to_another_path() {
    for (configured, path) in [("/api/v1/gql", "/api/v1/gql"), ("/query/", "/query")] {
        let mut command = program(&["serve"], &[("http.path", configured), ("log.level", "debug")]);
        command.env("GATEWAY_HTTP_ORIGINS", "https://app.example");
        let gateway = Gateway::with_path(command, path).await;
        assert_served_at(&gateway, path).await;
        for elsewhere in ["/graphql", "/graphql/", &format!("{path}//"), &format!("{path}x")] {
            let reply = post(&gateway, elsewhere).await;
            assert!(
                reply.rejected(404, "BAD_REQUEST").contains(&format!("{path}.")),
                "{elsewhere}: {reply:?}"
            );
        }
        // CORS, GraphiQL and the log follow.
        let preflight = gateway
            .request(Method::OPTIONS, path)
            .header("origin", "https://app.example")
            .header("access-control-request-method", "POST");
        let preflight = GatewayResponse::of(preflight).await;
        assert_eq!(preflight.headers["access-control-allow-origin"], "https://app.example");
        let settings = GatewayResponse::of(gateway.request(Method::GET, "/graphiql.json")).await;
        assert_eq!(settings.body["endpoint"], json!(path[1..]));
        assert!(gateway.stderr().contains(&format!("http.route=\"{path}\"")), "{}", gateway.stderr());
        assert!(!gateway.stderr().contains("http.route=\"/graphql\""), "{}", gateway.stderr());
    }
}

#[tokio::test]
async fn the_root_path_serves_graphql_without_graphiql() {
    let settings = [("http.path", "/"), ("graphiql.enabled", "false")];
    let gateway = Gateway::with_path(program(&["serve"], &settings), "/").await;
    assert_eq!(post(&gateway, "/").await.body, served());
    let livez = GatewayResponse::of(gateway.request(Method::GET, "/livez")).await;
    assert_eq!(livez.body, json!("live\n"));
    let both = FinishedRun::of(program(&["check"], &[("http.path", "/")])).await;
    assert_eq!(both.code, Some(2), "{both:?}");
    assert!(both.stderr.contains("http.path") && both.stderr.contains("graphiql.enabled"), "{both:?}");
}

#[tokio::test]
async fn paths_that_cannot_be_served_are_reported() {
    for path in [
        "graphql",
        "//",
        "/a b",
        "/a?b",
        "/a/../b",
        "/a%2fb",
        "/livez",
        "/metrics/",
        "/assets/a",
        "https://a/b",
    ] {
        let ended = FinishedRun::of(program(&["check"], &[("http.path", path)])).await;
        assert_eq!(ended.code, Some(2), "{path}: {ended:?}");
        assert!(
            ended.stderr.contains("GATEWAY_HTTP_PATH") && ended.stderr.contains("/graphql"),
            "{path}: {ended:?}"
        );
    }
}
