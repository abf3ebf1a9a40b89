//! GraphiQL at `/`: the compressed bundle of `graphiql/dist`, embedded in the program. The page addresses everything
//! relative to its own address, so a proxy may serve it under another path.

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

use super::{
    compression::{AcceptEncoding, Coding},
    gateway::Gateway,
    refusal::Refusal,
};
use crate::error::ApiError;

/// The output of `graphiql/build`. Every file is compressed with gzip and has the suffix `.gz`.
#[derive(RustEmbed)]
#[folder = "graphiql/dist"]
struct Bundle;

/// Uncompressed files by name, for the rare clients that do not accept gzip. Each is inflated at its first request, and
/// shared by all responses.
static INFLATED: Mutex<BTreeMap<String, Bytes>> = Mutex::new(BTreeMap::new());

/// Allows resources of this origin only. The editor (Monaco) sets inline styles, and loads its workers from separate
/// files.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    font-src 'self' data:; img-src 'self' data:; connect-src 'self'; worker-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

/// `GET /`
pub(crate) async fn page(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Response {
    file(&gateway, "index.html", "no-cache", &headers)
}

/// `GET /THIRD-PARTY-LICENSES.txt`: the licences of the bundled packages.
pub(crate) async fn licences(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Response {
    file(&gateway, "THIRD-PARTY-LICENSES.txt", "no-cache", &headers)
}

/// `GET /assets/{name}`: files with a content hash in their name.
pub(crate) async fn asset(
    State(gateway): State<Arc<Gateway>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Response {
    file(&gateway, &format!("assets/{name}"), "public, max-age=31536000, immutable", &headers)
}

/// `GET /graphiql.json`: the initial state of the page.
pub(crate) async fn settings(State(gateway): State<Arc<Gateway>>) -> Response {
    Json(gateway.graphiql.clone().unwrap_or_default()).into_response()
}

fn file(gateway: &Gateway, name: &str, cache_control: &'static str, headers: &HeaderMap) -> Response {
    match (Bundle::get(&format!("{name}.gz")), content_type(name)) {
        (Some(file), Some(content_type)) => send(name, file, content_type, cache_control, headers),
        _ => Refusal::not_found(Some(&gateway.http.path)).into_response(),
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
        // On every file, since a worker has the policy of its own response.
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY)),
    ];
    if AcceptEncoding::from_headers(headers).accepts(Coding::Gzip) {
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
    // Outside the lock, so that requests for other files do not wait.
    let mut plain = Vec::new();
    GzDecoder::new(data).read_to_end(&mut plain)?;
    Ok(files().entry(name.to_owned()).or_insert(plain.into()).clone())
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
