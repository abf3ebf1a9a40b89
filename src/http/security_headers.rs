//! What a browser is told: by which pages an answer may be read (CORS), and what must not be made of it.
//!
//! There is nothing here that a browser sends by itself, no cookie and no client certificate, so a page of another site
//! has only the tokens that it brings. What keeps it from sending what a form can send is in [`crate::http::graphql`].

use std::{mem, sync::LazyLock};

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::Response,
};

/// On every answer, unless it says something else itself. `Strict-Transport-Security` is not among them: whether the
/// name is served over TLS, and with what others below it, only the proxy that ends the TLS knows.
pub(crate) const HEADERS: [(HeaderName, HeaderValue); 7] = [
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
pub(crate) fn headers() -> HeaderMap {
    static ALL: LazyLock<HeaderMap> = LazyLock::new(|| HEADERS.into_iter().collect());
    ALL.clone()
}

/// Makes `response` say [`HEADERS`] as well, if it did not begin with them.
pub(crate) fn make_safe(response: &mut Response) {
    if !response.headers().contains_key(header::X_CONTENT_TYPE_OPTIONS) {
        let own = mem::replace(response.headers_mut(), headers());
        response.headers_mut().extend(own);
    }
}
