//! A forward proxy: tunnels for CONNECT, and forwards requests with an absolute URL.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// A proxy. Dropping it closes its connections.
pub struct ForwardProxy {
    url: String,
    seen: Arc<Mutex<Vec<ProxyRequest>>>,
    _serving: JoinSet<()>,
}

/// The first request on a connection to the proxy.
#[derive(Debug, Clone, PartialEq)]
pub struct ProxyRequest {
    pub method: String,
    pub target: String,
    /// `Proxy-Authorization`
    pub authorization: Option<String>,
    /// The rest of the head.
    pub headers: String,
}

impl ForwardProxy {
    pub async fn start() -> Self {
        Self::with_authorization(None).await
    }

    /// A proxy that rejects requests without this `Proxy-Authorization`.
    pub async fn with_authorization(required: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::<Mutex<Vec<_>>>::default();
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, required.map(str::to_owned), seen.clone()));
        Self { url, seen, _serving: serving }
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn requests(&self) -> Vec<ProxyRequest> {
        self.seen.lock().unwrap().clone()
    }

    /// Method and target of each request.
    pub fn targets(&self) -> Vec<(String, String)> {
        self.requests().into_iter().map(|request| (request.method, request.target)).collect()
    }
}

async fn accept(listener: TcpListener, required: Option<String>, seen: Arc<Mutex<Vec<ProxyRequest>>>) {
    // Dropped with the task, which ends the connections.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (required, seen) = (required.clone(), seen.clone());
        connections.spawn(async move {
            let _ = serve(stream, required, &seen).await;
        });
    }
}

async fn serve(
    mut client: TcpStream,
    required: Option<String>,
    seen: &Mutex<Vec<ProxyRequest>>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let (line, headers) = text.split_once("\r\n").unwrap();
    let mut words = line.split(' ').map(str::to_owned);
    let authorization = headers.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("proxy-authorization").then(|| value.trim().to_owned())
    });
    let request = ProxyRequest {
        method: words.next().unwrap(),
        target: words.next().unwrap(),
        authorization,
        headers: headers.to_owned(),
    };
    seen.lock().unwrap().push(request.clone());
    if required.is_some() && request.authorization != required {
        let refusal = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n";
        return client.write_all(refusal.as_bytes()).await;
    }
    let is_tunnel = request.method == "CONNECT";
    let authority = match request.target.strip_prefix("http://") {
        Some(rest) if !is_tunnel => rest.split('/').next().unwrap(),
        _ => &request.target,
    };
    let mut server = TcpStream::connect(authority).await?;
    if is_tunnel {
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    } else {
        server.write_all(&head).await?;
    }
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}
