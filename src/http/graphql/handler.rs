//! The handler of the GraphQL endpoint: from a request to its response, step by step.

use std::{pin::Pin, sync::Arc};

use axum::{
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
};
use futures_util::TryFutureExt as _;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::{
    accept::{Accepted, MediaType},
    batch, csrf, request,
    response_cache::{CacheRequest, EncodedResponse, Form},
    run::access,
    sse::{self, NO_SINGLE_CONNECTION},
    status::ResponseForm,
    websocket,
};
use crate::{
    auth::bearer,
    caller::Caller,
    error::{ApiError, code::ErrorCode},
    graphql::execute::response::{EncodedJson, GraphqlResponse},
    http::{
        compression::{AcceptEncoding, Coding},
        gateway::{Gateway, Request, RequestContext},
        refusal::{Refusal, method_not_allowed},
        request_id::SpanStart,
    },
    metrics::metrics,
};

/// `POST` and `GET` of the GraphQL endpoint.
pub(crate) async fn handle(gateway: &Arc<Gateway>, request: Request<'_>) -> Result<Response, Refusal> {
    let deadline = Instant::now() + gateway.http.deadline;
    let is_get = *request.method() == Method::GET;
    if !is_get && *request.method() != Method::POST {
        // The single connection mode of GraphQL over SSE uses these methods.
        let message = match *request.method() {
            Method::PUT | Method::DELETE => NO_SINGLE_CONNECTION,
            _ => "Method not allowed. Send GraphQL requests with GET or POST.",
        };
        return Err(method_not_allowed(message, "GET, POST"));
    }
    if websocket::is_upgrade(&request) {
        return websocket::upgrade(gateway, request);
    }
    let (head, RequestContext { id, body, negotiation }) = request.into_parts();
    let token = bearer::token(&head.headers, &gateway.limits);
    let caller = bearer::identify(&token, &gateway.identity, deadline).await;
    gateway.rate_limit.admit(&caller, &token)?;
    let accepted = negotiation.accepted(gateway.graphiql.is_some())?;
    if sse::is_single_connection(&head.headers) {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, NO_SINGLE_CONNECTION));
    }
    let whole_body;
    let mut array = None;
    let cache_request = if is_get {
        csrf::reject_simple_get(&head.headers)?;
        let query = head.uri.query().unwrap_or_default();
        CacheRequest { form: Form::QueryString, media_type: accepted.preferred, text: query.as_bytes() }
    } else {
        csrf::require_json_body(&head.headers)?;
        whole_body = request::read(body, gateway, deadline).await?;
        let mut media_type = accepted.preferred;
        if batch::is_array(&whole_body) {
            let entries = batch::split(&whole_body, &head.headers, accepted, &gateway.limits)
                .map_err(Refusal::in_json)?;
            let admitted = gateway.rate_limit.admit_array(entries.len(), &caller, &token);
            admitted.map_err(|error| Refusal::from(error).in_json())?;
            array = Some(entries);
            media_type = MediaType::Json;
        }
        CacheRequest { form: Form::Body, media_type, text: &whole_body }
    };
    let coding = AcceptEncoding::from_headers(&head.headers).preferred().filter(|_| gateway.http.compression);
    if let Ok(caller) = &caller
        && accepted.preferred != MediaType::EventStream
        && let Some(cached) = gateway.response_cache.get(caller, cache_request, coding).await
    {
        if let Some(entries) = &array {
            metrics().batches.count("cache");
            // The cache has counted one.
            metrics().operations.count_many("query", entries.len() as u64 - 1);
        }
        return Ok(cached.into_response());
    }
    let caller = caller.map(|caller| caller.with_request_id(id.as_str()));
    // Boxed to keep the future of cache hits small.
    let executed: Pin<Box<dyn Future<Output = _> + Send>> = match array {
        Some(entries) => {
            let form = ResponseForm { media_type: accepted.preferred, edition: gateway.http.statuses };
            let executed = batch::execute(gateway, cache_request, entries, form, coding, caller, deadline);
            Box::pin(executed.map_err(Refusal::in_json))
        }
        None => Box::pin(execute(gateway, cache_request, accepted, coding, caller, deadline)),
    };
    match id.span(SpanStart::Execution) {
        Some(span) => executed.instrument(span).await,
        None => executed.await,
    }
}

