//! Timeouts of a connection that waits for a request: `http.header_timeout` for its head, `http.idle_timeout` before it.
//! Request bodies have timeouts of their own, and WebSockets too.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::body::{Body, Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::connection_state::{ConnectionState, RequestGuard};
use crate::{config::http::HttpConfig, error::limit::Limit, metrics::metrics};

/// A connection that ends when its client takes longer than `http.header_timeout` to send the head of a request, or is
/// idle between requests for longer than `http.idle_timeout`.
#[derive(Debug)]
pub struct ReadTimeout<S> {
    stream: S,
    state: ConnectionState,
    header_timeout: Duration,
    idle_timeout: Duration,
    /// The last known number of beginnings and ends of requests.
    seen: usize,
    awaited: Awaited,
    /// Whether the timer runs for `awaited`.
    is_timed: bool,
    is_flushed: bool,
    /// Reused for each wait. It may expire unnoticed during a request.
    timer: Option<Pin<Box<Sleep>>>,
}

/// The event that a connection waits for between requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    /// The first byte of another request.
    Request,
    /// The last byte of the head.
    Head,
}

/// A response body. Its request is in progress until hyper drops the body.
#[derive(Debug)]
pub struct GuardedBody<B> {
    body: B,
    _guard: RequestGuard,
}

impl<B> GuardedBody<B> {
    /// Wraps `body`.
    pub fn new(body: B, guard: RequestGuard) -> Self {
        Self { body, _guard: guard }
    }
}

impl<B: Body + Unpin> Body for GuardedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<S> ReadTimeout<S> {
    /// Wraps `stream`. The first timeout begins now.
    pub fn new(stream: S, state: ConnectionState, config: &HttpConfig) -> Self {
        Self {
            stream,
            state,
            header_timeout: config.header_timeout,
            idle_timeout: config.idle_timeout,
            seen: 0,
            awaited: Awaited::Head,
            is_timed: false,
            is_flushed: true,
            timer: None,
        }
    }

    /// Whether the connection waits for a request.
    fn is_waiting(&mut self) -> bool {
        let events = self.state.request_events();
        // A new connection is opened for a request.
        let is_head = events == 0 || self.state.is_in_head();
        let awaited = if is_head { Awaited::Head } else { Awaited::Request };
        if (events, awaited) != (self.seen, self.awaited) {
            (self.seen, self.awaited) = (events, awaited);
            self.is_timed = false;
        }
        // The client may still read the last response, within the write timeouts, or a refusal, within a lingering close.
        events.is_multiple_of(2) && self.is_flushed && !self.state.is_cut_short() && !self.state.is_upgraded()
    }

    /// Starts the timer unless it runs, and is ready when the event is overdue.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<Awaited> {
        if !self.is_waiting() {
            return Poll::Pending;
        }
        if !self.is_timed {
            self.is_timed = true;
            let deadline = Instant::now()
                + match self.awaited {
                    Awaited::Request => self.idle_timeout,
                    Awaited::Head => self.header_timeout,
                };
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(deadline),
                None => self.timer = Some(Box::pin(sleep_until(deadline))),
            }
        }
        let Some(timer) = &mut self.timer else { return Poll::Pending };
        ready!(timer.as_mut().poll(cx));
        if self.awaited == Awaited::Head {
            metrics().limited.count(Limit::HeaderTimeout.as_str());
        }
        Poll::Ready(self.awaited)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadTimeout<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            return read;
        }
        match ready!(self.poll_overdue(cx)) {
            // The end of the stream, as if the client had closed the connection.
            Awaited::Request => Poll::Ready(Ok(())),
            Awaited::Head => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadTimeout<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.is_flushed = false;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.is_flushed = false;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(cx));
        self.is_flushed = true;
        // hyper has read before, and may not read again until bytes arrive: the wait for them begins here.
        match self.poll_overdue(cx) {
            Poll::Ready(_) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Ready(flushed),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
