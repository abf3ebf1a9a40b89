//! Connections beyond the limit of their listener: each gets a response at once, although its request is not awaited.

use std::{
    io::{Read as _, Write as _},
    time::Duration,
};

use axum::http::{HeaderMap, HeaderValue, header};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy, sink},
    net::TcpStream,
    sync::Semaphore,
    time::timeout,
};
use uuid::Uuid;

use crate::{
    error::{
        OVERLOADED_RETRY_AFTER,
        limit::{Limit, LimitExceeded},
    },
    http::{refusal::Refusal, request_framing::FramingGuard, security_headers},
};

/// The number of bytes of the request that are looked at, for its `Accept` header.
const MAX_HEAD: usize = 16 * 1024;

/// The maximum number of refused connections that stay open until their clients have read the response. Further ones are
/// closed at once, which may reset them.
const MAX_LINGERING: usize = 64;

/// The maximum time for which a refused connection stays open.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// The maximum number of bytes that are discarded meanwhile.
const MAX_DISCARDED: u64 = 1 << 20;

static LINGERING: Semaphore = Semaphore::const_new(MAX_LINGERING);

/// Sends a 503 and closes the connection. Never waits: a client that is too slow for the response gets nothing.
pub(crate) fn refuse(stream: TcpStream, limit: Limit, maximum: usize) {
    // The socket stays non-blocking. A new one has room for the response.
    let Ok(mut stream) = stream.into_std() else { return };
    let mut head = [0; MAX_HEAD];
    let received = stream.read(&mut head).unwrap_or(0);
    let mut framing = FramingGuard::default();
    framing.inspect(&mut head[..received]);
    if stream.write_all(&response(limit, maximum, framing.error_content_type())).is_err() {
        return;
    }
    let (Ok(stream), Ok(permit)) = (TcpStream::from_std(stream), LINGERING.try_acquire()) else { return };
    tokio::spawn(async move {
        let _permit = permit;
        // The system resets a connection that is closed with unread bytes, and the response may be lost.
        let _ = timeout(LINGER_TIMEOUT, discard(stream)).await;
    });
}

/// Tells the client that no more is sent, and reads until it has closed the connection.
async fn discard(mut stream: TcpStream) -> std::io::Result<()> {
    stream.shutdown().await?;
    copy(&mut stream.take(MAX_DISCARDED), &mut sink()).await.map(|_| ())
}

fn response(limit: Limit, maximum: usize, content_type: &'static str) -> Vec<u8> {
    let id = Uuid::new_v4();
    tracing::debug!(request.id = %id, "connection refused");
    let remedy = if limit == Limit::Connections { ", or the limit on open files" } else { "" };
    let message = format!(
        "Server overloaded: it has reached its limit of {maximum} connections ({limit}{remedy}). Connect again after the \
         given time."
    );
    let document = Refusal::from(LimitExceeded::overloaded(limit, maximum, message)).into_document();
    let mut headers: HeaderMap = security_headers::HEADERS.into_iter().collect();
    headers.extend([
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
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
