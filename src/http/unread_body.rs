//! A connection on which a request's body was left unread cannot be used again, and the answer says so; but what is
//! there already is passed over, so that the connection serves on.

use std::time::Duration;

use axum::{
    http::{HeaderValue, header},
    response::Response,
};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::time::timeout;

/// How much of a body that nobody has read is passed over, and how long it is waited for: to read more costs more than
/// another connection.
const MOST_PASSED_OVER: usize = 64 * 1024;
const PATIENCE: Duration = Duration::from_millis(200);

/// Has `response` say `Connection: close` where the `body` of its request is not read to its end: the server closes the
/// connection then, and a client that is not told may send its next request into the void. RFC 9112, section 9.6. Who
/// `waits` for "100 Continue" has sent nothing, and is not asked to.
pub(crate) async fn announce(response: &mut Response, body: Incoming, waits: bool) {
    let is_read =
        body.is_end_stream() || !waits && Box::pin(timeout(PATIENCE, pass_over(body))).await.unwrap_or(false);
    if !is_read {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// Whether it came to its end.
async fn pass_over(mut body: Incoming) -> bool {
    let mut left = MOST_PASSED_OVER;
    while let Some(frame) = body.frame().await {
        let length = frame.ok().and_then(|frame| frame.into_data().ok()).map(|data| data.len());
        let Some(still_left) = length.and_then(|length| left.checked_sub(length)) else { return false };
        left = still_left;
    }
    true
}
