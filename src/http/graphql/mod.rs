//! The one endpoint: GraphQL over HTTP, to the letter of its specification.
//!
//! A request goes through here from top to bottom, and each step either hands on less than it got or refuses:
//! method → media types ([`negotiate`]) → body or query string ([`request`]) → operation → answer.

mod negotiate;
mod request;

use std::sync::Arc;

use async_graphql::{ServerError, Value};
use axum::{
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tokio::time::Instant;

use negotiate::MediaType;

use super::{Gateway, Refusal, caller::caller};
use crate::{appointments::Appointments, graphql::Answer};

/// `POST /graphql` and `GET /graphql`.
pub(super) async fn serve(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, Refusal> {
    let deadline = Instant::now() + gateway.http.deadline;
    let (head, body) = request.into_parts();
    let is_get = head.method == Method::GET;
    if !is_get && head.method != Method::POST {
        return Err(method_not_allowed("GraphQL is asked with GET or POST.", "GET, POST"));
    }
    if head.headers.contains_key(header::UPGRADE) {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "There is no WebSocket here. Ask with GET or POST.",
        ));
    }
    let media_type = negotiate::answer_type(&head.headers)?;
    let request = if is_get {
        negotiate::no_simple_get(&head.headers)?;
        request::from_query_string(head.uri.query().unwrap_or_default())?
    } else {
        negotiate::json_body(&head.headers)?;
        let body = request::read(body, &head.headers, &gateway.limits, deadline).await?;
        request::from_json(&body)?
    };

    let operation = match gateway.api.prepare(request) {
        Ok(operation) => operation,
        Err(answer) => return Ok(respond(answer, media_type)),
    };
    if is_get && operation.is_mutation() {
        return Err(method_not_allowed("A mutation is asked with POST.", "POST"));
    }
    let appointments = caller(&head.headers, &gateway.scope_key, &gateway.limits)
        .map(|caller| Appointments::new(gateway.appointments.clone(), caller, deadline));
    Ok(respond(gateway.api.execute(operation, appointments).await, media_type))
}

fn method_not_allowed(message: &'static str, allow: &'static str) -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message)
        .with_header(header::ALLOW, HeaderValue::from_static(allow))
}

/// GraphQL over HTTP, section 6.4: under `application/json` the status says only whether there is a GraphQL answer;
/// under `application/graphql-response+json` it says whether the operation was run.
fn respond(answer: Answer, media_type: MediaType) -> Response {
    #[derive(Serialize)]
    struct Document {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        errors: Vec<ServerError>,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<Value>,
    }
    let status = match (media_type, &answer.data) {
        (MediaType::GraphqlResponse, None) => StatusCode::BAD_REQUEST,
        (MediaType::GraphqlResponse, Some(_)) | (MediaType::Json, _) => StatusCode::OK,
    };
    let document = Document { errors: answer.errors, data: answer.data };
    // GraphQL values are always JSON.
    let body = serde_json::to_vec(&document).unwrap_or_default();
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(media_type.content_type())),
        // It is one caller's data: nothing between here and there is to keep it.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, body).into_response()
}
