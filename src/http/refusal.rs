//! A request that ends before GraphQL: a status, and the reason in the shape of a GraphQL answer.

use std::borrow::Cow;

use async_graphql::ServerError;
use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::error::{self, ApiError, code::ErrorCode};
use crate::metrics::metrics;

/// Why a request was refused, and with what status.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    error: Box<ApiError>,
    headers: HeaderMap,
}

impl Refusal {
    /// `BAD_REQUEST` with a text that says what to do.
    pub(crate) fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, error: Box::new(ApiError::BadRequest(message.into())), headers: HeaderMap::new() }
    }

    /// What `error` is about, with a status that says more than its code.
    pub(crate) fn of(status: StatusCode, error: ApiError) -> Self {
        Self { status, ..error.into() }
    }

    /// 404
    pub(crate) fn nothing_here() -> Self {
        Self::new(StatusCode::NOT_FOUND, "There is nothing here. GraphQL is at /graphql.")
    }

    /// The document, as JSON.
    pub(crate) fn document(self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Document {
            errors: [ServerError; 1],
        }
        let errors = [(*self.error).into()];
        metrics().count_errors(&errors);
        // A document of strings and numbers is always JSON.
        serde_json::to_vec(&Document { errors }).unwrap_or_default()
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}

impl From<ApiError> for Refusal {
    /// With the status that fits an error which is not about one field, and when to come back.
    fn from(error: ApiError) -> Self {
        let status = match error.code() {
            ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            ErrorCode::Overloaded | ErrorCode::UpstreamUnavailable | ErrorCode::UpstreamTimeout => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::Unauthenticated => StatusCode::UNAUTHORIZED,
            _ => StatusCode::BAD_REQUEST,
        };
        let seconds = error.retry_after().map(error::whole_seconds);
        let retry_after = seconds.map(|seconds| (header::RETRY_AFTER, HeaderValue::from(seconds)));
        // RFC 9110, section 15.5.2: a 401 has it.
        let challenge = (status == StatusCode::UNAUTHORIZED)
            .then_some((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        Self { status, error: Box::new(error), headers: retry_after.into_iter().chain(challenge).collect() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        tracing::debug!(http.status = self.status.as_u16(), code = self.error.code().as_str(), "refused");
        let content_type =
            (header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        let (status, headers) = (self.status, self.headers.clone());
        (status, headers, [content_type], self.document()).into_response()
    }
}

/// 405, with the methods to `allow`.
pub(crate) fn method_not_allowed(message: &'static str, allow: &'static str) -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message)
        .with_header(header::ALLOW, HeaderValue::from_static(allow))
}
