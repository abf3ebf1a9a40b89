//! Bodies for hyper's own error responses. hyper rejects a head that it cannot parse, or that exceeds its buffer,
//! before any handler runs: it sends a bare status and closes the connection. [`HyperErrors`] adds an error document
//! and a request id, like those of every other error response. It also applies the checks of
//! [`crate::http::request_framing`].

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use uuid::Uuid;

use super::{
    connection_state::ConnectionState, refusal::Refusal, request_framing::FramingGuard, security_headers,
};
use crate::error::{
    ApiError,
    limit::{Limit, LimitExceeded},
};

/// A connection that completes bare error responses on their way out.
#[derive(Debug)]
pub struct HyperErrors<S> {
    stream: S,
    /// The unwritten rest of a completed error response.
    replacement: Vec<u8>,
    framing: FramingGuard,
    state: ConnectionState,
}

impl<S> HyperErrors<S> {
    /// Wraps `stream`.
    pub fn new(stream: S, state: ConnectionState) -> Self {
        Self { stream, replacement: Vec::new(), framing: FramingGuard::default(), state }
    }

    /// Completes `written` if it is one of hyper's own errors. Returns whether it is.
    fn replace_error(&mut self, written: &[u8]) -> bool {
        let Some(response) = complete_error(written, &self.framing) else { return false };
        self.replacement = response;
        // hyper stops reading.
        self.state.cut_short();
        true
    }
}

/// The completed response, if `written` is one of hyper's own errors. Only those lack an `x-request-id`.
fn complete_error(written: &[u8], framing: &FramingGuard) -> Option<Vec<u8>> {
    // hyper responds in the version of the last request that it could read.
    let is_error = [b"HTTP/1.1 4", b"HTTP/1.0 4"].into_iter().any(|start| written.starts_with(start));
    if !is_error || !written.ends_with(b"\r\n\r\n") {
        return None;
    }
    let head = std::str::from_utf8(written).ok()?;
    if !head.contains("\r\ncontent-length: 0\r\n") || head.contains("\r\nx-request-id:") {
        return None;
    }
    let status = StatusCode::from_bytes(head.get(9..12)?.as_bytes()).ok()?;
    let bad = |limit, message: &'static str| LimitExceeded::bad_request(limit, None, None, message);
    let error = match status {
        StatusCode::URI_TOO_LONG => bad(
            Limit::Uri,
            "Request target is too long to be read (limits.uri). Shorten it, or send the operation with POST.",
        ),
        // hyper does not tell which of the two limits was exceeded.
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => bad(
            Limit::Headers,
            "Request headers are too large or too many (limits.headers, limits.header_count). Send fewer or shorter \
             ones.",
        ),
        _ => ApiError::BadRequest(
            "Malformed HTTP request: the head cannot be parsed, or it states the length of the body more than once \
             (Content-Length, Transfer-Encoding)."
                .into(),
        ),
    };
    let id = Uuid::new_v4();
    tracing::debug!(request.id = %id, http.status = status.as_u16(), "request head rejected by hyper");
    let document = Refusal::with_status(status, error).into_document();
    // Every write passes here, so this comes after the checks.
    let content_type = framing.error_content_type();
    let mut headers = format!(
        "\r\ncontent-type: {content_type}\r\nx-request-id: {id}\r\ncontent-length: {}\r\n",
        document.len()
    );
    for (name, value) in security_headers::HEADERS {
        headers += &format!("{name}: {}\r\n", value.to_str().unwrap_or_default());
    }
    let mut response = head.replacen("\r\ncontent-length: 0\r\n", &headers, 1).into_bytes();
    response.extend(document);
    Some(response)
}

impl<S: AsyncWrite + Unpin> HyperErrors<S> {
    fn poll_replacement(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.replacement.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.replacement))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.replacement.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HyperErrors<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_replacement(cx))?;
        if self.replace_error(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_replacement(cx))?;
        if let [buf] = bufs
            && self.replace_error(buf)
        {
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_replacement(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_replacement(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HyperErrors<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if !self.state.is_upgraded() {
            self.framing.inspect(&mut buf.filled_mut()[before..]);
            self.state.set_in_head(self.framing.is_in_head());
        }
        read
    }
}
