//! Request ids and the access log. Responses carry the id in `x-request-id`, and log lines in the span of the request.
//!
//! One log line may lack the id: that of a panic before execution begins, if the log level is above `debug`. The next
//! line, about the `INTERNAL` response, has it.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, request::Parts},
    middleware::Next,
    response::Response,
};
use tracing::{Level, Span};
use uuid::Uuid;

use crate::metrics::metrics;

/// The header that carries the request id.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The maximum length of an id sent by a client. Longer ones are replaced.
const MAX_LENGTH: usize = 128;

/// The point at which the span of a request may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpanStart {
    /// On arrival, before any check.
    Arrival,
    /// Before execution, after the checks and the response cache.
    Execution,
}

/// The id of a request, as a header value.
#[derive(Debug)]
pub(crate) struct RequestId(HeaderValue);

impl RequestId {
    /// Takes the client's `x-request-id` if it is safe to log, or generates an id.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Self {
        let sent = headers.get(&X_REQUEST_ID).filter(|id| is_loggable(id.as_bytes())).cloned();
        Self(sent.unwrap_or_else(generate))
    }

    /// The span of the request, if it starts at `start`: on arrival if debug events are logged, otherwise before
    /// execution. Most requests end before that, and a span costs as much as all the rest of their work.
    pub(crate) fn span(&self, start: SpanStart) -> Option<Span> {
        let starts_on_arrival = tracing::enabled!(Level::DEBUG);
        (starts_on_arrival == (start == SpanStart::Arrival)).then(|| self.new_span())
    }

    pub(crate) fn as_str(&self) -> &str {
        // An id consists of visible ASCII characters.
        self.0.to_str().unwrap_or_default()
    }

    /// Adds the id to `response`.
    pub(crate) fn add_to(self, response: &mut Response) {
        response.headers_mut().insert(X_REQUEST_ID, self.0);
    }

    /// The level is `error`, so that the span is enabled whenever any event is.
    fn new_span(&self) -> Span {
        tracing::error_span!("request", id = self.as_str())
    }
}

/// A random UUID (RFC 9562, section 5.4). It is no secret, so a fast non-cryptographic generator suffices.
fn generate() -> HeaderValue {
    let id = uuid::Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid();
    // Every UUID is a valid header value.
    HeaderValue::from_str(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
        .unwrap_or(HeaderValue::from_static("unnamed"))
}

/// Middleware that passes the matched route to the access log, in the extensions of the response.
pub(crate) async fn expose_route(route: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if let Some(route) = route {
        response.extensions_mut().insert(route);
    }
    response
}

/// The access log entry of a request in progress.
#[derive(Debug)]
pub(crate) struct AccessLogEntry<'a> {
    started: Instant,
    method: &'static str,
    graphql_route: Option<&'a str>,
}

impl<'a> AccessLogEntry<'a> {
    /// Starts the timer. `graphql_route` is the route of a request for the GraphQL endpoint.
    pub(crate) fn start(head: &Parts, graphql_route: Option<&'a str>) -> Self {
        Self { started: Instant::now(), method: method_label(&head.method), graphql_route }
    }

    /// Records the response in the metrics and in the log.
    pub(crate) fn finish(self, response: &Response, id: &RequestId) {
        let status = response.status();
        let duration = self.started.elapsed().as_secs_f64();
        metrics().requests.count(status_class(status));
        metrics().request_duration.observe(duration);
        // Never the path of the request or its query string, which may contain personal data.
        let route = response.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
        let route = route.or(self.graphql_route).unwrap_or("(none)");
        let (method, status_code) = (self.method, status.as_u16());
        // Rounded to microseconds.
        let duration_ms = (duration * 1e6).round() / 1e3;
        macro_rules! log_completed {
            ($level:ident) => {
                tracing::$level!(
                    http.method = method,
                    http.route = route,
                    http.status = status_code,
                    duration_ms,
                    "request completed"
                )
            };
        }
        // Other 5xx statuses mean overload, which clients can cause at will, so they do not fill the log.
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            id.new_span().in_scope(|| log_completed!(warn));
        } else if tracing::enabled!(Level::DEBUG) {
            id.new_span().in_scope(|| log_completed!(debug));
        }
    }
}

fn status_class(status: StatusCode) -> &'static str {
    match status.as_u16() {
        ..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        500.. => "5xx",
    }
}

/// The method, or `_OTHER` as in OpenTelemetry: a client may send any word as a method.
fn method_label(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    KNOWN.into_iter().find(|name| *name == method.as_str()).unwrap_or("_OTHER")
}

/// Whether an id consists of letters, digits and the punctuation of common id formats, so that it cannot forge log
/// lines.
fn is_loggable(id: &[u8]) -> bool {
    (1..=MAX_LENGTH).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte))
}
