//! No caller receives data fetched with the credential of another. Without a credential nothing is fetched, shared or
//! cached (invariant 1).

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::support::{
    Gateway, GatewayResponse, RequestForm, TIMEOUT, Upstream, UpstreamResponse, id, ids, served,
};

#[tokio::test]
async fn interleaved_callers_each_receive_their_own_data() {
    // Answers that take a while, so that calls of many callers are under way together.
    let upstream =
        Upstream::answering(|call| call.appointment().after(Duration::from_millis(call.nth as u64))).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let (tokens, ids) = ((0..12).map(|n| format!("token-{n}")).collect::<Vec<_>>(), ids(0..8));
    // Each id three times for each caller: fetched, joined, or found. In an order that mixes the callers.
    let asked =
        (0..3 * tokens.len() * ids.len()).map(|n| (&tokens[n % tokens.len()], &ids[n * 5 % ids.len()]));
    let replies = asked.clone().map(|(token, id)| gateway.appointment(token, id));
    for ((token, id), reply) in asked.clone().zip(join_all(replies).await) {
        assert_eq!(*reply.appointment(), served(id, token, nth(&upstream, token, id)));
    }
    // And once more, all of it from the cache, several at once.
    for token in &tokens {
        let reply = gateway.appointments(token, &ids).await;
        let expected = ids.iter().map(|id| served(id, token, nth(&upstream, token, id))).collect::<Vec<_>>();
        assert_eq!(reply.body, json!({ "data": { "appointmentsByIds": expected } }));
    }
    // Byte-equal requests in every form, repeated until the response cache serves them.
    let query = format!("{{ appointmentsByIds(ids: {ids:?}) {{ id reference status }} }}");
    for _ in 0..3 {
        for way in RequestForm::EACH.into_iter().chain(RequestForm::BY_HASH).chain(RequestForm::IN_ARRAY) {
            let replies = tokens.iter().map(|token| way.ask(&gateway, token, &query));
            for (token, reply) in tokens.iter().zip(join_all(replies).await) {
                let expected = ids.iter().map(|id| served(id, token, nth(&upstream, token, id)));
                let expected = json!({ "appointmentsByIds": expected.collect::<Vec<_>>() });
                assert_eq!(reply.body, json!({ "data": expected }), "{way:?}");
            }
        }
    }
    assert!(gateway.response_cache_lookups().await.0 >= (RequestForm::EACH.len() * 2 * tokens.len()) as f64);
    assert_eq!(upstream.calls(), tokens.len() * ids.len());
}

/// Which call for `id` was the one of `token`; exactly one has to be.
fn nth(upstream: &Upstream, token: &str, id: &str) -> usize {
    upstream.seen(|seen| {
        let of_token = seen.calls.iter().filter(|call| call.id == id && call.token() == token);
        let nths = of_token.map(|call| call.nth).collect::<Vec<_>>();
        assert_eq!(nths.len(), 1, "{token} asked once for {id}");
        nths[0]
    })
}

#[tokio::test]
async fn tokens_that_are_almost_the_same_are_different_callers() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let tokens = [
        "token",
        "Token",
        "TOKEN",
        "toke",
        "token1",
        "tokent",
        "token.",
        "token=",
        "token==",
        "token/",
        "token%20",
        "Bearer",
        "token;v=1",
        "\"token\"",
        "0token",
        "17|token",
    ];
    for round in 0..2 {
        for token in tokens {
            let reply = gateway.appointment(token, &id(1)).await;
            assert_eq!(reply.appointment()["reference"], token, "round {round}");
        }
    }
    assert_eq!(upstream.calls(), tokens.len());
}

#[tokio::test]
async fn the_scheme_in_capitals_and_more_spaces_are_the_same_caller() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    for value in ["Bearer token", "bearer token", "BEARER token", "Bearer    token", "Bearer token  "] {
        let answer = ask(&gateway, &[format!("Authorization: {value}").as_bytes()]).await;
        assert_eq!(answer.json()["data"]["appointment"]["reference"], "token", "{value}");
    }
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn a_rejection_affects_its_caller_only() {
    let upstream = Upstream::answering(|call| match call.token() {
        "sees" => call.appointment(),
        "forbidden" => UpstreamResponse::status(403),
        "unknown" => UpstreamResponse::status(401),
        _ => UpstreamResponse::status(404),
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    for _ in 0..2 {
        assert_eq!(*gateway.appointment("sees", &id(1)).await.appointment(), served(&id(1), "sees", 1));
        for (token, codes) in
            [("forbidden", &["FORBIDDEN"][..]), ("unknown", &["UNAUTHENTICATED"]), ("sees-none", &[])]
        {
            let reply = gateway.appointment(token, &id(1)).await;
            assert_eq!((reply.codes(), &reply.body["data"]["appointment"]), (codes.to_vec(), &Value::Null));
        }
    }
}

#[tokio::test]
async fn without_a_token_each_field_fails_without_a_call() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    // Cached data of other callers is not served without a token.
    gateway.appointment("token", &id(1)).await;
    let query = format!(
        r#"{{ __typename one: appointment(id: "{0}") {{ id }} two: appointment(id: "{1}") {{ id }}
             both: appointmentsByIds(ids: ["{0}", "{1}"]) {{ id }} }}"#,
        id(1),
        id(2)
    );
    gateway.query(None, &query).await.rejected(401, "UNAUTHENTICATED");
    // Clients of the older media type get the error at each field.
    let form = RequestForm::POST.accepting("application/json");
    let reply = GatewayResponse::of(form.request(&gateway, None, &query)).await;
    assert_eq!(reply.status, 200);
    let expected = json!({ "__typename": "Query", "one": null, "two": null, "both": [null, null] });
    assert_eq!(reply.body["data"], expected);
    let places = [r#"["both",0]"#, r#"["both",1]"#, r#"["one"]"#, r#"["two"]"#];
    assert_eq!(reply.paths_and_codes(), places.map(|place| (place.to_owned(), "UNAUTHENTICATED")));
    assert_eq!(upstream.calls(), 1, "the one with a token");
}

