//! Forms of the same request: POST or GET, either media type, compressed or not.

use reqwest::{Method, RequestBuilder};
use serde_json::json;

use super::{Gateway, GatewayResponse};

/// A form of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestForm {
    pub is_get: bool,
    pub accept: &'static str,
    /// The value of `Accept-Encoding`; empty without the header.
    pub takes: &'static str,
}

const GRAPHQL: &str = "application/graphql-response+json";

impl RequestForm {
    pub const POST: Self = Self { is_get: false, accept: GRAPHQL, takes: "" };
    pub const GET: Self = Self { is_get: true, ..Self::POST };

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
        let request = if self.is_get {
            let parameters = serde_urlencoded::to_string([("query", query)]).unwrap();
            gateway.request(Method::GET, &format!("/graphql?{parameters}"))
        } else {
            let request =
                gateway.request(Method::POST, "/graphql").header("content-type", "application/json");
            request.body(json!({ "query": query }).to_string())
        };
        let request = request.header("accept", self.accept);
        let request =
            if self.takes.is_empty() { request } else { request.header("accept-encoding", self.takes) };
        match token {
            Some(token) => request.bearer_auth(gateway.secret(token)),
            None => request,
        }
    }

    /// Sends the request and reads the response, decompressed.
    pub async fn ask(self, gateway: &Gateway, token: &str, query: &str) -> GatewayResponse {
        GatewayResponse::of(self.request(gateway, Some(token), query)).await
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
