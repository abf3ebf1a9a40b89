//! The reads of one operation, as they happen: the outcome of each appointment, and the pages of the list.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use uuid::Uuid;

use super::{failure_log::Failures, keys::PageKey, served::Outcome};
use crate::upstream::{
    error::{Revocation, UpstreamError},
    response::Page,
};

/// The reads of one operation so far.
#[derive(Default)]
pub(crate) struct ReadSet {
    /// Within an operation an id has one outcome: later reads of it get the first one.
    outcomes: Mutex<HashMap<Uuid, Outcome>>,
    pages: Mutex<Vec<(PageKey, Arc<Page>)>>,
    /// Whether no cached copy can stand for a part of the response.
    is_uncacheable: AtomicBool,
    /// Whether the list was read, or an appointment changed or watched, with success.
    has_data: AtomicBool,
    /// Whether the upstream forbids caching of a part of the response.
    forbids_storage: AtomicBool,
    /// The 401 with which the upstream has rejected the token.
    rejection: OnceLock<UpstreamError>,
    failures: Failures,
}

impl ReadSet {
    pub(crate) fn outcomes(&self) -> MutexGuard<'_, HashMap<Uuid, Outcome>> {
        // Nothing that runs under the lock leaves the map half changed.
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note_page(&self, key: PageKey, page: &Arc<Page>) {
        self.pages().push((key, page.clone()));
    }

    /// Records that the operation changes or watches appointments, or was served an error or a stale copy.
    pub(crate) fn mark_uncacheable(&self) {
        self.is_uncacheable.store(true, Ordering::Relaxed);
    }

    /// Records that the upstream has answered the caller with data, other than by an outcome.
    pub(crate) fn note_data(&self) {
        self.has_data.store(true, Ordering::Relaxed);
    }

    /// Whether the upstream has answered the caller with data: an appointment, a page, or a change that it made.
    pub(crate) fn has_data(&self) -> bool {
        self.has_data.load(Ordering::Relaxed)
            || self.outcomes().values().any(|outcome| matches!(outcome, Ok(Some(_))))
    }

    /// Records that the upstream forbids caching of a part of the response.
    pub(crate) fn forbid_storage(&self) {
        self.forbids_storage.store(true, Ordering::Relaxed);
    }

    /// Whether the upstream forbids caching of a part of the response.
    pub(crate) fn forbids_storage(&self) -> bool {
        self.forbids_storage.load(Ordering::Relaxed)
    }

    /// Records a failed read, of the appointment `id` or of the list.
    pub(crate) fn note_failure(&self, id: Option<Uuid>, error: &UpstreamError) {
        if error.revocation() == Revocation::Everything {
            let _ = self.rejection.set(error.clone());
        }
        self.failures.note(id, error);
    }

    /// The error with which each further read of the operation would fail.
    pub(crate) fn rejection(&self) -> Option<UpstreamError> {
        self.rejection.get().cloned()
    }

    pub(crate) fn pages(&self) -> MutexGuard<'_, Vec<(PageKey, Arc<Page>)>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether cached copies stand for every part of the response.
    pub(crate) fn is_cacheable(&self) -> bool {
        !self.is_uncacheable.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for ReadSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadSet").finish_non_exhaustive()
    }
}
