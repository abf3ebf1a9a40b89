//! GraphQL over WebSocket: the opening handshake (RFC 6455, section 4.2) and its origin check. [`session`] runs the
//! protocol on the open WebSocket, [`message`] has its messages, [`message_limits`] bounds
//! them and [`close_code`] lists the close codes.

pub mod close_code;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod message;
pub mod message_limits;
pub mod session;

use std::sync::Arc;

use axum::{
    http::{self, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header, uri::Authority},
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::upgrade::OnUpgrade;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tracing::{Instrument as _, Span};

use self::session::Session;
use crate::{
    auth::bearer::token,
    error::ApiError,
    http::{
        gateway::{Gateway, Request},
        refusal::{Refusal, method_not_allowed},
        request_id::SpanStart,
    },
};

/// The sub-protocol of npm `graphql-ws`.
const PROTOCOL: &str = "graphql-transport-ws";

/// The WebSocket protocol version of RFC 6455.
const VERSION: &str = "13";

/// The length of the nonce in `Sec-WebSocket-Key`.
const NONCE: usize = 16;

/// Whether a request asks for an upgrade to WebSocket. Other upgrades, and those of HTTP/1.0, are ignored (RFC 9110,
/// section 7.8).
pub(crate) fn is_upgrade<B>(request: &http::Request<B>) -> bool {
    request.version() >= Version::HTTP_11 && has_token(request.headers(), &header::UPGRADE, "websocket")
}

/// Completes the handshake, and spawns a task that serves the WebSocket.
///
/// # Errors
/// 400 or 426 for a handshake that is malformed or of another protocol, 403 for a page of another site, 503 at the
/// concurrency limit.
pub(crate) fn upgrade(gateway: &Arc<Gateway>, mut request: Request<'_>) -> Result<Response, Refusal> {
    if *request.method() != Method::GET {
        return Err(method_not_allowed("Method not allowed. Open a WebSocket with GET.", "GET"));
    }
    let headers = request.headers();
    if single(headers, &header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != VERSION) {
        return Err(Refusal::new(
            StatusCode::UPGRADE_REQUIRED,
            "Unsupported WebSocket version. Use version 13.",
        )
        .with_header(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION))
        .with_header(header::UPGRADE, HeaderValue::from_static("websocket"))
        .with_header(header::CONNECTION, HeaderValue::from_static("upgrade")));
    }
    if !has_token(headers, &header::CONNECTION, "upgrade") {
        return Err(bad("Incomplete WebSocket handshake. Send \"Connection: Upgrade\"."));
    }
    let key = single(headers, &header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let Some(key) = key.filter(|key| STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == NONCE)) else {
        return Err(bad(
            "Missing or invalid Sec-WebSocket-Key. Send exactly one, with 16 random bytes in base64.",
        ));
    };
    let key = derive_accept_key(key);
    if !has_token(headers, &header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL) {
        return Err(bad(
            "Unsupported WebSocket sub-protocol. Send \"Sec-WebSocket-Protocol: graphql-transport-ws\".",
        ));
    }
    if !is_allowed_origin(headers, &gateway.http.origins) {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "WebSocket rejected: this origin is not listed in http.origins.",
        ));
    }
    let permit = gateway.websockets.admit()?;
    let token = token(headers, &gateway.limits);
    let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
        return Err(bad("Connection cannot be upgraded to a WebSocket. Use HTTP/1.1."));
    };

    let id = request.body().id;
    let request_id = id.as_str().into();
    let span = id.span(SpanStart::Execution).unwrap_or_else(Span::current);
    let (gateway, shutdown) = (gateway.clone(), gateway.shutdown.guard());
    let served = async move {
        // The upgrade fails if the client has disconnected.
        if let Ok(upgraded) = upgrade.await {
            Session::new(gateway, token, request_id, shutdown, upgraded).await.serve().await;
        }
        drop(permit);
    };
    tokio::spawn(served.instrument(span));

    let accept = HeaderValue::from_str(&key).map_err(|_| Refusal::from(ApiError::Internal))?;
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("Upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
        (header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL)),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

fn bad(message: &'static str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, message)
}

