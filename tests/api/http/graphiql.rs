//! GraphiQL at `/`, as far as it can be tested without a browser.

use std::{collections::BTreeSet, io::Read as _};

use reqwest::{Method, RequestBuilder, Url};
use serde_json::json;

use crate::support::{Gateway, GatewayResponse, PrefixProxy, client, raw};

async fn bytes(request: RequestBuilder) -> (reqwest::header::HeaderMap, Vec<u8>) {
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    (response.headers().clone(), response.bytes().await.unwrap().to_vec())
}

fn unpack(packed: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut plain).unwrap();
    plain
}

/// The files that the page names, as paths.
async fn assets(gateway: &Gateway) -> Vec<String> {
    let (_, page) = bytes(gateway.request(Method::GET, "/")).await;
    let page = String::from_utf8(page).unwrap();
    let named = page.split(['"', '\'']).filter_map(|part| part.split_once("assets/").map(|(_, name)| name));
    named.map(|name| format!("/assets/{name}")).collect()
}

#[tokio::test]
async fn the_page_is_html_under_a_strict_policy() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let (headers, page) = bytes(gateway.request(Method::GET, "/")).await;
    assert_eq!(headers["content-type"], "text/html; charset=utf-8");
    assert_eq!(headers["cache-control"], "no-cache");
    assert_eq!(headers["vary"], "accept-encoding");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert!(!headers.contains_key("content-encoding"));
    assert!(headers.contains_key("x-request-id"));
    let policy = headers["content-security-policy"].to_str().unwrap();
    let directives: Vec<_> = policy.split(';').map(str::trim).collect();
    for directive in [
        "default-src 'none'",
        "script-src 'self'",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ] {
        assert!(directives.contains(&directive), "{directive} in {policy}");
    }
    assert!(!policy.contains("unsafe-eval") && !policy.contains("http"), "{policy}");
    assert!(
        String::from_utf8(page.clone()).unwrap().contains("<!doctype html>")
            || page.starts_with(b"<!DOCTYPE html>")
    );
}

#[tokio::test]
async fn every_asset_is_served_compressed_or_not_and_cacheable() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let mut paths = assets(&gateway).await;
    assert!(paths.len() >= 2, "{paths:?}");
    paths.push("/".to_owned());
    for path in paths {
        let (packed_headers, packed) =
            bytes(gateway.request(Method::GET, &path).header("accept-encoding", "br, gzip, deflate")).await;
        let (plain_headers, plain) = bytes(gateway.request(Method::GET, &path)).await;
        let (_, refused) =
            bytes(gateway.request(Method::GET, &path).header("accept-encoding", "gzip;q=0")).await;
        assert_eq!(packed_headers["content-encoding"], "gzip", "{path}");
        assert!(!plain_headers.contains_key("content-encoding"), "{path}");
        assert!(unpack(&packed) == plain && plain == refused, "{path}");
        for headers in [packed_headers, plain_headers] {
            assert_eq!(headers["vary"], "accept-encoding", "{path}");
            if path != "/" {
                assert_eq!(headers["cache-control"], "public, max-age=31536000, immutable", "{path}");
            }
            let content_type = headers["content-type"].to_str().unwrap();
            let expected = match path.rsplit_once('.').map(|(_, end)| end) {
                Some("js") => "text/javascript; charset=utf-8",
                Some("css") => "text/css; charset=utf-8",
                Some("svg") => "image/svg+xml",
                _ => "text/html; charset=utf-8",
            };
            assert_eq!(content_type, expected, "{path}");
        }
        let head = GatewayResponse::of(gateway.request(Method::HEAD, &path)).await;
        assert_eq!((head.status, head.body), (200, json!("")), "{path}");
    }
}

