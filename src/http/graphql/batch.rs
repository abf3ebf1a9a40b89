//! Batching: a JSON array of operations in one POST, as Apollo Client's `BatchHttpLink` sends it.
//!
//! The operations of an array share one slot of the concurrency limit, one deadline, one loader and the limits of a
//! single operation. Only the rate limit counts each of them. Each has its own result, and an invalid one does not
//! affect the others. The response cache stores the response to the whole array.
//!
//! Rejections are `application/json` too: with any other type, `BatchHttpLink` ignores the status, such as 401 or 429.

use async_graphql::{BatchRequest, ParseRequestError};
use async_graphql_axum::GraphQLBatchRequest;
use axum::{
    body::Body,
    extract::FromRequest as _,
    http::{HeaderMap, Method, StatusCode, header},
    response::Response,
};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use tokio::time::Instant;

use super::{
    accept::{Accepted, MediaType},
    delivery::deliver,
    encoded_response::EncodedResponse,
    idempotency_key::IDEMPOTENCY_KEY,
    request::{self, Parameters},
    response_cache::CacheRequest,
    run::access,
    status::ResponseForm,
};
use crate::{
    caller::Caller,
    config::limits::Limits,
    error::{
        ApiError,
        code::ErrorCode,
        limit::{Limit, LimitExceeded},
    },
    graphql::{
        api::{ArrayTotals, GraphqlRequest, Operation},
        execute::response::{EncodedArray, GraphqlResponse, ResponseKind},
        persisted::UntrustedCounts,
    },
    http::{compression::Coding, gateway::Gateway, refusal::Refusal},
    metrics::metrics,
};

/// The operations of an array, not yet parsed.
pub(crate) type Entries<'b> = Vec<&'b RawValue>;

/// An operation of an array: ready to run, or rejected with a status and a response.
type Prepared = Result<Operation, (Option<StatusCode>, GraphqlResponse)>;

/// The parameters of one operation. Their types are checked before [`GraphQLBatchRequest`] reads the array: it fails as
/// a whole, and treats a missing `query` as an empty one. Null counts as absent.
#[derive(Deserialize, Serialize)]
struct Entry<'b> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    query: Option<&'b RawValue>,
    #[serde(borrow, rename = "operationName", skip_serializing_if = "Option::is_none")]
    operation_name: Option<&'b RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    variables: Option<&'b RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    extensions: Option<&'b RawValue>,
    #[serde(borrow, rename = "documentId", skip_serializing)]
    document_id: Option<&'b RawValue>,
    #[serde(borrow, skip_serializing)]
    doc_id: Option<&'b RawValue>,
    #[serde(borrow, skip_serializing)]
    id: Option<&'b RawValue>,
}

/// Whether a request body is an array.
pub(crate) fn is_array(body: &[u8]) -> bool {
    body.trim_ascii_start().first() == Some(&b'[')
}

/// Splits an array into its operations.
///
/// # Errors
/// 400 for invalid JSON.
pub(crate) fn split(body: &[u8]) -> Result<Entries<'_>, Refusal> {
    serde_json::from_slice(body).map_err(request::invalid_json)
}

/// Checks an array and the headers of its request, before the operations are read.
///
/// # Errors
/// 400 for an `Idempotency-Key`, 406 for a client that prefers an event stream, 422 for an array that is empty or longer than
/// `limits.batch`.
pub(crate) fn check(
    entries: &[&RawValue],
    headers: &HeaderMap,
    accepted: Accepted,
    limits: &Limits,
) -> Result<(), Refusal> {
    if limits.batch == 0 {
        let message = "Arrays of operations are disabled (limits.batch). Send one operation per request, or request several \
                       fields in one operation.";
        return Err(too_long(limits, entries.len(), message.to_owned()));
    }
    if entries.is_empty() {
        return Err(request::malformed("Array has no operations. Send at least one."));
    }
    if entries.len() > limits.batch {
        let message = format!(
            "Array has {} operations, which exceeds the limit of {} (limits.batch). Send several smaller arrays.",
            entries.len(),
            limits.batch
        );
        return Err(too_long(limits, entries.len(), message));
    }
    if headers.contains_key(IDEMPOTENCY_KEY) {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "Idempotency-Key is not supported with an array of operations. Send the mutation in a request of its own.",
        ));
    }
    if accepted.preferred == MediaType::EventStream {
        return Err(Refusal::new(
            StatusCode::NOT_ACCEPTABLE,
            "Arrays of operations are not supported over server-sent events. Accept application/json, or send each \
             operation in a request of its own.",
        ));
    }
    Ok(())
}

fn too_long(limits: &Limits, length: usize, message: String) -> Refusal {
    let error =
        LimitExceeded::bad_request(Limit::Batch, Some(limits.batch as u64), Some(length as u64), message);
    Refusal::with_status(StatusCode::UNPROCESSABLE_ENTITY, error)
}

