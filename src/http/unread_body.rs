//! Unread request bodies: the rest of an acceptable body is discarded, so that the connection can be reused. Otherwise
//! the response announces that the connection closes, and [`super::lingering_close`] protects it.

use std::time::Duration;

use axum::{
    http::{HeaderValue, header},
    response::Response,
};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::time::timeout;

/// The timeout for discarding. Beyond, a new connection is cheaper.
const DISCARD_TIMEOUT: Duration = Duration::from_millis(500);

/// Discards the rest of `body` up to `limit` bytes, or else adds `Connection: close` to `response`: hyper then closes
/// the connection, and a client without that notice might lose its next request (RFC 9112, section 9.6). A response that
/// closes the connection anyway, or a rest known to be long, does not wait. A client that `expects_continue` has not
/// sent its body, and is not asked to.
pub(crate) async fn discard_or_close(
    response: &mut Response,
    body: Incoming,
    expects_continue: bool,
    limit: usize,
) {
    let close = HeaderValue::from_static("close");
    if body.is_end_stream() || response.headers().get(header::CONNECTION) == Some(&close) {
        return;
    }
    let is_long = body.size_hint().lower() > limit as u64;
    let is_read = !expects_continue
        && !is_long
        && Box::pin(timeout(DISCARD_TIMEOUT, discard(body, limit))).await.unwrap_or(false);
    if !is_read {
        response.headers_mut().insert(header::CONNECTION, close);
    }
}

/// Reads up to `left` bytes, and returns whether that was the whole rest.
async fn discard(mut body: Incoming, mut left: usize) -> bool {
    while let Some(frame) = body.frame().await {
        let length = frame.ok().and_then(|frame| frame.into_data().ok()).map(|data| data.len());
        let Some(still_left) = length.and_then(|length| left.checked_sub(length)) else { return false };
        left = still_left;
    }
    true
}
