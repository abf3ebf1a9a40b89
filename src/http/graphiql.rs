//! GraphiQL at `/`: the bundle of `graphiql/dist`, compiled into the program as it is on disk, compressed.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    io::{self, Read as _},
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use flate2::read::GzDecoder;
use rust_embed::{EmbeddedFile, RustEmbed};

use super::{gateway::Gateway, refusal::Refusal};
use crate::error::ApiError;

/// What `graphiql/build` made. Every file is compressed with gzip and ends with `.gz`.
#[derive(RustEmbed)]
#[folder = "graphiql/dist"]
struct Bundle;

/// The files as they are for who does not take gzip, which no browser does: each is inflated once, when it is first
/// asked for, and shared by all answers.
static INFLATED: Mutex<BTreeMap<String, Bytes>> = Mutex::new(BTreeMap::new());

/// Everything from here and nothing from anywhere else. The editor (Monaco) sets styles on elements and has its workers
/// as files of its own.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    font-src 'self' data:; img-src 'self' data:; connect-src 'self'; worker-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

/// `GET /`
pub(crate) async fn page(headers: HeaderMap) -> Response {
    file("index.html", "no-cache", &headers)
}

/// `GET /THIRD-PARTY-LICENSES.txt`: of the packages in the bundle.
pub(crate) async fn licences(headers: HeaderMap) -> Response {
    file("THIRD-PARTY-LICENSES.txt", "no-cache", &headers)
}

/// `GET /assets/{name}`: files whose names change with their contents.
pub(crate) async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    file(&format!("assets/{name}"), "public, max-age=31536000, immutable", &headers)
}

/// `GET /graphiql.json`
pub(crate) async fn settings(State(gateway): State<Arc<Gateway>>) -> Response {
    Json(gateway.graphiql.clone().unwrap_or_default()).into_response()
}

fn file(name: &str, cache_control: &'static str, headers: &HeaderMap) -> Response {
    match (Bundle::get(&format!("{name}.gz")), content_type(name)) {
        (Some(file), Some(content_type)) => send(name, file, content_type, cache_control, headers),
        _ => Refusal::nothing_here().into_response(),
    }
}

fn send(
    name: &str,
    file: EmbeddedFile,
    content_type: &'static str,
    cache_control: &'static str,
    headers: &HeaderMap,
) -> Response {
    let common = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static(cache_control)),
        (header::VARY, HeaderValue::from_static("accept-encoding")),
        // On every file, since a worker goes by the policy of its own.
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY)),
    ];
    if takes_gzip(headers) {
        let gzip = (header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        let body = match file.data {
            Cow::Borrowed(data) => Bytes::from_static(data),
            Cow::Owned(data) => data.into(),
        };
        return (common, [gzip], body).into_response();
    }
    match inflated(name, &file.data) {
        Ok(body) => (common, body).into_response(),
        Err(_) => Refusal::from(ApiError::Internal).into_response(),
    }
}

fn inflated(name: &str, data: &[u8]) -> io::Result<Bytes> {
    let files = || INFLATED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(file) = files().get(name) {
        return Ok(file.clone());
    }
    // Outside the lock: who asks for another file does not wait for this one.
    let mut plain = Vec::new();
    GzDecoder::new(data).read_to_end(&mut plain)?;
    Ok(files().entry(name.to_owned()).or_insert(plain.into()).clone())
}

/// Every browser says so in these words.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let takes = |coding: &str| matches!(coding.trim(), "gzip" | "*");
    headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .any(|value| value.to_str().is_ok_and(|value| value.split(',').any(takes)))
}

fn content_type(name: &str) -> Option<&'static str> {
    Some(match name.rsplit_once('.')?.1 {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "ttf" => "font/ttf",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => return None,
    })
}
