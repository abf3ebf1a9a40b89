//! Whether the process lives, and whether it should be sent requests.

use std::sync::Arc;

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};

use super::gateway::Gateway;

/// 200 as long as requests are served at all.
pub(crate) async fn live() -> Response {
    answer(StatusCode::OK, "live\n")
}

/// 200, or 503 once the gateway has been asked to stop. It says nothing of the upstream: if that is down, a gateway
/// that answers with errors, and from its cache, serves better than none.
pub(crate) async fn ready(State(gateway): State<Arc<Gateway>>) -> Response {
    if gateway.drain.is_announced() {
        answer(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else {
        answer(StatusCode::OK, "ready\n")
    }
}

fn answer(status: StatusCode, text: &'static str) -> Response {
    (status, text).into_response()
}
