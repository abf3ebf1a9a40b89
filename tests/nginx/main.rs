//! The gateway behind a real nginx, the Debian package: every status of GraphQL over HTTP passes, with its body.
//!
//! `cargo test --test nginx` runs it. It needs nginx, so it is not part of a plain `cargo test`. `tests/run` installs it.

#![expect(unreachable_pub, reason = "a test binary has no public API")]
#![expect(clippy::unwrap_used, reason = "shared test code fails as a test does")]

#[path = "../api/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the black-box tests, which use all of it")]
mod support;

mod nginx;

use reqwest::{Method, RequestBuilder};
use serde_json::json;

use nginx::Nginx;
use support::{Gateway, GatewayResponse, Upstream, UpstreamResponse, id};

const MEDIA_TYPE: &str = "application/graphql-response+json; charset=utf-8";

/// An upstream that denies access to `id(403)`.
async fn upstream() -> Upstream {
    Upstream::answering(|call| match call.path.contains(&id(403)) {
        true => UpstreamResponse::status(403),
        false => call.appointment(),
    })
    .await
}

/// A request of a table: its body, and the expected status and code.
struct Case {
    status: u16,
    code: Option<&'static str>,
    body: String,
    token: Option<&'static str>,
    method: Method,
}

impl Case {
    fn new(status: u16, code: Option<&'static str>, query: &str) -> Self {
        let body = json!({ "query": query }).to_string();
        Self { status, code, body, token: Some("token"), method: Method::POST }
    }

    fn request(&self, gateway: &Gateway, base: &str) -> RequestBuilder {
        let request = gateway
            .client()
            .request(self.method.clone(), format!("{base}/graphql"))
            .header("content-type", "application/json")
            .header("accept", "application/graphql-response+json")
            .body(self.body.clone());
        match self.token {
            Some(token) => request.bearer_auth(gateway.secret(token)),
            None => request,
        }
    }
}

fn cases() -> Vec<Case> {
    let one = |number: usize| format!("appointment(id: \"{}\") {{ id reference }}", id(number));
    let (served, refused) = (one(1), one(403));
    let cancel = format!("mutation {{ cancelAppointment(id: \"{}\") {{ appointment {{ id }} }} }}", id(403));
    let many = (0..40).map(|n| format!("a{n}: {refused} ")).collect::<String>();
    let read = format!("{{ {served} }}");
    vec![
        Case::new(200, None, &read),
        Case::new(294, Some("FORBIDDEN"), &format!("{{ {served} refused: {refused} }}")),
        // A body that nginx receives in several parts.
        Case::new(294, Some("FORBIDDEN"), &format!("{{ {many} }}")),
        Case::new(294, Some("FORBIDDEN"), &cancel),
        Case { token: None, ..Case::new(401, Some("UNAUTHENTICATED"), &read) },
        Case::new(422, Some("GRAPHQL_VALIDATION_FAILED"), "{ nothing }"),
        Case::new(400, Some("GRAPHQL_PARSE_FAILED"), "{"),
        Case { body: "17".to_owned(), ..Case::new(422, Some("BAD_REQUEST"), "") },
        Case { method: Method::PUT, ..Case::new(405, Some("BAD_REQUEST"), &read) },
        Case { body: " ".repeat(300_000), ..Case::new(413, Some("BAD_REQUEST"), "") },
    ]
}

#[tokio::test]
async fn every_status_passes_nginx_with_its_body() {
    let upstream = upstream().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    for directives in [
        "",
        "proxy_http_version 1.1; proxy_set_header Connection \"\";",
        "proxy_buffering off; proxy_request_buffering off;",
        "proxy_intercept_errors on; error_page 300 404 500 /nothing;",
        "gzip on; gzip_proxied any; gzip_types application/graphql-response+json; gzip_min_length 1;",
        "proxy_cache_path cache keys_zone=c:1m; proxy_cache c; proxy_cache_valid any 1h; \
         proxy_cache_methods GET HEAD POST;",
    ] {
        let nginx = Nginx::before(&gateway, directives).await;
        for case in cases() {
            for accepted in ["identity", "gzip", "br"] {
                let ask = async |base: &str| {
                    let request = case.request(&gateway, base).header("accept-encoding", accepted);
                    GatewayResponse::of(request).await
                };
                let what = format!("{} in {accepted} with {directives:?}", case.body);
                let (direct, through) = (ask(gateway.base()).await, ask(&nginx.base).await);
                assert_eq!(
                    (direct.status, through.status),
                    (case.status, case.status),
                    "{what}: {through:?}"
                );
                assert_eq!(through.body, direct.body, "{what}");
                assert_eq!(through.body.get("errors").is_some(), case.code.is_some(), "{what}");
                assert!(through.codes().iter().all(|code| Some(*code) == case.code), "{what}");
                assert_eq!(through.headers["content-type"], MEDIA_TYPE, "{what}");
                for name in ["allow", "cache-control", "www-authenticate"] {
                    assert_eq!(through.headers.get(name), direct.headers.get(name), "{what}: {name}");
                }
            }
        }
    }
}

/// These directives have a list of statuses without 294.
#[tokio::test]
async fn nginx_neither_compresses_294_nor_adds_headers_unless_always() {
    let upstream = upstream().await;
    let gateway = Gateway::before(upstream.url(), &[("http.compression", "false")]).await;
    let nginx = Nginx::before(
        &gateway,
        "add_header X-Listed 1; add_header X-Always 1 always; gzip on; gzip_proxied any; gzip_min_length 1;
         gzip_types application/graphql-response+json;",
    )
    .await;
    for (number, status, is_listed) in [(1, 200, true), (403, 294, false)] {
        let case = Case::new(status, None, &format!("{{ appointment(id: \"{}\") {{ id }} }}", id(number)));
        let request = case.request(&gateway, &nginx.base).header("accept-encoding", "gzip");
        let reply = GatewayResponse::of(request).await;
        assert_eq!(reply.status, status, "{reply:?}");
        assert!(reply.headers.contains_key("x-always"), "{reply:?}");
        for name in ["x-listed", "content-encoding"] {
            assert_eq!(reply.headers.contains_key(name), is_listed, "{name}: {reply:?}");
        }
    }
}
