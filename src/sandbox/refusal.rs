//! Every answer that says no, in the words and shapes that the upstream's framework uses.
//!
//! Stands beside the whole way in: access, validation and store all refuse with a [`Refusal`], and this is the one place
//! where a refusal becomes a status and a body.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

/// Why a request is not carried out.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// No token, or none that is known.
    Unauthenticated,
    /// The token may not see this appointment.
    Forbidden,
    /// No appointment has this id, or it is no id at all; it is repeated as the upstream repeats it.
    NoAppointment(String),
    /// No route has this path.
    NoRoute,
    /// The route has no such method.
    NoMethod,
    /// It is cancelled already.
    Cancelled,
    /// As many appointments were created as the sandbox holds.
    Full,
    /// The body is larger than the sandbox reads.
    TooLarge,
    /// The body ended before it was whole.
    BrokenBody,
    /// The body calls itself something else than JSON.
    NotJson,
    /// The body calls itself JSON and is no JSON object.
    NoObject,
    /// Fields are wrong.
    Invalid(Invalid),
    /// Too many requests in this minute.
    TooMany { limit: u32, retry_after: u64 },
}

/// What is wrong with the fields of a body: messages by field, and the first of them.
#[derive(Debug, Default)]
pub(crate) struct Invalid {
    first: Option<String>,
    count: usize,
    by_field: Map<String, Value>,
}

impl Invalid {
    /// Notes one message. Each field is judged once, so none has two.
    pub(crate) fn note(&mut self, field: &str, message: String) {
        self.count += 1;
        self.by_field.insert(field.to_owned(), json!([message]));
        self.first.get_or_insert(message);
    }

    /// `value` if nothing was noted.
    pub(crate) fn or<T>(self, value: T) -> Result<T, Refusal> {
        if self.count == 0 { Ok(value) } else { Err(Refusal::Invalid(self)) }
    }

    /// The framework sums up with the first message and the number of the others.
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

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, message) = match self {
            Refusal::Unauthenticated => (StatusCode::UNAUTHORIZED, "Unauthenticated.".to_owned()),
            Refusal::Forbidden => (StatusCode::FORBIDDEN, "This action is unauthorized.".to_owned()),
            Refusal::NoAppointment(id) => {
                let message = format!("No query results for model [App\\Models\\Appointment] {id}");
                (StatusCode::NOT_FOUND, message)
            }
            Refusal::NoRoute => (StatusCode::NOT_FOUND, "The route could not be found.".to_owned()),
            Refusal::NoMethod => {
                let message = "The method is not supported for this route.".to_owned();
                (StatusCode::METHOD_NOT_ALLOWED, message)
            }
            Refusal::Cancelled => (StatusCode::CONFLICT, "The appointment is already cancelled.".to_owned()),
            Refusal::Full => (StatusCode::CONFLICT, "The sandbox holds no more appointments.".to_owned()),
            Refusal::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "The body is too large.".to_owned()),
            Refusal::BrokenBody => (StatusCode::BAD_REQUEST, "The body could not be read.".to_owned()),
            Refusal::NotJson => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body must be JSON.".to_owned()),
            Refusal::NoObject => {
                let body = json!({ "message": "The body must be a JSON object.", "errors": {} });
                return (StatusCode::UNPROCESSABLE_ENTITY, Json(body)).into_response();
            }
            Refusal::Invalid(invalid) => {
                return (StatusCode::UNPROCESSABLE_ENTITY, Json(invalid.body())).into_response();
            }
            Refusal::TooMany { limit, retry_after } => {
                let body = Json(json!({ "message": "Too Many Attempts." }));
                let mut response = (StatusCode::TOO_MANY_REQUESTS, body).into_response();
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after));
                remaining(&mut response, limit, 0);
                return response;
            }
        };
        (status, Json(json!({ "message": message }))).into_response()
    }
}

/// Says how many requests are left in this minute, on a 429 and on every other answer alike.
pub(crate) fn remaining(response: &mut Response, limit: u32, left: u32) {
    let headers = response.headers_mut();
    headers.insert("x-ratelimit-limit", HeaderValue::from(limit));
    headers.insert("x-ratelimit-remaining", HeaderValue::from(left));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_counts_the_other_errors() {
        let mut invalid = Invalid::default();
        invalid.note("appointment_at", "The appointment at field is required.".to_owned());
        invalid.note("claimant.email", "The claimant.email must be a valid email address.".to_owned());
        let body = invalid.body();
        assert_eq!(body["message"], "The appointment at field is required. (and 1 more error)");
        assert_eq!(body["errors"]["claimant.email"][0], "The claimant.email must be a valid email address.");
    }
}
