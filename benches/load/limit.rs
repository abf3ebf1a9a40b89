//! The limit server: bare hyper with one constant answer. What it does in a second, no server of this build can beat.

use std::convert::Infallible;

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    header::{self, HeaderValue},
    service::service_fn,
};

use crate::serving;

/// Answers every request with `size` bytes of JSON, once its body is read. It never returns.
pub fn serve(size: usize) {
    let body = Bytes::from(answer(size));
    serving::run(move |connection| {
        let body = body.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let body = body.clone();
            async move {
                // A body that breaks off ends the connection anyway.
                let _ = request.into_body().collect().await;
                let mut response = Response::new(Full::new(body));
                let json = HeaderValue::from_static("application/json");
                response.headers_mut().insert(header::CONTENT_TYPE, json);
                Ok::<_, Infallible>(response)
            }
        });
        serving::converse(connection, service)
    });
}

/// The constant answer: a JSON string, `size` bytes long, its quotes included.
pub fn answer(size: usize) -> Vec<u8> {
    let mut answer = vec![b'x'; size.max(2)];
    answer[0] = b'"';
    answer[size.max(2) - 1] = b'"';
    answer
}
