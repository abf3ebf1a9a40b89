//! The HTTP statuses of GraphQL responses (GraphQL over HTTP, "Status Codes").
//!
//! They depend on the media type. Clients of `application/graphql-response+json` read the body under any status, so the
//! statuses are those of the configured [`StatusEdition`]. Clients of `application/json` may treat any status other than 200
//! as a proxy error, so a GraphQL response always has 200 there.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use hyper::ext::ReasonPhrase;

use super::accept::MediaType;
use crate::{
    config::http::StatusEdition, error::code::ErrorCode, graphql::execute::response::ResponseKind,
    http::refusal::Refused,
};

/// 294, defined by GraphQL over HTTP: a response with both `data` and `errors`.
pub(crate) const PARTIAL_SUCCESS: StatusCode = match StatusCode::from_u16(294) {
    Ok(status) => status,
    Err(_) => panic!("294 is a three-digit number"),
};

/// The form of a response: its media type and the edition of its statuses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ResponseForm {
    pub(crate) media_type: MediaType,
    pub(crate) edition: StatusEdition,
}

impl ResponseForm {
    /// Whether the statuses of the edition 2026 apply.
    pub(crate) fn is_2026(self) -> bool {
        self.media_type == MediaType::GraphqlResponse && self.edition == StatusEdition::Edition2026
    }

    /// The status of a GraphQL response.
    pub(crate) fn status(self, kind: ResponseKind) -> StatusCode {
        match kind {
            ResponseKind::Partial if self.is_2026() => PARTIAL_SUCCESS,
            ResponseKind::Success | ResponseKind::Partial => StatusCode::OK,
            ResponseKind::Rejected(_) if self.media_type != MediaType::GraphqlResponse => StatusCode::OK,
            ResponseKind::Rejected(Some(ErrorCode::ParseFailed)) => StatusCode::BAD_REQUEST,
            ResponseKind::Rejected(_) => self.refusal_status(StatusCode::UNPROCESSABLE_ENTITY),
        }
    }

    /// The status of a request rejected with `status`. Before the edition 2026, 400 stood for 422.
    pub(crate) fn refusal_status(self, status: StatusCode) -> StatusCode {
        match status {
            StatusCode::UNPROCESSABLE_ENTITY if !self.is_2026() => StatusCode::BAD_REQUEST,
            status => status,
        }
    }

    /// Gives `response` this form, if a [`Refusal`](crate::http::refusal::Refusal) made it.
    pub(crate) fn apply_to(self, response: &mut Response) {
        if let Some(Refused { is_json, is_exact }) = response.extensions().get().copied() {
            if !is_exact {
                *response.status_mut() = self.refusal_status(response.status());
            }
            let media_type = if is_json { MediaType::Json } else { self.media_type };
            let content_type = HeaderValue::from_static(media_type.content_type());
            response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        }
    }
}

/// Adds the reason phrase of 294, which hyper does not know.
pub(crate) fn add_reason_phrase(response: &mut Response) {
    if response.status() == PARTIAL_SUCCESS {
        response.extensions_mut().insert(ReasonPhrase::from_static(b"Partial Success"));
    }
}
