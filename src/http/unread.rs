//! A connection on which a request's body was left unread cannot be used again, and the answer says so.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
    http::{HeaderValue, header},
    middleware::Next,
    response::Response,
};
use hyper::body::{Frame, SizeHint};

/// Answers with `Connection: close` where the body was not read to its end: the server closes the connection then, and
/// a client that is not told may send its next request into the void. RFC 9112, section 9.6.
pub(super) async fn announced(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let is_read = Arc::new(AtomicBool::new(body.is_end_stream()));
    let body = Body::new(Noted { body, is_read: is_read.clone() });
    let mut response = next.run(Request::from_parts(head, body)).await;
    if !is_read.load(Ordering::Relaxed) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A body of which it is noted when it was read to its end.
struct Noted {
    body: Body,
    is_read: Arc<AtomicBool>,
}

impl HttpBody for Noted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(frame, Poll::Ready(None)) || self.body.is_end_stream() {
            self.is_read.store(true, Ordering::Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
