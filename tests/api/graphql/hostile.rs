//! Hostile input is rejected with a clear error and at little cost.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{Gateway, GatewayResponse, RawConnection, peak_memory, raw};

const MEGABYTE: usize = 1 << 20;

/// How much more memory than before all hostile requests together may have taken at once, in KiB. The largest of them is
/// 50 MB, so that one that is held shows, and so does one that is answered with a multiple of itself.
const FLAT: u64 = 8 * 1024;

/// The head of a POST; the test sends the body itself.
fn head(headers: &str) -> String {
    format!("POST /graphql HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n{headers}\r\n")
}

/// Warms up the allocator on every thread.
async fn warm(gateway: &Gateway) {
    join_all((0..100).map(|_| assert_served(gateway))).await;
}

async fn assert_served(gateway: &Gateway) {
    let reply = gateway.query(None, "{ __typename }").await;
    assert_eq!(reply.body, json!({ "data": { "__typename": "Query" } }));
}

#[tokio::test]
async fn a_body_of_50_megabytes_is_413_and_is_never_held() {
    let gateway = Gateway::on_sandbox(&[]).await;
    assert_served(&gateway).await;
    let before = peak_memory(&gateway);
    let piece = vec![b' '; MEGABYTE];
    let chunk = [format!("{MEGABYTE:x}\r\n").as_bytes(), &piece, b"\r\n"].concat();
    let stated = head(&format!("Content-Length: {}\r\n", 50 * MEGABYTE));
    let chunked = head("Transfer-Encoding: chunked\r\n");
    for (head, piece, tail) in [(&stated, &piece, &b""[..]), (&chunked, &chunk, b"0\r\n\r\n")] {
        let reply =
            RawConnection::connect(&gateway).await.exchange_long(head, piece, 50, tail).await.parsed();
        assert!(reply.rejected(413, "BAD_REQUEST").contains("limits.body"));
    }
    // One that goes on for longer than the gateway is ready to look away is cut off, with or without having been told.
    let mut endless = RawConnection::connect(&gateway).await;
    let _ = endless.send(&chunked).await;
    while endless.send(&chunk).await.is_ok() {}
    endless.closed().await;

    assert_served(&gateway).await;
    let grown = peak_memory(&gateway) - before;
    assert!(grown < FLAT, "memory has grown by {grown} KiB");
}

#[tokio::test]
async fn expect_continue_is_answered_before_the_body() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let mut raw = RawConnection::connect(&gateway).await;
    raw.send(head(&format!("Content-Length: {}\r\nExpect: 100-continue\r\n", 50 * MEGABYTE))).await.unwrap();
    assert!(raw.reply().await.parsed().rejected(413, "BAD_REQUEST").contains("limits.body"));

    let body = raw::query("{ __typename }");
    let mut raw = RawConnection::connect(&gateway).await;
    raw.send(head(&format!("Content-Length: {}\r\nExpect: 100-continue\r\n", body.len()))).await.unwrap();
    assert_eq!(raw.reply().await.status, 100);
    raw.send(&body).await.unwrap();
    assert_eq!(raw.reply().await.parsed().body, json!({ "data": { "__typename": "Query" } }));
}

/// A client that is not told would send its next request on a connection that is about to go.
#[tokio::test]
async fn connections_with_unread_bodies_are_closed_explicitly() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let large = format!("X-Large: {}\r\n", "y".repeat(40 * 1024));
    for (headers, status) in [("Accept: text/html\r\n", 406), (&large, 431)] {
        let mut raw = RawConnection::connect(&gateway).await;
        raw.send(head(&format!("{headers}Content-Length: 24\r\n"))).await.unwrap();
        let reply = raw.reply().await;
        assert_eq!((reply.status, reply.header("connection")), (status, Some("close")));
        assert_eq!(raw.closed().await, b"");
    }
    // Connections whose bodies were read stay open after any response.
    let mut raw = RawConnection::connect(&gateway).await;
    for (body, status) in [("no JSON", 400), ("{ \"query\": \"{ __typename }\" }", 200)] {
        let reply = raw.exchange(raw::post("", body)).await;
        assert_eq!((reply.status, reply.header("connection")), (status, None));
    }
}

