//! Mutations with an idempotency key.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::{Gateway, GatewayResponse, canary};

/// A mutation with a key.
#[derive(Debug, Clone)]
pub struct Keyed {
    pub token: String,
    pub key: String,
    pub parameters: Value,
}

impl Keyed {
    /// The operation that consists of a document and variables, as `token`.
    pub fn of(token: &str, key: &str, (query, variables): (String, Value)) -> Self {
        let parameters = json!({ "query": query, "variables": canary::with_variable(variables) });
        Self { token: token.to_owned(), key: key.to_owned(), parameters }
    }

    /// The same as another caller.
    pub fn by(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// The same with another key.
    pub fn with_key(&self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self.clone() }
    }

    /// The same with other parameters.
    pub fn with_parameters(&self, parameters: Value) -> Self {
        Self { parameters, ..self.clone() }
    }

    pub fn request(&self, gateway: &Gateway) -> RequestBuilder {
        self.request_without_accept(gateway).header("accept", "application/graphql-response+json")
    }

    pub fn request_without_accept(&self, gateway: &Gateway) -> RequestBuilder {
        gateway
            .request(Method::POST, "/graphql")
            .bearer_auth(gateway.secret(&self.token))
            .header("content-type", "application/json")
            // A key may be personal data or a secret, so that no log contains it.
            .header("idempotency-key", gateway.secret(&self.key))
            .body(self.parameters.to_string())
    }

    pub async fn send(&self, gateway: &Gateway) -> GatewayResponse {
        GatewayResponse::of(self.request(gateway)).await
    }
}
