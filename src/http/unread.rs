//! A connection on which a request's body was left unread cannot be used again, and the answer says so; but what is
//! there already is passed over, so that the connection serves on.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
    http::{HeaderValue, header},
    middleware::Next,
    response::Response,
};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};
use tokio::time::timeout;

/// How much of a body that nobody has read is passed over, and how long it is waited for: to read more costs more than
/// another connection.
const MOST_PASSED_OVER: usize = 64 * 1024;
const PATIENCE: Duration = Duration::from_millis(200);

/// Answers with `Connection: close` where the body is not read to its end: the server closes the connection then, and a
/// client that is not told may send its next request into the void. RFC 9112, section 9.6.
pub(super) async fn announced(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    // Who waits for "100 Continue" has sent nothing, and is not asked to.
    let waits = head.headers.contains_key(header::EXPECT);
    let left = Arc::new(Mutex::new(None));
    let body = Body::new(Lent { body, left: left.clone() });
    let mut response = next.run(Request::from_parts(head, body)).await;
    let left = left.lock().unwrap_or_else(PoisonError::into_inner).take();
    let is_read = match left {
        None => true,
        Some(_) if waits => false,
        Some(body) => timeout(PATIENCE, pass_over(body)).await.unwrap_or(false),
    };
    if !is_read {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Whether it came to its end.
async fn pass_over(mut body: Body) -> bool {
    let mut left = MOST_PASSED_OVER;
    while let Some(frame) = body.frame().await {
        let length = frame.ok().and_then(|frame| frame.into_data().ok()).map(|data| data.len());
        let Some(still_left) = length.and_then(|length| left.checked_sub(length)) else { return false };
        left = still_left;
    }
    true
}

/// A body that comes back when it is let go of before its end.
struct Lent {
    body: Body,
    left: Arc<Mutex<Option<Body>>>,
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if !self.body.is_end_stream() {
            let body = std::mem::take(&mut self.body);
            *self.left.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
    }
}