#[tokio::test]
async fn overwhelming_queries_are_rejected_naming_a_limit() {
    let gateway = Gateway::on_sandbox(&[]).await;
    warm(&gateway).await;
    let before = peak_memory(&gateway);
    let long = format!("{{ __typename }} # {}", "x".repeat(100_000));
    let many = |count: usize| (0..count).map(|n| format!("a{n}: __typename ")).collect::<String>();
    let aliases = format!("{{ {} }}", many(10_000));
    let few_aliases = format!("{{ {} }}", many(51));
    let depth = format!("{}__typename{}", "{ a ".repeat(500), "}".repeat(500));
    let lists = format!("{{ appointmentsByIds(ids: {}{}) {{ id }} }}", "[".repeat(500), "]".repeat(500));
    let objects = format!("{{ appointment(id: {}1{}) {{ id }} }}", "{a:".repeat(500), "}".repeat(500));
    let unclosed = "{a".repeat(1_500);
    let chain = |last: &str| {
        let links = (0..20).map(|n| format!("fragment f{n} on Query {{ ...f{0} ...f{0} }} ", n + 1));
        format!("{{ ...f0 }} {}fragment f20 on Query {{ {last} }}", links.collect::<String>())
    };
    let bomb = chain("__typename");
    let alias_bomb = chain("a: __typename");
    let deep_chain =
        (0..300).map(|n| format!("fragment f{n} on Query {{ ...f{} }} ", n + 1)).collect::<String>();
    let deep_chain = format!("{{ ...f0 }} {deep_chain} fragment f300 on Query {{ __typename }}");
    for (query, limits) in [
        (&long, &["query"][..]),
        (&aliases, &["tokens", "query"]),
        (&few_aliases, &["root_fields", "aliases"]),
        (&depth, &["depth"]),
        (&lists, &["depth"]),
        (&objects, &["depth"]),
        (&unclosed, &["depth"]),
        (&bomb, &["root_fields", "fields"]),
        (&alias_bomb, &["root_fields", "fields", "aliases"]),
        (&deep_chain, &["depth"]),
    ] {
        let reply = gateway.query(Some("sandbox-all"), query).await;
        reply.rejected(422, "QUERY_TOO_COMPLEX");
        let extensions = &reply.body["errors"][0]["extensions"];
        assert!(limits.contains(&extensions["limit"].as_str().unwrap()), "{limits:?}: {reply:?}");
        assert!(extensions["maximum"].is_u64(), "{reply:?}");
    }
    for cycle in [
        "{ ...F } fragment F on Query { ...F }",
        "{ ...F } fragment F on Query { ...G } fragment G on Query { ...H } fragment H on Query { ...F }",
        "{ __typename } fragment F on Query { ...G } fragment G on Query { ...F }",
    ] {
        gateway.query(None, cycle).await.rejected(422, "GRAPHQL_VALIDATION_FAILED");
    }
    assert_served(&gateway).await;
    let grown = peak_memory(&gateway) - before;
    assert!(grown < FLAT, "memory has grown by {grown} KiB");
}

#[tokio::test]
async fn a_10_mb_query_is_rejected_by_body_or_by_query_limit() {
    let long = format!("{{ __typename }} # {}", "x".repeat(10 * MEGABYTE));
    let gateway = Gateway::on_sandbox(&[]).await;
    gateway.query(None, &long).await.rejected(413, "BAD_REQUEST");
    let gateway = Gateway::on_sandbox(&[("limits.body", "16MiB")]).await;
    let reply = gateway.query(None, &long).await;
    reply.rejected(422, "QUERY_TOO_COMPLEX");
    assert_eq!(reply.body["errors"][0]["extensions"]["limit"], json!("query"));
}

/// All levels of nesting that the limits can be made to allow are within the stack.
#[tokio::test]
async fn nesting_up_to_the_largest_limit_is_survived() {
    let gateway = Gateway::on_sandbox(&[("limits.depth", "50")]).await;
    for query in [
        format!("{{ {}__typename{} }}", "... { ".repeat(48), "}".repeat(48)),
        format!("{{ {}__typename{} }}", "... on Query { ".repeat(48), "}".repeat(48)),
        format!("{{ appointmentsByIds(ids: {}{}) {{ id }} }}", "[".repeat(95), "]".repeat(95)),
        format!("{{ appointment(id: {}1{}) {{ id }} }}", "{a:".repeat(95), "}".repeat(95)),
    ] {
        let reply = gateway.query(None, &query).await;
        assert!(matches!(reply.status, 200 | 422), "{reply:?}");
    }
    // The gateway has no limit on nested JSON. Any response will do.
    let nested = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let body = format!(
        r#"{{"query":"query ($ids: [UUID!]!) {{ appointmentsByIds(ids: $ids) {{ id }} }}","variables":{{"ids":{nested}}}}}"#
    );
    RawConnection::once(&gateway, raw::post("", &body)).await.parsed().rejected(400, "BAD_REQUEST");
    assert_served(&gateway).await;
}