/// Reads the operations. A malformed one does not affect the others.
///
/// # Errors
/// 400 for JSON whose values cannot be represented, such as a lone surrogate.
async fn read(body: &[u8], entries: Entries<'_>) -> Result<Vec<Result<GraphqlRequest, Refusal>>, Refusal> {
    let checked: Vec<_> = entries.into_iter().map(Entry::check).collect();
    let well_formed: Vec<_> = checked.iter().flatten().collect();
    let mut requests = Vec::new();
    if !well_formed.is_empty() {
        // Serialising raw JSON cannot fail.
        let array = serde_json::to_vec(&well_formed).unwrap_or_default();
        requests = extract(array).await.map_err(|refusal| {
            // The position in the original body.
            serde_json::from_slice::<Value>(body).err().map_or(refusal, request::invalid_json)
        })?;
    }
    let mut requests = requests.into_iter();
    let one = |entry: Result<Entry<'_>, Refusal>| {
        let entry = entry?;
        // The extractor returns as many as it was given.
        let request = requests.next().ok_or(ApiError::Internal)?;
        to_graphql(request, entry.query.is_some())
    };
    Ok(checked.into_iter().map(one).collect())
}

/// Lets async-graphql's extractor read an array of well-formed operations.
async fn extract(array: Vec<u8>) -> Result<Vec<async_graphql::Request>, Refusal> {
    let mut request = axum::extract::Request::new(Body::from(array));
    *request.method_mut() = Method::POST;
    let json = header::HeaderValue::from_static("application/json");
    request.headers_mut().insert(header::CONTENT_TYPE, json);
    let extracted = GraphQLBatchRequest::<Refusal>::from_request(request, &()).await?;
    Ok(match extracted.into_inner() {
        BatchRequest::Single(request) => vec![request],
        BatchRequest::Batch(requests) => requests,
    })
}

impl From<ParseRequestError> for Refusal {
    /// async-graphql's message may repeat parts of the body.
    fn from(_: ParseRequestError) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "Request body has a JSON value that cannot be read. Send numbers in the range of 64 bits and valid Unicode.",
        )
    }
}

/// Resolves the document of an operation in an array: its text, or an id in `extensions.persistedQuery`, as in a single
/// request.
fn to_graphql(request: async_graphql::Request, has_text: bool) -> Result<GraphqlRequest, Refusal> {
    let extensions = request.extensions.0.into_iter();
    let extensions = extensions.filter_map(|(name, value)| Some((name, value.into_json().ok()?)));
    let parameters = Parameters {
        query: has_text.then_some(Value::String(request.query)),
        operation_name: request.operation_name.map(Value::String),
        variables: None,
        extensions: Some(Value::Object(extensions.collect())),
        ..Parameters::default()
    };
    Ok(GraphqlRequest { variables: request.variables, ..parameters.try_into()? })
}

impl<'b> Entry<'b> {
    /// Parses an item of the array, and checks the types of its parameters.
    fn check(item: &'b RawValue) -> Result<Self, Refusal> {
        if !item.get().starts_with('{') {
            return Err(request::malformed(
                "Operation of an array must be a JSON object such as {\"query\": \"{ __typename }\"}.",
            ));
        }
        let entry: Self = serde_json::from_str(item.get())
            .map_err(|_| request::malformed("Operation of an array has a duplicate parameter."))?;
        for (parameter, name, first, kind) in [
            (entry.extensions, "extensions", '{', "an object"),
            (entry.query, "query", '"', "a string"),
            (entry.operation_name, "operationName", '"', "a string"),
            (entry.variables, "variables", '{', "an object"),
        ] {
            if parameter.is_some_and(|value| !value.get().starts_with(first)) {
                return Err(request::malformed(format!("Parameter \"{name}\" must be {kind}.")));
            }
        }
        let Self { query, extensions, document_id, doc_id, id, .. } = &entry;
        let ids = [(document_id, "documentId"), (doc_id, "doc_id"), (id, "id")];
        // Some clients number the operations of an array in `id`, beside the text or its hash.
        let has_hash = extensions.is_some_and(|it| it.get().contains("\"persistedQuery\""));
        if query.is_none()
            && !has_hash
            && let Some((_, name)) = ids.into_iter().find(|(id, _)| id.is_some())
        {
            return Err(request::malformed(format!(
                "Parameter \"{name}\" is not supported in an array of operations. Send the text in \"query\", its hash \
                 in \"extensions.persistedQuery\", or the operation in a request of its own."
            )));
        }
        Ok(entry)
    }
}

