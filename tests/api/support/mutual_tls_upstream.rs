//! An upstream with TLS that asks for a client certificate. It responds with the requested appointment, and with a token
//! at `/oauth2/token`.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use hyper::{Response, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{CertifiedKey, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;

use super::{TempFile, canary, served};

pub struct MutualTlsUpstream {
    url: String,
    authority: TempFile,
    client: CertifiedKey<KeyPair>,
    seen: Arc<Mutex<Vec<(String, bool)>>>,
    _serving: JoinSet<()>,
}

impl MutualTlsUpstream {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let server = self_signed("127.0.0.1");
        let client = self_signed("gateway.example");
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut clients = RootCertStore::empty();
        clients.add(client.cert.der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder(clients.into()).allow_unauthenticated().build().unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(server.signing_key.serialize_der()));
        let tls = ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![server.cert.der().clone()], key)
            .unwrap();
        let seen = Arc::<Mutex<Vec<_>>>::default();
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, TlsAcceptor::from(Arc::new(tls)), seen.clone()));
        Self { url, authority: TempFile::with(&server.cert.pem()), client, seen, _serving: serving }
    }

    /// `https://127.0.0.1:PORT`
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The certificate to trust.
    pub fn ca_file(&self) -> &str {
        self.authority.path()
    }

    /// Files with the certificate that the upstream accepts, and with its key.
    pub fn client_files(&self) -> [TempFile; 2] {
        [self.client.cert.pem(), self.client.signing_key.serialize_pem()].map(|pem| TempFile::with(&pem))
    }

    /// The path of each request, and whether it came with the client certificate.
    pub fn requests(&self) -> Vec<(String, bool)> {
        self.seen.lock().unwrap().clone()
    }
}

/// A certificate for `name`, signed by itself.
pub fn self_signed(name: &str) -> CertifiedKey<KeyPair> {
    rcgen::generate_simple_self_signed([name.to_owned()]).unwrap()
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, seen: Arc<Mutex<Vec<(String, bool)>>>) {
    // Dropped with the task, which ends the connections.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, seen) = (acceptor.clone(), seen.clone());
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let has_certificate = stream.get_ref().1.peer_certificates().is_some();
            let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
                let path = request.uri().path().to_owned();
                let last = path.rsplit('/').next().unwrap_or_default();
                let body = match last {
                    "token" => json!({
                        "access_token": canary::marked("service"), "expires_in": 3600, "token_type": "Bearer"
                    }),
                    id => json!({ "data": served(id, "certified", 1) }),
                };
                seen.lock().unwrap().push((path, has_certificate));
                let response = Response::builder().header("content-type", "application/json");
                std::future::ready(Ok::<_, Infallible>(response.body(body.to_string()).unwrap()))
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
