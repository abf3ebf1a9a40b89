//! CSRF protection: requests that a page of another site can send without a CORS preflight are rejected.

use axum::http::{HeaderMap, StatusCode, header};
use mime::Mime;

use super::accept::accepted;
use crate::http::refusal::Refusal;

/// Any of these makes a browser ask for permission (a CORS preflight) before it sends a request from another site.
pub(crate) const FORCES_PREFLIGHT: [&str; 5] = [
    "authorization",
    "graphql-require-preflight",
    "apollo-require-preflight",
    "x-apollo-operation-name",
    "x-requested-with",
];

/// Whether a GET could have been sent by a page of another site without the browser asking for permission first.
///
/// # Errors
/// 403 where it could.
pub(crate) fn no_simple_get(headers: &HeaderMap) -> Result<(), Refusal> {
    let accepts_json = accepted(headers)
        .flatten()
        .any(|range| matches!(range.essence_str(), "application/json" | "application/graphql-response+json"));
    if accepts_json || FORCES_PREFLIGHT.iter().any(|name| headers.contains_key(*name)) {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::FORBIDDEN,
        "A page of another site could have sent this GET (CSRF). Send \"Accept: application/json\", or a header such as \
         \"GraphQL-Require-Preflight: 1\".",
    ))
}

/// Whether a POST says that it brings JSON, which no page of another site can say without permission.
///
/// # Errors
/// 415 where it does not, or where the JSON is encoded in a way that is not read.
pub(crate) fn json_body(headers: &HeaderMap) -> Result<(), Refusal> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    // To the letter, as most say it.
    let is_plainly_json = content_type == Some("application/json");
    let is_json = is_plainly_json
        || content_type.and_then(|value| value.parse::<Mime>().ok()).is_some_and(|value| {
            value.essence_str() == "application/json"
                && value.get_param(mime::CHARSET).is_none_or(|charset| charset == mime::UTF_8)
        });
    if !is_json {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "A POST brings JSON in UTF-8. Send \"Content-Type: application/json\".",
        ));
    }
    let is_plain = |value: &str| value.is_empty() || value.eq_ignore_ascii_case("identity");
    if headers.get_all(header::CONTENT_ENCODING).iter().any(|value| !value.to_str().is_ok_and(is_plain)) {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Compressed request bodies are not read. Send the JSON as it is, without Content-Encoding.",
        ));
    }
    Ok(())
}
