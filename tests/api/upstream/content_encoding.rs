//! Compressed responses of the upstream, of the token endpoint and of the JWKS endpoint. They are decoded even if nobody
//! asked for them.

use std::io::Write as _;

use brotli::enc::BrotliEncoderParams;
use flate2::{
    Compression,
    write::{DeflateEncoder, GzEncoder, ZlibEncoder},
};
use serde_json::{Value, json};

use crate::support::{
    Call, ChangeKind, Gateway, Issuer, KeyFile, TlsUpstream, Upstream, UpstreamResponse, id, peak_memory,
    served,
};

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn zlib(body: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn raw_deflate(body: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn brotli(mut body: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    let parameters = BrotliEncoderParams { quality: 1, lgwin: 16, ..Default::default() };
    brotli::BrotliCompress(&mut body, &mut encoded, &parameters).unwrap();
    encoded
}

fn plain(body: &[u8]) -> Vec<u8> {
    body.to_vec()
}

type Encoder = fn(&[u8]) -> Vec<u8>;

/// Values of `Content-Encoding`, with bodies of that form.
const ENCODINGS: [(&str, Encoder); 14] = [
    ("gzip", gzip),
    ("x-gzip", gzip),
    ("GZip", gzip),
    ("gzip, identity", gzip),
    // Two members make one body (RFC 1952, section 2.2).
    ("gzip", |body| [gzip(&body[..7]), gzip(&body[7..])].concat()),
    ("deflate", zlib),
    // Without the header of zlib, as some servers send it.
    ("deflate", raw_deflate),
    ("br", brotli),
    ("deflate, gzip", |body| gzip(&zlib(body))),
    ("br,gzip,  deflate", |body| zlib(&gzip(&brotli(body)))),
    ("identity", plain),
    ("", plain),
    // Misconfigured servers.
    ("none", plain),
    ("UTF-8", plain),
];

/// The response to `call`, as JSON.
fn body_of(call: &Call) -> Value {
    let record = |id: &str| served(id, call.token(), call.nth);
    match call.id.as_str() {
        "appointments" if !call.is_change() => {
            json!({ "data": [record(&id(1))], "meta": { "per_page": 1, "total": 1 } })
        }
        "cancel" => json!({ "data": record(&id(1)) }),
        _ => json!({ "data": record(&call.id) }),
    }
}

async fn upstream_that_encodes(coding: &'static str, encode: Encoder) -> Upstream {
    Upstream::answering(move |call| {
        UpstreamResponse::encoded(coding, &encode(body_of(call).to_string().as_bytes()))
    })
    .await
}

#[tokio::test]
async fn every_encoding_is_decoded_on_every_call() {
    for (coding, encode) in ENCODINGS {
        let upstream = upstream_that_encodes(coding, encode).await;
        let gateway = Gateway::before(upstream.url(), &[]).await;
        let reply = gateway.appointment("token", &id(2)).await;
        assert_eq!(*reply.appointment(), served(&id(2), "token", 1), "{coding}");
        let list = gateway.list("token", json!({ "first": 1 })).await;
        assert_eq!(
            (list.codes(), list.body["data"]["appointments"]["nodes"].as_array().map(Vec::len)),
            (vec![], Some(1)),
            "{coding}"
        );
        for kind in [ChangeKind::Update, ChangeKind::Cancel] {
            assert_eq!(kind.make(&gateway).await.changed()["id"], id(1), "{coding}: {kind:?}");
        }
        assert_eq!((upstream.calls(), upstream.seen(|seen| seen.connections)), (4, 2), "{coding}");
    }
}

/// Pages of the list shrink most, and a connection with TLS leads over a network.
#[tokio::test]
async fn only_pages_from_https_upstreams_are_requested_encoded() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    gateway.list("token", json!({ "first": 1 })).await;
    ChangeKind::Update.make(&gateway).await;
    assert!(upstream.seen(|seen| seen.calls.iter().all(|call| call.header("accept-encoding").is_none())));

    let upstream = TlsUpstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[("upstream.ca_file", upstream.ca_file())]).await;
    gateway.appointment("token", &id(1)).await.appointment();
    gateway.list("token", json!({ "first": 1 })).await;
    ChangeKind::Update.make(&gateway).await;
    assert_eq!(upstream.accepted_encodings(), [None, Some("gzip".to_owned()), None]);
}

