//! The handler of the GraphQL endpoint: from a request to its response, step by step.

use std::{pin::Pin, sync::Arc};

use axum::{
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
};
use futures_util::TryFutureExt as _;
use percent_encoding::percent_decode_str;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::{
    accept::{Accepted, MediaType},
    batch,
    client_cache::ClientCaching,
    csrf,
    delivery::deliver,
    encoded_response::EncodedResponse,
    idempotency_key::{self, IdempotencyKey},
    request, request_timeout,
    response_cache::{CacheRequest, Form},
    run::access,
    sse::{self, NO_SINGLE_CONNECTION},
    status::ResponseForm,
    websocket,
};
use crate::{
    auth::bearer,
    caller::Caller,
    config::http::GraphqlPath,
    error::{ApiError, code::ErrorCode},
    graphql::{
        execute::response::{EncodedJson, GraphqlResponse},
        persisted::{UntrustedCounts, id::DocumentId},
    },
    http::{
        compression::{AcceptEncoding, Coding},
        gateway::{Gateway, Request, RequestContext},
        refusal::{Refusal, method_not_allowed},
        request_id::SpanStart,
    },
    metrics::metrics,
};

/// The negotiated properties of the response to a single operation.
struct Negotiated<'h> {
    accepted: Accepted,
    /// The media type of a response that asks for the text of a persisted query.
    persisted_query_misses: MediaType,
    coding: Option<Coding>,
    caching: Option<ClientCaching<'h>>,
}

/// `POST`, `GET` and `HEAD` of the GraphQL endpoint. The connection leaves out the body of a response to `HEAD`.
pub(crate) async fn handle(gateway: &Arc<Gateway>, request: Request<'_>) -> Result<Response, Refusal> {
    let is_get = is_get_or_head(request.method());
    if !is_get && *request.method() != Method::POST {
        // The single connection mode of GraphQL over SSE uses these methods.
        let message = match *request.method() {
            Method::PUT | Method::DELETE => NO_SINGLE_CONNECTION,
            _ => "Method not allowed. Send GraphQL requests with GET or POST.",
        };
        return Err(method_not_allowed(message, "GET, HEAD, POST"));
    }
    if websocket::is_upgrade(&request) {
        if gateway.http.path.encoded_id(request.uri().path()).is_some() {
            return Err(Refusal::not_found(Some(&gateway.http.path)));
        }
        return websocket::upgrade(gateway, request);
    }
    let deadline = request_timeout::deadline(request.headers(), gateway.http.deadline)?;
    let key = if is_get { None } else { idempotency_key::key(request.headers())? };
    let (head, RequestContext { id, body, negotiation }) = request.into_parts();
    let token = bearer::token(&head.headers, &gateway.limits);
    let caller = bearer::identify(&token, &gateway.identity, deadline).await;
    gateway.rate_limit.admit(&caller, &token)?;
    let accepted = negotiation.accepted(gateway.graphiql.is_some())?;
    let persisted_query_misses = negotiation.persisted_query_misses;
    if sse::is_single_connection(&head.headers) {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, NO_SINGLE_CONNECTION));
    }
    let document_id = document_id(&gateway.http.path, head.uri.path());
    let cache_request = |form, media_type, text| CacheRequest {
        form,
        media_type,
        text,
        document_id: document_id.as_ref(),
        // Taken once the body is there: meanwhile, another set may have come into use.
        documents_generation: gateway.api.documents_generation(),
    };
    let whole_body;
    let mut array = None;
    let cache_request = if is_get {
        csrf::reject_simple_get(&head.headers)?;
        let query = head.uri.query().unwrap_or_default();
        cache_request(Form::QueryString, accepted.preferred, query.as_bytes())
    } else {
        csrf::require_json_body(&head.headers)?;
        whole_body = request::read(body, gateway, deadline).await?;
        let mut media_type = accepted.preferred;
        if batch::is_array(&whole_body) {
            let entries = batch::split(&whole_body)?;
            if document_id.is_some() {
                return Err(request::malformed(
                    "The path has the id of a document, but the body is an array of operations. Send one operation.",
                )
                .in_json());
            }
            batch::check(&entries, &head.headers, accepted, &gateway.limits).map_err(Refusal::in_json)?;
            let admitted = gateway.rate_limit.admit_array(entries.len(), &caller, &token);
            admitted.map_err(|error| Refusal::from(error).in_json())?;
            array = Some(entries);
            media_type = MediaType::Json;
        }
        cache_request(Form::Body, media_type, &*whole_body)
    };
    let codings = AcceptEncoding::from_headers(&head.headers);
    let coding = codings.preferred().filter(|_| gateway.http.compression);
    let caching =
        is_get.then(|| ClientCaching::of(gateway.http.client_cache, &head.headers, codings)).flatten();
    if let Ok(caller) = &caller
        && accepted.preferred != MediaType::EventStream
        && let Some(response) = gateway.response_cache.respond(caller, cache_request, coding, caching).await
    {
        if let Some(entries) = &array {
            metrics().batches.count("cache");
            // The response cache has counted one operation.
            metrics().operations.count_many("query", entries.len() as u64 - 1);
        }
        return Ok(response);
    }
    let caller = caller.map(|caller| caller.with_request_id(id.as_str()));
    // Boxed to keep the future of cache hits small.
    let executed: Pin<Box<dyn Future<Output = _> + Send>> = match array {
        Some(entries) => {
            let form = ResponseForm { media_type: accepted.preferred, edition: gateway.http.statuses };
            let executed = batch::execute(gateway, cache_request, entries, form, coding, caller, deadline);
            Box::pin(executed.map_err(Refusal::in_json))
        }
        None => {
            let negotiated = Negotiated { accepted, persisted_query_misses, coding, caching };
            Box::pin(execute(gateway, cache_request, key, negotiated, caller, deadline))
        }
    };
    match id.span(SpanStart::Execution) {
        Some(span) => executed.instrument(span).await,
        None => executed.await,
    }
}

