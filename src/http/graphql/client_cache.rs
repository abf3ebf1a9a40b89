//! HTTP caching by clients (RFC 9111): `Cache-Control`, `ETag`, `Vary` and `Cache-Status` of responses, and 304 for
//! clients that have the current response already.
//!
//! Only complete responses to identified callers may be stored, and only those to GET and HEAD. They are `private`, and
//! `Vary` keeps caches that ignore this from serving them to another caller. All other responses are `no-store`.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};

use super::{
    encoded_response::EncodedResponse,
    entity_tag::{EntityTag, EntityTags, IfNoneMatch},
};
use crate::{
    caller::Caller,
    config::http::ClientCache,
    http::compression::{AcceptEncoding, Coding},
};

/// `Cache-Status` (RFC 9211).
pub(crate) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The request headers on which responses depend. Sent with every response to GET and HEAD, rejections included, unless
/// `http.client_cache` is off: a cache that ignores `Cache-Control` still keeps callers apart.
pub(crate) const VARY: HeaderValue =
    HeaderValue::from_static("Authorization, Accept, Accept-Encoding, Origin");

/// The conditions of a GET or HEAD request under which its client may store the response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientCaching<'h> {
    mode: ClientCache,
    if_none_match: Option<IfNoneMatch<'h>>,
    accepts: AcceptEncoding,
}

/// The origin of a response, for `Cache-Status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CacheStatus {
    /// From the response cache, where it stays fresh for this long.
    Hit(Duration),
    /// Executed, and stored in the response cache.
    Stored,
    /// Executed.
    Miss,
    /// Executed: the response cache is disabled, or the caller is not identified.
    Bypass,
}

/// A response that clients may store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StorableResponse<'r> {
    pub(crate) caching: ClientCaching<'r>,
    pub(crate) caller: &'r Caller,
    pub(crate) tags: EntityTags,
    /// How long all parts of the response stay fresh. None without dependencies that determine it.
    pub(crate) fresh_for: Option<Duration>,
}

impl<'h> ClientCaching<'h> {
    /// The conditions of a GET or HEAD request with these `headers`. None if `http.client_cache` is off.
    pub(crate) fn of(mode: ClientCache, headers: &'h HeaderMap, accepts: AcceptEncoding) -> Option<Self> {
        let if_none_match = IfNoneMatch::from_headers(headers);
        (mode != ClientCache::Off).then_some(Self { mode, if_none_match, accepts })
    }
}

/// Sends the response of `encode`; or 304, if it is `storable` and the client has a current copy. `coding` is the
/// content coding of the response before it is encoded.
pub(crate) async fn respond(
    storable: Option<StorableResponse<'_>>,
    coding: Option<Coding>,
    encode: impl Future<Output = EncodedResponse>,
) -> Response {
    let Some(storable) = storable else { return encode.await.into_response() };
    if let Some(tag) = storable.current_copy(coding) {
        // It has no content, so it needs no security headers.
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        storable.permit(&mut response, tag);
        return response;
    }
    let encoded = encode.await;
    let tag = storable.tags.of(encoded.coding);
    let mut response = encoded.into_response();
    storable.permit(&mut response, tag);
    response
}

impl StorableResponse<'_> {
    /// The tag of the client's copy, if it is current.
    fn current_copy(&self, coding: Option<Coding>) -> Option<EntityTag> {
        self.caching.if_none_match?.matching(&self.tags, coding, self.caching.accepts)
    }

    /// Permits clients to store `response` under `tag`.
    fn permit(&self, response: &mut Response, tag: EntityTag) {
        response.headers_mut().insert(header::ETAG, tag.header_value());
        response.headers_mut().insert(header::CACHE_CONTROL, self.cache_control());
    }

    /// The value of `Cache-Control`. A client's copy never outlives the caller's credential.
    fn cache_control(&self) -> HeaderValue {
        let fresh_for =
            self.fresh_for.filter(|_| self.caching.mode == ClientCache::Fresh).unwrap_or_default();
        let seconds = self.caller.valid_for().map_or(fresh_for, |left| left.min(fresh_for)).as_secs();
        match seconds {
            0 => HeaderValue::from_static("private, no-cache"),
            seconds => value(format!("private, max-age={seconds}")),
        }
    }
}

impl CacheStatus {
    /// Adds `Cache-Status` to a response.
    pub(crate) fn add_to(self, response: &mut Response) {
        let status = match self {
            Self::Hit(fresh_for) => value(format!("appointments-gateway; hit; ttl={}", fresh_for.as_secs())),
            Self::Stored => HeaderValue::from_static("appointments-gateway; fwd=miss; stored"),
            Self::Miss => HeaderValue::from_static("appointments-gateway; fwd=miss"),
            Self::Bypass => HeaderValue::from_static("appointments-gateway; fwd=bypass"),
        };
        response.headers_mut().insert(CACHE_STATUS, status);
    }
}

/// The value of a header whose text has only visible ASCII characters.
fn value(text: String) -> HeaderValue {
    HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).unwrap_or_else(|_| HeaderValue::from_static(""))
}
