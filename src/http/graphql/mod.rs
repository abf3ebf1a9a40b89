//! The one endpoint: GraphQL over HTTP to the letter of its specification, and the two transports that carry
//! subscriptions.
//!
//! A request goes through here from top to bottom, and each step either hands on less than it got or refuses:
//! method → WebSocket ([`websocket`])? → caller, and how often it asks → media types ([`negotiate`]) → body or query
//! string ([`request`]) → its turn → operation → one answer, or a stream of them ([`event_stream`]).

mod event_stream;
#[cfg(fuzzing)]
pub mod fuzzing;
mod negotiate;
mod request;
mod websocket;

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::{Stream, StreamExt as _, stream};
use tokio::time::Instant;

use event_stream::NO_SINGLE_CONNECTION;
pub(super) use negotiate::FORCES_PREFLIGHT;
use negotiate::{Accepted, MediaType};

use super::{Gateway, Open, Place, Refusal, caller, refusal::count};
use crate::{
    appointments::Appointments,
    caller::Caller,
    graphql::{Answer, Operation, error::ApiError},
};

/// `POST /graphql` and `GET /graphql`.
pub(super) async fn serve(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, Refusal> {
    let deadline = Instant::now() + gateway.http.deadline;
    let is_get = *request.method() == Method::GET;
    if !is_get && *request.method() != Method::POST {
        let is_reservation = matches!(*request.method(), Method::PUT | Method::DELETE);
        let text = if is_reservation { NO_SINGLE_CONNECTION } else { "GraphQL is asked with GET or POST." };
        return Err(method_not_allowed(text, "GET, POST"));
    }
    if websocket::is_asked_for(request.headers()) {
        return websocket::open(&gateway, request);
    }
    let (head, body) = request.into_parts();
    let token = caller::token(&head.headers, &gateway.limits);
    let caller = caller::identify(&token, &gateway.identity, deadline).await;
    if let Err(too_often) = gateway.rate_limit.admit(&caller) {
        request::pass_over(body, &head.headers, &gateway, deadline).await;
        return Err(too_often.into());
    }
    let accepted = negotiate::answer_type(&head.headers)?;
    if event_stream::is_single_connection(&head.headers) {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, NO_SINGLE_CONNECTION));
    }
    let request = if is_get {
        negotiate::no_simple_get(&head.headers)?;
        request::from_query_string(head.uri.query().unwrap_or_default())?
    } else {
        negotiate::json_body(&head.headers)?;
        let body = request::read(body, &head.headers, &gateway, deadline).await?;
        request::from_json(&body)?
    };
    let place = gateway.operations.take().await?;

    let refuse = |answer| match accepted.best {
        MediaType::EventStream => event_stream::of_one(answer),
        best => respond(answer, best),
    };
    let parsed = match gateway.api.parse(request) {
        Ok(parsed) => parsed,
        Err(answer) => return Ok(refuse(answer)),
    };
    if is_get && parsed.is_mutation() {
        return Err(method_not_allowed("A mutation is asked with POST.", "POST"));
    }
    let operation = match gateway.api.prepare(parsed).await {
        Ok(operation) => operation,
        Err(answer) => return Ok(refuse(answer)),
    };
    match accepted {
        // A client that takes both has its subscriptions as the one thing that they can be.
        Accepted { event_stream: true, .. } if operation.is_subscription() => {
            // It stays for long, and has a place among its kind.
            drop(place);
            let place = gateway.event_streams.take()?;
            Ok(event_stream::of(&gateway, operation, caller, deadline, place))
        }
        Accepted { best: MediaType::EventStream, .. } => {
            Ok(event_stream::of(&gateway, operation, caller, deadline, place))
        }
        _ if operation.is_subscription() => Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "A subscription has more answers than one: send \"Accept: text/event-stream\" (GraphQL over SSE), or open a \
             WebSocket here with the sub-protocol graphql-transport-ws.",
        )),
        Accepted { best, .. } => {
            let access = access(&gateway, caller, deadline);
            let answer = gateway.api.execute(operation, access).await;
            drop(place);
            Ok(respond(answer, best))
        }
    }
}

fn method_not_allowed(message: &'static str, allow: &'static str) -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message)
        .with_header(header::ALLOW, HeaderValue::from_static(allow))
}

/// What an operation of `caller` may ask through, until `deadline`; a subscription for as long as it goes on.
fn access(
    gateway: &Gateway,
    caller: Result<Caller, ApiError>,
    deadline: Instant,
) -> Result<Appointments, ApiError> {
    caller.map(|caller| Appointments::new(gateway.appointments.clone(), caller, deadline))
}

/// Runs any operation: a subscription has an answer for each event, the others have one.
fn answers(
    gateway: &Arc<Gateway>,
    operation: Operation,
    caller: Result<Caller, ApiError>,
    deadline: Instant,
) -> impl Stream<Item = Answer> + Send + use<> {
    let access = access(gateway, caller, deadline);
    if operation.is_subscription() {
        return gateway.api.subscribe(operation, access).left_stream();
    }
    let gateway = gateway.clone();
    stream::once(async move { gateway.api.execute(operation, access).await }).right_stream()
}

/// Adds an answer to `out`, as the JSON document that clients read. Its errors are told with that, and counted.
fn write(answer: &Answer, out: &mut Vec<u8>) {
    count(&answer.errors);
    out.reserve(answer.length());
    answer.write(out);
}

/// GraphQL over HTTP, section 6.4: under `application/json` the status says only whether there is a GraphQL answer;
/// under `application/graphql-response+json` it says whether the operation was run.
fn respond(answer: Answer, media_type: MediaType) -> Response {
    let status = match (media_type, &answer.data) {
        (MediaType::GraphqlResponse, None) => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    };
    let mut body = Vec::new();
    write(&answer, &mut body);
    (status, answer_headers(media_type), body).into_response()
}

fn answer_headers(media_type: MediaType) -> HeaderMap {
    HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(media_type.content_type()))])
}
