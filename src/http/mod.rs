//! The gateway's face to clients: routes, and what every request passes on its way to them.
//!
//! Everything that is refused anywhere here leaves as a `Refusal`, in the `errors` shape of GraphQL.

mod browser;
mod caller;
mod compression;
mod drain;
mod graphiql;
mod graphql;
mod head;
mod health;
mod metrics;
mod patience;
mod places;
mod rate_limit;
mod refusal;
mod request_id;
mod unparsed;
mod unread;

use std::{any::Any, sync::Arc, time::Duration};

use axum::{
    Router,
    http::{HeaderValue, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{any, get},
};
use tower::util::option_layer;
use tower_http::catch_panic::CatchPanicLayer;

pub use drain::{Drain, Open};
pub use graphiql::Settings as GraphiqlSettings;
pub use graphql::Answers;
#[cfg(fuzzing)]
pub use graphql::fuzzing;
pub use patience::Patient;
use places::Place;
pub use places::{Places, Turns};
pub use rate_limit::RateLimit;
use refusal::Refusal;
pub use unparsed::Worded;

use crate::{
    appointments::Shared,
    config::{HttpConfig, Limits, WebSocketConfig},
    graphql::{Api, error::ApiError},
    identity::Identity,
};

/// What the routes share.
#[derive(Debug)]
pub struct Gateway {
    /// Parses and runs operations.
    pub api: Api,
    /// What operations read and change through.
    pub appointments: Shared,
    /// Finished answers, for equal requests.
    pub answers: Answers,
    /// Tells who asks.
    pub identity: Identity,
    /// Clocks, and which pages may ask.
    pub http: HttpConfig,
    /// Bounds on what comes in.
    pub limits: Limits,
    /// Clocks and bounds of WebSockets.
    pub websocket: WebSocketConfig,
    /// How often each caller may ask.
    pub rate_limit: RateLimit,
    /// Places for the operations that are carried out.
    pub operations: Turns,
    /// Places for WebSockets.
    pub websockets: Places,
    /// Places for subscriptions over event streams.
    pub event_streams: Places,
    /// How often an event stream or a WebSocket gets a sign of life.
    pub keep_alive: Duration,
    /// What GraphiQL opens with; none where it is not served.
    pub graphiql: Option<GraphiqlSettings>,
    /// Whether `/metrics` is served beside `/graphql`.
    pub serves_metrics: bool,
    /// Everything that is open, and when it is to end.
    pub drain: Drain,
}

/// All routes, behind the middleware.
pub fn router(gateway: Arc<Gateway>) -> Router {
    let mut router = Router::new()
        .route("/graphql", any(graphql::serve))
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready));
    if gateway.serves_metrics {
        router = router.route("/metrics", get(metrics::show));
    }
    if gateway.graphiql.is_some() {
        router = router
            .route("/", get(graphiql::page))
            .route("/graphiql.json", get(graphiql::settings))
            .route("/assets/{name}", get(graphiql::asset))
            .route("/THIRD-PARTY-LICENSES.txt", get(graphiql::licences));
    }
    behind_middleware(router, gateway)
}

/// What is served at `metrics.listen`: the metrics and nothing else.
pub fn metrics_router(gateway: Arc<Gateway>) -> Router {
    behind_middleware(Router::new().route("/metrics", get(metrics::show)), gateway)
}

fn behind_middleware(router: Router<Arc<Gateway>>, gateway: Arc<Gateway>) -> Router {
    router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        // From the innermost to the outermost:
        // what is too large to be looked at closely is not looked at;
        .layer(middleware::from_fn_with_state(gateway.clone(), head::bounded))
        // a fault of ours is one request's, not the process's;
        .layer(CatchPanicLayer::custom(panicked))
        // pages of other sites read what they may, also why they were refused;
        .layer(option_layer(browser::cors(&gateway.http.origins)))
        // no browser makes of an answer what it is not;
        .layer(middleware::map_response(browser::safe))
        // a client knows when its connection has had its day;
        .layer(middleware::from_fn(unread::announced))
        // and everything above has a name to be asked about by, in the answer and in the log.
        .layer(middleware::from_fn(request_id::assign))
        .with_state(gateway)
}

async fn not_found() -> Refusal {
    Refusal::nothing_here()
}

async fn method_not_allowed() -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "This is read with GET.")
        .with_header(header::ALLOW, HeaderValue::from_static("GET, HEAD"))
}

/// The panic's text may hold anything, so nobody gets to see it; where it happened is in the log (see
/// [`crate::telemetry`]).
fn panicked(_: Box<dyn Any + Send>) -> Response {
    Refusal::from(ApiError::Internal).into_response()
}
