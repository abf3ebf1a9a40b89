//! Automatic persisted queries: requests with a hash, with or without the text, over each transport.

use reqwest::{Method, RequestBuilder};
use ring::digest;
use serde_json::{Value, json};

use super::{Event, Events, Gateway, GatewayResponse, Socket};

/// The SHA-256 hash of `text` in hexadecimal digits.
pub fn sha256(text: &str) -> String {
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The parameters of a request that names `text` by its hash.
pub fn by_hash(text: &str) -> Value {
    json!({ "extensions": { "persistedQuery": { "version": 1, "sha256Hash": sha256(text) } } })
}

/// The parameters of a request that registers `text`.
pub fn registering(text: &str) -> Value {
    let mut parameters = by_hash(text);
    parameters["query"] = text.into();
    parameters
}

/// The transport of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestTransport {
    Post,
    Get,
    EventStream,
    EventStreamGet,
    WebSocket,
}

impl RequestTransport {
    pub const EACH: [Self; 5] =
        [Self::Post, Self::Get, Self::EventStream, Self::EventStreamGet, Self::WebSocket];

    /// An HTTP request with `parameters` as `token`; without a token if it is empty.
    pub fn request(self, gateway: &Gateway, token: &str, parameters: &Value) -> RequestBuilder {
        let accept = match self {
            Self::EventStream | Self::EventStreamGet => "text/event-stream",
            _ => "application/graphql-response+json",
        };
        let request = self.request_without_accept(gateway, token, parameters).header("accept", accept);
        // An event stream is no JSON type for the CSRF protection.
        if self == Self::EventStreamGet { request.header("graphql-require-preflight", "1") } else { request }
    }

    /// The same without the header `Accept`.
    pub fn request_without_accept(
        self,
        gateway: &Gateway,
        token: &str,
        parameters: &Value,
    ) -> RequestBuilder {
        let request = match self {
            Self::Get | Self::EventStreamGet => {
                let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let pairs = parameters.as_object().unwrap().iter().map(|(name, value)| (name, text(value)));
                let query = serde_urlencoded::to_string(pairs.collect::<Vec<_>>()).unwrap();
                gateway.request(Method::GET, &format!("/graphql?{query}"))
            }
            _ => gateway
                .request(Method::POST, "/graphql")
                .header("content-type", "application/json")
                .body(parameters.to_string()),
        };
        if token.is_empty() { request } else { request.bearer_auth(gateway.secret(token)) }
    }

    /// Sends a request with `parameters` as `token`, and returns its first response document.
    pub async fn send(self, gateway: &Gateway, token: &str, parameters: &Value) -> Value {
        match self {
            Self::Post | Self::Get => {
                GatewayResponse::of(self.request(gateway, token, parameters)).await.body
            }
            Self::EventStream | Self::EventStreamGet => {
                match Events::of(self.request(gateway, token, parameters)).await.event().await {
                    Event::Next(document) => document,
                    other => panic!("expected a response, got {other:?}"),
                }
            }
            Self::WebSocket => {
                let mut socket = if token.is_empty() {
                    let mut socket = Socket::open(gateway).await;
                    socket.send_message(json!({ "type": "connection_init" })).await;
                    assert_eq!(socket.receive().await["type"], "connection_ack");
                    socket
                } else {
                    Socket::connect(gateway, token).await
                };
                let message = json!({ "type": "subscribe", "id": "1", "payload": parameters });
                socket.send_message(message).await;
                let mut message = socket.receive().await;
                match message["type"].as_str() {
                    Some("next") => message["payload"].take(),
                    Some("error") => json!({ "errors": message["payload"] }),
                    _ => panic!("expected a response, got {message}"),
                }
            }
        }
    }
}

/// The code and the message of the only error in a response without data.
#[track_caller]
pub fn rejection(document: &Value) -> (&str, &str) {
    assert_eq!(document.get("data"), None, "{document}");
    assert_eq!(document["errors"].as_array().map(Vec::len), Some(1), "{document}");
    let error = &document["errors"][0];
    (error["extensions"]["code"].as_str().unwrap(), error["message"].as_str().unwrap())
}

impl Gateway {
    /// Whether `token` can use `text` by its hash.
    pub async fn knows(&self, token: &str, text: &str) -> bool {
        let document = RequestTransport::Post.send(self, token, &by_hash(text)).await;
        let is_unknown = document["errors"][0]["extensions"]["code"] == "PERSISTED_QUERY_NOT_FOUND";
        assert!(
            !is_unknown || rejection(&document) == ("PERSISTED_QUERY_NOT_FOUND", "PersistedQueryNotFound")
        );
        !is_unknown
    }

    /// Registers `text` as `token`, which must be served data.
    pub async fn register(&self, token: &str, text: &str) -> Value {
        let document = RequestTransport::Post.send(self, token, &registering(text)).await;
        assert_eq!(document.get("errors"), None, "{document}");
        document
    }
}
