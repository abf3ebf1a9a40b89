//! Error responses of the sandbox, with the texts and structure of the upstream's framework.
//!
//! Authentication, validation and the store return a [`SandboxError`]. Only this module maps it to a status and a body.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

/// The reason for rejecting a request.
#[derive(Debug)]
pub(crate) enum SandboxError {
    /// A missing or unknown token.
    Unauthenticated,
    /// The token has no access to this appointment.
    Forbidden,
    /// An unknown or malformed id. Like the upstream, the sandbox echoes it.
    AppointmentNotFound(String),
    /// An unknown path.
    RouteNotFound,
    /// A method that the route does not support.
    MethodNotAllowed,
    /// The appointment is already cancelled.
    AlreadyCancelled,
    /// The maximum number of created appointments is reached.
    Full,
    /// The body exceeds the size limit.
    TooLarge,
    /// The body is incomplete.
    UnreadableBody,
    /// The media type of the body is not JSON.
    NotJson,
    /// The body is not a JSON object.
    NotAnObject,
    /// Invalid fields.
    Invalid(FieldErrors),
    /// Too many requests in the current minute.
    RateLimited { limit: u32, retry_after: u64 },
}

/// Validation errors of a body, by field.
#[derive(Debug, Default)]
pub(crate) struct FieldErrors {
    first: Option<String>,
    count: usize,
    by_field: Map<String, Value>,
}

impl FieldErrors {
    /// Adds the error of a field. Each field is validated once, so it has at most one error.
    pub(crate) fn add(&mut self, field: &str, message: String) {
        self.count += 1;
        self.by_field.insert(field.to_owned(), json!([message]));
        self.first.get_or_insert(message);
    }

    /// Returns `value` if there are no errors.
    pub(crate) fn into_result<T>(self, value: T) -> Result<T, SandboxError> {
        if self.count == 0 { Ok(value) } else { Err(SandboxError::Invalid(self)) }
    }

    /// The framework's summary: the first message and the number of the others.
    fn body(self) -> Value {
        let first = self.first.unwrap_or_default();
        let message = match self.count {
            0 | 1 => first,
            2 => format!("{first} (and 1 more error)"),
            count => format!("{first} (and {} more errors)", count - 1),
        };
        json!({ "message": message, "errors": self.by_field })
    }
}

impl IntoResponse for SandboxError {
    fn into_response(self) -> Response {
        let (status, message) = match self {
            SandboxError::Unauthenticated => (StatusCode::UNAUTHORIZED, "Unauthenticated.".to_owned()),
            SandboxError::Forbidden => (StatusCode::FORBIDDEN, "This action is unauthorized.".to_owned()),
            SandboxError::AppointmentNotFound(id) => {
                let message = format!("No query results for model [App\\Models\\Appointment] {id}");
                (StatusCode::NOT_FOUND, message)
            }
            SandboxError::RouteNotFound => {
                (StatusCode::NOT_FOUND, "The route could not be found.".to_owned())
            }
            SandboxError::MethodNotAllowed => {
                let message = "The method is not supported for this route.".to_owned();
                (StatusCode::METHOD_NOT_ALLOWED, message)
            }
            SandboxError::AlreadyCancelled => {
                (StatusCode::CONFLICT, "The appointment is already cancelled.".to_owned())
            }
            SandboxError::Full => {
                (StatusCode::CONFLICT, "The sandbox holds no more appointments.".to_owned())
            }
            SandboxError::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "The body is too large.".to_owned()),
            SandboxError::UnreadableBody => {
                (StatusCode::BAD_REQUEST, "The body could not be read.".to_owned())
            }
            SandboxError::NotJson => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body must be JSON.".to_owned())
            }
            SandboxError::NotAnObject => {
                let body = json!({ "message": "The body must be a JSON object.", "errors": {} });
                return (StatusCode::UNPROCESSABLE_ENTITY, Json(body)).into_response();
            }
            SandboxError::Invalid(errors) => {
                return (StatusCode::UNPROCESSABLE_ENTITY, Json(errors.body())).into_response();
            }
            SandboxError::RateLimited { limit, retry_after } => {
                let body = Json(json!({ "message": "Too Many Attempts." }));
                let mut response = (StatusCode::TOO_MANY_REQUESTS, body).into_response();
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after));
                set_rate_limit_headers(&mut response, limit, 0);
                return response;
            }
        };
        (status, Json(json!({ "message": message }))).into_response()
    }
}

/// Sets the rate limit headers, which the upstream sends with every response, including a 429.
pub(crate) fn set_rate_limit_headers(response: &mut Response, limit: u32, left: u32) {
    let headers = response.headers_mut();
    headers.insert("x-ratelimit-limit", HeaderValue::from(limit));
    headers.insert("x-ratelimit-remaining", HeaderValue::from(left));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_counts_the_other_errors() {
        let mut invalid = FieldErrors::default();
        invalid.add("appointment_at", "The appointment at field is required.".to_owned());
        invalid.add("claimant.email", "The claimant.email must be a valid email address.".to_owned());
        let body = invalid.body();
        assert_eq!(body["message"], "The appointment at field is required. (and 1 more error)");
        assert_eq!(body["errors"]["claimant.email"][0], "The claimant.email must be a valid email address.");
    }
}
