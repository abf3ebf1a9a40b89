//! The handler of `/graphql`.

use std::sync::Arc;

use axum::{
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::{
    accept::{self, Accepted, MediaType},
    csrf, request,
    response_cache::{CacheRequest, EncodedResponse, Form},
    run::access,
    sse::{self, NO_SINGLE_CONNECTION},
    websocket,
};
use crate::{
    auth::bearer,
    caller::Caller,
    error::ApiError,
    graphql::execute::response::{EncodedJson, GraphqlResponse},
    http::{
        compression::{self, Coding},
        gateway::{Gateway, Lent, Request},
        refusal::{Refusal, method_not_allowed},
        request_id::Since,
    },
};

/// `POST /graphql` and `GET /graphql`.
pub(crate) async fn serve(gateway: &Arc<Gateway>, request: Request<'_>) -> Result<Response, Refusal> {
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
    let token = bearer::token(&head.headers, &gateway.limits);
    let caller = bearer::identify(&token, &gateway.identity, deadline).await;
    if let Err(refused) = gateway.rate_limit.admit(&caller, &token) {
        request::pass_over(body, &head.headers, gateway, deadline).await;
        return Err(refused.into());
    }
    let accepted = accept::answer_type(&head.headers)?;
    if sse::is_single_connection(&head.headers) {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, NO_SINGLE_CONNECTION));
    }
    let sent;
    let question = if is_get {
        csrf::no_simple_get(&head.headers)?;
        let query = head.uri.query().unwrap_or_default();
        CacheRequest { form: Form::QueryString, media_type: accepted.best, text: query.as_bytes() }
    } else {
        csrf::json_body(&head.headers)?;
        sent = request::read(body, &head.headers, gateway, deadline).await?;
        CacheRequest { form: Form::Body, media_type: accepted.best, text: &sent }
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
    question: CacheRequest<'_>,
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
        MediaType::EventStream => Ok(sse::of_one(gateway, answer)),
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
            Ok(sse::of(gateway, operation, caller, deadline, permit))
        }
        Accepted { best: MediaType::EventStream, .. } => {
            Ok(sse::of(gateway, operation, caller, deadline, permit))
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
            let (finished, is_complete) = finished(gateway, answer, best)?;
            let finished = finished.varying(gateway.http.compression);
            if let Some(appointments) = appointments.filter(|_| is_complete) {
                gateway.answers.keep(question, &finished, &appointments);
            }
            let taken = finished.taken(takes, gateway.api.memory()).await;
            // To compress it is part of the work.
            drop(permit);
            Ok(taken.into_response())
        }
    }
}

/// GraphQL over HTTP, section 6.4: under `application/json` the status says only whether there is a GraphQL answer;
/// under `application/graphql-response+json` it says whether the operation was run. Beside it, whether the answer is
/// whole.
///
/// # Errors
/// 503, where there is no memory for the answer to a query.
fn finished(
    gateway: &Gateway,
    answer: GraphqlResponse,
    media_type: MediaType,
) -> Result<(EncodedResponse, bool), Refusal> {
    let status = match (media_type, &answer.data) {
        (MediaType::GraphqlResponse, None) => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    };
    let EncodedJson { body, is_complete } = gateway.api.encode(answer)?;
    Ok((EncodedResponse::plain(status, media_type, body), is_complete))
}
