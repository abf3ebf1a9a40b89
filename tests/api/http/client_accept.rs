//! The `Accept` headers that GraphQL clients, HTTP libraries and browsers send by default, as their sources have them.
//! None of them is answered with 406, and each client receives a form that it reads.

use reqwest::Method;
use serde_json::json;

use crate::support::{Events, Gateway, GatewayResponse, RawConnection, Upstream, UpstreamResponse, id};

const GRAPHQL: &str = "application/graphql-response+json";
const JSON: &str = "application/json";
const STREAM: &str = "text/event-stream";

/// Clients with their versions, their header for queries and mutations, and the media type of the responses.
///
/// All of these clients read 2xx of either JSON type, and `application/graphql-response+json` with any status. Apollo iOS
/// is the exception: it reports other statuses as a `ResponseCodeError`, which holds the status and the body.
const OPERATIONS: &[(&str, Option<&str>, &str)] = &[
    ("Apollo Client 3.7 to 3.14", Some("*/*"), JSON),
    (
        "Apollo Client 3.7 to 3.14 with @defer",
        Some("multipart/mixed;deferSpec=20220824,application/json"),
        JSON,
    ),
    ("Apollo Client 4.0 to 4.3", Some("application/graphql-response+json,application/json;q=0.9"), GRAPHQL),
    (
        "Apollo Client 4.0 to 4.3 with @defer, Defer20220824Handler",
        Some("multipart/mixed;deferSpec=20220824,application/graphql-response+json,application/json;q=0.9"),
        GRAPHQL,
    ),
    (
        "Apollo Client 4.1 to 4.3 with @defer, GraphQL17Alpha9Handler",
        Some("multipart/mixed;incrementalSpec=v0.2,application/graphql-response+json,application/json;q=0.9"),
        GRAPHQL,
    ),
    ("apollo-angular, over Angular's HttpClient", Some("application/json, text/plain, */*"), JSON),
    ("Apollo iOS 1.0 to 1.14, from URLSession", Some("*/*"), JSON),
    (
        "Apollo iOS 1.9 with @defer",
        Some("multipart/mixed;boundary=\"graphql\";deferSpec=20220824,application/json"),
        JSON,
    ),
    ("Apollo iOS 1.15", Some("multipart/mixed;deferSpec=20220824,application/json"), JSON),
    (
        "Apollo iOS 1.17 to 2.3",
        Some("multipart/mixed;deferSpec=20220824,application/graphql-response+json,application/json"),
        GRAPHQL,
    ),
    ("Apollo Kotlin 2.5", Some("application/json"), JSON),
    ("Apollo Kotlin 3.8", Some("multipart/mixed; deferSpec=20220824, application/json"), JSON),
    ("Apollo Kotlin 4.0", Some("multipart/mixed;deferSpec=20220824, application/json"), JSON),
    (
        "Apollo Kotlin 4.3 to 5.1",
        Some("multipart/mixed;deferSpec=20220824, application/graphql-response+json, application/json"),
        GRAPHQL,
    ),
    (
        "Apollo Kotlin 5.0 to 5.1, IncrementalDeliveryProtocol.V0_2",
        Some("multipart/mixed;incrementalSpec=v0.2, application/graphql-response+json, application/json"),
        GRAPHQL,
    ),
    (
        "Apollo Kotlin 5.0 to 5.1, DefaultHttpRequestComposer alone",
        Some("application/graphql-response+json, application/json"),
        GRAPHQL,
    ),
    (
        "urql (@urql/core 4.3 to 6.0)",
        Some(
            "application/graphql-response+json, application/graphql+json, application/json, text/event-stream, \
             multipart/mixed",
        ),
        GRAPHQL,
    ),
    ("Relay, network layer of the guide", Some("*/*"), JSON),
    (
        "Relay, quick start",
        Some("application/graphql-response+json; charset=utf-8, application/json; charset=utf-8"),
        GRAPHQL,
    ),
    (
        "Relay with incremental delivery, over meros",
        Some("multipart/mixed; incrementalSpec=v0.2, application/json"),
        JSON,
    ),
    ("graphql-request 6.1", Some("*/*"), JSON),
    ("graphql-request 7.4", Some("application/graphql-response+json, application/json"), GRAPHQL),
    ("GraphiQL with incremental delivery", Some("application/json, multipart/mixed"), JSON),
    (
        "@graphql-tools/executor-http 3.4, of Hive Gateway and GraphQL Codegen",
        Some("application/graphql-response+json, application/json, multipart/mixed"),
        GRAPHQL,
    ),
    ("gql 4 for Python (aiohttp, httpx, requests)", Some("*/*"), JSON),
    ("graphql-client for Ruby", Some("application/json"), JSON),
    ("Spring for GraphQL 1.0, HttpGraphQlClient", Some("application/json, application/graphql+json"), JSON),
    (
        "Hot Chocolate 14, DefaultGraphQLHttpClient",
        Some("application/graphql-response+json, application/json, text/event-stream"),
        GRAPHQL,
    ),
    ("fetch, curl, Python requests, Ruby Net::HTTP, reqwest", Some("*/*"), JSON),
    ("axios 1", Some("application/json, text/plain, */*"), JSON),
    ("jQuery 3", Some("application/json, text/javascript, */*; q=0.01"), JSON),
    ("Spring RestTemplate 6", Some("application/json, application/*+json"), JSON),
    (
        "HttpURLConnection of older Java versions",
        Some("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"),
        JSON,
    ),
    ("Go net/http, Java HttpClient, .NET HttpClient, Hasura remote schemas", None, JSON),
    ("a form of Chrome 124", Some(CHROME), JSON),
    ("a form of Firefox 130 or Safari 17", Some(FIREFOX), JSON),
];

