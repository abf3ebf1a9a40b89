//! What is counted, for a scraper.

use axum::{
    http::header,
    response::{IntoResponse, Response},
};

use crate::metrics::{CONTENT_TYPE, metrics};

/// OpenMetrics text.
pub(super) async fn show() -> Response {
    let headers = [(header::CONTENT_TYPE, CONTENT_TYPE), (header::CACHE_CONTROL, "no-store")];
    (headers, metrics().text()).into_response()
}
