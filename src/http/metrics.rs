//! The handler of `/metrics`.

use std::sync::Arc;

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};

use super::gateway::Gateway;
use crate::metrics::{CONTENT_TYPE, metrics};

/// `GET /metrics`, in the OpenMetrics text format.
pub(crate) async fn metrics_text(State(gateway): State<Arc<Gateway>>) -> Response {
    gateway.appointments.observe();
    gateway.response_cache.observe();
    gateway.api.observe();
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], metrics().text()).into_response()
}
