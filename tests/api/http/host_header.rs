//! The `Host` header: exactly one valid value (RFC 9112, section 3.2).

use crate::support::{Gateway, RawConnection};

/// Values that are no host with an optional port.
const INVALID: &[&str] = &[
    "",
    " ",
    "a b",
    "a, b",
    "a/b",
    "/",
    "http://a",
    "user@a",
    "user:password@a",
    "a?b",
    "a#b",
    ":80",
    "a:b",
    "a:80:80",
    "a:-1",
    "a:65536",
    "::1",
    "[::1",
    "::1]",
    "[]",
    "[a]",
    "[::1]a",
    "a[::1]",
    "a\"b",
    "<a>",
    "a\\b",
    "{a}",
    "b\u{fc}cher",
];

/// Values of every allowed form.
const VALID: &[&str] = &[
    "a",
    "A.Example",
    "a.example.",
    "a_b-c~d.example",
    "a:80",
    "a:",
    "127.0.0.1",
    "127.0.0.1:8080",
    "[::1]",
    "[::1]:8080",
    "  a\t",
    "xn--bcher-kva.example",
];

/// Requests for every kind of route, without `Host`.
const REQUESTS: &[(&str, u16)] = &[
    ("GET /livez", 200),
    ("GET /", 200),
    ("GET /metrics", 200),
    ("GET /nothing", 404),
    ("DELETE /readyz", 405),
    ("GET /graphql?query=%7B__typename%7D", 200),
    ("OPTIONS /graphql", 200),
];

const ORIGIN: &str = "https://app.example";

fn request(line: &str, version: &str, hosts: &[&str]) -> String {
    let hosts = hosts.iter().map(|host| format!("Host: {host}\r\n")).collect::<String>();
    format!(
        "{line} HTTP/{version}\r\n{hosts}Accept: application/json\r\nOrigin: {ORIGIN}\r\n\
         Access-Control-Request-Method: POST\r\n\r\n"
    )
}

async fn assert_rejected(raw: &mut RawConnection, request: &str, fault: &str) {
    let reply = raw.exchange(request).await.parsed();
    let message = reply.rejected(400, "BAD_REQUEST");
    assert!(message.contains("Host") && message.contains(fault), "{request}: {message}");
}

#[tokio::test]
async fn a_request_without_exactly_one_valid_host_is_400() {
    let gateway = Gateway::on_sandbox(&[("http.origins", ORIGIN)]).await;
    let mut raw = RawConnection::connect(&gateway).await;
    for (line, status) in REQUESTS {
        assert_eq!(raw.exchange(request(line, "1.1", &["gateway"])).await.status, *status, "{line}");
        assert_rejected(&mut raw, &request(line, "1.1", &[]), "missing").await;
        assert_rejected(&mut raw, &request(line, "1.1", &["a", "b"]), "repeated").await;
        assert_rejected(&mut raw, &request(line, "1.1", &["a", "a"]), "repeated").await;
        assert_rejected(&mut raw, &request(line, "1.1", &["a b"]), "invalid").await;
    }
    for host in INVALID {
        assert_rejected(&mut raw, &request("GET /livez", "1.1", &[host]), "invalid").await;
    }
    for host in VALID {
        let reply = raw.exchange(request("GET /livez", "1.1", &[host])).await;
        assert_eq!(reply.status, 200, "{host}");
    }
    // The address in the request line does not replace the header.
    assert_rejected(&mut raw, &request("GET http://gateway/livez", "1.1", &[]), "missing").await;
    let absolute = request("GET http://gateway/livez", "1.1", &["other"]);
    assert_eq!(raw.exchange(absolute).await.status, 200);
}

#[tokio::test]
async fn http_1_0_needs_no_host_but_a_valid_one_if_any() {
    let gateway = Gateway::on_sandbox(&[]).await;
    for (hosts, status) in [(&[][..], 200), (&["a"], 200), (&["a", "a"], 400), (&["a b"], 400), (&[""], 400)]
    {
        let reply = RawConnection::once(&gateway, request("GET /livez", "1.0", hosts)).await;
        assert_eq!(reply.status, status, "{hosts:?}");
    }
}
