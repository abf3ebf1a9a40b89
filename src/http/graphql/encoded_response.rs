//! A response in its final form: status, media type, body and content coding.

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{accept::MediaType, entity_tag::EntityTags, status};
use crate::{
    graphql::persisted::UntrustedCounts,
    http::{
        compression::{self, Coding, CompressionSkipped, Effort},
        security_headers,
    },
    response_memory::ResponseMemory,
};

/// A response ready to be sent. Not `Debug`, since it contains personal data.
#[derive(Clone)]
pub(crate) struct EncodedResponse {
    pub(crate) status: StatusCode,
    pub(crate) media_type: MediaType,
    pub(crate) body: Bytes,
    /// The content coding of the body.
    pub(crate) coding: Option<Coding>,
    /// Whether the response depends on `Accept-Encoding`.
    pub(crate) varies: bool,
    /// The entity tags, if clients may store the response.
    pub(crate) tags: Option<EntityTags>,
    /// The documents that are not trusted.
    pub(crate) untrusted: UntrustedCounts,
}

impl EncodedResponse {
    /// An uncompressed response for all clients.
    pub(crate) fn plain(status: StatusCode, media_type: MediaType, body: Bytes) -> Self {
        let untrusted = UntrustedCounts::default();
        Self { status, media_type, body, coding: None, varies: false, tags: None, untrusted }
    }

    /// Marks a response that other clients might get compressed, if compression `is_enabled`.
    pub(crate) fn varying(self, is_enabled: bool) -> Self {
        Self { varies: is_enabled && compression::is_compressible(self.body.len()), ..self }
    }

    /// Compresses a response that is sent once, or leaves it uncompressed where that fails.
    pub(crate) async fn compressed_once(self, coding: Option<Coding>, memory: &ResponseMemory) -> Self {
        match coding {
            Some(coding) => self.compress(coding, Effort::Quick, memory).await.unwrap_or(self),
            None => self,
        }
    }

    /// Compresses the response.
    ///
    /// # Errors
    /// The reason to send it uncompressed.
    pub(crate) async fn compress(
        &self,
        coding: Coding,
        effort: Effort,
        memory: &ResponseMemory,
    ) -> Result<Self, CompressionSkipped> {
        let body = coding.compress(&self.body, effort, memory).await?;
        Ok(Self { body, coding: Some(coding), ..self.clone() })
    }
}

impl IntoResponse for EncodedResponse {
    fn into_response(self) -> Response {
        let Self { status, media_type, body, coding, varies, .. } = self;
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        *headers = security_headers::headers();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type.content_type()));
        if varies {
            headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        }
        if let Some(coding) = coding {
            headers.insert(header::CONTENT_ENCODING, coding.header_value());
        }
        status::add_reason_phrase(&mut response);
        response
    }
}
