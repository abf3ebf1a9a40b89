//! Connections beyond `http.max_connections`: each gets a response at once, although its request is not read.

use std::io::{Read as _, Write as _};

use axum::http::{HeaderMap, HeaderValue, header};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::{
    error::{
        OVERLOADED_RETRY_AFTER,
        limit::{Limit, LimitExceeded},
    },
    http::{refusal::Refusal, security_headers},
};

/// The number of bytes of the request that are discarded, so that the system does not reset the connection before the
/// client has read the response.
const MAX_DISCARDED: usize = 16 * 1024;

/// Sends a 503 and closes the connection. Never waits: a client that is too slow for it gets nothing.
pub(crate) fn refuse(stream: TcpStream, maximum: usize) {
    // The socket stays non-blocking. A new one has room for the response.
    let Ok(mut stream) = stream.into_std() else { return };
    let _ = stream.write_all(&response(maximum));
    let _ = stream.read(&mut [0; MAX_DISCARDED]);
}

fn response(maximum: usize) -> Vec<u8> {
    let id = Uuid::new_v4();
    tracing::debug!(request.id = %id, "connection refused");
    let message = format!(
        "Server overloaded: it has reached its limit of {maximum} connections (http.max_connections, or the limit on open \
         files). Connect again after the given time."
    );
    let error = LimitExceeded::overloaded(Limit::Connections, maximum, message);
    let document = Refusal::from(error).into_document();
    let mut headers: HeaderMap = security_headers::HEADERS.into_iter().collect();
    headers.extend([
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8")),
        (header::CONTENT_LENGTH, document.len().into()),
        (header::RETRY_AFTER, OVERLOADED_RETRY_AFTER.as_secs().into()),
        (header::CONNECTION, HeaderValue::from_static("close")),
    ]);
    let mut response = format!("HTTP/1.1 503 Service Unavailable\r\nx-request-id: {id}\r\n").into_bytes();
    for (name, value) in &headers {
        response.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    response.extend(b"\r\n");
    response.extend(document);
    response
}
