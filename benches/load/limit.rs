//! The limit server: bare hyper with a constant response. It is the upper bound for any server on hyper in this build.

use std::convert::Infallible;

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    header::{self, HeaderValue},
    service::service_fn,
};

use crate::serving;

/// Reads each request and responds with `size` bytes of JSON. Never returns.
pub fn serve(size: usize) {
    let body = Bytes::from(constant_body(size));
    serving::serve(move |connection| {
        let body = body.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let body = body.clone();
            async move {
                // A failed read also ends the connection.
                let _ = request.into_body().collect().await;
                Ok::<_, Infallible>(json(body))
            }
        });
        serving::serve_connection(connection, service)
    });
}

pub fn json(body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The constant response body: a JSON string of `size` bytes, including its quotes.
pub fn constant_body(size: usize) -> Vec<u8> {
    let mut body = vec![b'x'; size.max(2)];
    body[0] = b'"';
    body[size.max(2) - 1] = b'"';
    body
}
