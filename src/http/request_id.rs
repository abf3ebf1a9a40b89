//! A name for each request, in its answer and in every line that is logged on its behalf.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderName, HeaderValue, Method, StatusCode},
    middleware::Next,
    response::Response,
};
use tracing::Instrument as _;
use uuid::Uuid;

use crate::metrics::metrics;

/// The name of the header that carries it.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id of a client's own that is kept.
const LONGEST: usize = 128;

/// Keeps the `x-request-id` that came, if it is fit to be logged, or makes one.
pub(super) async fn assign(request: Request, next: Next) -> Response {
    let kept = request.headers().get(&X_REQUEST_ID).filter(|id| is_plain(id.as_bytes())).cloned();
    let id = kept.unwrap_or_else(|| {
        // The text of a UUID is a header value.
        HeaderValue::from_str(Uuid::new_v4().hyphenated().encode_lower(&mut Uuid::encode_buffer()))
            .unwrap_or(HeaderValue::from_static("unnamed"))
    });
    // At the level of errors, so that whatever is logged at all is logged with it.
    let span = tracing::error_span!("request", id = id.to_str().unwrap_or_default());
    let mut response = timed(request, next).instrument(span).await;
    response.headers_mut().insert(X_REQUEST_ID, id);
    response
}

async fn timed(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = known(request.method());
    // The route, not the path, nor the query: those are the client's, and may hold anything.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let (route, status) = (route.as_ref().map_or("(none)", MatchedPath::as_str), response.status().as_u16());
    let duration = started.elapsed().as_secs_f64();
    metrics().requests.count(class(response.status()));
    metrics().request_duration.observe(duration);
    // To the microsecond: more digits than that are noise.
    let duration_ms = (duration * 1e6).round() / 1e3;
    if response.status().is_server_error() {
        tracing::warn!(
            http.method = method,
            http.route = route,
            http.status = status,
            duration_ms,
            "answered"
        );
    } else {
        tracing::debug!(
            http.method = method,
            http.route = route,
            http.status = status,
            duration_ms,
            "answered"
        );
    }
    response
}

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() {
        ..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        500.. => "5xx",
    }
}

/// The method, or OpenTelemetry's word for one that nobody knows: any word may stand in its place.
fn known(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("_OTHER")
}

/// Letters, digits and the signs of common id notations: nothing that breaks a log line.
fn is_plain(id: &[u8]) -> bool {
    (1..=LONGEST).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte))
}
