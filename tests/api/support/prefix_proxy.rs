//! A reverse proxy that serves a gateway under a path prefix, and strips the prefix from requests.

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{Response, StatusCode, header},
    response::IntoResponse as _,
};
use tokio::{net::TcpListener, task::JoinSet};

use super::{Gateway, client};

/// A reverse proxy. Dropping it stops it.
pub struct PrefixProxy {
    url: String,
    _serving: JoinSet<()>,
}

#[derive(Clone)]
struct Target {
    client: reqwest::Client,
    gateway: String,
}

/// The path under which the gateway is served.
const PREFIX: &str = "/tools/appointments";

impl PrefixProxy {
    pub async fn before(gateway: &Gateway) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}{PREFIX}/", listener.local_addr().unwrap());
        let target = Target { client: client(), gateway: gateway.base().to_owned() };
        let routes = Router::new().fallback(forward).with_state(target);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let _ = axum::serve(listener, routes).await;
        });
        Self { url, _serving: serving }
    }

    /// The address of the gateway behind the proxy, with a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// Other paths belong to other programs of the same host.
async fn forward(State(target): State<Target>, request: Request) -> Response<Body> {
    let path = request.uri().path_and_query().map(|path| path.as_str()).unwrap_or_default();
    let Some(path) = path.strip_prefix(PREFIX).filter(|path| path.starts_with('/')) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let url = format!("{}{path}", target.gateway);
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let mut headers = head.headers;
    for hop_by_hop in [header::HOST, header::CONNECTION, header::CONTENT_LENGTH] {
        headers.remove(hop_by_hop);
    }
    let response = target.client.request(head.method, url).headers(headers).body(body).send().await;
    match response {
        Ok(response) => Response::<reqwest::Body>::from(response).map(Body::new),
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}
