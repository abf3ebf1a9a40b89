//! The appointments as one operation of one caller sees them.

use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    changed::Changed,
    dependencies::Dependencies,
    idempotency::RecordInUse,
    list::{ListReader, Window, WindowRequest},
    loader::Loader,
    read_set::ReadSet,
    served::Outcome,
    shared::Shared,
    subscriptions::Update,
};
use crate::{caller::Caller, model::change::Change, upstream::error::UpstreamError};

/// The appointments as one operation of one caller sees them: within the operation an id has one outcome. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Appointments(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Shared,
    caller: Caller,
    deadline: Instant,
    loader: Loader,
    reads: Arc<ReadSet>,
    /// The record of the request's idempotency key.
    record: Option<RecordInUse>,
}

impl Appointments {
    /// For an operation of `caller` that waits until `deadline`.
    pub fn new(shared: Shared, caller: Caller, deadline: Instant) -> Self {
        Self::build(shared, caller, deadline, None)
    }

    /// The same for an operation whose changes have outcomes in `record`.
    pub(crate) fn with_record(self, record: Option<RecordInUse>) -> Self {
        let Inner { shared, caller, deadline, .. } = &*self.0;
        Self::build(shared.clone(), caller.clone(), *deadline, record)
    }

    fn build(shared: Shared, caller: Caller, deadline: Instant, record: Option<RecordInUse>) -> Self {
        let reads = Arc::<ReadSet>::default();
        let loader = Loader::new(shared.cache.clone(), caller.clone(), deadline, reads.clone());
        Self(Arc::new(Inner { shared, caller, deadline, loader, reads, record }))
    }

    /// The caller of the operation.
    pub fn caller(&self) -> &Caller {
        &self.0.caller
    }

    /// Returns the appointment; none if it does not exist.
    ///
    /// # Errors
    /// Any [`UpstreamError`] of the call.
    pub async fn get(&self, id: Uuid) -> Outcome {
        self.0.loader.load(id).await
    }

    /// Like [`get`](Self::get), but past the outcomes that this operation has already: it sees changes made meanwhile.
    pub(crate) async fn get_again(&self, id: Uuid) -> Outcome {
        let Inner { shared, caller, deadline, reads, .. } = &*self.0;
        let outcome = Self::new(shared.clone(), caller.clone(), *deadline).get(id).await;
        if matches!(outcome, Ok(Some(_))) {
            reads.note_data();
        }
        outcome
    }

    /// Several appointments, in the order of `ids`. A failing one does not affect the others.
    pub async fn get_many(&self, ids: Vec<Uuid>) -> Vec<Outcome> {
        self.0.loader.load_many(ids).await
    }

    /// A window of the appointments that the caller may see.
    ///
    /// # Errors
    /// Any [`UpstreamError`] of the call.
    pub async fn window(&self, request: WindowRequest) -> Result<Window, UpstreamError> {
        let Inner { shared, caller, deadline, reads, .. } = &*self.0;
        if let Some(error) = reads.rejection() {
            return Err(error);
        }
        let reader = ListReader { pages: &shared.pages, caller, deadline: *deadline, reads };
        reader.window(request).await.inspect_err(|error| reads.note_failure(None, error))
    }

    /// Sends the change of the root field `index`, once.
    ///
    /// # Errors
    /// [`UpstreamError::OutcomeUnknown`] and [`UpstreamError::ChangeFailed`] if the change may have been applied. All other
    /// errors mean that it was not.
    pub async fn change(&self, index: usize, change: Change) -> Result<Changed, UpstreamError> {
        let Inner { shared, caller, deadline, reads, record, .. } = &*self.0;
        reads.mark_uncacheable();
        let record = record.as_ref().map(|record| (record, index));
        shared.change(caller, change, record, *deadline).await.inspect(|changed| {
            if let Changed::To(_) = changed {
                reads.note_data();
            }
        })
    }

    /// The appointment now, then after each change. Ends with an error that is final.
    pub fn watch(&self, id: Uuid) -> impl Stream<Item = Update> + Send + use<> {
        let Inner { shared, caller, reads, .. } = &*self.0;
        reads.mark_uncacheable();
        let reads = reads.clone();
        shared.subscriptions.watch(caller, id).inspect(move |update| {
            if update.is_ok() {
                reads.note_data();
            }
        })
    }

    /// Whether the upstream has answered the caller with data so far, now or for a cached copy.
    pub fn has_data(&self) -> bool {
        self.0.reads.has_data()
    }

    /// Whether the upstream forbids caching of a part of the response, once the operation is over.
    pub fn forbids_storage(&self) -> bool {
        self.0.reads.forbids_storage()
    }

    /// The dependencies of the response, once the operation is over; none unless it was read-only, succeeded,
    /// and each of its reads is cached and fresh.
    pub fn dependencies(&self) -> Option<Dependencies> {
        let Inner { shared, caller, reads, .. } = &*self.0;
        Dependencies::of(reads, caller.scope(), shared)
    }
}
