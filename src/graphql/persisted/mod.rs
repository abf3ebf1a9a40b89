//! Persisted documents: a request sends the id of a document instead of its text.
//!
//! [`PersistedDocuments::resolve`] is the only place that looks up a text by its id, and that rejects documents which are not
//! trusted, for all transports. It has two sources: [trusted documents](trusted) from the operator's [manifests](manifest),
//! and then the texts of automatic persisted queries, which clients [register](registered).

pub mod id;
pub mod manifest;
pub mod manifest_files;
mod registered;
pub(crate) mod trusted;

use std::{fmt, sync::Arc};

use bytesize::ByteSize;

use self::{
    id::{DocumentId, Sha256},
    registered::RegisteredTexts,
    trusted::TrustedDocuments,
};
use super::execute::run::Access;
use crate::{
    caller::{Caller, Scope},
    config::documents::DocumentsMode,
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
    /// A text with an id that is not necessarily its hash.
    Named {
        /// The text. If the id is that of a trusted document, it must have the same text.
        text: String,
        /// The id.
        id: DocumentId,
    },
}

/// The text of a request's document.
pub(crate) struct ResolvedDocument {
    pub(crate) text: String,
    /// The pending registration, if there is one.
    pub(crate) registration: Option<Registration>,
    pub(crate) trust: Trust,
    /// Whether the response cache may answer equal requests: not while the text is to be registered, and not if the text
    /// belongs to one of several callers that share a cache.
    pub(crate) is_cacheable: bool,
}

/// Whether a document is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// It is in a manifest.
    Trusted,
    /// It is not, and the request has no id.
    UntrustedText,
    /// It is not, and the request has another id.
    UntrustedId,
    /// It does not matter whether it is: `documents.mode` is off.
    Unknown,
}

/// The sources of persisted documents. Cheap to clone.
#[derive(Clone)]
pub struct PersistedDocuments {
    /// None if the document cache is disabled (`graphql.documents_size` is 0).
    registered: Option<Arc<RegisteredTexts>>,
    trusted: Arc<TrustedDocuments>,
}

/// A pending registration: it becomes effective once the upstream has answered the caller with data. Not `Debug`, since
/// literals may be personal data.
pub(crate) struct Registration {
    hash: Sha256,
    text: Box<str>,
}

impl PersistedDocuments {
    /// No texts yet, at most `size` in total, with a quota of `percent` for each caller. A `size` of 0 disables
    /// registration.
    pub fn new(size: ByteSize, percent: u8) -> Self {
        let is_enabled = size.as_u64() > 0;
        let registered = is_enabled.then(|| Arc::new(RegisteredTexts::new(size, percent)));
        Self { registered, trusted: Arc::default() }
    }

    /// Trusts documents as `mode` says.
    pub(crate) fn trusting(self, mode: DocumentsMode) -> Self {
        Self { trusted: Arc::new(TrustedDocuments::new(mode)), ..self }
    }

    /// The trusted documents.
    pub(crate) fn trusted(&self) -> &TrustedDocuments {
        &self.trusted
    }

    /// The text of a request's document.
    ///
    /// # Errors
    /// `PERSISTED_QUERY_NOT_FOUND` and `PERSISTED_QUERY_NOT_SUPPORTED` for an unknown id, `PERSISTED_QUERY_HASH_MISMATCH` for
    /// a text with another id, and `PERSISTED_QUERY_ID_REQUIRED` for a text without an id, if only trusted documents run.
    pub(crate) fn resolve(
        &self,
        document: RequestDocument,
        caller: Option<&Caller>,
    ) -> Result<ResolvedDocument, ApiError> {
        if let RequestDocument::Persisted(id)
        | RequestDocument::Registration { id, .. }
        | RequestDocument::Named { id, .. } = &document
            && let Some(trusted) = self.trusted.get(id)
        {
            if document.text().is_some_and(|text| *text != *trusted) {
                metrics().persisted_queries.count("mismatch");
                return Err(ApiError::PersistedQueryTextMismatch);
            }
            metrics().persisted_queries.count("trusted");
            let text = trusted.as_ref().into();
            let trust = Trust::Trusted;
            return Ok(ResolvedDocument { text, registration: None, trust, is_cacheable: true });
        }
        let trust = Trust::of_untrusted(&document, self.trusted.mode());
        trust.count(1);
        if self.trusted.mode() == DocumentsMode::Require {
            return Err(match document {
                RequestDocument::Text(_) => ApiError::PersistedQueryIdRequired,
                _ => ApiError::PersistedQueryNotFound,
            });
        }
        let (text, registration, is_private) = self.resolve_untrusted(document, caller)?;
        let has_own_cache = caller.is_some_and(|caller| caller.scope() == caller.identity());
        let is_cacheable = registration.is_none() && (has_own_cache || !is_private);
        Ok(ResolvedDocument { text, registration, trust, is_cacheable })
    }

    /// The text of a document that is not trusted, its pending registration, if it has one, and whether the text is found
    /// for this caller only.
    fn resolve_untrusted(
        &self,
        document: RequestDocument,
        caller: Option<&Caller>,
    ) -> Result<(String, Option<Registration>, bool), ApiError> {
        match document {
            RequestDocument::Text(text) | RequestDocument::Named { text, .. } => Ok((text, None, false)),
            RequestDocument::Persisted(id) => {
                let text = self.text(&id, caller.map(Caller::identity));
                metrics().persisted_queries.count(if text.is_ok() { "hit" } else { "miss" });
                let (text, is_private) = text?;
                Ok((text.as_ref().into(), None, is_private))
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
                Ok((text, registration, false))
            }
        }
    }

    /// The registered text with this `id` that the caller `identity` may use, and whether no other caller may.
    fn text(&self, id: &DocumentId, identity: Option<Scope>) -> Result<(Arc<str>, bool), ApiError> {
        let registered = self.registered.as_ref().ok_or(ApiError::PersistedQueryNotSupported)?;
        id.sha256().and_then(|hash| registered.get(hash, identity)).ok_or(ApiError::PersistedQueryNotFound)
    }

    /// Completes a `pending` registration if the upstream has answered the caller with data. Made-up tokens therefore
    /// never take memory.
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
    /// The text, if the request has one.
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Registration { text, .. } | Self::Named { text, .. } => Some(text),
            Self::Persisted(_) => None,
        }
    }
}

impl Trust {
    fn of_untrusted(document: &RequestDocument, mode: DocumentsMode) -> Self {
        match (mode, document) {
            (DocumentsMode::Off, _) => Self::Unknown,
            (_, RequestDocument::Text(_)) => Self::UntrustedText,
            _ => Self::UntrustedId,
        }
    }

    /// Counts `number` operations whose document is not trusted.
    pub(crate) fn count(self, number: u64) {
        match self {
            Self::Trusted | Self::Unknown => {}
            Self::UntrustedText => metrics().untrusted_documents.count_many("text", number),
            Self::UntrustedId => metrics().untrusted_documents.count_many("id", number),
        }
    }
}

impl From<String> for RequestDocument {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// The number of untrusted documents behind a response, which count again with each of its copies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct UntrustedCounts {
    texts: u32,
    ids: u32,
}

impl UntrustedCounts {
    /// Adds a document.
    pub(crate) fn add(&mut self, trust: Trust) {
        self.texts += u32::from(trust == Trust::UntrustedText);
        self.ids += u32::from(trust == Trust::UntrustedId);
    }

    /// Counts the documents once more.
    pub(crate) fn count(self) {
        if self != Self::default() {
            Trust::UntrustedText.count(self.texts.into());
            Trust::UntrustedId.count(self.ids.into());
        }
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