#[tokio::test]
async fn the_schema_can_be_read_without_a_token() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let reply = gateway
        .query(None, r#"{ __typename __schema { queryType { name } } __type(name: "UUID") { kind } }"#)
        .await;
    let expected = json!({ "__typename": "Query", "__schema": { "queryType": { "name": "Query" } }, "__type": { "kind": "SCALAR" } });
    assert_eq!(reply.body, json!({ "data": expected }));
    assert_eq!(upstream.seen(|seen| seen.connections), 0);
}

#[tokio::test]
async fn malformed_credentials_are_rejected_like_missing_ones() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    gateway.appointment("token", &id(1)).await;
    let long = [b"Authorization: Bearer ".as_slice(), &[b'a'; 9000]].concat();
    let cases: [&[&[u8]]; 14] = [
        &[b"Authorization:"],
        &[b"Authorization: Bearer"],
        &[b"Authorization: Bearer "],
        &[b"Authorization: token"],
        &[b"Authorization: Basic dG9rZW46"],
        &[b"Authorization: Basic token"],
        &[b"Authorization: Bearertoken"],
        &[b"Authorization: Bearer token", b"Authorization: Bearer token"],
        &[b"Authorization: Basic dG9rZW46", b"authorization: Bearer token"],
        &[b"Authorization: Bearer token, Bearer other"],
        &[b"Authorization: Bearer to ken"],
        &[b"Authorization: Bearer to\tken"],
        &[b"Authorization: Bearer token\xff"],
        &[&long],
    ];
    for headers in cases {
        let answer = ask(&gateway, headers).await;
        let said = headers.iter().map(|it| it.escape_ascii().to_string()).collect::<Vec<_>>();
        assert_eq!(answer.status, 401, "{said:?}");
        let body = answer.json();
        assert_eq!(body.get("data"), None, "{said:?}");
        assert_eq!(body["errors"][0]["extensions"]["code"], "UNAUTHENTICATED", "{said:?}");
        let message = body["errors"][0]["message"].as_str().unwrap();
        assert!(!message.contains("dG9rZW46") && !message.contains("ken\""), "repeats nothing: {message}");
    }
    assert_eq!(upstream.calls(), 1, "the one with a token");
}

#[tokio::test]
async fn control_bytes_in_a_header_are_rejected() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    for byte in [0, 1, 8, 0x0b, 0x1b, 0x1f, 0x7f] {
        let answer =
            ask(&gateway, &[&[b"Authorization: Bearer to".as_slice(), &[byte], b"ken"].concat()]).await;
        assert_eq!(answer.status, 400, "byte {byte:#04x}");
    }
    // A header that goes on in the next line is gone since RFC 7230; as one that smuggles another it never was one.
    let answer = ask(&gateway, &[b"Authorization: Bearer token\r\n folded"]).await;
    assert_eq!(answer.status, 400);
    assert_eq!(upstream.calls(), 0);
}

struct RawAnswer {
    status: u16,
    body: String,
}

impl RawAnswer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Asks for the appointment 1 with headers byte for byte, which no client library would send.
async fn ask(gateway: &Gateway, headers: &[&[u8]]) -> RawAnswer {
    let body =
        json!({ "query": format!("{{ appointment(id: \"{}\") {{ id reference }} }}", id(1)) }).to_string();
    let head = format!(
        "POST /graphql HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Accept: application/graphql-response+json\r\nContent-Length: {}\r\n",
        body.len()
    );
    let mut request = head.into_bytes();
    for header in headers {
        request.extend_from_slice(header);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(format!("\r\n{body}").as_bytes());

    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.write_all(&request).await.unwrap();
    let mut answer = Vec::new();
    // The received part counts, even if the gateway closes without reading everything.
    let _ = timeout(TIMEOUT, stream.read_to_end(&mut answer)).await.expect("an answer in time");
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    RawAnswer { status: head.split(' ').nth(1).unwrap().parse().unwrap(), body: body.to_owned() }
}