/// Executes a single operation that the response cache has not answered.
async fn execute(
    gateway: &Arc<Gateway>,
    cache_request: CacheRequest<'_>,
    accepted: Accepted,
    coding: Option<Coding>,
    caller: Result<Caller, ApiError>,
    deadline: Instant,
) -> Result<Response, Refusal> {
    let is_get = cache_request.form == Form::QueryString;
    let request = match cache_request.form {
        Form::QueryString => request::from_query_string(cache_request.text)?,
        Form::Body => request::from_json(cache_request.text)?,
    };
    let permit = gateway.operations.admit(&caller).await?;

    let reject = |response| match accepted.preferred {
        MediaType::EventStream => Ok(sse::single_response(gateway, response)),
        media_type => encode(gateway, response, media_type).map(|(encoded, _)| encoded.into_response()),
    };
    let parsed = match gateway.api.parse(request) {
        Ok(parsed) => parsed,
        Err(response) => return reject(response),
    };
    let is_mutation = parsed.is_mutation();
    if is_get && is_mutation {
        return Err(method_not_allowed("Mutations are not allowed with GET. Use POST.", "POST"));
    }
    let operation = match gateway.api.prepare(parsed).await {
        Ok(operation) => operation,
        Err(response) => return reject(response),
    };
    match accepted {
        // A subscription always uses an event stream, even if the client prefers another type.
        Accepted { event_stream: true, .. } if operation.is_subscription() => {
            // Subscriptions are long-lived and have a concurrency limit of their own.
            drop(permit);
            let permit = gateway.event_streams.admit()?;
            Ok(sse::stream_response(gateway, operation, caller, deadline, permit))
        }
        Accepted { preferred: MediaType::EventStream, .. } => {
            Ok(sse::stream_response(gateway, operation, caller, deadline, permit))
        }
        _ if operation.is_subscription() => Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "Subscriptions need a streaming transport. Send \"Accept: text/event-stream\" (GraphQL over SSE), or open a \
             WebSocket at the same address with the sub-protocol graphql-transport-ws.",
        )),
        Accepted { preferred, .. } => {
            let access = access(gateway, caller, deadline);
            let form = ResponseForm { media_type: preferred, edition: gateway.http.statuses };
            if let Err(error) = &access
                && error.code() == ErrorCode::Unauthenticated
                && form.is_2026()
                && operation.needs_access()
            {
                return Err(error.clone().into());
            }
            let appointments = access.as_ref().ok().filter(|_| !is_mutation).cloned();
            let response = gateway.api.execute(operation, access).await;
            let (encoded, is_complete) = encode(gateway, response, preferred)?;
            let encoded = encoded.varying(gateway.http.compression);
            if let Some(appointments) = appointments.filter(|_| is_complete) {
                gateway.response_cache.insert(cache_request, &encoded, &appointments);
            }
            let encoded = encoded.compressed_once(coding, gateway.api.memory()).await;
            // Compression is part of the limited work.
            drop(permit);
            Ok(encoded.into_response())
        }
    }
}

/// Encodes a response. The Boolean says whether it is complete, so that it may be cached.
///
/// # Errors
/// 503, if there is no response memory left for a query.
fn encode(
    gateway: &Gateway,
    response: GraphqlResponse,
    media_type: MediaType,
) -> Result<(EncodedResponse, bool), Refusal> {
    let EncodedJson { body, kind, is_complete } = gateway.api.encode(response)?;
    let form = ResponseForm { media_type, edition: gateway.http.statuses };
    Ok((EncodedResponse::plain(form.status(kind), media_type, body), is_complete))
}