#[tokio::test]
async fn an_encoded_rejection_names_its_fields() {
    let upstream = Upstream::answering(|_| {
        let body = json!({ "errors": { "claimant.email": ["The email must be a valid email address."] } });
        let encoded = gzip(body.to_string().as_bytes());
        let head =
            format!("HTTP/1.1 422 No\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", encoded.len());
        UpstreamResponse::raw([head.as_bytes(), &encoded].concat())
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let reply = ChangeKind::Update.make(&gateway).await;
    let expected = json!([{ "field": ["claimant", "email"], "message": "Must be an e-mail address." }]);
    assert_eq!(reply.payload()["userErrors"], expected);
}

#[tokio::test]
async fn a_body_that_is_not_encoded_as_stated_is_invalid() {
    let damages: [(&'static str, Encoder); 6] = [
        ("gzip", plain),
        ("br", gzip),
        ("gzip", |body| {
            let mut it = gzip(body);
            it.truncate(it.len() - 9);
            it
        }),
        ("deflate", |body| {
            let mut it = zlib(body);
            it.truncate(it.len() - 9);
            it
        }),
        ("br", |body| {
            let mut it = brotli(body);
            it.truncate(it.len() - 9);
            it
        }),
        ("gzip, gzip, gzip, gzip", |body| gzip(&gzip(&gzip(&gzip(body))))),
    ];
    for (coding, encode) in damages {
        let upstream = upstream_that_encodes(coding, encode).await;
        let gateway = Gateway::before(upstream.url(), &[]).await;
        assert_eq!(
            gateway.appointment("token", &id(1)).await.codes(),
            ["UPSTREAM_INVALID_RESPONSE"],
            "{coding}"
        );
        assert_eq!(ChangeKind::Update.make(&gateway).await.codes(), ["OUTCOME_UNKNOWN"], "{coding}");
        assert_eq!(upstream.calls(), 2);
    }
}

#[tokio::test]
async fn an_encoded_body_cut_by_the_connection_is_an_outage() {
    let upstream = Upstream::answering(|call| {
        UpstreamResponse::encoded("gzip", &gzip(body_of(call).to_string().as_bytes())).short_of(20)
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    assert_eq!(gateway.appointment("token", &id(1)).await.codes(), ["UPSTREAM_UNAVAILABLE"]);
    assert_eq!(ChangeKind::Update.make(&gateway).await.codes(), ["OUTCOME_UNKNOWN"]);
}

#[tokio::test]
async fn an_empty_body_needs_no_encoding() {
    let upstream = Upstream::answering(|_| UpstreamResponse::encoded("gzip", b"")).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    for kind in ChangeKind::EACH {
        assert_eq!(*kind.make(&gateway).await.payload(), json!({ "appointment": null, "userErrors": [] }));
    }
}

#[tokio::test]
async fn the_size_limit_counts_decoded_bytes() {
    let padded = |call: &Call, length: usize| format!("{:<length$}", body_of(call).to_string());
    for (coding, encode) in ENCODINGS {
        let upstream = Upstream::start().await;
        for (n, length) in [(1, 8192), (2, 8193)] {
            upstream.on(&id(n), move |call| {
                UpstreamResponse::encoded(coding, &encode(padded(call, length).as_bytes()))
            });
        }
        let gateway = Gateway::before(upstream.url(), &[("upstream.max_response", "8KiB")]).await;
        assert_eq!(
            *gateway.appointment("token", &id(1)).await.appointment(),
            served(&id(1), "token", 1),
            "{coding}"
        );
        assert_eq!(
            gateway.appointment("token", &id(2)).await.codes(),
            ["UPSTREAM_INVALID_RESPONSE"],
            "{coding}"
        );
    }
}

/// A quarter of a gigabyte, from less than the limit.
#[tokio::test]
async fn a_decompression_bomb_is_stopped_early() {
    let (small, large) = (vec![b' '; 1 << 20], vec![b' '; 64 << 20]);
    let members = gzip(&small).repeat(256);
    for (coding, body) in [("gzip", members.clone()), ("gzip, gzip", gzip(&members)), ("br", brotli(&large))]
    {
        let upstream = Upstream::answering(move |_| UpstreamResponse::encoded(coding, &body)).await;
        let gateway = Gateway::before(upstream.url(), &[]).await;
        let before = peak_memory(&gateway);
        assert_eq!(
            gateway.appointment("token", &id(1)).await.codes(),
            ["UPSTREAM_INVALID_RESPONSE"],
            "{coding}"
        );
        let grown = peak_memory(&gateway) - before;
        assert!(grown < 32 << 10, "{coding}: {grown} KiB");
    }
}

/// Decoders skip empty members, so the limit on decoded bytes alone would not stop them.
#[tokio::test]
async fn encoded_bytes_without_content_are_limited_too() {
    fn padded(body: &[u8]) -> Vec<u8> {
        [gzip(b"").repeat(5000), gzip(body)].concat()
    }
    let encoders: [(&'static str, Encoder); 2] =
        [("gzip", padded), ("gzip, gzip", |body| gzip(&padded(body)))];
    for (coding, encode) in encoders {
        let upstream = upstream_that_encodes(coding, encode).await;
        for (limit, expected) in [("64KiB", &["UPSTREAM_INVALID_RESPONSE"][..]), ("256KiB", &[])] {
            let gateway = Gateway::before(upstream.url(), &[("upstream.max_response", limit)]).await;
            assert_eq!(gateway.appointment("token", &id(1)).await.codes(), expected, "{coding}: {limit}");
        }
    }
}

#[tokio::test]
async fn tokens_and_keys_may_be_encoded() {
    for (coding, encode) in ENCODINGS {
        let issuer = Issuer::new("key-1");
        let keys = Issuer::key_set(&[&issuer]);
        let upstream = Upstream::answering(move |call| {
            let body = match call.id.as_str() {
                "token" => json!({ "access_token": "gateways-own-canary-token", "expires_in": 3600, "token_type": "Bearer" }),
                "jwks" => keys.clone(),
                _ => return call.appointment(),
            };
            UpstreamResponse::encoded(coding, &encode(body.to_string().as_bytes()))
        })
        .await;
        let gateway = Gateway::for_issuer(&upstream, &[]).await;
        let reply = gateway.appointment(&issuer.token("alice"), &id(1)).await;
        assert_eq!(reply.appointment()["reference"], "gateways-own", "{coding}");
        assert_eq!((upstream.calls_for("token"), upstream.calls_for("jwks")), (1, 1));
    }
}

#[tokio::test]
async fn a_token_larger_than_the_limit_when_decoded_is_rejected() {
    let upstream = Upstream::answering(|_| UpstreamResponse::encoded("gzip", &gzip(&vec![b' '; 8193]))).await;
    let keys = KeyFile::of(&["alice"]);
    let settings = [("callers.api_keys_file", keys.path()), ("upstream.max_response", "8KiB")];
    let gateway = Gateway::of_service(&upstream, &settings).await;
    assert_eq!(gateway.appointment(keys.key(0), &id(1)).await.codes(), ["UPSTREAM_UNAVAILABLE"]);
    assert!(gateway.stderr().contains("response larger than upstream.max_response"), "{}", gateway.stderr());
}
