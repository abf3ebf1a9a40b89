//! A name for each request, in its answer and in every line that is logged on its behalf.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, request::Parts},
    middleware::Next,
    response::Response,
};
use tracing::{Instrument as _, Level, Span};
use uuid::Uuid;

use crate::metrics::metrics;

/// The name of the header that carries it.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id of a client's own that is kept.
const LONGEST: usize = 128;

/// What a request is called.
#[derive(Debug)]
pub(super) struct RequestId(HeaderValue);

impl RequestId {
    /// The `x-request-id` that came, if it is fit to be logged, or a new one.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let kept = headers.get(&X_REQUEST_ID).filter(|id| is_plain(id.as_bytes())).cloned();
        Self(kept.unwrap_or_else(new))
    }

    /// What everything is logged in on behalf of the request, where everything is logged.
    pub(super) fn span(&self) -> Span {
        if logs_everything() { self.new_span() } else { Span::none() }
    }

    /// What is logged in on behalf of the request from where something may have to be logged at other levels: most
    /// requests end before, and a span costs more than all that they need.
    pub(super) fn late_span(&self) -> Span {
        if logs_everything() { Span::none() } else { self.new_span() }
    }

    /// At the level of errors, so that whatever is logged at all is logged with it.
    fn new_span(&self) -> Span {
        tracing::error_span!("request", id = self.0.to_str().unwrap_or_default())
    }
}

fn logs_everything() -> bool {
    tracing::enabled!(Level::DEBUG)
}

/// Has `answer` answer a request by the name of `id`, counts it and logs it.
pub(super) async fn assigned(
    id: &RequestId,
    head: Parts,
    answer: impl AsyncFnOnce(Parts) -> Response,
) -> Response {
    let mut response = timed(id, head, answer).instrument(id.span()).await;
    response.headers_mut().insert(X_REQUEST_ID, id.0.clone());
    response
}

/// A random UUID (RFC 9562, section 5.4). It is no secret, so randomness that costs nothing will do.
fn new() -> HeaderValue {
    let id = uuid::Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid();
    // The text of a UUID is a header value.
    HeaderValue::from_str(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
        .unwrap_or(HeaderValue::from_static("unnamed"))
}

/// Has the route that answers a request known outside.
pub(super) async fn routed(route: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if let Some(route) = route {
        response.extensions_mut().insert(route);
    }
    response
}

async fn timed(id: &RequestId, head: Parts, answer: impl AsyncFnOnce(Parts) -> Response) -> Response {
    let started = Instant::now();
    let method = known(&head.method);
    let is_graphql = head.uri.path() == "/graphql";
    let response = answer(head).await;
    // The route, not the path, nor the query: those are the client's, and may hold anything.
    let route = response.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let route = route.unwrap_or(if is_graphql { "/graphql" } else { "(none)" });
    let status = response.status().as_u16();
    let duration = started.elapsed().as_secs_f64();
    metrics().requests.count(class(response.status()));
    metrics().request_duration.observe(duration);
    // To the microsecond: more digits than that are noise.
    let duration_ms = (duration * 1e6).round() / 1e3;
    if response.status().is_server_error() {
        let _in_span = id.late_span().entered();
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