/// The headers of navigations.
const CHROME: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,\
                      application/signed-exchange;v=b3;q=0.7";
const FIREFOX: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

/// The same for subscriptions. Those by multipart are refused in a JSON type, with the supported transports.
const SUBSCRIPTIONS: &[(&str, &str, &str)] = &[
    (
        "Apollo Client 3.7 to 3.14, and its adapter for Relay",
        "multipart/mixed;boundary=graphql;subscriptionSpec=1.0,application/json",
        JSON,
    ),
    (
        "Apollo Client 4.0 to 4.3",
        "multipart/mixed;boundary=graphql;subscriptionSpec=1.0,application/graphql-response+json,\
         application/json;q=0.9",
        GRAPHQL,
    ),
    ("Apollo iOS 1.6", "multipart/mixed;boundary=\"graphql\";subscriptionSpec=1.0,application/json", JSON),
    ("Apollo iOS 1.9 to 1.15", "multipart/mixed;subscriptionSpec=1.0,application/json", JSON),
    (
        "Apollo iOS 1.17 to 2.3",
        "multipart/mixed;subscriptionSpec=1.0,application/graphql-response+json,application/json",
        GRAPHQL,
    ),
    (
        "Apollo Kotlin 3.8",
        "multipart/mixed; boundary=\"graphql\"; subscriptionSpec=1.0, application/json",
        JSON,
    ),
    ("Apollo Kotlin 4.0", "multipart/mixed;subscriptionSpec=1.0, application/json", JSON),
    (
        "Apollo Kotlin 4.3 to 5.1",
        "multipart/mixed;subscriptionSpec=1.0, application/graphql-response+json, application/json",
        GRAPHQL,
    ),
    ("gql 4 for Python", "multipart/mixed;subscriptionSpec=\"1.0\", application/json", JSON),
    ("urql (@urql/core 4.3 to 6.0)", "text/event-stream, multipart/mixed", STREAM),
    ("graphql-sse 2.6, @graphql-tools/executor-http 3.4", "text/event-stream", STREAM),
    (
        "Hot Chocolate 14, DefaultGraphQLHttpClient",
        "application/graphql-response+json, application/json, text/event-stream",
        STREAM,
    ),
];

