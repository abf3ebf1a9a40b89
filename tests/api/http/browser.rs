//! Headers for browsers: CORS, and the security headers of every response.

use reqwest::Method;
use serde_json::json;

use crate::support::{FinishedRun, Gateway, GatewayResponse, RawConnection, RawResponse, program, raw};

const APP: &str = "https://app.example";
const NAMED: (&str, &str) = ("http.origins", "https://app.example,https://admin.example:8443");

/// Origins that are none of those named, however much they look like it.
const FOREIGN: [&str; 8] = [
    "https://evil.example",
    "http://app.example",
    "https://app.example:8443",
    "https://app.example.evil.example",
    "https://evil.app.example",
    "https://APP.example",
    "null",
    "*",
];

fn access_control(reply: &GatewayResponse) -> Vec<&str> {
    let names = reply.headers.keys().map(|name| name.as_str());
    names.filter(|name| name.starts_with("access-control-")).collect()
}

fn header<'a>(reply: &'a GatewayResponse, name: &str) -> &'a str {
    reply.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
}

/// Asks as the page of `origin` does.
async fn ask(gateway: &Gateway, origin: &str, content_type: &str) -> GatewayResponse {
    let request = gateway.request(Method::POST, "/graphql").header("origin", origin);
    GatewayResponse::of(request.header("content-type", content_type).body(raw::query("{ __typename }"))).await
}

/// Asks whether that may be asked.
async fn preflight(gateway: &Gateway, origin: &str, path: &str) -> GatewayResponse {
    let request = gateway.request(Method::OPTIONS, path).header("origin", origin);
    let request = request.header("access-control-request-method", "POST");
    GatewayResponse::of(request.header("access-control-request-headers", "authorization,content-type")).await
}

#[tokio::test]
async fn without_named_origins_no_other_site_is_allowed_anything() {
    let gateway = Gateway::on_sandbox(&[]).await;
    for origin in FOREIGN.iter().chain(&[APP]) {
        let preflight = preflight(&gateway, origin, "/graphql").await;
        preflight.rejected(405, "BAD_REQUEST");
        let answer = ask(&gateway, origin, "application/json").await;
        assert_eq!(answer.status, 200);
        for reply in [preflight, answer] {
            assert!(access_control(&reply).is_empty() && header(&reply, "vary").is_empty(), "{reply:?}");
        }
    }
}

#[tokio::test]
async fn allowed_origins_may_call_and_read() {
    let gateway = Gateway::on_sandbox(&[NAMED]).await;
    for origin in [APP, "https://admin.example:8443"] {
        let preflight = preflight(&gateway, origin, "/graphql").await;
        assert_eq!((preflight.status, &preflight.body), (200, &json!("")));
        for (name, value) in [
            ("access-control-allow-origin", origin),
            ("access-control-allow-methods", "GET,POST"),
            (
                "access-control-allow-headers",
                "accept,authorization,content-type,x-request-id,x-requested-with,graphql-require-preflight,\
                 apollo-require-preflight,x-apollo-operation-name,x-apollo-operation-id,\
                 apollographql-client-name,apollographql-client-version,x-request-timeout,idempotency-key,\
                 traceparent,tracestate,baggage,sentry-trace,if-none-match",
            ),
            ("access-control-max-age", "3600"),
            ("vary", "origin"),
        ] {
            assert_eq!(header(&preflight, name), value, "{name}");
        }
        assert_eq!(access_control(&preflight).len(), 4, "no credentials: {preflight:?}");

        let answer = ask(&gateway, origin, "application/json").await;
        assert_eq!((answer.status, &answer.body), (200, &json!({ "data": { "__typename": "Query" } })));
        assert_eq!(header(&answer, "access-control-allow-origin"), origin);
        assert_eq!(
            header(&answer, "access-control-expose-headers"),
            "x-request-id,retry-after,etag,cache-status"
        );
        assert_eq!(header(&answer, "vary"), "origin");
        assert_eq!(access_control(&answer).len(), 2, "no credentials: {answer:?}");
    }
}

/// A browser compares the names of the preflight with this list.
fn allowed_headers(preflight: &GatewayResponse) -> Vec<&str> {
    header(preflight, "access-control-allow-headers").split(',').map(str::trim).collect()
}

#[tokio::test]
async fn headers_of_common_clients_are_allowed_by_default() {
    let gateway = Gateway::on_sandbox(&[NAMED]).await;
    let preflight = preflight(&gateway, APP, "/graphql").await;
    let allowed = allowed_headers(&preflight);
    for (client, names) in [
        (
            "Apollo Client",
            &[
                "accept",
                "content-type",
                "apollo-require-preflight",
                "x-apollo-operation-name",
                "apollographql-client-name",
                "apollographql-client-version",
            ][..],
        ),
        ("Relay", &["accept", "content-type", "authorization", "x-requested-with"]),
        ("urql", &["accept", "content-type", "authorization"]),
        ("OpenTelemetry", &["traceparent", "tracestate", "baggage"]),
        ("Sentry", &["sentry-trace", "baggage"]),
    ] {
        for name in names {
            assert!(allowed.contains(name), "{name} of {client} in {allowed:?}");
        }
    }
}

#[tokio::test]
async fn http_cors_headers_replaces_the_list() {
    let gateway =
        Gateway::on_sandbox(&[NAMED, ("http.cors_headers", "Authorization, X-Own-Header,,content-type")])
            .await;
    let preflight = preflight(&gateway, APP, "/graphql").await;
    assert_eq!(allowed_headers(&preflight), ["authorization", "x-own-header", "content-type"]);
    for invalid in ["*", "a b", "x-own:"] {
        let ended = FinishedRun::of(program(&["check"], &[("http.cors_headers", invalid)])).await;
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains("GATEWAY_HTTP_CORS_HEADERS"), "{ended:?}");
    }
}

