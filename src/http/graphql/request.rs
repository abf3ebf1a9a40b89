//! From the bytes of a body or of a query string to a [`GraphqlRequest`].

use std::{future::poll_fn, pin::pin, task::Poll};

use async_graphql::Variables;
use axum::{
    body::Bytes,
    http::{HeaderMap, StatusCode, header},
};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use crate::{
    error::{
        ApiError,
        limit::{Limit, LimitExceeded},
    },
    graphql::api::GraphqlRequest,
    http::{gateway::Gateway, refusal::Refusal},
};

/// How much of a body that is too large is still taken off the wire, so that the client is done sending and reads the
/// refusal. Without that, closing the connection under it would destroy the refusal on its way.
const MOST_SKIPPED: usize = 64 << 20;

/// Reads a body of at most `limits.body` bytes.
///
/// # Errors
/// 413 beyond that, 408 where it is not whole after `http.body_timeout` or at the deadline, 400 where the connection
/// breaks.
pub(crate) async fn read(
    body: &mut Incoming,
    headers: &HeaderMap,
    gateway: &Gateway,
    deadline: Instant,
) -> Result<Bytes, Refusal> {
    let mut reading = pin!(read_whole(body, headers, gateway.limits.body.as_u64() as usize));
    // Most bodies came with their heads, and are there at the second look. A clock for them would cost more than they
    // do.
    let mut has_looked = false;
    let at_once = poll_fn(|cx| match reading.as_mut().poll(cx) {
        Poll::Ready(read) => Poll::Ready(Some(read)),
        Poll::Pending if has_looked => Poll::Ready(None),
        Poll::Pending => {
            has_looked = true;
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    });
    if let Some(read) = at_once.await {
        return read;
    }
    let patience = Instant::now() + gateway.http.body_timeout;
    Box::pin(timeout_at(deadline.min(patience), reading)).await.unwrap_or_else(|_| {
        let limit = if deadline < patience { Limit::Deadline } else { Limit::BodyTimeout };
        let message =
            format!("The request's body was not there when the time that {limit} allows had passed.");
        Err(Refusal::of(StatusCode::REQUEST_TIMEOUT, LimitExceeded::bad_request(limit, None, None, message)))
    })
}

async fn read_whole(body: &mut Incoming, headers: &HeaderMap, most: usize) -> Result<Bytes, Refusal> {
    let stated = body.size_hint().exact();
    // Who waits for "100 Continue" has sent nothing, and is not asked to.
    if stated.is_some_and(|stated| stated > most as u64) && headers.contains_key(header::EXPECT) {
        return Err(too_large(most));
    }
    let (mut whole, mut rest) = (Bytes::new(), Vec::new());
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "The request's body broke off."));
        };
        // What is no data is a trailer, and nobody's.
        let Ok(piece) = frame.into_data() else { continue };
        if whole.len() + rest.len() + piece.len() > most {
            // What has come so far takes no memory while the rest comes.
            drop((whole, rest, piece));
            skip(body).await;
            return Err(too_large(most));
        }
        if whole.is_empty() {
            // It is seldom in pieces, and then need not be copied.
            whole = piece;
        } else {
            rest.extend_from_slice(&piece);
        }
    }
    if rest.is_empty() { Ok(whole) } else { Ok([whole.as_ref(), &rest].concat().into()) }
}

/// Reads a body that nobody wants to know, so that the client is done sending and reads why.
pub(crate) async fn pass_over(
    body: &mut Incoming,
    headers: &HeaderMap,
    gateway: &Gateway,
    deadline: Instant,
) {
    // Who waits for "100 Continue" has sent nothing, and is not asked to.
    if !headers.contains_key(header::EXPECT) {
        let _ = read(body, headers, gateway, deadline).await;
    }
}

async fn skip(body: &mut Incoming) {
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
    let error = LimitExceeded::bad_request(Limit::Body, Some(most as u64), None, message);
    Refusal::of(StatusCode::PAYLOAD_TOO_LARGE, error)
}

fn bad(message: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, message)
}

/// The parameters of a request, GraphQL over HTTP, section 5.1, before it is known that each is of its type.
#[derive(Default, Deserialize)]
pub(crate) struct Parameters {
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
pub(crate) fn from_json(body: &[u8]) -> Result<GraphqlRequest, Refusal> {
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
pub(crate) fn from_query_string(query: &[u8]) -> Result<GraphqlRequest, Refusal> {
    let pairs: Vec<(String, String)> =
        serde_urlencoded::from_bytes(query).map_err(|_| bad("The query string is not URL-encoded."))?;
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
            let _ = from_query_string(text.as_bytes());
            let _ = from_query_string(format!("query={text}&variables={text}&extensions={text}").as_bytes());
        }
    }
}
