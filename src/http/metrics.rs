//! What is counted, for a scraper.

use axum::{
    http::header,
    response::{IntoResponse, Response},
};

use crate::metrics::{CONTENT_TYPE, metrics};

/// OpenMetrics text.
pub(super) async fn show() -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], metrics().text()).into_response()
}
