//! HTTP error responses: a status, and a GraphQL document with one error. Requests rejected before execution get one.

use std::borrow::Cow;

use async_graphql::ServerError;
use axum::{
    Extension,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{
    config::http::GraphqlPath,
    error::{self, ApiError, code::ErrorCode},
    metrics::metrics,
};

/// The rejection of a request: a status, an error and response headers.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    error: Box<ApiError>,
    headers: HeaderMap,
    refused: Refused,
}

impl Refusal {
    /// A `BAD_REQUEST` error. `message` says what is wrong and what to do. For a request that is not well-formed, `status`
    /// is 422, as in the newer edition of [`StatusEdition`](crate::config::http::StatusEdition).
    pub(crate) fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, ..ApiError::BadRequest(message.into()).into() }
    }

    /// A refusal with a more specific status than the default of the error code.
    pub(crate) fn with_status(status: StatusCode, error: ApiError) -> Self {
        Self { status, ..error.into() }
    }

    /// 404, for an unknown path. `graphql` is the path of the GraphQL endpoint, if the listener serves it.
    pub(crate) fn not_found(graphql: Option<&GraphqlPath>) -> Self {
        let hint = match graphql {
            Some(path) => format!("The GraphQL endpoint is {path}."),
            None => "This listener serves health checks and metrics only.".to_owned(),
        };
        Self::new(StatusCode::NOT_FOUND, format!("Not found. {hint}"))
    }

    /// The status and the error.
    pub(crate) fn into_parts(self) -> (StatusCode, ApiError) {
        (self.status, *self.error)
    }

    /// The JSON document of the body. Counts the error in the metrics.
    pub(crate) fn into_document(self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Document {
            errors: [ServerError; 1],
        }
        let errors = [(*self.error).into()];
        metrics().count_errors(&errors);
        // Serialising strings and numbers cannot fail.
        serde_json::to_vec(&Document { errors }).unwrap_or_default()
    }

    /// The same refusal in `application/json`, whatever JSON type the client prefers.
    pub(crate) fn in_json(self) -> Self {
        Self { refused: Refused { is_json: true, ..self.refused }, ..self }
    }

    /// The same with its status in every edition and media type.
    pub(crate) fn in_every_edition(self) -> Self {
        Self { refused: Refused { is_exact: true, ..self.refused }, ..self }
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}

impl From<ApiError> for Refusal {
    /// Maps the error code to a status, and adds `Retry-After` if the error has one.
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
        // RFC 9110, section 15.5.2 requires it with 401. RFC 6750, section 3.1 forbids the error for a request without a
        // credential.
        let challenge = (status == StatusCode::UNAUTHORIZED).then(|| {
            let challenge = match error {
                ApiError::CredentialMissing => "Bearer",
                _ => "Bearer error=\"invalid_token\"",
            };
            (header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
        });
        Self {
            status,
            error: Box::new(error),
            headers: retry_after.into_iter().chain(challenge).collect(),
            refused: Refused::default(),
        }
    }
}

/// Marks the response of a [`Refusal`], in its extensions. The router gives it the media type that the client accepts:
/// [`ResponseForm::apply_to`](crate::http::graphql::status::ResponseForm::apply_to).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Refused {
    /// Whether the media type is `application/json` in any case.
    pub(crate) is_json: bool,
    /// Whether the status does not depend on the edition and the media type.
    pub(crate) is_exact: bool,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        // The access log has the status, which may depend on the media type.
        tracing::debug!(code = self.error.code().as_str(), "request refused");
        let content_type =
            (header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        let (status, headers, refused) = (self.status, self.headers.clone(), self.refused);
        (status, Extension(refused), headers, [content_type], self.into_document()).into_response()
    }
}

/// 405, with the allowed methods.
pub(crate) fn method_not_allowed(message: &'static str, allow: &'static str) -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message)
        .with_header(header::ALLOW, HeaderValue::from_static(allow))
}
