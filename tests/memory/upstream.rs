//! A fast upstream on a thread of its own, with every appointment in a typical size. It counts its calls.

use std::{
    convert::Infallible,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use appointments_gateway::sandbox::SAMPLE;
use http_body_util::Full;
use hyper::{
    Request, Response,
    body::Bytes,
    header::{self, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;

/// The token of the quiet caller.
pub(crate) const QUIET: &str = "quiet";

/// The id and the reference of the sample.
const ID: &str = "5b6f1f2e-3d1a-4c86-9a55-0d2f5f6c7a01";
const REFERENCE: &str = r#""reference": 123456789"#;

#[derive(Clone)]
pub(crate) struct Upstream {
    address: String,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    all: AtomicUsize,
    quiet: AtomicUsize,
}

impl Upstream {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let counts = Arc::<Counts>::default();
        std::thread::spawn({
            let counts = counts.clone();
            move || serve(listener, counts)
        });
        Self { address, counts }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn calls(&self) -> usize {
        self.counts.all.load(Ordering::Relaxed)
    }

    pub(crate) fn calls_of_quiet(&self) -> usize {
        self.counts.quiet.load(Ordering::Relaxed)
    }
}

/// A UUID for each number.
pub(crate) fn id(number: usize) -> String {
    format!("{number:08x}-0000-4000-8000-00000000cafe")
}

/// The reference of the appointment with that number for `token`.
pub(crate) fn reference(token: &str, number: usize) -> String {
    format!("{token} {}", id(number))
}

#[tokio::main(flavor = "current_thread")]
async fn serve(listener: TcpListener, counts: Arc<Counts>) {
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let _ = stream.set_nodelay(true);
        let counts = counts.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let answer = answer(&request, &counts);
                async { Ok::<_, Infallible>(answer) }
            });
            // The connection ends when the gateway closes it.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn answer<B>(request: &Request<B>, counts: &Counts) -> Response<Full<Bytes>> {
    let id = request.uri().path().rsplit('/').next().unwrap();
    let token = request.headers()[header::AUTHORIZATION].to_str().unwrap().strip_prefix("Bearer ").unwrap();
    counts.all.fetch_add(1, Ordering::Relaxed);
    if token == QUIET {
        counts.quiet.fetch_add(1, Ordering::Relaxed);
    }
    let body = SAMPLE.replace(ID, id).replace(REFERENCE, &format!(r#""reference": "{token} {id}""#));
    let mut response = Response::new(Full::new(body.into()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
