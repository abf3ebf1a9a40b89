//! The one endpoint: GraphQL over HTTP to the letter of its specification, and the two transports that carry
//! subscriptions.
//!
//! A request goes through here from top to bottom, and each step either hands on less than it got or refuses:
//! method → WebSocket ([`websocket`])? → caller, and how often it asks → media types ([`negotiate`]) → body or
//! query string → an answer that is kept ([`mod@answers`])? → parameters ([`request`]) → its turn → operation →
//! one answer, or a stream of them ([`event_stream`]).

mod answers;
mod event_stream;
#[cfg(fuzzing)]
pub mod fuzzing;
mod negotiate;
mod request;
mod websocket;

use std::sync::Arc;

use axum::{
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::{Stream, StreamExt as _, stream};
use tokio::time::Instant;
use tracing::Instrument as _;

pub use answers::Answers;
use answers::{Finished, Form, Question};
use event_stream::NO_SINGLE_CONNECTION;
pub(super) use negotiate::FORCES_PREFLIGHT;
use negotiate::{Accepted, MediaType};
pub use websocket::PartialMessages;

use super::{
    Gateway, Lent, Open, Permit, Refusal, Request, Since, caller,
    compression::{self, Coding},
};
use crate::{
    appointments::Appointments,
    caller::Caller,
    graphql::{Answer, Encoded, Operation, error::ApiError},
};

/// `POST /graphql` and `GET /graphql`.
pub(super) async fn serve(gateway: &Arc<Gateway>, request: Request<'_>) -> Result<Response, Refusal> {
    let deadline = Instant::now() + gateway.http.deadline;
    let is_get = *request.method() == Method::GET;
    if !is_get && *request.method() != Method::POST {
        let is_reservation = matches!(*request.method(), Method::PUT | Method::DELETE);
        let text = if is_reservation { NO_SINGLE_CONNECTION } else { "GraphQL is asked with GET or POST." };
        return Err(method_not_allowed(text, "GET, POST"));
    }
    if websocket::is_asked_for(request.headers()) {
        return websocket::open(gateway, request);
    }
    let (head, Lent { id, body }) = request.into_parts();
    let token = caller::token(&head.headers, &gateway.limits);
    let caller = caller::identify(&token, &gateway.identity, deadline).await;
    if let Err(refused) = gateway.rate_limit.admit(&caller, &token) {
        request::pass_over(body, &head.headers, gateway, deadline).await;
        return Err(refused.into());
    }
    let accepted = negotiate::answer_type(&head.headers)?;
    if event_stream::is_single_connection(&head.headers) {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, NO_SINGLE_CONNECTION));
    }
    let sent;
    let question = if is_get {
        negotiate::no_simple_get(&head.headers)?;
        let query = head.uri.query().unwrap_or_default();
        Question { form: Form::QueryString, media_type: accepted.best, text: query.as_bytes() }
    } else {
        negotiate::json_body(&head.headers)?;
        sent = request::read(body, &head.headers, gateway, deadline).await?;
        Question { form: Form::Body, media_type: accepted.best, text: &sent }
    };
    let takes = compression::coding(&head.headers).filter(|_| gateway.http.compression);
    if let Ok(caller) = &caller
        && accepted.best != MediaType::EventStream
        && let Some(answer) = gateway.answers.find(caller, question, takes).await
    {
        return Ok(answer.into_response());
    }
    // Much smaller as a pointer: every request has room for it.
    let carried_out = Box::pin(carry_out(gateway, question, accepted, takes, caller, deadline));
    match id.span(Since::CarryingOut) {
        Some(span) => carried_out.instrument(span).await,
        None => carried_out.await,
    }
}

/// From the text of a request to its answer.
async fn carry_out(
    gateway: &Arc<Gateway>,
    question: Question<'_>,
    accepted: Accepted,
    takes: Option<Coding>,
    caller: Result<Caller, ApiError>,
    deadline: Instant,
) -> Result<Response, Refusal> {
    let is_get = question.form == Form::QueryString;
    let request = match question.form {
        Form::QueryString => request::from_query_string(question.text)?,
        Form::Body => request::from_json(question.text)?,
    };
    let permit = gateway.operations.admit(&caller).await?;

    let refuse = |answer| match accepted.best {
        MediaType::EventStream => Ok(event_stream::of_one(gateway, answer)),
        best => finished(gateway, answer, best).map(|(answer, _)| answer.into_response()),
    };
    let parsed = match gateway.api.parse(request) {
        Ok(parsed) => parsed,
        Err(answer) => return refuse(answer),
    };
    let is_mutation = parsed.is_mutation();
    if is_get && is_mutation {
        return Err(method_not_allowed("A mutation is asked with POST.", "POST"));
    }
    let operation = match gateway.api.prepare(parsed).await {
        Ok(operation) => operation,
        Err(answer) => return refuse(answer),
    };
    match accepted {
        // A client that takes both has its subscriptions as the one thing that they can be.
        Accepted { event_stream: true, .. } if operation.is_subscription() => {
            // It lasts, and counts among its own kind.
            drop(permit);
            let permit = gateway.event_streams.admit()?;
            Ok(event_stream::of(gateway, operation, caller, deadline, permit))
        }
        Accepted { best: MediaType::EventStream, .. } => {
            Ok(event_stream::of(gateway, operation, caller, deadline, permit))
        }
        _ if operation.is_subscription() => Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "A subscription has more answers than one: send \"Accept: text/event-stream\" (GraphQL over SSE), or open \
             a WebSocket here with the sub-protocol graphql-transport-ws.",
        )),
        Accepted { best, .. } => {
            let access = access(gateway, caller, deadline);
            let appointments = access.as_ref().ok().filter(|_| !is_mutation).cloned();
            let answer = gateway.api.execute(operation, access).await;
            let (finished, is_whole) = finished(gateway, answer, best)?;
            let finished = finished.varying(gateway.http.compression);
            if let Some(appointments) = appointments.filter(|_| is_whole) {
                gateway.answers.keep(question, &finished, &appointments);
            }
            let taken = finished.taken(takes, gateway.api.memory()).await;
            // To compress it is part of the work.
            drop(permit);
            Ok(taken.into_response())
        }
    }
}

fn method_not_allowed(message: &'static str, allow: &'static str) -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message)
        .with_header(header::ALLOW, HeaderValue::from_static(allow))
}

/// What an operation of `caller` may ask through, until `deadline`; a subscription for as long as it goes on. The caller's
/// credential may have been withdrawn while the operation waited for its turn.
fn access(
    gateway: &Gateway,
    caller: Result<Caller, ApiError>,
    deadline: Instant,
) -> Result<Appointments, ApiError> {
    let caller = caller?;
    match caller.rejection() {
        Some(reason) => Err(ApiError::Unauthenticated(reason.into())),
        None => Ok(Appointments::new(gateway.appointments.clone(), caller, deadline)),
    }
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

/// GraphQL over HTTP, section 6.4: under `application/json` the status says only whether there is a GraphQL answer;
/// under `application/graphql-response+json` it says whether the operation was run. Beside it, whether the answer is
/// whole.
///
/// # Errors
/// 503, where there is no memory for the answer to a query.
fn finished(gateway: &Gateway, answer: Answer, media_type: MediaType) -> Result<(Finished, bool), Refusal> {
    let status = match (media_type, &answer.data) {
        (MediaType::GraphqlResponse, None) => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    };
    let Encoded { body, is_whole } = gateway.api.encode(answer)?;
    Ok((Finished::plain(status, media_type, body), is_whole))
}

fn answer_headers(media_type: MediaType) -> HeaderMap {
    HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(media_type.content_type()))])
}
