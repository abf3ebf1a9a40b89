//! Request smuggling: requests that two servers in a row could delimit differently are rejected.

use serde_json::json;

use crate::support::{Gateway, RawConnection, Upstream, id, raw};

/// Headers that frame a body of 5 bytes in two ways, or in a way that has several readings.
const AMBIGUOUS: &[&str] = &[
    "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\nX-Between: x\r\nContent-Length: 0\r\n",
    "transfer-encoding:chunked\r\ncontent-length:5\r\n",
    "TRANSFER-ENCODING: CHUNKED\r\nCONTENT-LENGTH: 5\r\n",
    "Transfer-Encoding: chunked\nContent-Length: 5\n",
    "Content-Length: 5\r\nContent-Length: 5\r\n",
    "Content-Length: 5\r\nContent-Length: 6\r\n",
    "Content-Length: 5\r\ncontent-length: 0\r\n",
    "Content-Length: 5, 5\r\n",
    "Content-Length: +5\r\n",
    "Content-Length: 0x5\r\n",
    "Content-Length: 5 5\r\n",
    "Content-Length:\r\n",
    "Content-Length : 5\r\n",
    "Content-Length\t: 5\r\n",
    " Content-Length: 5\r\n",
    "Content-Length:\r\n 5\r\n",
    "X-Folded: x\r\n Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding: chunked, chunked\r\n",
    "Transfer-Encoding: chunked, gzip\r\n",
    "Transfer-Encoding: , chunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "Transfer-Encoding: gzip\r\n",
    "Transfer-Encoding: xchunked\r\n",
    "Transfer-Encoding: chunkedx\r\n",
    "Transfer-Encoding: chunked;q=1\r\n",
    "Transfer-Encoding: \"chunked\"\r\n",
    "Transfer-Encoding: \x0bchunked\r\n",
    "Transfer-Encoding:\r\n",
    "Transfer-Encoding:\r\n chunked\r\n",
    "Transfer-Encoding : chunked\r\n",
    " Transfer-Encoding: chunked\r\n",
    "X: y\rTransfer-Encoding: chunked\r\n",
];

/// A body that is whole in either framing, and a request behind it.
const BODY: &str = "0\r\n\r\nGET /livez HTTP/1.1\r\nHost: gateway\r\n\r\n";

async fn assert_refused(gateway: &Gateway, request: &str) {
    let mut raw = RawConnection::connect(gateway).await;
    let reply = raw.exchange(request).await.parsed();
    assert_eq!(reply.status, 400, "{request:?}: {reply:?}");
    if !request.starts_with("HEAD") {
        reply.rejected(400, "BAD_REQUEST");
    }
    let rest = raw.closed().await;
    assert!(rest.is_empty(), "{request:?}: {}", String::from_utf8_lossy(&rest));
}

#[tokio::test]
async fn ambiguous_framing_is_rejected_on_every_route() {
    let gateway = Gateway::on_sandbox(&[]).await;
    for headers in AMBIGUOUS {
        for (method, path) in [
            ("POST", "/graphql"),
            ("GET", "/graphql?query=%7B__typename%7D"),
            ("GET", "/"),
            ("GET", "/livez"),
            ("POST", "/readyz"),
            ("GET", "/metrics"),
            ("DELETE", "/nothing"),
            ("OPTIONS", "*"),
        ] {
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: gateway\r\nAccept: application/json\r\n\
                 Content-Type: application/json\r\n{headers}\r\n{BODY}"
            );
            assert_refused(&gateway, &request).await;
        }
    }
    let served = gateway.query(None, "{ __typename }").await;
    assert_eq!(served.status, 200);
}

#[tokio::test]
async fn http_1_0_has_no_transfer_encoding() {
    let gateway = Gateway::on_sandbox(&[]).await;
    for headers in ["Transfer-Encoding: chunked\r\n", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"] {
        let request = format!("POST /graphql HTTP/1.0\r\nConnection: keep-alive\r\n{headers}\r\n{BODY}");
        assert_refused(&gateway, &request).await;
    }
}

#[tokio::test]
async fn an_ambiguous_change_is_not_carried_out() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let query = format!(
        r#"mutation {{ cancelAppointment(id: "{}", input: {{ reason: "x" }}) {{ appointment {{ id }} }} }}"#,
        id(1)
    );
    let body = raw::query(&query);
    let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for length in [body.len(), chunk.len()] {
        let request = format!(
            "POST /graphql HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n\
             Authorization: Bearer token\r\nContent-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"
        );
        assert_refused(&gateway, &request).await;
    }
    assert_eq!(upstream.calls(), 0);
}

/// Requests after a body of any content and any fragmentation are served.
#[tokio::test]
async fn bodies_that_resemble_a_head_are_bodies() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let nasty = format!(
        "{}\n\r\nPOST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        raw::query("{ __typename }").replacen('{', "{\r\n", 1)
    );
    let served = json!({ "data": { "__typename": "Query" } });
    let body = raw::query("{ __typename }").replacen('{', "{\r\n\r\n", 1);
    let head = "POST /graphql HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n";
    let chunked = |body: &str| {
        format!(
            "{head}Transfer-Encoding: Chunked\r\n\r\n{:x};a=b\r\n{body}\r\n0\r\n\
             Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
            body.len()
        )
    };
    let with_length = |body: &str| format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    let requests = [
        (with_length(&body), true),
        (chunked(&nasty), false),
        (chunked(&body), true),
        (with_length(&nasty), false),
        (chunked(&body), true),
    ];
    let bytes = requests.iter().map(|(request, _)| request.as_str()).collect::<String>();
    for cut in [1, 7, bytes.len()] {
        let mut raw = RawConnection::connect(&gateway).await;
        for part in bytes.as_bytes().chunks(cut) {
            raw.send(part).await.unwrap();
        }
        for (request, is_served) in &requests {
            let reply = raw.reply().await.parsed();
            match is_served {
                true => assert_eq!(reply.body, served, "{request}"),
                false => drop(reply.rejected(400, "BAD_REQUEST").to_owned()),
            }
        }
    }
}
