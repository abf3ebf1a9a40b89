//! CORS for `/graphql`: disabled by default. `http.origins` lists the origins that may call the API.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header, request::Parts};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::{graphql::csrf::FORCES_PREFLIGHT, paths::GRAPHQL, request_id::X_REQUEST_ID};

/// The time that browsers may cache a preflight response.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(60 * 60);

/// The CORS layer for pages of exactly these `origins`, which may also read error responses. Without origins there is
/// no layer, and `OPTIONS` is a method like any other. Credentials are never allowed, since the gateway reads no
/// cookies.
pub(crate) fn cors(origins: &[String]) -> Option<CorsLayer> {
    let origins: Vec<_> = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
    if origins.is_empty() {
        return None;
    }
    let is_allowed = move |origin: &HeaderValue, request: &Parts| {
        request.uri.path() == GRAPHQL && origins.contains(origin)
    };
    let plain = [header::CONTENT_TYPE, header::ACCEPT, X_REQUEST_ID];
    // `Authorization` is one of them.
    let preflighted = FORCES_PREFLIGHT.map(HeaderName::from_static);
    let layer = CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(is_allowed))
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(plain.into_iter().chain(preflighted).collect::<Vec<_>>())
        .expose_headers([X_REQUEST_ID, header::RETRY_AFTER])
        .max_age(PREFLIGHT_MAX_AGE);
    Some(layer)
}