/// The value of a header that occurs exactly once.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Whether a header with a comma-separated list contains `token`.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or_default().split(','))
        .any(|value| value.trim().eq_ignore_ascii_case(token))
}

/// Protects against cross-site WebSocket hijacking: browsers let any page open a WebSocket to any host, and send the
/// page's origin in one `Origin` header. It must equal an origin of the requested host or one of `others`, byte for
/// byte. Other clients send no `Origin`.
pub(crate) fn is_allowed_origin(headers: &HeaderMap, others: &[String]) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = origins.next() else { return true };
    let is_origin = |allowed: &String| allowed.as_bytes() == origin.as_bytes();
    origins.next().is_none()
        && (others.iter().any(is_origin) || origins_of_host(headers).iter().flatten().any(is_origin))
}

/// The origins of pages on the requested host, in the form that browsers send: in lower case, without the default port.
/// Both schemes are included, since a proxy may terminate TLS in front of the gateway.
fn origins_of_host(headers: &HeaderMap) -> Option<[String; 2]> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = Authority::try_from(hosts.next()?.as_bytes()).ok()?;
    let has_user = host.as_str().contains('@');
    if hosts.next().is_some() || has_user || host.host().is_empty() {
        return None;
    }
    let host = host.as_str().to_ascii_lowercase();
    Some([("http", ":80"), ("https", ":443")].map(|(scheme, default_port)| {
        format!("{scheme}://{}", host.strip_suffix(default_port).unwrap_or(&host))
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn may_open<'a>(host: &str, origins: impl IntoIterator<Item = &'a str>) -> bool {
        let mut headers = HeaderMap::new();
        let origins = origins.into_iter().map(|origin| (header::ORIGIN, origin));
        for (name, value) in origins.chain([(header::HOST, host)]) {
            if let Ok(value) = value.parse() {
                headers.append(name, value);
            }
        }
        is_allowed_origin(&headers, &["https://app.example".to_owned()])
    }

    #[test]
    fn only_pages_of_allowed_origins_open_a_websocket() {
        for (host, origin) in [
            ("a.example", "https://a.example"),
            ("a.example", "http://a.example"),
            ("A.example:443", "https://a.example"),
            ("a.example:8080", "http://a.example:8080"),
            ("[::1]:8080", "http://[::1]:8080"),
            ("a.example", "https://app.example"),
        ] {
            assert!(may_open(host, Some(origin)), "{origin} to {host}");
        }
        for (host, origin) in [
            ("a.example", "https://b.example"),
            ("a.example", "https://a.example:8443"),
            ("a.example:8080", "http://a.example"),
            ("a.example", "http://a.example.evil"),
            ("a.example", "http://app.example"),
            ("a.example", "null"),
            ("null", "null"),
            ("a.example", ""),
            ("", "https://a.example"),
            ("a.example", "chrome-extension://a.example"),
            ("a.example", "https://a.example/"),
            ("a.example", "https://a.example/path"),
            ("a.example", "https://a.example?"),
            ("a.example", "https://a.example#"),
            ("a.example", "https://a.example:443"),
            ("a.example:443", "https://a.example:443"),
            ("a.example", "https://a.example:"),
            ("a.example", "HTTPS://a.example"),
            ("A.example", "https://A.example"),
            ("a.example", "https://user@a.example"),
            ("user@a.example", "https://user@a.example"),
            ("a.example", "https:a.example"),
            ("a.example", "https:\\\\a.example"),
            ("a.example", "https://a.example https://a.example"),
            ("a.example", "https://app.example/"),
            ("a.example", "https://APP.example"),
            ("a.example", "https://app.example:443"),
            ("a.example/", "https://a.example/"),
        ] {
            assert!(!may_open(host, Some(origin)), "{origin} to {host}");
        }
        assert!(may_open("a.example", None));
        assert!(!may_open("a.example", ["https://a.example"; 2]));
        assert!(!may_open("a.example", ["https://app.example", "https://evil.example"]));
    }

    proptest! {
        #[test]
        fn the_origin_check_never_panics(host: String, origin: String) {
            may_open(&host, [origin.as_str()]);
        }
    }
}
