//! The ways to ask the same: by POST or GET, for an answer of either media type, compressed or not.

use reqwest::{Method, RequestBuilder};
use serde_json::json;

use super::{Gateway, Reply};

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    pub is_get: bool,
    pub accept: &'static str,
    /// What the answer may be compressed with; nothing, where that is not said.
    pub takes: &'static str,
}

const GRAPHQL: &str = "application/graphql-response+json";

impl Way {
    pub const POST: Self = Self { is_get: false, accept: GRAPHQL, takes: "" };
    pub const GET: Self = Self { is_get: true, ..Self::POST };

    /// Each with another answer, in bytes or headers, or found by another part of the request.
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

    /// Asks, and reads the answer as it was before it was compressed.
    pub async fn ask(self, gateway: &Gateway, token: &str, query: &str) -> Reply {
        Reply::of(self.request(gateway, Some(token), query)).await
    }
}

impl Gateway {
    /// How many requests were answered from the answer cache, and how many were looked up in vain.
    pub async fn answer_lookups(&self) -> (f64, f64) {
        let metrics = self.metrics().await;
        let of = |outcome: &str| metrics[&format!("gateway_answer_lookups_total{{outcome=\"{outcome}\"}}")];
        (of("hit"), of("miss"))
    }
}
