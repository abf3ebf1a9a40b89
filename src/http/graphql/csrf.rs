//! CSRF protection: requests that a page of another site can send without a CORS preflight are rejected.

use axum::http::{HeaderMap, StatusCode, header};

use super::accept::{self, media_ranges};
use crate::http::refusal::Refusal;

/// Headers that make a browser send a CORS preflight before a cross-site request.
const FORCES_PREFLIGHT: [&str; 5] = [
    "authorization",
    "graphql-require-preflight",
    "apollo-require-preflight",
    "x-apollo-operation-name",
    "x-requested-with",
];

/// Rejects a GET that a page of another site could send without a CORS preflight.
///
/// # Errors
/// 403.
pub(crate) fn reject_simple_get(headers: &HeaderMap) -> Result<(), Refusal> {
    let accepts_json = media_ranges(headers).flatten().any(|range| {
        ["json", "graphql-response+json"].iter().any(|subtype| range.mime.matches("application", subtype))
    });
    if accepts_json || FORCES_PREFLIGHT.iter().any(|name| headers.contains_key(*name)) {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::FORBIDDEN,
        "GET request rejected by the CSRF protection. Send \"Accept: application/json\", or a header such as \
         \"GraphQL-Require-Preflight: 1\".",
    ))
}

/// Rejects a POST without `Content-Type: application/json`, which a page of another site cannot send without a CORS
/// preflight.
///
/// # Errors
/// 415, also for a compressed body.
pub(crate) fn require_json_body(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut content_types = headers.get_all(header::CONTENT_TYPE).iter();
    let content_type = content_types.next().filter(|_| content_types.next().is_none());
    // The most common value needs no parsing.
    if !content_type.is_some_and(|value| value == "application/json" || is_json(value.as_bytes())) {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Unsupported Content-Type. Send a JSON body in UTF-8 with \"Content-Type: application/json\".",
        ));
    }
    let is_identity = |value: &str| value.is_empty() || value.eq_ignore_ascii_case("identity");
    if headers.get_all(header::CONTENT_ENCODING).iter().any(|value| !value.to_str().is_ok_and(is_identity)) {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Compressed request bodies are not supported. Send the JSON body without Content-Encoding.",
        ));
    }
    Ok(())
}

/// Whether `content_type` is JSON in UTF-8.
fn is_json(content_type: &[u8]) -> bool {
    accept::parse(content_type).is_some_and(|mime| {
        mime.matches("application", "json")
            && mime.get_parameter("charset").is_none_or(|charset| charset.eq_ignore_ascii_case("utf-8"))
    })
}
