//! Words for what hyper refuses by itself: a head that it cannot parse, or that is larger than its buffer, never gets
//! as far as a route. hyper answers with a status and nothing else, and closes; here that answer gets the document of
//! errors, and the id, that every other refusal has. What hyper would settle by itself instead, two lengths of one body,
//! it is made to refuse ([`crate::http::request_framing`]).

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use axum::http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use uuid::Uuid;

use super::{refusal::Refusal, request_framing::Requests, security_headers};
use crate::error::{
    ApiError,
    limit::{Limit, LimitExceeded},
};

/// A connection whose bare refusals are put into words on their way out.
#[derive(Debug)]
pub struct HyperErrors<S> {
    stream: S,
    /// What is left to be written in place of a bare refusal.
    instead: Vec<u8>,
    requests: Requests,
    is_upgraded: Arc<AtomicBool>,
}

impl<S> HyperErrors<S> {
    /// Around `stream`.
    pub fn new(stream: S) -> Self {
        Self { stream, instead: Vec::new(), requests: Requests::default(), is_upgraded: Arc::default() }
    }

    /// To be set once the connection carries no more requests.
    pub fn is_upgraded(&self) -> Arc<AtomicBool> {
        self.is_upgraded.clone()
    }
}

/// The whole answer in place of `written`, if that is a refusal of hyper's own: all of ours have an `x-request-id`.
fn worded(written: &[u8]) -> Option<Vec<u8>> {
    if !written.starts_with(b"HTTP/1.1 4") || !written.ends_with(b"\r\n\r\n") {
        return None;
    }
    let head = std::str::from_utf8(written).ok()?;
    if !head.contains("\r\ncontent-length: 0\r\n") || head.contains("\r\nx-request-id:") {
        return None;
    }
    let status = StatusCode::from_bytes(head.get(9..12)?.as_bytes()).ok()?;
    let bad = |limit, message: &'static str| LimitExceeded::bad_request(limit, None, None, message);
    let error = match status {
        StatusCode::URI_TOO_LONG => bad(Limit::Uri, "The request's address is longer than any that is read."),
        // hyper does not say which of the two it was.
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => bad(
            Limit::Headers,
            "The request's headers are larger, or more, than limits.headers and limits.header_count could allow.",
        ),
        _ => ApiError::BadRequest(
            "The request is not HTTP as it has to be written: a line of its head cannot be read, or its length is stated \
             more than once (Content-Length, Transfer-Encoding)."
                .into(),
        ),
    };
    let id = Uuid::new_v4();
    tracing::debug!(request.id = %id, http.status = status.as_u16(), "refused before it was read");
    let document = Refusal::of(status, error).document();
    let mut headers = format!(
        "\r\ncontent-type: application/json; charset=utf-8\r\nx-request-id: {id}\r\ncontent-length: {}\r\n",
        document.len()
    );
    for (name, value) in security_headers::HEADERS {
        headers += &format!("{name}: {}\r\n", value.to_str().unwrap_or_default());
    }
    let mut answer = head.replacen("\r\ncontent-length: 0\r\n", &headers, 1).into_bytes();
    answer.extend(document);
    Some(answer)
}

impl<S: AsyncWrite + Unpin> HyperErrors<S> {
    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.instead.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.instead))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.instead.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HyperErrors<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_instead(cx))?;
        if let Some(answer) = worded(buf) {
            self.instead = answer;
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_instead(cx))?;
        if let [buf] = bufs
            && let Some(answer) = worded(buf)
        {
            self.instead = answer;
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
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
        if !self.is_upgraded.load(Ordering::Relaxed) {
            self.requests.follow(&mut buf.filled_mut()[before..]);
        }
        read
    }
}