#[tokio::test]
async fn heads_that_are_too_large_are_431_or_414() {
    let gateway = Gateway::on_sandbox(&[]).await;
    assert_served(&gateway).await;
    let before = peak_memory(&gateway);
    let body = raw::query("{ __typename }");
    let long_value = format!("X-Long: {}\r\n", "x".repeat(MEGABYTE));
    let long_name = format!("{}: x\r\n", "x".repeat(MEGABYTE));
    let too_long = format!("X-Long: {}\r\n", "x".repeat(33 * 1024));
    let many = |count: usize| (0..count).map(|n| format!("X-{n}: x\r\n")).collect::<String>();
    for headers in [long_value, long_name, too_long, many(200), many(20_000)] {
        let reply = RawConnection::once(&gateway, raw::post(&headers, &body)).await.parsed();
        reply.rejected(431, "BAD_REQUEST");
    }
    let line = |length: usize| {
        format!(
            "GET /graphql?query={} HTTP/1.1\r\nHost: gateway\r\nAccept: application/json\r\n\r\n",
            "x".repeat(length)
        )
    };
    for length in [33 * 1024, MEGABYTE] {
        let reply = RawConnection::once(&gateway, line(length)).await.parsed();
        let status = reply.status;
        assert!(matches!(status, 414 | 431), "{reply:?}");
        reply.rejected(status, "BAD_REQUEST");
    }
    // Input within the limit is served.
    let long = format!("X-Long: {}\r\n{}", "x".repeat(30 * 1024), many(50));
    assert_eq!(RawConnection::once(&gateway, raw::post(&long, &body)).await.status, 200);
    let grown = peak_memory(&gateway) - before;
    assert!(grown < FLAT, "memory has grown by {grown} KiB");
}

#[tokio::test]
async fn non_utf8_bytes_are_rejected_in_text() {
    let gateway = Gateway::on_sandbox(&[]).await;
    async fn send(gateway: &Gateway, bytes: Vec<u8>) -> GatewayResponse {
        RawConnection::once(gateway, bytes).await.parsed()
    }
    let body =
        |bytes: &[u8]| [head(&format!("Content-Length: {}\r\n", bytes.len())).as_bytes(), bytes].concat();
    send(&gateway, body(b"{\"query\":\"{ \xff }\"}")).await.rejected(400, "BAD_REQUEST");
    send(&gateway, body(b"\xff\xfe{\0")).await.rejected(400, "BAD_REQUEST");
    send(&gateway, body(b"{\"query\":\"\\ud800\"}")).await.rejected(400, "BAD_REQUEST");
    send(
        &gateway,
        b"GET /graphql?query=%FF%FE HTTP/1.1\r\nHost: g\r\nAccept: application/json\r\n\r\n".to_vec(),
    )
    .await
    .rejected(200, "GRAPHQL_PARSE_FAILED");
    let with = |header: &[u8]| {
        let served = raw::post("", &raw::query("{ __typename }")).into_bytes();
        let line = served.windows(2).position(|end| end == b"\r\n").unwrap() + 2;
        [&served[..line], header, b"\r\n", &served[line..]].concat()
    };
    // Unused headers may contain them.
    assert_eq!(send(&gateway, with(b"X-Anything: \xff")).await.status, 200);
    assert_eq!(send(&gateway, with(b"X-Request-Id: \xff")).await.status, 200);
    let reply = send(&gateway, with(b"Content-Encoding: \xff")).await;
    reply.rejected(415, "BAD_REQUEST");
    send(&gateway, with(b"Bad\xffName: x")).await.rejected(400, "BAD_REQUEST");
    let page = b"GET /\xff HTTP/1.1\r\nHost: g\r\n\r\n".to_vec();
    let reply = send(&gateway, page).await;
    let status = reply.status;
    assert!(matches!(status, 400 | 404), "{reply:?}");
    reply.rejected(status, "BAD_REQUEST");
    assert_served(&gateway).await;
}

/// Requests that two servers in a row could cut in different places are not served at all.
#[tokio::test]
async fn ambiguous_lengths_are_rejected() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let body = raw::query("{ __typename }");
    for headers in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 5, 6\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
    ] {
        let reply = RawConnection::once(&gateway, format!("{}{body}", head(headers))).await.parsed();
        reply.rejected(400, "BAD_REQUEST");
    }
    let mut garbage = RawConnection::connect(&gateway).await;
    let reply = garbage.exchange("\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n").await.parsed();
    reply.rejected(400, "BAD_REQUEST");
    let broken = format!("{}zz\r\n{body}\r\n", head("Transfer-Encoding: chunked\r\n"));
    RawConnection::once(&gateway, broken).await.parsed().rejected(400, "BAD_REQUEST");
    assert_served(&gateway).await;
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_its_body_costs_nothing() {
    let gateway = Gateway::on_sandbox(&[]).await;
    for _ in 0..20 {
        let mut raw = RawConnection::connect(&gateway).await;
        raw.send(head("Content-Length: 1000\r\n") + "{\"query").await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_served(&gateway).await;
    assert!(!gateway.stderr().contains("panicked"));
}
