//! The routes of the sandbox, their handlers and their middleware.
//!
//! A handler validates the request, calls the [`AppointmentStore`] and responds. Like the upstream, it checks first the
//! token, then the id, then the body.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    access::{self, TokenRegistry, Visibility},
    faults::{self, FaultInjector},
    refusal::{FieldErrors, SandboxError},
    store::AppointmentStore,
    validate,
};

/// The maximum size of a body in bytes.
const MAX_BODY: usize = 64 * 1024;
const DEFAULT_PER_PAGE: usize = 15;
const MAX_PER_PAGE: usize = 100;

const LIST: &str = "/api/v1/appointments";
const APPOINTMENT: &str = "/api/v1/appointments/{appointment}";
const CANCEL: &str = "/api/v1/appointments/{appointment}/cancel";
const TOKEN: &str = "/oauth2/token";

/// The HTTP API of the sandbox.
pub(crate) fn router(
    tokens: Arc<TokenRegistry>,
    injector: Arc<FaultInjector>,
    store: Arc<AppointmentStore>,
) -> Router {
    Router::new()
        .route(LIST, get(list).post(create))
        .route(APPOINTMENT, get(show).patch(update))
        .route(CANCEL, post(cancel))
        // Around the routes above only: an unknown path gives 404 and a wrong method 405, even without a token.
        .route_layer(from_fn_with_state(tokens.clone(), access::authorise))
        .route(TOKEN, post(access::token).with_state(tokens))
        .fallback(async || SandboxError::RouteNotFound)
        .method_not_allowed_fallback(async || SandboxError::MethodNotAllowed)
        // From the innermost to the outermost:
        .layer(DefaultBodyLimit::max(MAX_BODY)) // bounds the memory of a body
        .layer(from_fn(set_cache_control)) // inside fault injection: a load balancer's error page lacks it
        .layer(from_fn_with_state(injector, faults::inject_faults)) // like a load balancer and the network
        .layer(from_fn(log_request)) // logs the final status, including injected faults
        .with_state(store)
}

