//! Tolerance for servers that write HTTP/1 as it was once allowed or common: at the upstream, the token endpoint and the
//! JWK set.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::support::{Call, ChangeKind, Gateway, Issuer, Upstream, UpstreamResponse, canary, id};

/// Lines of a head that a strict client rejects. `LENGTH` stands for the length of the body.
const HEADS: &[&str] = &[
    // A value over several lines.
    "Content-Type: application/json;\r\n charset=utf-8\r\nContent-Length: LENGTH\r\n",
    "X-Folded: a,\r\n\tb,\r\n  c\r\nContent-Length: LENGTH\r\n",
    "Content-Length:\r\n LENGTH\r\n",
    // Spaces before the colon.
    "Content-Type : application/json\r\nContent-Length \t: LENGTH\r\n",
    // Lines that are no headers.
    "This is no header\r\nContent-Length: LENGTH\r\n",
    "X(Name): a\r\nContent-Length: LENGTH\r\n",
    "X-Name\u{e9}: a\r\nContent-Length: LENGTH\r\n",
    "X-Control: a\x01b\r\nContent-Length: LENGTH\r\n",
    ": a\r\nContent-Length: LENGTH\r\n",
    // All of them, with bare line feeds.
    "Set-Cookie : a=b;\n path=/\nNo header\nContent-Length : LENGTH\n",
];

/// A 200 with `body` under one of the [`HEADS`].
fn old(head: &str, body: &Value) -> UpstreamResponse {
    let body = canary::planted(body).to_string();
    let head = head.replace("LENGTH", &body.len().to_string());
    UpstreamResponse::raw(format!("HTTP/1.1 200 OK\r\n{head}\r\n{body}"))
}

fn appointment(call: &Call) -> Value {
    json!({ "data": { "id": id(1), "reference": call.token() } })
}

#[tokio::test]
async fn old_forms_of_headers_are_read_from_the_upstream() {
    for head in HEADS {
        let upstream = Upstream::answering(move |call| old(head, &appointment(call))).await;
        let gateway = Gateway::before(upstream.url(), &[]).await;
        let reply = gateway.appointment("token", &id(1)).await;
        assert_eq!(reply.appointment()["reference"], "token", "{head}");
        for change in ChangeKind::EACH {
            assert_eq!(change.make(&gateway).await.changed()["reference"], "token", "{head}");
        }
        assert_eq!(upstream.calls(), 4, "{head}");
    }
}

#[tokio::test]
async fn old_forms_of_headers_are_read_from_identity_providers() {
    for head in HEADS {
        let issuer = Issuer::new("key-1");
        let keys = Issuer::key_set(&[&issuer]);
        let token =
            json!({ "access_token": canary::marked("service"), "expires_in": 3600, "token_type": "Bearer" });
        let upstream = Upstream::start().await;
        upstream.on("token", move |_| old(head, &token));
        upstream.on("jwks", move |_| old(head, &keys));
        let gateway = Gateway::for_issuer(&upstream, &[]).await;
        let reply = gateway.appointment(&issuer.token("alice"), &id(1)).await;
        assert_eq!(reply.appointment()["reference"], "service", "{head}");
        assert_eq!((upstream.calls_for("token"), upstream.calls_for("jwks")), (1, 1), "{head}");
    }
}

/// Names of headers are written as old servers expect them that compare them with upper and lower case.
#[tokio::test]
async fn names_of_request_headers_are_capitalised() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let gateway = Gateway::before(&url, &[]).await;
    let answer = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        String::from_utf8(head).unwrap()
    };
    let (reply, head) = futures_util::join!(async { gateway.appointment("token", &id(1)).await }, answer);
    assert_eq!(reply.codes(), ["FORBIDDEN"]);
    let names = head.lines().skip(1).filter_map(|line| Some(line.split_once(':')?.0)).collect::<Vec<_>>();
    assert!(names.contains(&"Authorization") && names.contains(&"Host"), "{names:?}");
    for name in names {
        assert!(
            name.split('-').all(|word| word.starts_with(|first: char| first.is_ascii_uppercase())),
            "{name}"
        );
    }
}
