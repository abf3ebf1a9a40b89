//! Connections that can break in the middle of a response.
//!
//! This works below HTTP, because an HTTP server that is given a failing body drops all unsent bytes, including the head:
//! the client would see no response at all. Here, the head and half of the body are sent before the connection closes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// A TCP listener whose connections can be truncated.
pub(crate) struct TruncatingListener(pub(crate) TcpListener);

impl Listener for TruncatingListener {
    type Io = TruncatableStream;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // Unlike the inherent method, the trait's method retries when file descriptors run out.
        let (stream, address) = Listener::accept(&mut self.0).await;
        // Only a latency optimisation, so an error is ignored.
        let _ = stream.set_nodelay(true);
        let truncate_handle = TruncateHandle::default();
        (TruncatableStream { stream, truncate_handle }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// A handle for truncating the response in progress on a connection.
#[derive(Clone, Default)]
pub(crate) struct TruncateHandle {
    /// The number of bytes to withhold from the end of the next write; 0 for none.
    withheld: Arc<AtomicUsize>,
}

impl TruncateHandle {
    /// Withholds at least the last `bytes` bytes of the next response, at least one, and then breaks the connection.
    pub(crate) fn truncate_response(&self, bytes: usize) {
        self.withheld.store(bytes.max(1), Ordering::Release);
    }
}

impl Connected<IncomingStream<'_, TruncatingListener>> for TruncateHandle {
    fn connect_info(stream: IncomingStream<'_, TruncatingListener>) -> Self {
        stream.io().truncate_handle.clone()
    }
}

/// A connection that can be truncated.
pub(crate) struct TruncatableStream {
    stream: TcpStream,
    truncate_handle: TruncateHandle,
}

impl AsyncWrite for TruncatableStream {
    /// Without vectored writes, the server collects head and body in one buffer, so the end of `buffer` is the end of the
    /// response.
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let withheld = self.truncate_handle.withheld.load(Ordering::Acquire);
        let allowed = &buffer[..buffer.len().saturating_sub(withheld)];
        if withheld > 0 && allowed.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_write(context, allowed)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl AsyncRead for TruncatableStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}
