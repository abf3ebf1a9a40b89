//! Persisted documents: a request sends the id of a document instead of its text.
//!
//! [`PersistedDocuments::resolve`] is the only place that looks up a text by its id, for all transports. The only source is
//! automatic persisted queries (APQ), whose texts clients register ([`registered`]). Add further sources to
//! [`PersistedDocuments::text`].

pub mod id;
mod registered;

use std::{fmt, sync::Arc};

use bytesize::ByteSize;

use self::{
    id::{DocumentId, Sha256},
    registered::RegisteredTexts,
};
use super::execute::run::Access;
use crate::{
    caller::{Caller, Scope},
    error::ApiError,
    metrics::metrics,
};

/// The document of a request, as received.
pub enum RequestDocument {
    /// The text.
    Text(String),
    /// The id of a persisted document.
    Persisted(DocumentId),
    /// A text to register under its id.
    Registration {
        /// The text.
        text: String,
        /// Must be the hash of the text.
        id: DocumentId,
    },
}

/// The sources of persisted documents. Cheap to clone.
#[derive(Clone)]
pub struct PersistedDocuments {
    /// None if the document cache is disabled (`graphql.documents_size` is 0).
    registered: Option<Arc<RegisteredTexts>>,
}

/// A pending registration: it becomes effective once the upstream has answered the caller with data. Not `Debug`, since
/// literals may be personal data.
pub(crate) struct Registration {
    hash: Sha256,
    text: Box<str>,
}

impl PersistedDocuments {
    /// No texts yet, at most `size` in total, with a quota of `percent` for each caller. A `size` of 0 disables registration.
    pub fn new(size: ByteSize, percent: u8) -> Self {
        let is_enabled = size.as_u64() > 0;
        Self { registered: is_enabled.then(|| Arc::new(RegisteredTexts::new(size, percent))) }
    }

    /// The text of a request's document, and its pending registration, if it has one.
    ///
    /// # Errors
    /// `PERSISTED_QUERY_NOT_FOUND` for an unknown id, `PERSISTED_QUERY_NOT_SUPPORTED` for any id if registration is disabled,
    /// and `PERSISTED_QUERY_HASH_MISMATCH` for a text with another hash.
    pub(crate) fn resolve(
        &self,
        document: RequestDocument,
        caller: Option<&Caller>,
    ) -> Result<(String, Option<Registration>), ApiError> {
        match document {
            RequestDocument::Text(text) => Ok((text, None)),
            RequestDocument::Persisted(id) => {
                let text = self.text(&id, caller.map(Caller::identity));
                metrics().persisted_queries.count(if text.is_ok() { "hit" } else { "miss" });
                Ok((text?.as_ref().into(), None))
            }
            RequestDocument::Registration { text, id } => {
                let hash = Sha256::of(&text);
                if id.sha256() != Some(hash) {
                    metrics().persisted_queries.count("mismatch");
                    return Err(ApiError::PersistedQueryHashMismatch);
                }
                let identity = caller.map(Caller::identity);
                let is_new = self.registered.as_ref().is_some_and(|it| it.get(hash, identity).is_none());
                let registration = is_new.then(|| Registration { hash, text: text.as_str().into() });
                Ok((text, registration))
            }
        }
    }

    /// The text with this `id` that the caller `identity` may use.
    fn text(&self, id: &DocumentId, identity: Option<Scope>) -> Result<Arc<str>, ApiError> {
        let registered = self.registered.as_ref().ok_or(ApiError::PersistedQueryNotSupported)?;
        id.sha256().and_then(|hash| registered.get(hash, identity)).ok_or(ApiError::PersistedQueryNotFound)
    }

    /// Completes a `pending` registration if the upstream has answered the caller with data. Made-up tokens therefore never
    /// take memory.
    pub(crate) fn register(&self, pending: &mut Option<Registration>, access: &Access) {
        let Some(registered) = &self.registered else { return };
        if let Ok(appointments) = access
            && let Some(Registration { hash, text }) = pending.take_if(|_| appointments.has_data())
        {
            registered.insert(hash, &text, appointments.caller().identity());
            metrics().persisted_queries.count("registered");
        }
    }

    /// The number of registered texts and their size in bytes.
    pub(crate) fn total(&self) -> (usize, u64) {
        self.registered.as_ref().map(|registered| registered.total()).unwrap_or_default()
    }
}

impl RequestDocument {
    /// Whether the request registers a text.
    pub(crate) fn is_registration(&self) -> bool {
        matches!(self, Self::Registration { .. })
    }
}

impl From<String> for RequestDocument {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl fmt::Debug for RequestDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestDocument").finish_non_exhaustive()
    }
}

impl fmt::Debug for PersistedDocuments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PersistedDocuments").finish_non_exhaustive()
    }
}
