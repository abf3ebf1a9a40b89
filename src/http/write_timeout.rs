//! Write timeouts: responses to clients that do not read would hold memory without a bound on time.

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

/// A connection that fails when its client reads nothing for `http.write_timeout`, or takes longer than
/// `http.send_timeout` to read all pending bytes.
#[derive(Debug)]
pub struct WriteTimeout<S, L> {
    stream: S,
    /// Dropped with the connection, also after an upgrade.
    _lease: L,
    /// Runs while no byte can be written.
    progress: Timer,
    /// Runs from the first blocked write until everything is flushed.
    total: Timer,
}

/// A timer that is created when a write blocks. Most writes do not.
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

    /// Starts the timer unless it runs, and is ready when it has expired.
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
    /// Wraps `stream`, together with a `lease` that is dropped with it.
    pub fn new(stream: S, config: &HttpConfig, lease: L) -> Self {
        Self {
            stream,
            _lease: lease,
            progress: Timer::new(Limit::WriteTimeout, config.write_timeout),
            total: Timer::new(Limit::SendTimeout, config.send_timeout),
        }
    }

    /// Passes on the result of a write, or fails a pending one after a timeout.
    fn enforce<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.progress.stop();
            return written;
        }
        for timer in [&mut self.progress, &mut self.total] {
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
        self.enforce(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.enforce(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper and tungstenite flush when everything is written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_ready() {
            self.total.stop();
        }
        self.enforce(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.enforce(cx, shut)
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
