//! Many fields of one operation, one batch of distinct ids.
//!
//! The `Loader` of the `dataloader` crate holds its lock while a batch runs, and loses the batch if the task that
//! carries it is dropped. Both are harmless to a loader that one operation owns and harmful to one that is shared, so
//! there is one for each operation.

use std::{collections::HashMap, fmt};

use dataloader::{BatchFn, cached};
use futures_util::future::join_all;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Outcome, cache::AppointmentCache};
use crate::{caller::Caller, upstream::UpstreamError};

pub(super) struct Loader(cached::Loader<Uuid, Outcome, Batch>);

/// Asks the cache for all ids of a batch at once.
struct Batch {
    cache: AppointmentCache,
    caller: Caller,
    deadline: Instant,
}

impl BatchFn<Uuid, Outcome> for Batch {
    async fn load(&mut self, ids: &[Uuid]) -> HashMap<Uuid, Outcome> {
        let one = |id: Uuid| {
            // Each id has its own clock: the slow one is given up, the others are served.
            let outcome = self.cache.get(&self.caller, id, self.deadline);
            async move { (id, outcome.await) }
        };
        join_all(ids.iter().copied().map(one)).await.into_iter().collect()
    }
}

impl Loader {
    pub(super) fn new(cache: AppointmentCache, caller: Caller, deadline: Instant) -> Self {
        let batch = Batch { cache, caller, deadline };
        // How many ids an operation may ask for is bounded by the limits, and how many calls are under way by the
        // upstream client. A bound on the batch would only make the rest wait for the whole of the first part.
        Self(cached::Loader::new(batch).with_max_batch_size(usize::MAX))
    }

    pub(super) async fn load(&self, id: Uuid) -> Outcome {
        // The crate reports a key that its batch left out. Ours leaves out none.
        self.0.try_load(id).await.unwrap_or(Err(UpstreamError::Lost))
    }

    pub(super) async fn load_many(&self, ids: Vec<Uuid>) -> Vec<Outcome> {
        let found = self.0.try_load_many(ids.clone()).await.unwrap_or_default();
        ids.iter().map(|id| found.get(id).cloned().unwrap_or(Err(UpstreamError::Lost))).collect()
    }
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loader").finish_non_exhaustive()
    }
}
