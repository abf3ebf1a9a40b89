//! Write timeouts: what waits for a client that does not read takes memory.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use crate::{config::http::HttpConfig, error::limit::Limit, metrics::metrics};

/// A connection that fails when its client takes nothing for `http.write_timeout`, or takes longer than
/// `http.send_timeout` for everything that is ready for it.
#[derive(Debug)]
pub struct WriteTimeout<S, L> {
    stream: S,
    /// Dropped with the connection, whatever that has become.
    _lease: L,
    /// Runs while the client takes nothing.
    progress: Timer,
    /// Runs from the first wait until everything is flushed.
    whole: Timer,
}

/// A clock that is set when a write has to wait. What is sent at once needs none.
#[derive(Debug)]
struct Timer {
    limit: Limit,
    timeout: Duration,
    running: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    fn new(limit: Limit, timeout: Duration) -> Self {
        Self { limit, timeout, running: None }
    }

    fn stop(&mut self) {
        self.running = None;
    }

    /// Starts the clock, unless it runs; ready when it has run out.
    fn poll_elapsed(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let timeout = self.timeout;
        let running = self.running.get_or_insert_with(|| Box::pin(sleep(timeout)));
        running.as_mut().poll(cx).map(|()| {
            metrics().limited.count(self.limit.as_str());
            io::ErrorKind::TimedOut.into()
        })
    }
}

impl<S, L> WriteTimeout<S, L> {
    /// Around `stream`, with a `lease` that lasts as long as it.
    pub fn new(stream: S, config: &HttpConfig, lease: L) -> Self {
        Self {
            stream,
            _lease: lease,
            progress: Timer::new(Limit::WriteTimeout, config.write_timeout),
            whole: Timer::new(Limit::SendTimeout, config.send_timeout),
        }
    }

    /// Passes on the outcome of a write, and fails it where it has waited for too long.
    fn bounded<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.progress.stop();
            return written;
        }
        for timer in [&mut self.progress, &mut self.whole] {
            if let Poll::Ready(error) = timer.poll_elapsed(cx) {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin, L: Unpin> AsyncWrite for WriteTimeout<S, L> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.bounded(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.bounded(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Whoever writes here flushes when everything is written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_ready() {
            self.whole.stop();
        }
        self.bounded(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.bounded(cx, shut)
    }
}

impl<S: AsyncRead + Unpin, L: Unpin> AsyncRead for WriteTimeout<S, L> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}
