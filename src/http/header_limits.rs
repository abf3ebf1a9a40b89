//! How large the head of a request may be, and how its body may be framed. hyper reads it before anything here sees it, within bounds of its own above
//! these (see [`crate::server`]); what it refuses is put into words by [`crate::http::hyper_errors`].

use axum::http::{HeaderValue, Request, StatusCode, header};

use super::refusal::Refusal;
use crate::{
    config::limits::Limits,
    error::limit::{Limit, LimitExceeded},
};

/// Makes sure that the head of `request` is within the limits, and that its body has no other transfer coding than
/// `chunked`: hyper passes over codings before that one.
///
/// # Errors
/// 414 and 431, naming the limit; 400.
pub(crate) fn check<B>(request: &Request<B>, limits: &Limits) -> Result<(), Refusal> {
    let target = request.uri().path_and_query().map_or(0, |it| it.as_str().len()) as u64;
    let headers = request.headers();
    // ": " and the end of the line count as they do on the wire.
    let size =
        headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>() as u64;
    let is_too_large = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    for (limit, status, value, maximum, what) in [
        (Limit::Uri, StatusCode::URI_TOO_LONG, target, limits.uri.as_u64(), "address has so many bytes"),
        (
            Limit::HeaderCount,
            is_too_large,
            headers.len() as u64,
            limits.header_count as u64,
            "headers are so many",
        ),
        (
            Limit::Headers,
            is_too_large,
            target + size,
            limits.headers.as_u64(),
            "request line and headers have so many bytes",
        ),
    ] {
        if value > maximum {
            let message = format!("The {what}: {value}. limits.{limit} allows {maximum}.");
            return Err(Refusal::of(
                status,
                LimitExceeded::bad_request(limit, Some(maximum), Some(value), message),
            ));
        }
    }
    if headers
        .get_all(header::TRANSFER_ENCODING)
        .iter()
        .any(|it| !it.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        let message = "The only Transfer-Encoding here is chunked, once.";
        // Where this request ends is not certain.
        return Err(Refusal::new(StatusCode::BAD_REQUEST, message)
            .with_header(header::CONNECTION, HeaderValue::from_static("close")));
    }
    Ok(())
}
