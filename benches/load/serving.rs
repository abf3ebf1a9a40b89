//! The listener, runtime and hyper connections that the servers of the benchmark share.

use std::{convert::Infallible, future::Future, thread};

use http_body_util::Full;
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::Service,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
};

/// Accepts connections on a free loopback port and passes each one to `handle`. Never returns.
pub fn serve<C>(handle: impl Fn(TcpStream) -> C + Send + 'static)
where
    C: Future<Output = ()> + Send + 'static,
{
    run(async move {
        let listener = listen().await;
        loop {
            if let Ok((connection, _)) = listener.accept().await {
                let _ = connection.set_nodelay(true);
                tokio::spawn(handle(connection));
            }
        }
    });
}

/// Listens on a free loopback port and prints its address, which the benchmark reads.
pub async fn listen() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    println!("http://{address}/");
    listener
}

/// Runs a server on a runtime of its own.
pub fn run(server: impl Future<Output = ()> + Send + 'static) {
    runtime().block_on(async { tokio::spawn(server).await.expect("a server without panics") });
}

/// Builds a current-thread runtime on one core, where it is the fastest. On more cores it has as many threads as the
/// gateway, which is tokio's default.
fn runtime() -> Runtime {
    let has_one_core = thread::available_parallelism().is_ok_and(|cores| cores.get() == 1);
    let mut builder = if has_one_core { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    builder.enable_all().build().expect("a runtime")
}

/// Serves one connection until the peer closes it.
pub async fn serve_connection<S>(connection: TcpStream, service: S)
where
    S: Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible>,
{
    let _ = http1::Builder::new().serve_connection(TokioIo::new(connection), service).await;
}