/// The id of a persisted document in the path of a request. An id that is not UTF-8 is none of a document.
fn document_id(endpoint: &GraphqlPath, path: &str) -> Option<DocumentId> {
    let encoded = endpoint.encoded_id(path)?;
    Some(DocumentId::new(&percent_decode_str(encoded).decode_utf8_lossy()))
}

/// Whether a request with this method has its parameters in the query string: GET, or HEAD, which is handled like GET.
pub(crate) fn is_get_or_head(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Executes a single operation whose response is not cached.
async fn execute(
    gateway: &Arc<Gateway>,
    cache_request: CacheRequest<'_>,
    key: Option<IdempotencyKey>,
    negotiated: Negotiated<'_>,
    caller: Result<Caller, ApiError>,
    deadline: Instant,
) -> Result<Response, Refusal> {
    let Negotiated { accepted, persisted_query_misses, coding, caching } = negotiated;
    let is_get = cache_request.form == Form::QueryString;
    let request = match cache_request.form {
        Form::QueryString => request::from_query_string(cache_request.text, cache_request.document_id)?,
        Form::Body => request::from_json(cache_request.text, cache_request.document_id)?,
    };
    let permit = gateway.operations.admit(&caller, deadline).await?;

    let reject = |response: GraphqlResponse| match accepted.preferred {
        MediaType::EventStream => Ok(sse::single_response(gateway, response)),
        preferred => {
            let media_type = if response.asks_for_text() { persisted_query_misses } else { preferred };
            encode(gateway, response, media_type).map(|(encoded, _)| encoded.into_response())
        }
    };
    let parsed = match gateway.api.parse(request, caller.as_ref().ok()).await {
        Ok(parsed) => parsed,
        Err(response) => return reject(response),
    };
    let is_mutation = parsed.is_mutation();
    if is_get && is_mutation {
        return Err(method_not_allowed("Mutations are not allowed with GET. Use POST.", "POST"));
    }
    let keyed = key.filter(|_| is_mutation).map(|key| key.of(gateway, &parsed)).transpose()?;
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
            let access = access(gateway, caller, deadline);
            Ok(sse::stream_response(gateway, operation, access, permit))
        }
        Accepted { preferred: MediaType::EventStream, .. } => {
            let access = access(gateway, caller, deadline);
            let access = idempotency_key::with_record(access, keyed, &operation, gateway).await?;
            Ok(sse::stream_response(gateway, operation, access, permit))
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
            let access = idempotency_key::with_record(access, keyed, &operation, gateway).await?;
            let appointments = access.as_ref().ok().cloned();
            let mut untrusted = UntrustedCounts::default();
            untrusted.add(operation.trust);
            let may_be_cached = operation.is_cacheable && !is_mutation;
            let response = gateway.api.execute(operation, access).await;
            let (encoded, is_complete) = encode(gateway, response, preferred)?;
            let encoded = EncodedResponse { untrusted, ..encoded };
            let is_cacheable = is_complete && may_be_cached;
            let response =
                deliver(gateway, cache_request, caching, coding, encoded, appointments, is_cacheable).await;
            // Compression is part of the limited work.
            drop(permit);
            Ok(response)
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
