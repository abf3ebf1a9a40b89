//! What is counted, for a scraper.

use std::sync::Arc;

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};

use super::gateway::Gateway;
use crate::metrics::{CONTENT_TYPE, metrics};

/// OpenMetrics text.
pub(crate) async fn show(State(gateway): State<Arc<Gateway>>) -> Response {
    gateway.appointments.observe();
    gateway.answers.observe();
    gateway.api.observe();
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], metrics().text()).into_response()
}
