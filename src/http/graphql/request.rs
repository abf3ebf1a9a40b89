//! Parsing of request bodies and query strings to a [`GraphqlRequest`] (GraphQL over HTTP, section 5).

use std::{borrow::Cow, future::poll_fn, pin::pin, task::Poll};

use async_graphql::Variables;
use axum::{
    body::Bytes,
    http::{HeaderValue, StatusCode, header},
};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use crate::{
    error::{
        ApiError,
        limit::{Limit, LimitExceeded},
    },
    graphql::{
        api::GraphqlRequest,
        persisted::{RequestDocument, id::DocumentId},
    },
    http::{gateway::Gateway, refusal::Refusal},
};

/// Reads a body of at most `limits.body` bytes.
///
/// # Errors
/// 413 for a larger body, as soon as that is known; 408 for one that is incomplete after `http.body_timeout` or at the
/// deadline, 400 for a broken connection. The first two close the connection.
pub(crate) async fn read(
    body: &mut Incoming,
    gateway: &Gateway,
    deadline: Instant,
) -> Result<Bytes, Refusal> {
    let mut read = pin!(read_whole(body, gateway.limits.body.as_u64() as usize));
    // Most bodies arrive with their head and are complete at the second poll. A timer would cost more than reading
    // them.
    let mut is_second_poll = false;
    let without_timer = poll_fn(|cx| match read.as_mut().poll(cx) {
        Poll::Ready(body) => Poll::Ready(Some(body)),
        Poll::Pending if is_second_poll => Poll::Ready(None),
        Poll::Pending => {
            is_second_poll = true;
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    });
    if let Some(body) = without_timer.await {
        return body;
    }
    let body_deadline = Instant::now() + gateway.http.body_timeout;
    Box::pin(timeout_at(deadline.min(body_deadline), read)).await.unwrap_or_else(|_| {
        let limit = if deadline < body_deadline { Limit::Deadline } else { Limit::BodyTimeout };
        let message = format!("Request body not received in time ({limit}). Send the request again.");
        Err(unread(StatusCode::REQUEST_TIMEOUT, LimitExceeded::bad_request(limit, None, None, message)))
    })
}

async fn read_whole(body: &mut Incoming, max_length: usize) -> Result<Bytes, Refusal> {
    // The Content-Length, if there is one.
    if body.size_hint().lower() > max_length as u64 {
        return Err(too_large(max_length));
    }
    let (mut first, mut rest) = (Bytes::new(), Vec::new());
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "Request body is incomplete: the connection failed. Send the request again.",
            ));
        };
        // Trailers are ignored.
        let Ok(piece) = frame.into_data() else { continue };
        if first.len() + rest.len() + piece.len() > max_length {
            return Err(too_large(max_length));
        }
        if first.is_empty() {
            // Most bodies are a single piece, which is not copied.
            first = piece;
        } else {
            rest.extend_from_slice(&piece);
        }
    }
    if rest.is_empty() { Ok(first) } else { Ok([first.as_ref(), &rest].concat().into()) }
}

fn too_large(max_length: usize) -> Refusal {
    let message = format!("Request body exceeds the {max_length}-byte limit (limits.body).");
    let error = LimitExceeded::bad_request(Limit::Body, Some(max_length as u64), None, message);
    unread(StatusCode::PAYLOAD_TOO_LARGE, error)
}

/// A refusal of a body that is not read to its end. The response does not wait for the rest.
fn unread(status: StatusCode, error: ApiError) -> Refusal {
    Refusal::with_status(status, error).with_header(header::CONNECTION, HeaderValue::from_static("close"))
}

/// A request that cannot be parsed.
fn unparsable(message: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, message)
}

/// A body that is not valid JSON. The message has the position; serde_json's own message may repeat parts of the body.
pub(crate) fn invalid_json(error: serde_json::Error) -> Refusal {
    let (line, column) = (error.line(), error.column());
    unparsable(format!("Request body is not valid JSON (line {line}, column {column})."))
}

/// A request that is not well-formed: JSON whose parameters are missing, duplicated or of the wrong type.
pub(crate) fn malformed(message: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, message)
}

/// The parameters of a request (GraphQL over HTTP, section 5.1), before their types are checked.
#[derive(Default, Deserialize)]
pub(crate) struct Parameters {
    pub(crate) query: Option<Value>,
    #[serde(rename = "operationName")]
    pub(crate) operation_name: Option<Value>,
    pub(crate) variables: Option<Value>,
    pub(crate) extensions: Option<Value>,
    /// The id of a persisted document, under the names that clients use.
    #[serde(rename = "documentId")]
    pub(crate) document_id: Option<Value>,
    pub(crate) doc_id: Option<Value>,
    pub(crate) id: Option<Value>,
    /// The id in the path of the request.
    #[serde(skip)]
    pub(crate) path_id: Option<DocumentId>,
}

/// Parses the body of a POST with a single operation, for the persisted document with the id in the path, if any.
///
/// # Errors
/// 400 for invalid JSON, 422 for a request that is not well-formed. The message has the position of the error, but repeats
/// nothing of the body.
pub(crate) fn from_json(body: &[u8], path_id: Option<&DocumentId>) -> Result<GraphqlRequest, Refusal> {
    // The parser of the parameters stops at the first of the wrong kind, before the rest has been parsed.
    let is_json = || serde_json::from_slice::<IgnoredAny>(body).map_err(invalid_json).map(drop);
    match body.trim_ascii_start().first() {
        Some(b'{') | None => {}
        Some(_) => {
            is_json()?;
            return Err(malformed(
                "Request body must be a JSON object such as {\"query\": \"{ __typename }\"}.",
            ));
        }
    }
    let parameters: Parameters = match serde_json::from_slice(body) {
        Ok(parameters) => parameters,
        Err(error) if error.is_data() => {
            is_json()?;
            let (line, column) = (error.line(), error.column());
            return Err(malformed(format!(
                "Request body has a duplicate parameter (line {line}, column {column})."
            )));
        }
        Err(error) => return Err(invalid_json(error)),
    };
    Parameters { path_id: path_id.cloned(), ..parameters }.try_into()
}