/// Executes an array whose response is not cached.
///
/// # Errors
/// The reason to reject the whole array.
pub(crate) async fn execute(
    gateway: &Gateway,
    cache_request: CacheRequest<'_>,
    entries: Entries<'_>,
    form: ResponseForm,
    coding: Option<Coding>,
    caller: Result<Caller, ApiError>,
    deadline: Instant,
) -> Result<Response, Refusal> {
    let requests = read(cache_request.text, entries).await?;
    let permit = gateway.operations.admit(&caller, deadline).await?;
    metrics().batches.count("execution");
    let prepared = prepare(gateway, requests, caller.as_ref().ok()).await?;

    let access = || access(gateway, caller.clone(), deadline);
    let shared = access();
    let mut runnable = prepared.iter().flatten().peekable();
    // The statuses of the edition 2026 reject a request that cannot fetch anything. With an operation that needs no
    // credential, the others report it at each field, as they do for `application/json`.
    if let Err(error) = &shared
        && error.code() == ErrorCode::Unauthenticated
        && form.is_2026()
        && runnable.peek().is_some()
        && runnable.all(Operation::needs_access)
    {
        return Err(error.clone().into());
    }
    let has_mutation = prepared.iter().flatten().any(Operation::is_mutation);
    let may_be_cached = !has_mutation && prepared.iter().flatten().all(|operation| operation.is_cacheable);
    let appointments = shared.as_ref().ok().cloned();
    let mut untrusted = UntrustedCounts::default();
    prepared.iter().flatten().for_each(|operation| untrusted.add(operation.trust));
    let run = async |prepared: Prepared, access| match prepared {
        Ok(operation) => (None, gateway.api.execute(operation, access).await),
        Err(rejected) => rejected,
    };
    let outcomes = if has_mutation {
        let (mut current, mut outcomes) = (shared, Vec::with_capacity(prepared.len()));
        for prepared in prepared {
            let is_mutation = prepared.as_ref().is_ok_and(Operation::is_mutation);
            outcomes.push(run(prepared, current.clone()).await);
            if is_mutation {
                // Later queries must see the change, so they need a new loader.
                current = access();
            }
        }
        outcomes
    } else {
        join_all(prepared.into_iter().map(|prepared| run(prepared, shared.clone()))).await
    };
    let (statuses, responses): (Vec<_>, Vec<_>) = outcomes.into_iter().unzip();
    let owner = caller.as_ref().ok().map(Caller::identity);
    let EncodedArray { body, kinds, is_complete } = gateway.api.encode_array(responses, owner);
    let has_run = kinds.iter().any(|kind| !matches!(kind, ResponseKind::Rejected(_)));
    // The statuses of the media type that is sent. `BatchHttpLink` reads results, such as a request for the text of a
    // persisted query, under 200 only.
    let form = ResponseForm { media_type: MediaType::Json, ..form };
    let first = kinds.first().map(|kind| form.status(*kind));
    let status = match statuses.first().copied().flatten().map(|status| form.refusal_status(status)) {
        _ if has_run => StatusCode::OK,
        refused => refused.or(first).unwrap_or(StatusCode::OK),
    };
    let encoded = EncodedResponse { untrusted, ..EncodedResponse::plain(status, MediaType::Json, body) };
    let is_cacheable = is_complete && may_be_cached;
    let response = deliver(gateway, cache_request, None, coding, encoded, appointments, is_cacheable).await;
    drop(permit);
    Ok(response)
}

/// Parses, validates and plans all operations before the first is executed.
///
/// # Errors
/// `QUERY_TOO_COMPLEX` if the operations together exceed a limit.
async fn prepare(
    gateway: &Gateway,
    requests: Vec<Result<GraphqlRequest, Refusal>>,
    caller: Option<&Caller>,
) -> Result<Vec<Prepared>, Refusal> {
    let mut totals = ArrayTotals::default();
    // At the same time, since each may ask the other replicas for its text.
    let mut all = join_all(requests.into_iter().map(|request| prepare_one(gateway, request, caller))).await;
    for operation in all.iter_mut().flatten() {
        gateway
            .api
            .add_to_array(&mut totals, operation)
            .map_err(|error| Refusal::with_status(StatusCode::UNPROCESSABLE_ENTITY, error))?;
    }
    Ok(all)
}

async fn prepare_one(
    gateway: &Gateway,
    request: Result<GraphqlRequest, Refusal>,
    caller: Option<&Caller>,
) -> Prepared {
    let reject = |refusal: Refusal| {
        let (status, error) = refusal.into_parts();
        (Some(status), GraphqlResponse::rejected(vec![error]))
    };
    let parsed = gateway.api.parse(request.map_err(reject)?, caller).await;
    let parsed = parsed.map_err(|response| (None, response))?;
    let operation = gateway.api.prepare(parsed).await.map_err(|response| (None, response))?;
    if operation.is_subscription() {
        return Err(reject(Refusal::new(
            StatusCode::BAD_REQUEST,
            "Subscriptions are not supported in an array of operations. Send the subscription in a request of its own with \
             \"Accept: text/event-stream\", or over a WebSocket.",
        )));
    }
    Ok(operation)
}