/// `GET /appointments`
async fn list(
    State(store): State<Arc<AppointmentStore>>,
    Extension(visibility): Extension<Visibility>,
    query: Result<Query<HashMap<String, String>>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, SandboxError> {
    let query = query.map(|Query(query)| query).unwrap_or_default();
    let mut errors = FieldErrors::default();
    let page = positive_parameter(&query, "page", 1, &mut errors);
    let per_page = positive_parameter(&query, "per_page", DEFAULT_PER_PAGE, &mut errors).min(MAX_PER_PAGE);
    errors.into_result(())?;

    let skipped = (page - 1).saturating_mul(per_page);
    let served = store.page(visibility, skipped, per_page, Timestamp::now());
    let last_page = served.total.div_ceil(per_page).max(1);
    let count = served.items.len();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("sandbox.example");
    let path = format!("http://{host}{LIST}");
    let link = |page: usize| format!("{path}?page={page}");
    let body = json!({
        "data": served.items,
        "links": {
            "first": link(1),
            "last": link(last_page),
            "prev": (page > 1).then(|| link(page - 1)),
            "next": (page < last_page).then(|| link(page + 1)),
        },
        "meta": {
            "current_page": page,
            "from": (count > 0).then_some(skipped.saturating_add(1)),
            "last_page": last_page,
            "path": path,
            "per_page": per_page,
            "to": (count > 0).then_some(skipped.saturating_add(count)),
            "total": served.total,
        },
    });
    Ok(with_etag(&headers, &body))
}

/// Returns a positive integer parameter of the query.
fn positive_parameter(
    query: &HashMap<String, String>,
    name: &str,
    default: usize,
    errors: &mut FieldErrors,
) -> usize {
    let Some(text) = query.get(name) else { return default };
    match text.parse() {
        Ok(number) if number > 0 => return number,
        Ok(_) => errors.add(name, format!("The {} must be at least 1.", name.replace('_', " "))),
        Err(_) => errors.add(name, format!("The {} must be an integer.", name.replace('_', " "))),
    }
    default
}

/// `GET /appointments/{id}`
async fn show(
    State(store): State<Arc<AppointmentStore>>,
    Extension(visibility): Extension<Visibility>,
    AppointmentId(id): AppointmentId,
    headers: HeaderMap,
) -> Result<Response, SandboxError> {
    let served = store.get(id, visibility, Timestamp::now())?;
    Ok(with_etag(&headers, &json!({ "data": served })))
}

/// `POST /appointments`
async fn create(
    State(store): State<Arc<AppointmentStore>>,
    Extension(visibility): Extension<Visibility>,
    JsonFields(body): JsonFields,
) -> Result<Response, SandboxError> {
    let (at, change) = validate::create(&body)?;
    let served = store.create(at, change, visibility, Timestamp::now())?;
    Ok((StatusCode::CREATED, Json(json!({ "data": served }))).into_response())
}

/// `PATCH /appointments/{id}`
async fn update(
    State(store): State<Arc<AppointmentStore>>,
    Extension(visibility): Extension<Visibility>,
    AppointmentId(id): AppointmentId,
    request: Request,
) -> Result<Response, SandboxError> {
    // Errors of the id take precedence over errors of the body.
    store.get(id, visibility, Timestamp::now())?;
    let JsonFields(body) = JsonFields::from_request(request, &()).await?;
    let change = validate::update(&body)?;
    let served = store.update(id, change, visibility, Timestamp::now())?;
    Ok(Json(json!({ "data": served })).into_response())
}

/// `POST /appointments/{id}/cancel`
async fn cancel(
    State(store): State<Arc<AppointmentStore>>,
    Extension(visibility): Extension<Visibility>,
    AppointmentId(id): AppointmentId,
    request: Request,
) -> Result<Response, SandboxError> {
    store.get(id, visibility, Timestamp::now())?;
    let JsonFields(body) = JsonFields::from_request(request, &()).await?;
    let reason = validate::cancellation(&body)?;
    let served = store.cancel(id, reason, visibility, Timestamp::now())?;
    Ok(Json(json!({ "data": served })).into_response())
}

/// Adds an `ETag`, or returns 304 if it matches `If-None-Match`.
fn with_etag(request: &HeaderMap, body: &Value) -> Response {
    let body = body.to_string();
    // A UUID of version 5 contains a SHA-1 digest.
    let tag = format!("\"{}\"", Uuid::new_v5(&Uuid::NAMESPACE_OID, body.as_bytes()).simple());
    let known = request.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let known = known.flat_map(|tags| tags.split(',')).map(|tag| tag.trim().trim_start_matches("W/"));
    if known.into_iter().any(|known| known == tag || known == "*") {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response();
    }
    ([(header::CONTENT_TYPE, "application/json".to_owned()), (header::ETAG, tag)], body).into_response()
}

/// The id in the path. A malformed id is treated as unknown.
struct AppointmentId(Uuid);

impl<S: Send + Sync> FromRequestParts<S> for AppointmentId {
    type Rejection = SandboxError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, SandboxError> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let text = path.map(|Path(text)| text).unwrap_or_default();
        // The parser accepts further notations, which the upstream rejects.
        match Uuid::try_parse(&text) {
            Ok(id) if text.len() == "9a0f170e-0aa0-47db-ab14-4ddcdcbad061".len() => Ok(AppointmentId(id)),
            _ => Err(SandboxError::AppointmentNotFound(text)),
        }
    }
}

/// The fields of a JSON body. An empty body has no fields.
struct JsonFields(Map<String, Value>);

impl<S: Send + Sync> FromRequest<S> for JsonFields {
    type Rejection = SandboxError;

    async fn from_request(request: Request, state: &S) -> Result<Self, SandboxError> {
        let media_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_json = media_type.is_some_and(|media_type| {
            let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
            essence == "application/json" || essence.ends_with("+json")
        });
        let bytes = Bytes::from_request(request, state).await.map_err(body_error)?;
        if bytes.is_empty() {
            return Ok(JsonFields(Map::new()));
        }
        if !is_json {
            return Err(SandboxError::NotJson);
        }
        serde_json::from_slice(&bytes).map(JsonFields).map_err(|_| SandboxError::NotAnObject)
    }
}

fn body_error(rejection: BytesRejection) -> SandboxError {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => SandboxError::TooLarge,
        _ => SandboxError::UnreadableBody,
    }
}

/// Sets the framework's default `Cache-Control` unless the handler set its own.
async fn set_cache_control(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response
        .headers_mut()
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-cache, private"));
    response
}

/// Logs method, route and status. The path is not logged, because it could contain personal data.
async fn log_request(request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let route = match request.uri().path() {
        LIST => LIST,
        TOKEN => TOKEN,
        path if !path.starts_with(LIST) => "unknown",
        path if path.ends_with("/cancel") => CANCEL,
        _ => APPOINTMENT,
    };
    let response = next.run(request).await;
    tracing::debug!(%method, route, status = response.status().as_u16(), "sandbox request completed");
    response
}
