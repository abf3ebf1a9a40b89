//! From the bytes of a body or of a query string to a [`GraphqlRequest`].

use async_graphql::Variables;
use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, StatusCode, header},
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::{Gateway, Refusal};
use crate::graphql::{GraphqlRequest, error::ApiError, limit::OverLimit};

/// How much of a body that is too large is still taken off the wire, so that the client is done sending and reads the
/// refusal. Without that, closing the connection under it would destroy the refusal on its way.
const MOST_SKIPPED: usize = 64 << 20;

/// Reads a body of at most `limits.body` bytes.
///
/// # Errors
/// 413 beyond that, 408 where it is not whole after `http.body_timeout` or at the deadline, 400 where the connection
/// breaks.
pub(super) async fn read(
    body: Body,
    headers: &HeaderMap,
    gateway: &Gateway,
    deadline: Instant,
) -> Result<Bytes, Refusal> {
    let most = gateway.limits.body.as_u64() as usize;
    let reading = async {
        let stated =
            headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        // Who waits for "100 Continue" has sent nothing, and is not asked to.
        let waits = headers.contains_key(header::EXPECT);
        if waits && stated.is_some_and(|stated: u64| stated > most as u64) {
            return Err(too_large(most));
        }
        let mut body = body;
        match Limited::new(&mut body, most).collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => {
                skip(body).await;
                Err(too_large(most))
            }
            Err(_) => Err(Refusal::new(StatusCode::BAD_REQUEST, "The request's body broke off.")),
        }
    };
    let patience = Instant::now() + gateway.http.body_timeout;
    timeout_at(deadline.min(patience), reading).await.unwrap_or_else(|_| {
        let limit = if deadline < patience { "http.deadline" } else { "http.body_timeout" };
        let message =
            format!("The request's body was not there when the time that {limit} allows had passed.");
        Err(Refusal::of(StatusCode::REQUEST_TIMEOUT, OverLimit::bad_request(limit, None, None, message)))
    })
}

/// Reads a body that nobody wants to know, so that the client is done sending and reads why.
pub(super) async fn pass_over(body: Body, headers: &HeaderMap, gateway: &Gateway, deadline: Instant) {
    // Who waits for "100 Continue" has sent nothing, and is not asked to.
    if !headers.contains_key(header::EXPECT) {
        let _ = read(body, headers, gateway, deadline).await;
    }
}

async fn skip(mut body: Body) {
    let mut left = MOST_SKIPPED;
    while let Some(Ok(frame)) = body.frame().await {
        left = left.saturating_sub(frame.data_ref().map_or(0, |data| data.len()));
        if left == 0 {
            return;
        }
    }
}

fn too_large(most: usize) -> Refusal {
    let message = format!("The request's body is larger than the {most} bytes that limits.body allows.");
    let error = OverLimit::bad_request("body", Some(most as u64), None, message);
    Refusal::of(StatusCode::PAYLOAD_TOO_LARGE, error)
}

fn bad(message: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, message)
}

/// The parameters of a request, GraphQL over HTTP, section 5.1, before it is known that each is of its type.
#[derive(Default, Deserialize)]
pub(super) struct Parameters {
    query: Option<Value>,
    #[serde(rename = "operationName")]
    operation_name: Option<Value>,
    variables: Option<Value>,
    extensions: Option<Value>,
}

/// A request from the body of a POST.
///
/// # Errors
/// 400 with what is wrong and where, without repeating it.
pub(super) fn from_json(body: &[u8]) -> Result<GraphqlRequest, Refusal> {
    match body.trim_ascii_start().first() {
        Some(b'{') | None => {}
        Some(b'[') => {
            return Err(bad(
                "Several operations in one request (array batching) are not taken. Send them one by one, or \
                            ask for several fields in one operation.",
            ));
        }
        Some(_) => {
            return Err(bad("The request's body is no JSON object such as {\"query\": \"{ __typename }\"}."));
        }
    }
    let parameters: Parameters = serde_json::from_slice(body).map_err(|error| {
        // The library's own text may repeat what it found.
        let what = match error.classify() {
            serde_json::error::Category::Data => "has a parameter twice",
            _ => "is not valid JSON",
        };
        bad(format!("The request's body {what} (line {}, column {}).", error.line(), error.column()))
    })?;
    parameters.try_into()
}

/// A request from the query string of a GET.
///
/// # Errors
/// 400 with what is wrong, without repeating it.
pub(super) fn from_query_string(query: &str) -> Result<GraphqlRequest, Refusal> {
    let pairs: Vec<(String, String)> =
        serde_urlencoded::from_str(query).map_err(|_| bad("The query string is not URL-encoded."))?;
    let mut parameters = Parameters::default();
    for (name, text) in pairs {
        let (slot, is_json) = match name.as_str() {
            "query" => (&mut parameters.query, false),
            "operationName" => (&mut parameters.operation_name, false),
            "variables" => (&mut parameters.variables, true),
            "extensions" => (&mut parameters.extensions, true),
            _ => continue,
        };
        if slot.is_some() {
            return Err(bad(format!("The parameter \"{name}\" is there twice.")));
        }
        *slot = Some(match is_json {
            true if text.is_empty() => Value::Null,
            true => serde_json::from_str(&text)
                .map_err(|_| bad(format!("The parameter \"{name}\" is not valid JSON.")))?,
            false => Value::String(text),
        });
    }
    parameters.try_into()
}

impl TryFrom<Parameters> for GraphqlRequest {
    type Error = Refusal;

    fn try_from(parameters: Parameters) -> Result<Self, Refusal> {
        let extensions = match parameters.extensions {
            None | Some(Value::Null) => None,
            Some(Value::Object(extensions)) => Some(extensions),
            Some(_) => return Err(bad("The parameter \"extensions\" is no object.")),
        };
        let query = match parameters.query {
            Some(Value::String(query)) => query,
            None | Some(Value::Null) => {
                let persisted =
                    extensions.is_some_and(|extensions| extensions.contains_key("persistedQuery"));
                return Err(if persisted {
                    ApiError::PersistedQueryNotSupported.into()
                } else {
                    bad("The parameter \"query\" is missing.")
                });
            }
            Some(_) => return Err(bad("The parameter \"query\" is no string.")),
        };
        let operation_name = match parameters.operation_name {
            None | Some(Value::Null) => None,
            Some(Value::String(name)) => Some(name),
            Some(_) => return Err(bad("The parameter \"operationName\" is no string.")),
        };
        let variables = match parameters.variables {
            None | Some(Value::Null) => Variables::default(),
            Some(variables @ Value::Object(_)) => Variables::from_json(variables),
            Some(_) => return Err(bad("The parameter \"variables\" is no object.")),
        };
        Ok(Self { query, operation_name, variables })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_body_is_read_without_a_panic(bytes: Vec<u8>) {
            let _ = from_json(&bytes);
        }

        #[test]
        fn any_query_string_is_read_without_a_panic(text: String) {
            let _ = from_query_string(&text);
            let _ = from_query_string(&format!("query={text}&variables={text}&extensions={text}"));
        }
    }
}