/// Parses the query string of a GET, for the persisted document with the id in the path, if any.
///
/// # Errors
/// 400 for invalid encoding or JSON, 422 for a request that is not well-formed. The message repeats nothing of the query
/// string.
pub(crate) fn from_query_string(
    query: &[u8],
    path_id: Option<&DocumentId>,
) -> Result<GraphqlRequest, Refusal> {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_bytes(query)
        .map_err(|_| unparsable("Query string is not valid URL encoding."))?;
    let mut parameters = Parameters { path_id: path_id.cloned(), ..Parameters::default() };
    for (name, text) in pairs {
        let (slot, is_json) = match name.as_str() {
            "query" => (&mut parameters.query, false),
            "operationName" => (&mut parameters.operation_name, false),
            "variables" => (&mut parameters.variables, true),
            "extensions" => (&mut parameters.extensions, true),
            "documentId" => (&mut parameters.document_id, false),
            "doc_id" => (&mut parameters.doc_id, false),
            "id" => (&mut parameters.id, false),
            _ => continue,
        };
        if slot.is_some() {
            return Err(malformed(format!("Parameter \"{name}\" is duplicated. Send it once.")));
        }
        *slot = Some(match is_json {
            true if text.is_empty() => Value::Null,
            true => serde_json::from_str(&text)
                .map_err(|_| unparsable(format!("Parameter \"{name}\" is not valid JSON.")))?,
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
            Some(_) => return Err(malformed("Parameter \"extensions\" must be an object.")),
        };
        let query = match parameters.query {
            None | Some(Value::Null) => None,
            Some(Value::String(query)) => Some(query),
            Some(_) => return Err(malformed("Parameter \"query\" must be a string.")),
        };
        let hash = match extensions.and_then(|mut it| it.remove("persistedQuery")) {
            None | Some(Value::Null) => None,
            Some(Value::Object(persisted)) => Some(DocumentId::of_hash(&sha256_hash(persisted)?)),
            Some(_) => return Err(malformed("Parameter \"extensions.persistedQuery\" must be an object.")),
        };
        let mut ids = Vec::new();
        ids.extend(parameters.path_id);
        for (name, id) in [("documentId", parameters.document_id), ("doc_id", parameters.doc_id)] {
            match id {
                None | Some(Value::Null) => {}
                Some(Value::String(id)) => ids.push(DocumentId::new(&id)),
                Some(_) => return Err(malformed(format!("Parameter \"{name}\" must be a string."))),
            }
        }
        let is_registration = hash.is_some();
        ids.extend(hash);
        let has_text = query.as_ref().is_some_and(|text| !text.is_empty());
        match parameters.id {
            None | Some(Value::Null) => {}
            // Some clients number their requests in `id`, beside the text.
            Some(Value::String(id)) if !has_text || ids.is_empty() => ids.push(DocumentId::new(&id)),
            Some(_) if has_text => {}
            Some(_) => return Err(malformed("Parameter \"id\" must be a string.")),
        }
        let mut ids = ids.into_iter();
        let id = ids.next();
        if ids.any(|other| id.as_ref() != Some(&other)) {
            return Err(malformed(
                "The request has several ids of documents that differ (path, \"documentId\", \"doc_id\", \"id\", \
                 \"extensions.persistedQuery\"). Send one.",
            ));
        }
        let document = match (query, id) {
            (Some(text), None) => RequestDocument::Text(text),
            (None, None) => return Err(malformed("Parameter \"query\" is missing.")),
            (Some(text), Some(id)) if has_text && is_registration => {
                RequestDocument::Registration { text, id }
            }
            (Some(text), Some(id)) if has_text => RequestDocument::Named { text, id },
            // Some clients send an empty text in place of none.
            (_, Some(id)) => RequestDocument::Persisted(id),
        };
        let operation_name = match parameters.operation_name {
            None | Some(Value::Null) => None,
            Some(Value::String(name)) => Some(name),
            Some(_) => return Err(malformed("Parameter \"operationName\" must be a string.")),
        };
        let variables = match parameters.variables {
            None | Some(Value::Null) => Variables::default(),
            Some(variables @ Value::Object(_)) => Variables::from_json(variables),
            Some(_) => return Err(malformed("Parameter \"variables\" must be an object.")),
        };
        Ok(Self { document, operation_name, variables })
    }
}

/// The hash of an automatic persisted query. Clients add members of their own.
fn sha256_hash(mut persisted: Map<String, Value>) -> Result<String, Refusal> {
    if persisted.get("version").and_then(Value::as_f64) != Some(1.0) {
        return Err(malformed("Parameter \"extensions.persistedQuery.version\" must be 1."));
    }
    match persisted.remove("sha256Hash") {
        Some(Value::String(hash)) => Ok(hash),
        _ => Err(malformed("Parameter \"extensions.persistedQuery.sha256Hash\" must be a string.")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parsing_a_body_never_panics(bytes: Vec<u8>) {
            let _ = from_json(&bytes, None);
        }

        #[test]
        fn parsing_a_query_string_never_panics(text: String) {
            let _ = from_query_string(text.as_bytes(), None);
            let _ = from_query_string(format!("query={text}&variables={text}&extensions={text}").as_bytes(), None);
        }
    }
}