#[tokio::test]
async fn the_sandbox_fills_in_its_token_and_a_real_upstream_none() {
    let sandbox = Gateway::on_sandbox(&[]).await;
    let settings = GatewayResponse::of(sandbox.request(Method::GET, "/graphiql.json")).await;
    assert_eq!(settings.headers["cache-control"], "no-store");
    assert_eq!((&settings.body["sandbox"], &settings.body["token"]), (&json!(true), &json!("sandbox-all")));
    assert!(settings.body["ids"].as_array().unwrap().len() > 1);

    let real = Gateway::before("http://127.0.0.1:9", &[]).await;
    let settings = GatewayResponse::of(real.request(Method::GET, "/graphiql.json")).await;
    assert_eq!(settings.body, json!({ "sandbox": false, "token": null, "ids": [], "endpoint": "graphql" }));
}

#[tokio::test]
async fn switched_off_it_is_not_there() {
    let on = Gateway::on_sandbox(&[]).await;
    let paths = assets(&on).await;
    let off = Gateway::on_sandbox(&[("graphiql.enabled", "false")]).await;
    for path in paths.iter().map(String::as_str).chain(["/", "/graphiql.json", "/index.html"]) {
        GatewayResponse::of(off.request(Method::GET, path)).await.rejected(404, "BAD_REQUEST");
    }
    assert!(!off.stdout().contains("GraphiQL"), "{}", off.stdout());
    assert_eq!(off.query(None, "{ __typename }").await.status, 200);
}

/// All files that `text`, a file at `url`, refers to by a relative address.
fn references(url: &Url, text: &str) -> Vec<Url> {
    let quoted = text.split(['"', '\'', '`', '(', ')']);
    // The names of bundled files end with a hash. Names of source files that remain in the bundle have none.
    let files = quoted.filter(|part| {
        let (stem, end) = part.rsplit_once('.').unwrap_or_default();
        let hash = stem.get(stem.len().saturating_sub(9)..).unwrap_or_default();
        ["js", "css", "svg", "ttf", "woff2"].contains(&end) && hash.len() == 9 && hash.starts_with('-')
    });
    files.filter_map(|part| url.join(part).ok()).collect()
}

#[tokio::test]
async fn behind_a_path_prefix_all_addresses_of_the_page_lead_to_it() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let proxy = PrefixProxy::before(&gateway).await;
    let home: Url = proxy.url().parse().unwrap();
    let get = async |url: Url| {
        let response = client().get(url.clone()).header("accept", "application/json").send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap_or_default())
    };
    let (status, page) = get(home.clone()).await;
    assert_eq!(status, 200);
    let mut pending = references(&home, &page);
    assert!(pending.len() >= 5, "{pending:?}");
    let mut seen = BTreeSet::new();
    while let Some(url) = pending.pop() {
        if !seen.insert(url.clone()) {
            continue;
        }
        assert!(url.as_str().starts_with(home.as_str()), "{url} is outside of the prefix");
        let (status, text) = get(url.clone()).await;
        if url.path().ends_with(".js") || url.path().ends_with(".css") {
            assert_eq!(status, 200, "{url}");
            assert!(
                !text.contains("\"/assets/") && !text.contains("(/assets/"),
                "an absolute address in {url}"
            );
            let names = references(&url, &text);
            pending.extend(names.into_iter().filter(|url| url.path().ends_with(".js")));
        }
    }
    let workers = seen.iter().filter(|url| url.path().contains(".worker-")).count();
    assert!(seen.len() > 10 && workers >= 3, "{seen:#?}");

    let (status, settings) = get(home.join("graphiql.json").unwrap()).await;
    assert_eq!(status, 200);
    let settings: serde_json::Value = serde_json::from_str(&settings).unwrap();
    let endpoint = home.join(settings["endpoint"].as_str().unwrap()).unwrap();
    let query = client().post(endpoint).header("content-type", "application/json");
    let reply = GatewayResponse::of(query.body(raw::query("{ __typename }"))).await;
    assert_eq!(reply.body, json!({ "data": { "__typename": "Query" } }));
}