#[tokio::test]
async fn allowed_origins_can_read_rejections() {
    let gateway = Gateway::on_sandbox(&[NAMED]).await;
    let long = "x".repeat(40 * 1024);
    let get = |path: &str| gateway.request(Method::GET, path).header("origin", APP);
    for (request, status) in [
        (get("/graphql").header("accept", "application/json"), 400),
        (get("/graphql").header("accept", "application/graphql-response+json"), 422),
        (get("/graphql?query=%7B__typename%7D"), 403),
        (get("/graphql").header("accept", "image/png"), 406),
        (gateway.request(Method::PUT, "/graphql").header("origin", APP), 405),
        (get("/graphql").header("x-long", long), 431),
    ] {
        let reply = GatewayResponse::of(request).await;
        reply.rejected(status, "BAD_REQUEST");
        assert_eq!(header(&reply, "access-control-allow-origin"), APP, "{reply:?}");
    }
}

#[tokio::test]
async fn any_other_origin_reads_nothing() {
    let gateway = Gateway::on_sandbox(&[NAMED]).await;
    for origin in FOREIGN {
        for reply in
            [preflight(&gateway, origin, "/graphql").await, ask(&gateway, origin, "application/json").await]
        {
            assert!(!reply.headers.contains_key("access-control-allow-origin"), "{origin}: {reply:?}");
            assert!(!reply.headers.contains_key("access-control-allow-credentials"), "{origin}: {reply:?}");
            // Caches must not serve a response for one origin to another.
            assert_eq!(header(&reply, "vary"), "origin");
        }
    }
    // One header with two of them is neither.
    let both = ask(&gateway, &format!("{APP}, {APP}"), "application/json").await;
    assert!(!both.headers.contains_key("access-control-allow-origin"), "{both:?}");
}

#[tokio::test]
async fn a_named_origin_reads_graphql_and_nothing_else() {
    let gateway = Gateway::on_sandbox(&[NAMED]).await;
    for path in ["/", "/graphiql.json", "/livez", "/readyz", "/metrics", "/nothing", "/graphql//"] {
        for method in [Method::GET, Method::OPTIONS] {
            let reply = GatewayResponse::of(gateway.request(method, path).header("origin", APP)).await;
            assert!(!reply.headers.contains_key("access-control-allow-origin"), "{path}: {reply:?}");
        }
    }
}

#[tokio::test]
async fn allowed_origins_cannot_send_form_requests() {
    let gateway = Gateway::on_sandbox(&[NAMED]).await;
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a"]
    {
        ask(&gateway, APP, content_type).await.rejected(415, "BAD_REQUEST");
    }
    let simple = gateway.request(Method::GET, "/graphql?query=%7B__typename%7D").header("origin", APP);
    GatewayResponse::of(simple).await.rejected(403, "BAD_REQUEST");
}

#[tokio::test]
async fn every_response_has_the_security_headers() {
    for settings in [&[][..], &[NAMED]] {
        let gateway = Gateway::on_sandbox(settings).await;
        let head =
            |line: &str| format!("{line} HTTP/1.1\r\nHost: gateway\r\nAccept: application/json\r\n\r\n");
        for (request, status) in [
            (head("GET /"), 200),
            (head("GET /graphiql.json"), 200),
            (head("GET /THIRD-PARTY-LICENSES.txt"), 200),
            (head("GET /livez"), 200),
            (head("GET /readyz"), 200),
            (head("GET /nothing"), 404),
            (head("DELETE /livez"), 405),
            (head("GET /graphql?query=%7B__typename%7D"), 200),
            (head("GET /graphql?query=%7B"), 200),
            (head("GET /graphql"), 400),
            (raw::post("", &raw::query("{ __typename }")), 200),
            (raw::post("Accept: text/event-stream\r\n", &raw::query("{ __typename }")), 200),
            // These never get as far as a route.
            ("GET / HTTP/1.1\r\nBad Header\r\n\r\n".to_owned(), 400),
            ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
            (format!("GET /{} HTTP/1.1\r\nHost: gateway\r\n\r\n", "x".repeat(70_000)), 431),
        ] {
            let reply: RawResponse = RawConnection::once(&gateway, &request).await;
            let line = request.lines().next().unwrap().chars().take(60).collect::<String>();
            assert_eq!(reply.status, status, "{line}");
            for (name, value) in [
                ("x-content-type-options", "nosniff"),
                ("x-frame-options", "DENY"),
                ("referrer-policy", "no-referrer"),
                ("cross-origin-resource-policy", "same-origin"),
                ("cross-origin-opener-policy", "same-origin"),
            ] {
                let values =
                    reply.headers.iter().filter(|(it, _)| it == name).map(|(_, value)| value.as_str());
                assert_eq!(values.collect::<Vec<_>>(), [value], "{name} of {line}");
            }
            let is_file = line.starts_with("GET / ") && status == 200 || line.contains("/THIRD-PARTY");
            let policy = reply.header("content-security-policy").unwrap();
            assert!(
                policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
                "{line}"
            );
            assert_eq!(policy.contains("script-src"), is_file, "{line}");
            let kept = if is_file { "no-cache" } else { "no-store" };
            assert_eq!(reply.header("cache-control"), Some(kept), "{line}");
        }
    }
}