/// A request with exactly these headers: client libraries add an `Accept` of their own.
fn post(accept: Option<&str>, text: &str) -> String {
    let body = json!({ "query": text }).to_string();
    let accept = accept.map(|accept| format!("Accept: {accept}\r\n")).unwrap_or_default();
    format!(
        "POST /graphql HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer token\r\nContent-Type: application/json\r\n\
         {accept}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn get(accept: Option<&str>, authorization: &str, text: &str) -> String {
    let query = serde_urlencoded::to_string([("query", text)]).unwrap();
    let accept = accept.map(|accept| format!("Accept: {accept}\r\n")).unwrap_or_default();
    format!("GET /graphql?{query} HTTP/1.1\r\nHost: gateway\r\n{authorization}{accept}\r\n")
}

fn query(number: usize) -> String {
    format!("{{ appointment(id: \"{}\") {{ id }} }}", id(number))
}

fn mutation(number: usize) -> String {
    format!(
        "mutation {{ updateAppointment(id: \"{}\", input: {{ status: \"waiting\" }}) {{ appointment {{ id }} }} }}",
        id(number)
    )
}

fn subscription() -> String {
    format!("subscription {{ appointmentChanged(id: \"{}\") {{ id }} }}", id(1))
}

/// An upstream with all appointments but `id(2)`, which it refuses, and gateways of both editions in front of it.
async fn upstream_and_gateways() -> (Upstream, [(Gateway, Statuses); 2]) {
    let upstream = Upstream::answering(|call| match call.method.as_str() {
        _ if call.path.contains(&id(2)) => UpstreamResponse::status(403),
        "GET" => call.appointment(),
        _ => call.changed(),
    })
    .await;
    let newer = Gateway::before(upstream.url(), &[]).await;
    let older = Gateway::before(upstream.url(), &[("http.statuses", "2025")]).await;
    (
        upstream,
        [
            (newer, Statuses { partial: 294, rejected: 422 }),
            (older, Statuses { partial: 200, rejected: 400 }),
        ],
    )
}

/// The statuses of `application/graphql-response+json` that differ between the editions. As `application/json` they are 200.
#[derive(Clone, Copy)]
struct Statuses {
    partial: u16,
    rejected: u16,
}

#[tokio::test]
async fn no_client_gets_406_for_a_query_or_a_mutation() {
    let (upstream, gateways) = upstream_and_gateways().await;
    for (gateway, statuses) in &gateways {
        let mut raw = RawConnection::connect(gateway).await;
        for (client, accept, media_type) in OPERATIONS {
            let (partial, rejected) = match *media_type {
                GRAPHQL => (statuses.partial, statuses.rejected),
                _ => (200, 200),
            };
            let authorization = "Authorization: Bearer token\r\n";
            let forms = [
                (post(*accept, &query(1)), 200, None),
                (post(*accept, &query(2)), partial, Some("FORBIDDEN")),
                (post(*accept, "{ unknown }"), rejected, Some("GRAPHQL_VALIDATION_FAILED")),
                (get(*accept, authorization, &query(1)), 200, None),
                (get(*accept, authorization, &query(2)), partial, Some("FORBIDDEN")),
                (get(*accept, authorization, "{ unknown }"), rejected, Some("GRAPHQL_VALIDATION_FAILED")),
                (post(*accept, &mutation(1)), 200, None),
                (post(*accept, &mutation(2)), partial, Some("FORBIDDEN")),
                (post(*accept, "mutation { unknown }"), rejected, Some("GRAPHQL_VALIDATION_FAILED")),
            ];
            for (request, status, code) in forms {
                let calls = upstream.calls();
                let reply = raw.exchange(&request).await.parsed();
                let what = format!("{client}: {request}\n{reply:?}");
                assert_eq!(reply.status, status, "{what}");
                assert_eq!(content_type(&reply), format!("{media_type}; charset=utf-8"), "{what}");
                assert_eq!(reply.codes(), code.into_iter().collect::<Vec<_>>(), "{what}");
                assert_eq!(
                    reply.body.get("data").is_some(),
                    code != Some("GRAPHQL_VALIDATION_FAILED"),
                    "{what}"
                );
                if code == Some("GRAPHQL_VALIDATION_FAILED") {
                    assert_eq!(upstream.calls(), calls, "{what}");
                }
            }
        }
    }
}

#[tokio::test]
async fn no_client_gets_406_for_a_subscription() {
    let (upstream, gateways) = upstream_and_gateways().await;
    for (gateway, _) in &gateways {
        for (client, accept, media_type) in SUBSCRIPTIONS {
            let calls = upstream.calls();
            if *media_type == STREAM {
                let request = gateway
                    .request(Method::POST, "/graphql")
                    .bearer_auth("token")
                    .header("content-type", "application/json")
                    .header("accept", *accept)
                    .body(json!({ "query": subscription() }).to_string());
                let event = Events::of(request).await.next().await;
                assert_eq!(event["data"]["appointmentChanged"]["id"], id(1), "{client}: {event}");
                continue;
            }
            let reply = RawConnection::once(gateway, post(Some(accept), &subscription())).await.parsed();
            let message = reply.rejected(400, "BAD_REQUEST");
            for transport in ["text/event-stream", "graphql-transport-ws"] {
                assert!(message.contains(transport), "{client}: {message}");
            }
            assert_eq!(content_type(&reply), format!("{media_type}; charset=utf-8"), "{client}");
            assert_eq!(upstream.calls(), calls, "{client}");
        }
    }
}

/// A GET without `Authorization` or another header that a foreign page cannot send.
#[tokio::test]
async fn a_browser_that_opens_the_endpoint_gets_json() {
    let gateway = Gateway::on_sandbox(&[]).await;
    for accept in [CHROME, FIREFOX] {
        let reply = RawConnection::once(&gateway, get(Some(accept), "", "{ __typename }")).await.parsed();
        reply.rejected(403, "BAD_REQUEST");
        assert_eq!(content_type(&reply), "application/json; charset=utf-8");
        let request = get(Some(accept), "GraphQL-Require-Preflight: 1\r\n", "{ __typename }");
        let reply = RawConnection::once(&gateway, request).await.parsed();
        assert_eq!((reply.status, reply.body), (200, json!({ "data": { "__typename": "Query" } })));
    }
}

fn content_type(reply: &GatewayResponse) -> &str {
    reply.headers.get("content-type").map(|value| value.to_str().unwrap()).unwrap_or_default()
}
