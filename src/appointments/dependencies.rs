//! What an answer was made from, so that it can be told whether it would be made of the same things now.
//!
//! While an operation goes on, a [`Record`] notes what it is served. When it is over, a [`Provenance`] points at these
//! things where they are kept; where one of them is not kept, there is none. It is current for as long as each would
//! still be served from memory: so whatever ends that for an appointment (its time, a refusal, a change, its place in the
//! memory) ends it for all that was made from it.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::{cache, failure_log::Failures, list, served::Outcome, shared::Shared};
use crate::{
    cache::store::CacheEntry,
    caller::Scope,
    metrics::metrics,
    model::SharedAppointment,
    upstream::{
        answer::Page,
        error::{Revocation, UpstreamError},
    },
};

/// What one operation has been served so far.
#[derive(Default)]
pub(crate) struct Record {
    /// Within the operation an id has one outcome: whoever asks for it later is told this.
    outcomes: Mutex<HashMap<Uuid, Outcome>>,
    pages: Mutex<Vec<(list::Key, Arc<Page>)>>,
    /// Whether no cached copy can stand for a part of the response.
    is_uncacheable: AtomicBool,
    /// The 401 with which the upstream has rejected the token: it would do so again.
    rejection: OnceLock<UpstreamError>,
    failures: Failures,
}

impl Record {
    pub(crate) fn outcomes(&self) -> MutexGuard<'_, HashMap<Uuid, Outcome>> {
        // What is behind the lock is whole at any moment.
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note_page(&self, key: list::Key, page: &Arc<Page>) {
        self.pages().push((key, page.clone()));
    }

    /// Notes that the operation changes or watches something, or was served an error or a stale copy.
    pub(crate) fn mark_uncacheable(&self) {
        self.is_uncacheable.store(true, Ordering::Relaxed);
    }

    /// Notes a failed read, of the appointment `id` or of the list.
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

    fn pages(&self) -> MutexGuard<'_, Vec<(list::Key, Arc<Page>)>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an answer was made from.
pub struct Provenance {
    pub(crate) scope: Scope,
    appointments: Box<[cache::Source]>,
    pages: Box<[list::Source]>,
    /// How long all of it is fresh, counted from when the operation was over.
    pub(crate) fresh_for: Duration,
    /// When all of it was last counted as read, in milliseconds since it was made.
    touched: AtomicU64,
    made: Instant,
}

/// How often what an answer is made from is counted as read, however often that answer is served: often enough not to be
/// taken for what nobody reads, and seldom enough to cost nothing.
const TOUCH: Duration = Duration::from_millis(50);

impl Provenance {
    /// Of what was served to `scope`: none unless all of it is kept and fresh, and the very thing that was served.
    pub(crate) fn of(record: &Record, scope: Scope, shared: &Shared) -> Option<Self> {
        if record.is_uncacheable.load(Ordering::Relaxed) {
            return None;
        }
        let now = Instant::now();
        let mut fresh_for = Duration::MAX;
        let mut appointments = Vec::new();
        for (id, outcome) in record.outcomes().iter() {
            let served =
                outcome.as_ref().ok().filter(|served| served.as_ref().is_none_or(|it| it.age.is_none()));
            let (source, left) = shared.cache.source(scope, *id, served?.as_ref(), now)?;
            fresh_for = fresh_for.min(left);
            appointments.push(source);
        }
        let mut pages = Vec::new();
        for (key, page) in record.pages().iter() {
            let (source, left) = shared.lists.source(key, page, now)?;
            fresh_for = fresh_for.min(left);
            pages.push(source);
        }
        let (appointments, pages) = (appointments.into(), pages.into());
        Some(Self { scope, appointments, pages, fresh_for, touched: AtomicU64::new(0), made: now })
    }

    /// Whether each is still what would be served: which counts as reading it.
    pub(crate) fn is_current(&self, shared: &Shared) -> bool {
        let now = Instant::now();
        let is_current =
            shared.cache.are_current(&self.appointments, now) && shared.lists.are_current(&self.pages, now);
        if is_current {
            metrics().appointments.count_many("cache", self.appointments.len() as u64);
            self.touch(shared, now);
        }
        is_current
    }

    fn touch(&self, shared: &Shared, now: Instant) {
        let now = now.saturating_duration_since(self.made).as_millis() as u64;
        let touched = self.touched.load(Ordering::Relaxed);
        // Of several at once, one does it.
        let is_due = now.saturating_sub(touched) >= TOUCH.as_millis() as u64;
        if is_due && self.touched.compare_exchange(touched, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            shared.cache.touch(&self.appointments);
            shared.lists.touch(&self.pages);
        }
    }

    /// Whether it was made from nothing.
    pub fn is_empty(&self) -> bool {
        self.appointments.is_empty() && self.pages.is_empty()
    }

    /// The bytes that it takes beside itself, with what is left of each thing that is kept no more.
    pub(crate) fn size(&self) -> usize {
        size_of_val(&*self.appointments)
            + size_of_val(&*self.pages)
            + (self.appointments.len() + self.pages.len()) * KEPT
    }
}

/// What is left of something that is kept no more for as long as it is a [`Source`](cache::Source) of something.
const KEPT: usize = size_of::<CacheEntry<SharedAppointment>>() + 16;

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").finish_non_exhaustive()
    }
}

impl fmt::Debug for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provenance").finish_non_exhaustive()
    }
}
