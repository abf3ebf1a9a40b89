//! Lingering close (RFC 9112, section 9.6). If a connection is closed while its client still sends, the operating system
//! resets it, and the reset can destroy the response before the client has read it. So the gateway first closes its own
//! direction, and then reads and discards the rest of the request, within bounds.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::connection_state::ConnectionState;

/// The maximum number of discarded bytes. A client that sends more is cut off.
const MAX_DISCARDED: usize = 64 << 20;

/// The size of the buffer for discarded bytes.
const BUFFER: usize = 16 * 1024;

/// A connection that lingers at its end if it [is cut short](ConnectionState::is_cut_short).
#[derive(Debug)]
pub struct LingeringClose<S> {
    stream: S,
    state: ConnectionState,
    timeout: Duration,
    lingering: Option<Lingering>,
}

/// The bounds of a connection that lingers.
#[derive(Debug)]
struct Lingering {
    elapsed: Pin<Box<Sleep>>,
    bytes_left: usize,
}

impl<S> LingeringClose<S> {
    /// Wraps `stream`. It lingers for at most `timeout`.
    pub fn new(stream: S, state: ConnectionState, timeout: Duration) -> Self {
        Self { stream, state, timeout, lingering: None }
    }
}

impl Lingering {
    /// Discards the input of `stream`, and is ready when the client has closed, or at a bound.
    fn poll_discard(&mut self, stream: &mut (impl AsyncRead + Unpin), cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.elapsed.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let mut buffer = [0; BUFFER];
            let mut buffer = ReadBuf::new(&mut buffer);
            let read = ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer));
            let length = buffer.filled().len();
            self.bytes_left = self.bytes_left.saturating_sub(length);
            if read.is_err() || length == 0 || self.bytes_left == 0 {
                return Poll::Ready(());
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for LingeringClose<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, state, timeout, lingering } = &mut *self;
        let lingering = match lingering {
            Some(lingering) => lingering,
            None => {
                ready!(Pin::new(&mut *stream).poll_shutdown(cx))?;
                if !state.is_cut_short() {
                    return Poll::Ready(Ok(()));
                }
                let elapsed = Box::pin(sleep(*timeout));
                lingering.insert(Lingering { elapsed, bytes_left: MAX_DISCARDED })
            }
        };
        lingering.poll_discard(stream, cx).map(Ok)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for LingeringClose<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}
