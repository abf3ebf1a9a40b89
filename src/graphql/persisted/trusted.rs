//! Trusted documents: the documents in the operator's manifests. A set of them is replaced as a whole.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use super::id::DocumentId;
use crate::config::documents::DocumentsMode;

/// The set of trusted documents in use.
#[derive(Default)]
pub(crate) struct TrustedDocuments {
    mode: DocumentsMode,
    active: RwLock<Arc<TrustedTexts>>,
    generation: AtomicU64,
}

/// The texts of trusted documents, by id. Equal texts are shared.
pub(crate) type TrustedTexts = HashMap<DocumentId, Arc<str>>;

impl TrustedDocuments {
    /// No documents yet.
    pub(crate) fn new(mode: DocumentsMode) -> Self {
        Self { mode, ..Self::default() }
    }

    pub(crate) fn mode(&self) -> DocumentsMode {
        self.mode
    }

    /// The text with this id.
    pub(crate) fn get(&self, id: &DocumentId) -> Option<Arc<str>> {
        self.active().get(id).cloned()
    }

    /// The set in use.
    pub(crate) fn active(&self) -> Arc<TrustedTexts> {
        self.active.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the set in use.
    pub(crate) fn activate(&self, texts: TrustedTexts) {
        let mut active = self.active.write().unwrap_or_else(PoisonError::into_inner);
        *active = Arc::new(texts);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// The number of sets so far. A request that sees a number finds the documents of this set or of a later one.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}
