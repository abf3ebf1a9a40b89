//! Connections that can be cut in the middle of an answer.
//!
//! Stands at the very outside, between the socket and HTTP, since nothing further in can break a connection at a chosen
//! byte: a server that is given a failing body drops what it has not yet sent, the head included, and the client then
//! sees an answer that never began. Here the head and half of the body go out, and then the connection is gone.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// Listens as usual, and hands out connections that have scissors.
pub(crate) struct CuttableListener(pub(crate) TcpListener);

impl Listener for CuttableListener {
    type Io = Cuttable;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // The trait's own method outlives a shortage of file descriptors; the inherent one returns it as an error.
        let (stream, address) = Listener::accept(&mut self.0).await;
        // Small answers should not wait for more; where that cannot be had, they are slower and no less right.
        let _ = stream.set_nodelay(true);
        let scissors = Scissors::default();
        (Cuttable { stream, scissors }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// The handle by which the middleware says that the answer under way shall not arrive whole.
#[derive(Clone, Default)]
pub(crate) struct Scissors {
    /// The bytes to hold back from the end of what is next written; 0 while the connection is whole.
    withheld: Arc<AtomicUsize>,
}

impl Scissors {
    /// Lets the next answer lose at least its last `bytes` bytes, one at the least, and then breaks the connection.
    pub(crate) fn cut(&self, bytes: usize) {
        self.withheld.store(bytes.max(1), Ordering::Release);
    }
}

impl Connected<IncomingStream<'_, CuttableListener>> for Scissors {
    fn connect_info(stream: IncomingStream<'_, CuttableListener>) -> Self {
        stream.io().scissors.clone()
    }
}

/// One connection.
pub(crate) struct Cuttable {
    stream: TcpStream,
    scissors: Scissors,
}

impl AsyncWrite for Cuttable {
    /// As this type does not offer vectored writes, the server gathers head and body in one buffer and writes from its
    /// front, so the end of `buffer` is always the end of the answer.
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let withheld = self.scissors.withheld.load(Ordering::Acquire);
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

impl AsyncRead for Cuttable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}
