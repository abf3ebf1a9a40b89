//! `Accept` and `Content-Type` follow the grammar of RFC 9110: whitespace, empty parameters, quoted strings, weights and
//! precedence.

use serde_json::json;

use crate::support::{Gateway, RawConnection, raw};

const GRAPHQL: &str = "application/graphql-response+json; charset=utf-8";
const JSON: &str = "application/json; charset=utf-8";
const STREAM: &str = "text/event-stream; charset=utf-8";

/// Values of `Accept`, and the media type of the response, or none for 406.
const ACCEPT: &[(&str, Option<&str>)] = &[
    // Whitespace, empty items and parameters, quoted strings.
    ("application/json;", Some(JSON)),
    ("application/json;;", Some(JSON)),
    ("application/json; ; ;q=0.5;", Some(JSON)),
    ("application/json ; charset=utf-8", Some(JSON)),
    ("application/json\t;\tq=1", Some(JSON)),
    (",, application/graphql-response+json ,", Some(GRAPHQL)),
    ("application/json;profile=\"a,b\"", Some(JSON)),
    ("application/json;profile=\"a;q=0\"", Some(JSON)),
    ("application/json;profile=\"\\\",text/html;q=0\"", Some(JSON)),
    ("text/html;a=\",application/json\"", None),
    ("text/html;a=\",application/json,\", application/graphql-response+json", Some(GRAPHQL)),
    ("text/html;a=\"\u{e9}\", application/json", Some(JSON)),
    ("Application/GraphQL-Response+JSON;Charset=\"UTF-8\";Q=0.1", Some(GRAPHQL)),
    ("application/json charset=utf-8", None),
    ("application /json", None),
    ("json", None),
    // The closest range decides, whatever the order.
    ("*/*", Some(JSON)),
    ("application/*", Some(JSON)),
    ("*/*, application/json;q=0", Some(GRAPHQL)),
    ("application/json;q=0, */*", Some(GRAPHQL)),
    ("application/json;q=0, application/*;q=0.5", Some(GRAPHQL)),
    ("application/*;q=0, application/json;q=0.1", Some(JSON)),
    ("application/*;q=0, */*", None),
    ("application/json;q=0.1, */*;q=0.2", Some(GRAPHQL)),
    ("application/json;q=0.2, */*;q=0.1", Some(JSON)),
    ("application/json;charset=utf-16;q=1, application/json;q=0.1", Some(JSON)),
    ("application/json;charset=utf-16", None),
    ("text/event-stream;q=0.9, application/*;q=0.8", Some(STREAM)),
    ("text/event-stream;q=0, */*", Some(JSON)),
    // Weights.
    ("application/json;q=0", None),
    ("application/json;q=0.000", None),
    ("application/json;q=0.001", Some(JSON)),
    ("application/json;q=0.5, application/graphql-response+json;q=0.501", Some(GRAPHQL)),
    ("application/graphql-response+json;q=0.5, application/json;q=0.50", Some(GRAPHQL)),
    ("application/json;q=.5, application/graphql-response+json;q=.501", Some(GRAPHQL)),
    ("application/json;q=.", None),
    ("application/json;q=.0", None),
    ("application/json;q=1.001, application/graphql-response+json;q=0.1", Some(GRAPHQL)),
    ("application/json;q=2, application/graphql-response+json;q=0.1", Some(GRAPHQL)),
    ("application/json;q=NaN, application/graphql-response+json;q=0.1", Some(GRAPHQL)),
];

/// Values of `Content-Type`, and whether they are JSON in UTF-8.
const CONTENT_TYPE: &[(&str, bool)] = &[
    ("application/json;;charset=utf-8", true),
    ("application/json;;;", true),
    ("application/json ; ; charset=utf-8 ;", true),
    ("application/json\t;charset=\"UTF-8\"", true),
    ("application/json;charset=\"utf\\-8\"", true),
    ("Application/Json;profile=\"a,b;charset=latin1\"", true),
    ("application/json;;charset=latin1", false),
    ("application/json;a=\";\";charset=latin1", false),
    ("application/json;charset=\"utf-8 \"", false),
    ("application/json,application/json", false),
    ("application/json, text/plain", false),
    ("application/json;charset=utf-8, text/plain", false),
    ("application/json;charset=utf-8\r\nContent-Type: text/plain", false),
    ("application/json\r\nContent-Type: application/json", false),
    ("application/json-seq", false),
    ("application/*", false),
    ("application /json", false),
    ("/json", false),
];

fn post(accept: &str, content_type: &str) -> Vec<u8> {
    let body = raw::query("{ __typename }");
    let text = format!(
        "POST /graphql HTTP/1.1\r\nHost: gateway\r\nAccept: {accept}\r\nContent-Type: {content_type}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    // In Latin-1, the old character set of header values.
    text.chars().map(|character| u8::try_from(u32::from(character)).unwrap()).collect()
}

#[tokio::test]
async fn accept_selects_by_the_closest_range_and_weight() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let mut raw = RawConnection::connect(&gateway).await;
    for (accept, expected) in ACCEPT {
        let reply = raw.exchange(post(accept, "application/json")).await;
        let Some(expected) = expected else {
            reply.parsed().rejected(406, "BAD_REQUEST");
            continue;
        };
        assert_eq!((reply.status, reply.header("content-type")), (200, Some(*expected)), "{accept}");
    }
}

#[tokio::test]
async fn several_accept_headers_are_one_list() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let accept = "application/json;q=0.1\r\nAccept: text/html\r\nAccept: application/*;q=0.2";
    let reply = RawConnection::once(&gateway, post(accept, "application/json")).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some(GRAPHQL)));
}

#[tokio::test]
async fn a_content_type_is_one_media_type_that_is_json() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let mut raw = RawConnection::connect(&gateway).await;
    for (content_type, is_json) in CONTENT_TYPE {
        let reply = raw.exchange(post("application/json", content_type)).await.parsed();
        if *is_json {
            assert_eq!(reply.body, json!({ "data": { "__typename": "Query" } }), "{content_type}");
        } else {
            reply.rejected(415, "BAD_REQUEST");
        }
    }
}
