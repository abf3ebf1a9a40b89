//! CORS for the GraphQL endpoint: disabled by default. `http.origins` lists the origins that may call the API.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header, request::Parts};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::{graphql::client_cache::CACHE_STATUS, request_id::X_REQUEST_ID};
use crate::config::http::HttpConfig;

/// The time that browsers may cache a preflight response.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(60 * 60);

/// The CORS layer for pages of exactly the origins in `config`, which may also read error responses. Without origins there
/// is no layer, and `OPTIONS` is a method like any other. Credentials are never allowed, since the gateway reads no
/// cookies.
pub(crate) fn cors(config: &HttpConfig) -> Option<CorsLayer> {
    let origins = config.origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
    let (origins, path) = (origins.collect::<Vec<_>>(), config.path.clone());
    if origins.is_empty() {
        return None;
    }
    let is_allowed = move |origin: &HeaderValue, request: &Parts| {
        path.matches(request.uri.path()) && origins.contains(origin)
    };
    let headers = config.cors_headers.iter().filter_map(|name| name.parse::<HeaderName>().ok());
    let layer = CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(is_allowed))
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(headers.collect::<Vec<_>>())
        .expose_headers([X_REQUEST_ID, header::RETRY_AFTER, header::ETAG, CACHE_STATUS])
        .max_age(PREFLIGHT_MAX_AGE);
    Some(layer)
}

/// Merges all `Vary` headers of a response into one, without duplicates. Some caches read only the first.
pub(crate) fn merge_vary(headers: &mut HeaderMap) {
    let mut names = Vec::<&str>::new();
    let values = headers.get_all(header::VARY).iter();
    for name in values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')) {
        let name = name.trim();
        if !names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            names.push(name);
        }
    }
    if let Ok(merged) = HeaderValue::from_str(&names.join(", "))
        && !names.is_empty()
    {
        headers.insert(header::VARY, merged);
    }
}
