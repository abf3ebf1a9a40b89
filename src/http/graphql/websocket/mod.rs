//! GraphQL over WebSocket: who may open one, and the handshake (RFC 6455, section 4.2). What is said over it is in
//! [`session`] and [`message`].

#[cfg(fuzzing)]
pub mod fuzzing;
pub mod message;
pub mod message_limits;
pub mod session;

use std::sync::Arc;

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, uri::Authority},
    response::{IntoResponse as _, Response},
};
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
        request_id::Since,
    },
};

/// The sub-protocol, as npm `graphql-ws` speaks it.
const PROTOCOL: &str = "graphql-transport-ws";

/// The only version of WebSocket that there is.
const VERSION: &str = "13";

/// Whether a request is to become a WebSocket. What else it may want to become is passed over (RFC 9110, section 7.8).
pub(crate) fn is_asked_for(headers: &HeaderMap) -> bool {
    has_token(headers, &header::UPGRADE, "websocket")
}

/// ResponseCache the handshake, and serves what it opens in a task of its own.
///
/// # Errors
/// 400 or 426 where it is no handshake of this protocol, 403 for a page of another site, 503 where there are as many
/// as there may be.
pub(crate) fn open(gateway: &Arc<Gateway>, mut request: Request<'_>) -> Result<Response, Refusal> {
    if *request.method() != Method::GET {
        return Err(method_not_allowed("A WebSocket is opened with GET.", "GET"));
    }
    let headers = request.headers();
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != VERSION) {
        return Err(Refusal::new(StatusCode::UPGRADE_REQUIRED, "The version of WebSocket here is 13.")
            .with_header(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION)));
    }
    let key =
        headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| has_token(headers, &header::CONNECTION, "upgrade"));
    let Some(key) = key.map(|key| derive_accept_key(key.as_bytes())) else {
        return Err(bad(
            "This is no WebSocket handshake: \"Connection: Upgrade\" or Sec-WebSocket-Key is missing.",
        ));
    };
    if !has_token(headers, &header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL) {
        return Err(bad(
            "The sub-protocol here is graphql-transport-ws: ask for it (Sec-WebSocket-Protocol).",
        ));
    }
    if !is_from_here(headers, &gateway.http.origins) {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "Pages of this origin may not open a WebSocket here; http.origins names those that may.",
        ));
    }
    let permit = gateway.websockets.admit()?;
    let token = token(headers, &gateway.limits);
    let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
        return Err(bad("This connection cannot become a WebSocket. Ask with HTTP/1.1."));
    };

    let span = request.body().id.span(Since::CarryingOut).unwrap_or_else(Span::current);
    let (gateway, open) = (gateway.clone(), gateway.drain.open());
    let served = async move {
        // That fails where the client has gone.
        if let Ok(upgraded) = upgrade.await {
            Session::new(gateway, token, open, upgraded).await.serve().await;
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

/// Whether a header that is a list with commas has `token`.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or_default().split(','))
        .any(|value| value.trim().eq_ignore_ascii_case(token))
}

/// Browsers let any page open a WebSocket to anywhere, and send the page's origin in one `Origin` header: it has to be
/// an origin of the requested host or one of `others`, letter by letter. Other clients send none.
pub(crate) fn is_from_here(headers: &HeaderMap, others: &[String]) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = origins.next() else { return true };
    let is_origin = |known: &String| known.as_bytes() == origin.as_bytes();
    origins.next().is_none()
        && (others.iter().any(is_origin) || origins_of_host(headers).iter().flatten().any(is_origin))
}

/// The origins of pages on the requested host as browsers write them: in lower case, without the default port. Both
/// schemes count, since TLS in front of the gateway cannot be seen here.
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
        is_from_here(&headers, &["https://app.example".to_owned()])
    }

    #[test]
    fn a_page_opens_a_websocket_to_where_it_is_from() {
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
        fn any_origin_is_read_without_a_panic(host: String, origin: String) {
            may_open(&host, [origin.as_str()]);
        }
    }
}
