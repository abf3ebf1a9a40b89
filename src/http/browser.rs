//! What a browser is told: by which pages an answer may be read (CORS), and what must not be made of it.
//!
//! There is nothing here that a browser sends by itself, no cookie and no client certificate, so a page of another site
//! has only the tokens that it brings. What keeps it from sending what a form can send is in [`super::graphql`].

use std::{mem, sync::LazyLock, time::Duration};

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, Method, header, request::Parts},
    response::Response,
};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::{GRAPHQL, graphql::FORCES_PREFLIGHT, request_id::X_REQUEST_ID};

/// How long a browser may remember what a preflight was answered.
const PREFLIGHT_AGE: Duration = Duration::from_secs(60 * 60);

/// On every answer, unless it says something else itself. `Strict-Transport-Security` is not among them: whether the
/// name is served over TLS, and with what others below it, only the proxy that ends the TLS knows.
pub(super) const HEADERS: [(HeaderName, HeaderValue); 7] = [
    // It is what its Content-Type says, whatever it looks like.
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    // It is one caller's: nothing between here and there is to keep it.
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    // Opened as a page it loads nothing, runs nothing and stands in no frame; older browsers know the second by this
    // name.
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    // A query string may hold what somebody asked for.
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    // No other site gets it as a script or an image. What CORS allows is not asked for in that way.
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    // A page that opens GraphiQL gets no hold of its window.
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
];

/// [`HEADERS`], for an answer to begin with: to copy them all at once takes half as long as to put in one after the
/// other.
pub(super) fn headers() -> HeaderMap {
    static ALL: LazyLock<HeaderMap> = LazyLock::new(|| HEADERS.into_iter().collect());
    ALL.clone()
}

/// Makes `response` say [`HEADERS`] as well, if it did not begin with them.
pub(super) fn make_safe(response: &mut Response) {
    if !response.headers().contains_key(header::X_CONTENT_TYPE_OPTIONS) {
        let own = mem::replace(response.headers_mut(), headers());
        response.headers_mut().extend(own);
    }
}

/// Lets pages of exactly these `origins` ask `/graphql` and read the answers, refusals too; none where there are none,
/// so that `OPTIONS` is then a method like any other. Never with credentials, since no cookie is read.
pub(super) fn cors(origins: &[String]) -> Option<CorsLayer> {
    let origins: Vec<_> = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
    if origins.is_empty() {
        return None;
    }
    let may_read = move |origin: &HeaderValue, request: &Parts| {
        request.uri.path() == GRAPHQL && origins.contains(origin)
    };
    let said = [header::CONTENT_TYPE, header::ACCEPT, X_REQUEST_ID];
    // `Authorization` is among these.
    let forcing = FORCES_PREFLIGHT.map(HeaderName::from_static);
    let layer = CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(may_read))
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(said.into_iter().chain(forcing).collect::<Vec<_>>())
        .expose_headers([X_REQUEST_ID, header::RETRY_AFTER])
        .max_age(PREFLIGHT_AGE);
    Some(layer)
}
