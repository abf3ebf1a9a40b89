//! CORS: disabled unless `http.origins` lists origins.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header, request::Parts};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::{graphql::csrf::FORCES_PREFLIGHT, paths::GRAPHQL, request_id::X_REQUEST_ID};

/// How long a browser may remember what a preflight was answered.
const PREFLIGHT_AGE: Duration = Duration::from_secs(60 * 60);

/// Lets pages of exactly these `origins` ask `/graphql` and read the answers, refusals too; none where there are none,
/// so that `OPTIONS` is then a method like any other. Never with credentials, since no cookie is read.
pub(crate) fn cors(origins: &[String]) -> Option<CorsLayer> {
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
