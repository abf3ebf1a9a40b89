//! Refusals of requests whose bodies are still on their way: they come first, and a lingering close protects them.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::support::{Gateway, RawConnection, TIMEOUT, raw};

const MEGABYTE: usize = 1 << 20;
const TERABYTE: usize = 1 << 40;

/// No test waits this long.
const LONG: &[(&str, &str)] =
    &[("http.body_timeout", "10m"), ("http.deadline", "10m"), ("http.header_timeout", "10m")];

fn head(headers: &str) -> String {
    format!("POST /graphql HTTP/1.1\r\nHost: gateway\r\n{headers}\r\n")
}

/// Requests with the given body headers, and the statuses of their refusals.
fn refused(body: &str) -> Vec<(String, u16)> {
    let json = "Content-Type: application/json\r\n";
    vec![
        (head(&format!("{json}{body}")), 413),
        (head(&format!("Content-Type: text/plain\r\n{body}")), 415),
        (head(&format!("{json}Accept: text/html\r\n{body}")), 406),
        (head(&format!("{json}{body}")).replace("POST", "PUT"), 405),
        (head(&format!("{json}{body}")).replace("/graphql", "/nothing"), 404),
        (head(&format!("{json}{body}")).replace("Host: gateway\r\n", ""), 400),
    ]
}

#[tokio::test]
async fn a_body_announced_as_too_large_is_refused_at_once() {
    let gateway = Gateway::on_sandbox(LONG).await;
    for length in [TERABYTE, 256 * 1024 + 1] {
        for (head, status) in refused(&format!("Content-Length: {length}\r\n")) {
            let mut raw = RawConnection::connect(&gateway).await;
            raw.send(format!("{head}{{")).await.unwrap();
            let reply = raw.reply().await;
            assert_eq!(reply.header("connection"), Some("close"), "{head}");
            let reply = reply.parsed();
            reply.rejected(status, "BAD_REQUEST");
            assert_eq!(raw.closed().await, b"", "{head}");
        }
    }
    assert_eq!(gateway.rejections("body").await, 2.0);
}

/// Lengths that 64 bits cannot hold, or that the HTTP library reserves.
#[tokio::test]
async fn an_astronomic_length_is_too_large_like_any_other() {
    let gateway = Gateway::on_sandbox(LONG).await;
    let lengths = ["18446744073709551614", "18446744073709551615", "18446744073709551616"];
    for length in lengths.map(str::to_owned).into_iter().chain(["9".repeat(100)]) {
        let mut raw = RawConnection::connect(&gateway).await;
        let head = head(&format!("Content-Type: application/json\r\nContent-Length: {length}\r\n"));
        raw.send(format!("{head}{{")).await.unwrap();
        let reply = raw.reply().await.parsed();
        assert!(reply.rejected(413, "BAD_REQUEST").contains("limits.body"), "{length}");
        assert_eq!(raw.closed().await, b"", "{length}");
    }
    // Leading zeros make no number larger.
    let body = raw::query("{ __typename }");
    let length = format!("{}{}", "0".repeat(100), body.len());
    let mut raw = RawConnection::connect(&gateway).await;
    let head = head(&format!("Content-Type: application/json\r\nContent-Length: {length}\r\n"));
    assert_eq!(raw.exchange(format!("{head}{body}")).await.status, 200);
}

#[tokio::test]
async fn a_body_without_a_length_is_refused_at_the_limit() {
    let gateway = Gateway::on_sandbox(&[LONG, &[("limits.body", "1KiB")]].concat()).await;
    let request = format!(
        "{}401\r\n{}",
        head("Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"),
        " ".repeat(1025)
    );
    let mut raw = RawConnection::connect(&gateway).await;
    raw.send(request).await.unwrap();
    let reply = raw.reply().await;
    assert_eq!(reply.header("connection"), Some("close"));
    let reply = reply.parsed();
    assert!(reply.rejected(413, "BAD_REQUEST").contains("1024-byte limit (limits.body)"));
    assert_eq!(reply.body["errors"][0]["extensions"]["maximum"], 1024);
    assert_eq!(raw.closed().await, b"");
}

/// Many simple clients send a request completely before they read the response. A reset would destroy it.
#[tokio::test]
async fn a_client_that_sends_everything_first_reads_the_refusal() {
    let gateway = Gateway::on_sandbox(LONG).await;
    let piece = vec![b' '; MEGABYTE];
    let chunk = [format!("{MEGABYTE:x}\r\n").as_bytes(), &piece, b"\r\n"].concat();
    let chunked = refused("Transfer-Encoding: chunked\r\n").into_iter().map(|it| (it, &chunk));
    let stated =
        refused(&format!("Content-Length: {}\r\n", 20 * MEGABYTE)).into_iter().map(|it| (it, &piece));
    // The first is refused by the HTTP library.
    let long_head = ("GET /livez HTTP/1.1\r\nHost: gateway\r\nX: ".to_owned(), 431);
    for ((head, status), piece) in chunked.chain(stated).chain([(long_head, &piece)]) {
        let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
        let exchange = async {
            stream.write_all(head.as_bytes()).await?;
            for _ in 0..20 {
                stream.write_all(piece).await?;
            }
            let mut response = Vec::new();
            stream.read_to_end(&mut response).await.map(|_| response)
        };
        let response = timeout(TIMEOUT, exchange).await.expect("a response in time").expect("no reset");
        let response = String::from_utf8(response).unwrap();
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{head}: {response}");
        assert!(response.ends_with("}]}"), "{head}: {response}");
    }
}

#[tokio::test]
async fn lingering_ends_at_the_body_timeout() {
    let gateway = Gateway::on_sandbox(&[("http.body_timeout", "300ms")]).await;
    let mut open = Vec::new();
    for (head, status) in refused(&format!("Content-Length: {TERABYTE}\r\n")) {
        let mut raw = RawConnection::connect(&gateway).await;
        assert_eq!(raw.exchange(head).await.status, status);
        open.push(raw);
    }
    // All but the connection of this question.
    gateway.until_gauge("gateway_connections", 1.0).await;
    for mut raw in open {
        while raw.send("x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// The timeouts of a connection without a request do not cut the lingering close short.
#[tokio::test]
async fn a_slow_client_reads_the_refusal() {
    let settings =
        [("http.header_timeout", "1s"), ("http.idle_timeout", "200ms"), ("http.body_timeout", "1h")];
    let gateway = Gateway::on_sandbox(&settings).await;
    let unreadable = (format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(1 << 20)), 431);
    for (head, status) in refused(&format!("Content-Length: {TERABYTE}\r\n")).drain(..1).chain([unreadable]) {
        let mut raw = RawConnection::connect(&gateway).await;
        raw.send(head).await.unwrap();
        for _ in 0..15 {
            raw.send("x").await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(raw.reply().await.status, status);
    }
    assert_eq!(gateway.rejections("http.header_timeout").await, 0.0);
}

#[tokio::test]
async fn a_short_refused_body_leaves_the_connection_open() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let mut raw = RawConnection::connect(&gateway).await;
    let body = raw::query("{ __typename }");
    for (head, status) in refused(&format!("Content-Length: {}\r\n", body.len())).into_iter().skip(1) {
        let reply = raw.exchange(head + &body).await;
        assert_eq!((reply.status, reply.header("connection")), (status, None));
    }
    assert_eq!(raw.exchange(raw::post("", &body)).await.status, 200);
}
