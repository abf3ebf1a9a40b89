//! A name for each request, in its answer and in the lines that are logged on its behalf.
//!
//! In one line it may be missing: where debugging is not logged and the program panics before anything is carried out
//! for the request, the line that tells where has no name. The next one then tells whose request it was.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, request::Parts},
    middleware::Next,
    response::Response,
};
use tracing::{Level, Span};
use uuid::Uuid;

use super::paths::GRAPHQL;
use crate::metrics::metrics;

/// The name of the header that carries it.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id of a client's own that is kept.
const LONGEST: usize = 128;

/// From when on a request has a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// Before anything is known of it.
    Beginning,
    /// Since something is to be carried out for it.
    CarryingOut,
}

/// What a request is called.
#[derive(Debug)]
pub(crate) struct RequestId(HeaderValue);

impl RequestId {
    /// The `x-request-id` that came, if it is fit to be logged, or a new one.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let kept = headers.get(&X_REQUEST_ID).filter(|id| is_plain(id.as_bytes())).cloned();
        Self(kept.unwrap_or_else(new))
    }

    /// What is logged in on behalf of the request, from the beginning where everything is logged, and else from where
    /// something may have to be: most requests end before, and a span costs as much as all else that they need.
    pub(crate) fn span(&self, since: Since) -> Option<Span> {
        let from_the_beginning = tracing::enabled!(Level::DEBUG);
        (from_the_beginning == (since == Since::Beginning)).then(|| self.new_span())
    }

    /// Gives `response` the name.
    pub(crate) fn assign(self, response: &mut Response) {
        response.headers_mut().insert(X_REQUEST_ID, self.0);
    }

    /// At the level of errors, so that whatever is logged at all is logged with it.
    fn new_span(&self) -> Span {
        tracing::error_span!("request", id = self.0.to_str().unwrap_or_default())
    }
}

/// A random UUID (RFC 9562, section 5.4). It is no secret, so randomness that costs nothing will do.
fn new() -> HeaderValue {
    let id = uuid::Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid();
    // The text of a UUID is a header value.
    HeaderValue::from_str(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
        .unwrap_or(HeaderValue::from_static("unnamed"))
}

/// Has the route that answers a request known outside.
pub(crate) async fn routed(route: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if let Some(route) = route {
        response.extensions_mut().insert(route);
    }
    response
}

/// A request that is being answered.
#[derive(Debug)]
pub(crate) struct Answering {
    since: Instant,
    method: &'static str,
    is_graphql: bool,
}

impl Answering {
    /// From now on, by GraphQL or by one of the routes.
    pub(crate) fn begin(head: &Parts, is_graphql: bool) -> Self {
        Self { since: Instant::now(), method: known(&head.method), is_graphql }
    }

    /// Counts and logs that `response` was the answer.
    pub(crate) fn end(self, response: &Response, id: &RequestId) {
        let status = response.status();
        let duration = self.since.elapsed().as_secs_f64();
        metrics().requests.count(class(status));
        metrics().request_duration.observe(duration);
        // The route, not the path, nor the query: those are the client's, and may hold anything.
        let route = response.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
        let route = route.unwrap_or(if self.is_graphql { GRAPHQL } else { "(none)" });
        let (method, status_code) = (self.method, status.as_u16());
        // To the microsecond: more digits than that are noise.
        let duration_ms = (duration * 1e6).round() / 1e3;
        macro_rules! answered {
            ($level:ident) => {
                tracing::$level!(
                    http.method = method,
                    http.route = route,
                    http.status = status_code,
                    duration_ms,
                    "answered"
                )
            };
        }
        // Any other 5xx (OVERLOADED) is one that callers can cause at will.
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            id.new_span().in_scope(|| answered!(warn));
        } else if tracing::enabled!(Level::DEBUG) {
            id.new_span().in_scope(|| answered!(debug));
        }
    }
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
