//! The routes, their handlers and the middleware around them.
//!
//! Stands behind the connection and before everything that knows appointments: a handler reads the request, asks
//! [`Store`] once, and answers. The order of its questions is the upstream's: token, then id, then body.

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

use super::state::Sandbox;
use super::{
    access::{self, Sight},
    faults::{self},
    refusal::{Invalid, Refusal},
    validate,
};

/// The most that is read of a body, in bytes.
const MAX_BODY: usize = 64 * 1024;
const USUAL_PER_PAGE: usize = 15;
const MAX_PER_PAGE: usize = 100;

const LIST: &str = "/api/v1/appointments";
const ONE: &str = "/api/v1/appointments/{appointment}";
const CANCEL: &str = "/api/v1/appointments/{appointment}/cancel";
const TOKEN: &str = "/oauth2/token";

/// The whole of the HTTP surface.
pub(crate) fn router(sandbox: Arc<Sandbox>) -> Router {
    Router::new()
        .route(LIST, get(list).post(create))
        .route(ONE, get(show).patch(update))
        .route(CANCEL, post(cancel))
        // Only around the routes above: an unknown path is 404 and a wrong method 405, with a token or without.
        .route_layer(from_fn_with_state(sandbox.clone(), access::authorise))
        .route(TOKEN, post(access::token))
        .fallback(async || Refusal::NoRoute)
        .method_not_allowed_fallback(async || Refusal::NoMethod)
        // From the innermost to the outermost:
        .layer(DefaultBodyLimit::max(MAX_BODY)) // whatever reads a body, it reads no more than this
        .layer(from_fn(forbid_storing)) // what the application says, and a load balancer's error page does not
        .layer(from_fn_with_state(sandbox.clone(), faults::befall)) // as if there were a network outside
        .layer(from_fn(log)) // says what went out, faults included
        .with_state(sandbox)
}

/// `GET /appointments`
async fn list(
    State(sandbox): State<Arc<Sandbox>>,
    Extension(sight): Extension<Sight>,
    query: Result<Query<HashMap<String, String>>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let query = query.map(|Query(query)| query).unwrap_or_default();
    let mut invalid = Invalid::default();
    let page = positive(&query, "page", 1, &mut invalid);
    let per_page = positive(&query, "per_page", USUAL_PER_PAGE, &mut invalid).min(MAX_PER_PAGE);
    invalid.or(())?;

    let skipped = (page - 1).saturating_mul(per_page);
    let shown = sandbox.store.page(sight, skipped, per_page, Timestamp::now());
    let last_page = shown.total.div_ceil(per_page).max(1);
    let count = shown.items.len();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("sandbox.example");
    let path = format!("http://{host}{LIST}");
    let link = |page: usize| format!("{path}?page={page}");
    let body = json!({
        "data": shown.items,
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
            "total": shown.total,
        },
    });
    Ok(tagged(&headers, &body))
}

/// A positive whole number of the query.
fn positive(query: &HashMap<String, String>, name: &str, usual: usize, invalid: &mut Invalid) -> usize {
    let Some(text) = query.get(name) else { return usual };
    match text.parse() {
        Ok(number) if number > 0 => return number,
        Ok(_) => invalid.note(name, format!("The {} must be at least 1.", name.replace('_', " "))),
        Err(_) => invalid.note(name, format!("The {} must be an integer.", name.replace('_', " "))),
    }
    usual
}

/// `GET /appointments/{id}`
async fn show(
    State(sandbox): State<Arc<Sandbox>>,
    Extension(sight): Extension<Sight>,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let shown = sandbox.store.get(id, sight, Timestamp::now())?;
    Ok(tagged(&headers, &json!({ "data": shown })))
}

/// `POST /appointments`
async fn create(
    State(sandbox): State<Arc<Sandbox>>,
    Extension(sight): Extension<Sight>,
    Fields(body): Fields,
) -> Result<Response, Refusal> {
    let (at, change) = validate::create(&body)?;
    let shown = sandbox.store.create(at, change, sight, Timestamp::now())?;
    Ok((StatusCode::CREATED, Json(json!({ "data": shown }))).into_response())
}

