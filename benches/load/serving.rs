//! What the limit server and the stub of the upstream have in common: a listener on a free port and bare hyper.

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

/// Listens on a free loopback port, says which on standard output, and gives each connection to `converse`. It never
/// returns.
pub fn run<C>(converse: impl Fn(TcpStream) -> C + Send + 'static)
where
    C: Future<Output = ()> + Send + 'static,
{
    let accepting = async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        println!("http://{address}/");
        loop {
            if let Ok((connection, _)) = listener.accept().await {
                let _ = connection.set_nodelay(true);
                tokio::spawn(converse(connection));
            }
        }
    };
    runtime().block_on(async { tokio::spawn(accepting).await.expect("a server that goes on") });
}

/// One thread where there is one core: that is the fastest. Else as many as tokio takes, and as the gateway has.
fn runtime() -> Runtime {
    let is_alone = thread::available_parallelism().is_ok_and(|cores| cores.get() == 1);
    let mut builder = if is_alone { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    builder.enable_all().build().expect("a runtime")
}

/// Serves one connection until its other end lets go of it.
pub async fn converse<S>(connection: TcpStream, service: S)
where
    S: Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible>,
{
    let _ = http1::Builder::new().serve_connection(TokioIo::new(connection), service).await;
}
