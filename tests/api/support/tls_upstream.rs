//! An upstream with TLS and HTTP/2, under a certificate authority of its own. It responds to every call with the
//! requested appointment, as [`super::Upstream`] does.

use std::{
    convert::Infallible,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use hyper::{
    Request, Response, Version,
    body::Incoming,
    header::{ACCEPT_ENCODING, AUTHORIZATION},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;

use super::{canary, served};

/// A listener for TLS and HTTP/2 under a certificate authority of its own.
pub(super) struct TlsListener {
    pub(super) listener: TcpListener,
    pub(super) acceptor: TlsAcceptor,
    pub(super) authority: Authority,
    /// `https://127.0.0.1:PORT`
    pub(super) url: String,
}

/// A file with the certificate to trust.
pub(super) struct Authority(PathBuf);

impl TlsListener {
    pub(super) async fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let identity = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        // The port makes the name this test's own.
        let path =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("authority-{}.pem", address.port()));
        std::fs::write(&path, identity.cert.pem()).unwrap();

        let _ = rustls::crypto::ring::default_provider().install_default();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(identity.signing_key.serialize_der()));
        let mut tls = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![identity.cert.der().clone()], key)
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        Self { listener, acceptor, authority: Authority(path), url: format!("https://{address}") }
    }
}

impl Authority {
    pub(super) fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

pub struct TlsUpstream {
    url: String,
    authority: Authority,
    seen: Arc<Mutex<Seen>>,
    _serving: JoinSet<()>,
}

#[derive(Default)]
struct Seen {
    connections: usize,
    requests: Vec<(Version, Option<String>)>,
}

impl TlsUpstream {
    pub async fn start() -> Self {
        let TlsListener { listener, acceptor, authority, url } = TlsListener::bind().await;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, acceptor, seen.clone()));
        Self { url, authority, seen, _serving: serving }
    }

    /// `https://127.0.0.1:PORT`
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The certificate to trust.
    pub fn ca_file(&self) -> &str {
        self.authority.path()
    }

    /// The version of HTTP that each request came with.
    pub fn requests(&self) -> Vec<Version> {
        self.seen.lock().unwrap().requests.iter().map(|(version, _)| *version).collect()
    }

    /// The `Accept-Encoding` that each request came with.
    pub fn accepted_encodings(&self) -> Vec<Option<String>> {
        self.seen.lock().unwrap().requests.iter().map(|(_, accepted)| accepted.clone()).collect()
    }

    /// How many connections there were, with TLS set up.
    pub fn connections(&self) -> usize {
        self.seen.lock().unwrap().connections
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, seen: Arc<Mutex<Seen>>) {
    // Dropped with the task, which ends the connections.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, seen) = (acceptor.clone(), seen.clone());
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            seen.lock().unwrap().connections += 1;
            let service = service_fn(|request| std::future::ready(answer(&request, &seen)));
            let http = http2::Builder::new(TokioExecutor::new());
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn answer(request: &Request<Incoming>, seen: &Mutex<Seen>) -> Result<Response<String>, Infallible> {
    let accepted = request.headers().get(ACCEPT_ENCODING).map(|it| it.to_str().unwrap().to_owned());
    seen.lock().unwrap().requests.push((request.version(), accepted));
    let id = request.uri().path().rsplit('/').next().unwrap_or_default();
    let token = request.headers().get(AUTHORIZATION).and_then(|it| it.to_str().ok()?.strip_prefix("Bearer "));
    let body = json!({ "data": served(id, canary::unmarked(token.unwrap_or_default()), 1) });
    Ok(Response::new(body.to_string()))
}