/// `PATCH /appointments/{id}`
async fn update(
    State(sandbox): State<Arc<Sandbox>>,
    Extension(sight): Extension<Sight>,
    Id(id): Id,
    request: Request,
) -> Result<Response, Refusal> {
    // An id that is unknown or not theirs comes before whatever is wrong with the body.
    sandbox.store.get(id, sight, Timestamp::now())?;
    let Fields(body) = Fields::from_request(request, &()).await?;
    let change = validate::update(&body)?;
    let shown = sandbox.store.update(id, change, sight, Timestamp::now())?;
    Ok(Json(json!({ "data": shown })).into_response())
}

/// `POST /appointments/{id}/cancel`
async fn cancel(
    State(sandbox): State<Arc<Sandbox>>,
    Extension(sight): Extension<Sight>,
    Id(id): Id,
    request: Request,
) -> Result<Response, Refusal> {
    sandbox.store.get(id, sight, Timestamp::now())?;
    let Fields(body) = Fields::from_request(request, &()).await?;
    let reason = validate::cancellation(&body)?;
    let shown = sandbox.store.cancel(id, reason, sight, Timestamp::now())?;
    Ok(Json(json!({ "data": shown })).into_response())
}

/// The answer with its tag, or 304 if the caller has it already.
fn tagged(request: &HeaderMap, body: &Value) -> Response {
    let body = body.to_string();
    // A digest that is at hand: a UUID of version 5 is the SHA-1 of what it names.
    let tag = format!("\"{}\"", Uuid::new_v5(&Uuid::NAMESPACE_OID, body.as_bytes()).simple());
    let known = request.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let known = known.flat_map(|tags| tags.split(',')).map(|tag| tag.trim().trim_start_matches("W/"));
    if known.into_iter().any(|known| known == tag || known == "*") {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response();
    }
    ([(header::CONTENT_TYPE, "application/json".to_owned()), (header::ETAG, tag)], body).into_response()
}

/// The id in the path. What is no id is an id that nobody has.
struct Id(Uuid);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let text = path.map(|Path(text)| text).unwrap_or_default();
        // The parser knows other notations, which the upstream does not.
        match Uuid::try_parse(&text) {
            Ok(id) if text.len() == "9a0f170e-0aa0-47db-ab14-4ddcdcbad061".len() => Ok(Id(id)),
            _ => Err(Refusal::NoAppointment(text)),
        }
    }
}

/// A body of fields. No body is a body without fields.
struct Fields(Map<String, Value>);

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let media_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_json = media_type.is_some_and(|media_type| {
            let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
            essence == "application/json" || essence.ends_with("+json")
        });
        let bytes = Bytes::from_request(request, state).await.map_err(unread)?;
        if bytes.is_empty() {
            return Ok(Fields(Map::new()));
        }
        if !is_json {
            return Err(Refusal::NotJson);
        }
        serde_json::from_slice(&bytes).map(Fields).map_err(|_| Refusal::NoObject)
    }
}

fn unread(rejection: BytesRejection) -> Refusal {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::TooLarge,
        _ => Refusal::BrokenBody,
    }
}

/// The framework's own word on caching, unless a handler has a stricter one.
async fn forbid_storing(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response
        .headers_mut()
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-cache, private"));
    response
}

/// Method, route and status. Not the path: an unknown one may hold anything.
async fn log(request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let route = match request.uri().path() {
        LIST => LIST,
        TOKEN => TOKEN,
        path if !path.starts_with(LIST) => "unknown",
        path if path.ends_with("/cancel") => CANCEL,
        _ => ONE,
    };
    let response = next.run(request).await;
    tracing::debug!(%method, route, status = response.status().as_u16(), "sandbox answered");
    response
}
