//! The health checks `/livez` and `/readyz`.

use std::sync::Arc;

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};

use super::gateway::Gateway;

/// `GET /livez`: 200 while the process serves requests.
pub(crate) async fn live() -> Response {
    respond(StatusCode::OK, "live\n")
}

/// `GET /readyz`: 200, or 503 once the graceful shutdown has been announced. The state of the upstream does not count:
/// during an outage, a gateway that serves cached data and errors is better than none.
pub(crate) async fn ready(State(gateway): State<Arc<Gateway>>) -> Response {
    if gateway.shutdown.is_announced() {
        respond(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else {
        respond(StatusCode::OK, "ready\n")
    }
}

fn respond(status: StatusCode, text: &'static str) -> Response {
    (status, text).into_response()
}
