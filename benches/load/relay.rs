//! The relay: bare hyper towards the client and the upstream. Each request causes one upstream GET over a pooled
//! connection, and its response is constant. It is the lower bound for the cost of a cache miss on hyper.

use std::{convert::Infallible, net::SocketAddr};

use http_body_util::{BodyExt as _, Empty, Full};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header,
    service::service_fn,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

use crate::{Result, ids::id, limit, queries::TOKEN, serving};

type UpstreamClient = Client<HttpConnector, Empty<Bytes>>;

/// Responds to each request with `size` bytes of JSON after one GET to `upstream`. Never returns.
pub fn serve(upstream: SocketAddr, size: usize) -> Result<()> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let get = Request::get(format!("http://{upstream}/api/v1/appointments/{}", id(0)))
        .header(header::AUTHORIZATION, format!("Bearer {TOKEN}"))
        .header(header::ACCEPT, "application/json")
        .body(Empty::new())?;
    let body = Bytes::from(limit::constant_body(size));
    serving::serve(move |connection| {
        let (client, get, body) = (client.clone(), get.clone(), body.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (client, get, body) = (client.clone(), get.clone(), body.clone());
            async move { Ok::<_, Infallible>(relay(request, &client, get, body).await) }
        });
        serving::serve_connection(connection, service)
    });
    Ok(())
}

async fn relay(
    request: Request<Incoming>,
    client: &UpstreamClient,
    get: Request<Empty<Bytes>>,
    body: Bytes,
) -> Response<Full<Bytes>> {
    // A failed read also ends the connection.
    let _ = request.into_body().collect().await;
    if read_upstream(client, get).await { limit::json(body) } else { bad_gateway() }
}

/// Reads the whole upstream response, like a gateway without streaming. Returns whether it succeeded.
async fn read_upstream(client: &UpstreamClient, get: Request<Empty<Bytes>>) -> bool {
    match client.request(get).await {
        Ok(response) => response.status().is_success() && response.into_body().collect().await.is_ok(),
        Err(_) => false,
    }
}

fn bad_gateway() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response
}
