//! Forms of the same request: POST or GET, either media type, compressed or not, with the text or its hash, alone or in an array.

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use super::{
    Gateway, GatewayResponse,
    persisted_query::{RequestTransport, by_hash, registering},
};

/// A form of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestForm {
    pub is_get: bool,
    pub accept: &'static str,
    /// The value of `Accept-Encoding`; empty without the header.
    pub takes: &'static str,
    /// Whether the text is named by its hash, and sent only if the gateway does not know it.
    pub is_by_hash: bool,
    /// Whether the request is the only one of an array.
    pub is_in_array: bool,
}

const GRAPHQL: &str = "application/graphql-response+json";

impl RequestForm {
    pub const POST: Self =
        Self { is_get: false, accept: GRAPHQL, takes: "", is_by_hash: false, is_in_array: false };
    pub const GET: Self = Self { is_get: true, ..Self::POST };

    pub const BY_HASH: [Self; 2] =
        [Self { is_by_hash: true, ..Self::POST }, Self { is_by_hash: true, ..Self::GET }];

    pub const IN_ARRAY: [Self; 2] =
        [Self { is_in_array: true, ..Self::POST }, Self { is_in_array: true, ..Self::BY_HASH[0] }];

    /// Forms that differ in the bytes or headers of the response, or in the place of the query.
    pub const EACH: [Self; 8] = [
        Self::POST,
        Self::GET,
        Self::POST.accepting("application/json"),
        Self::GET.accepting("application/json"),
        Self::POST.taking("br"),
        Self::POST.taking("gzip"),
        Self::GET.taking("br"),
        Self::GET.taking("gzip"),
    ];

    pub const fn taking(self, takes: &'static str) -> Self {
        Self { takes, ..self }
    }

    pub const fn accepting(self, accept: &'static str) -> Self {
        Self { accept, ..self }
    }

    /// A request for `query` as `token`.
    pub fn request(self, gateway: &Gateway, token: Option<&str>, query: &str) -> RequestBuilder {
        let parameters = if self.is_by_hash { by_hash(query) } else { json!({ "query": query }) };
        self.with_parameters(gateway, token, &parameters)
    }

    fn with_parameters(self, gateway: &Gateway, token: Option<&str>, parameters: &Value) -> RequestBuilder {
        let transport = if self.is_get { RequestTransport::Get } else { RequestTransport::Post };
        let array = self.is_in_array.then(|| json!([parameters]));
        let parameters = array.as_ref().unwrap_or(parameters);
        let request = transport.request_without_accept(gateway, token.unwrap_or_default(), parameters);
        let request = request.header("accept", self.accept);
        if self.takes.is_empty() { request } else { request.header("accept-encoding", self.takes) }
    }

    /// Sends the request and reads the response, decompressed and taken from its array. An unknown text is registered.
    pub async fn ask(self, gateway: &Gateway, token: &str, query: &str) -> GatewayResponse {
        self.ask_if_none_match(gateway, token, query, "").await
    }

    /// Like [`ask`](Self::ask), with a value of `If-None-Match`, unless it is empty.
    pub async fn ask_if_none_match(
        self,
        gateway: &Gateway,
        token: &str,
        query: &str,
        tags: &str,
    ) -> GatewayResponse {
        let send = async |request: RequestBuilder| {
            let request = if tags.is_empty() { request } else { request.header("if-none-match", tags) };
            let mut reply = GatewayResponse::of(request).await;
            if let Some(result) = reply.body.get_mut(0) {
                reply.body = result.take();
            }
            reply
        };
        let reply = send(self.request(gateway, Some(token), query)).await;
        if self.is_by_hash && reply.codes() == ["PERSISTED_QUERY_NOT_FOUND"] {
            return send(self.with_parameters(gateway, Some(token), &registering(query))).await;
        }
        reply
    }
}

impl Gateway {
    /// Hits and misses of the response cache.
    pub async fn response_cache_lookups(&self) -> (f64, f64) {
        let metrics = self.metrics().await;
        let of = |outcome: &str| metrics[&format!("gateway_answer_lookups_total{{outcome=\"{outcome}\"}}")];
        (of("hit"), of("miss"))
    }
}
