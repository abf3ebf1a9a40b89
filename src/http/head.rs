//! How large the head of a request may be. hyper reads it before anything here sees it, within bounds of its own above
//! these (see [`crate::server`]); what it refuses is put into words by [`super::unparsed`].

use axum::http::{Request, StatusCode};

use super::Refusal;
use crate::{config::Limits, graphql::limit::OverLimit};

/// Makes sure that the head of `request` is within the limits.
///
/// # Errors
/// 414 and 431, naming the limit.
pub(super) fn check<B>(request: &Request<B>, limits: &Limits) -> Result<(), Refusal> {
    let target = request.uri().path_and_query().map_or(0, |it| it.as_str().len()) as u64;
    let headers = request.headers();
    // ": " and the end of the line count as they do on the wire.
    let size =
        headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>() as u64;
    let is_too_large = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    for (limit, status, value, maximum, what) in [
        ("uri", StatusCode::URI_TOO_LONG, target, limits.uri.as_u64(), "address has so many bytes"),
        (
            "header_count",
            is_too_large,
            headers.len() as u64,
            limits.header_count as u64,
            "headers are so many",
        ),
        (
            "headers",
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
                OverLimit::bad_request(limit, Some(maximum), Some(value), message),
            ));
        }
    }
    Ok(())
}
