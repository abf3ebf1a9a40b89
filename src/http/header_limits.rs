//! Limits on the request head and on the framing of the body. hyper parses the head first, within higher limits set in
//! [`crate::server`]. [`crate::http::hyper_errors`] adds a body to hyper's own rejections.

use axum::http::{HeaderValue, Request, StatusCode, header};

use super::refusal::Refusal;
use crate::{
    config::limits::Limits,
    error::limit::{Limit, LimitExceeded},
};

/// Checks the head of `request` against the limits. Rejects transfer codings other than `chunked`, since hyper ignores
/// codings before that one.
///
/// # Errors
/// 414 or 431 with the name of the limit, or 400.
pub(crate) fn check<B>(request: &Request<B>, limits: &Limits) -> Result<(), Refusal> {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len()) as u64;
    let headers = request.headers();
    // Each header also has ": " and a line break on the wire.
    let size =
        headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>() as u64;
    let too_large = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    for (limit, status, value, maximum, subject, unit) in [
        (Limit::Uri, StatusCode::URI_TOO_LONG, target, limits.uri.as_u64(), "Request target of", "bytes"),
        (
            Limit::HeaderCount,
            too_large,
            headers.len() as u64,
            limits.header_count as u64,
            "Request head with",
            "headers",
        ),
        (Limit::Headers, too_large, target + size, limits.headers.as_u64(), "Request head of", "bytes"),
    ] {
        if value > maximum {
            let message =
                format!("{subject} {value} {unit} exceeds the limit of {maximum} {unit} (limits.{limit}).");
            return Err(Refusal::with_status(
                status,
                LimitExceeded::bad_request(limit, Some(maximum), Some(value), message),
            ));
        }
    }
    if headers
        .get_all(header::TRANSFER_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        let message = "Unsupported Transfer-Encoding. Only a single \"chunked\" is supported.";
        // The end of this request is uncertain, so the connection cannot be reused.
        return Err(Refusal::new(StatusCode::BAD_REQUEST, message)
            .with_header(header::CONNECTION, HeaderValue::from_static("close")));
    }
    Ok(())
}
