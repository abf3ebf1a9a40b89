//! Persisted documents: a request sends the id of a document instead of its text.
//!
//! [`PersistedDocuments::resolve`] is the only place that looks up a text by its id, and that rejects documents which are not
//! trusted, for all transports. It has two sources: [trusted documents](trusted) from the operator's [manifests](manifest),
//! and then the texts of automatic persisted queries, which clients [register](registered). In a fleet, a text that is
//! registered with another replica is found [in the shared Redis](shared_texts).

pub mod id;
pub mod manifest;
pub mod manifest_files;
mod registered;
mod shared_texts;
pub(crate) mod trusted;

use std::{fmt, sync::Arc};

use bytesize::ByteSize;
use tokio::task::JoinHandle;

use self::{
    id::{DocumentId, Sha256},
    registered::RegisteredTexts,
    shared_texts::SharedTexts,
    trusted::TrustedDocuments,
};
use super::execute::run::Access;
use crate::{
    caller::Caller, config::documents::DocumentsMode, error::ApiError, fleet::Fleet, metrics::metrics,
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
    /// None without a shared Redis.
    shared: Option<SharedTexts>,
    trusted: Arc<TrustedDocuments>,
}

/// A pending registration: it becomes effective once the upstream has answered the caller with data. Not `Debug`, since
/// literals may be personal data.
pub(crate) struct Registration {
    hash: Sha256,
    text: Box<str>,
    /// Whether the text is from the shared Redis, so that it need not be stored there.
    is_shared: bool,
}

/// The text of a document that is not trusted.
struct UntrustedDocument {
    text: String,
    registration: Option<Registration>,
    /// Whether only this caller finds the text.
    is_private: bool,
}

impl PersistedDocuments {
    /// No texts yet, at most `size` in total, with a quota of `percent` for each caller. A `size` of 0 disables
    /// registration.
    pub fn new(size: ByteSize, percent: u8) -> Self {
        let is_enabled = size.as_u64() > 0;
        let registered = is_enabled.then(|| Arc::new(RegisteredTexts::new(size, percent)));
        Self { registered, shared: None, trusted: Arc::default() }
    }

    /// Shares registered texts with the other replicas of `fleet`.
    pub(crate) fn sharing(self, fleet: &Fleet) -> Self {
        Self { shared: SharedTexts::of(fleet), ..self }
    }

    /// Trusts documents as `mode` says.
    pub(crate) fn trusting(self, mode: DocumentsMode) -> Self {
        Self { trusted: Arc::new(TrustedDocuments::new(mode)), ..self }
    }

    /// The trusted documents.
    pub(crate) fn trusted(&self) -> &TrustedDocuments {
        &self.trusted
    }

    /// The text of a request's document. Waits only for a text that this replica does not have, and another one might.
    ///
    /// # Errors
    /// `PERSISTED_QUERY_NOT_FOUND` and `PERSISTED_QUERY_NOT_SUPPORTED` for an unknown id, `PERSISTED_QUERY_HASH_MISMATCH` for
    /// a text with another id, and `PERSISTED_QUERY_ID_REQUIRED` for a text without an id, if only trusted documents run.
    pub(crate) async fn resolve(
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
        let untrusted = self.resolve_untrusted(document, caller).await?;
        let UntrustedDocument { text, registration, is_private } = untrusted;
        let has_own_cache = caller.is_some_and(|caller| caller.scope() == caller.identity());
        let is_cacheable = registration.is_none() && (has_own_cache || !is_private);
        Ok(ResolvedDocument { text, registration, trust, is_cacheable })
    }

    /// The text of a document that is not trusted, for `caller`.
    async fn resolve_untrusted(
        &self,
        document: RequestDocument,
        caller: Option<&Caller>,
    ) -> Result<UntrustedDocument, ApiError> {
        let (text, registration) = match document {
            RequestDocument::Text(text) | RequestDocument::Named { text, .. } => (text, None),
            RequestDocument::Persisted(id) => {
                let found = self.find(&id, caller).await;
                metrics().persisted_queries.count(match &found {
                    Ok(UntrustedDocument { registration: None, .. }) => "hit",
                    Ok(_) => "shared",
                    Err(_) => "miss",
                });
                return found;
            }
            RequestDocument::Registration { text, id } => {
                let hash = Sha256::of(&text);
                if id.sha256() != Some(hash) {
                    metrics().persisted_queries.count("mismatch");
                    return Err(ApiError::PersistedQueryHashMismatch);
                }
                let identity = caller.map(Caller::identity);
                let is_new = self.registered.as_ref().is_some_and(|it| it.get(hash, identity).is_none());
                let registration =
                    is_new.then(|| Registration { hash, text: text.as_str().into(), is_shared: false });
                (text, registration)
            }
        };
        Ok(UntrustedDocument { text, registration, is_private: false })
    }

    /// The registered text with this `id` that `caller` may use. A text from another replica is registered with
    /// this one as if the caller had sent it.
    async fn find(&self, id: &DocumentId, caller: Option<&Caller>) -> Result<UntrustedDocument, ApiError> {
        let registered = self.registered.as_ref().ok_or(ApiError::PersistedQueryNotSupported)?;
        let hash = id.sha256().ok_or(ApiError::PersistedQueryNotFound)?;
        if let Some((text, is_private)) = registered.get(hash, caller.map(Caller::identity)) {
            return Ok(UntrustedDocument { text: text.as_ref().into(), registration: None, is_private });
        }
        let shared = self.shared.as_ref().ok_or(ApiError::PersistedQueryNotFound)?;
        let text = shared.find(hash, caller).await.ok_or(ApiError::PersistedQueryNotFound)?;
        let registration = Some(Registration { hash, text: text.as_str().into(), is_shared: true });
        Ok(UntrustedDocument { text, registration, is_private: false })
    }

    /// Completes a `pending` registration if the upstream has answered the caller with data. Made-up tokens therefore
    /// never take memory. Returns the task that shares the text with the other replicas, if there is one.
    pub(crate) fn register(
        &self,
        pending: &mut Option<Registration>,
        access: &Access,
    ) -> Option<JoinHandle<()>> {
        let (registered, appointments) = (self.registered.as_ref()?, access.as_ref().ok()?);
        let Registration { hash, text, is_shared } = pending.take_if(|_| appointments.has_data())?;
        let identity = appointments.caller().identity();
        registered.insert(hash, &text, identity);
        if is_shared {
            return None;
        }
        metrics().persisted_queries.count("registered");
        let shared = self.shared.clone()?;
        Some(tokio::spawn(async move { shared.store(hash, &text, identity).await }))
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
