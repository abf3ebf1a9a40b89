//! The batching loader: many fields of one operation, one batch of distinct ids.
//!
//! Fresh cache entries are served at once. The other ids go through the `Loader` of the `dataloader` crate, which gathers
//! them by yielding once. It holds its lock while a batch runs, and loses the batch if the task that drives it is dropped.
//! Both are harmless to a loader that one operation owns and harmful to a shared one, so each operation has its own.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    sync::Arc,
};

use dataloader::{BatchFn, cached};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::Instant;
use uuid::Uuid;

use super::{appointment_cache::AppointmentCache, read_set::ReadSet, served::Outcome};
use crate::{
    caller::Caller,
    upstream::error::{Revocation, UpstreamError},
};

pub(crate) struct Loader {
    cache: AppointmentCache,
    caller: Caller,
    reads: Arc<ReadSet>,
    batches: cached::Loader<Uuid, Outcome, Batch>,
}

/// Reads all ids of a batch from the cache concurrently.
struct Batch {
    cache: AppointmentCache,
    caller: Caller,
    deadline: Instant,
    reads: Arc<ReadSet>,
}

impl BatchFn<Uuid, Outcome> for Batch {
    async fn load(&mut self, ids: &[Uuid]) -> HashMap<Uuid, Outcome> {
        let one = |id: Uuid| {
            // Each id has a deadline of its own, so a slow one does not delay the others.
            let outcome = self.cache.get(&self.caller, id, self.deadline, &self.reads);
            async move { (id, outcome.await) }
        };
        let mut lookups: FuturesUnordered<_> = ids.iter().copied().map(one).collect();
        let mut outcomes = HashMap::with_capacity(ids.len());
        while let Some((id, outcome)) = lookups.next().await {
            let rejection =
                outcome.as_ref().err().filter(|error| error.revocation() == Revocation::Everything);
            let rejection = rejection.cloned();
            outcomes.insert(id, outcome);
            if let Some(error) = rejection {
                // The upstream would reject the token each time.
                for id in ids {
                    outcomes.entry(*id).or_insert_with(|| Err(error.clone()));
                }
                break;
            }
        }
        outcomes
    }
}

impl Loader {
    pub(crate) fn new(
        cache: AppointmentCache,
        caller: Caller,
        deadline: Instant,
        reads: Arc<ReadSet>,
    ) -> Self {
        let batch = Batch { cache: cache.clone(), caller: caller.clone(), deadline, reads: reads.clone() };
        // `limits.ids` bounds the ids of an operation, and the upstream client bounds concurrent calls. A smaller batch would
        // only make the rest wait for all of the first. All fields of an operation are polled once before any of them is
        // polled again, so a batch that yields once has them all.
        let batches = cached::Loader::new(batch).with_max_batch_size(usize::MAX).with_yield_count(1);
        Self { cache, caller, reads, batches }
    }

    pub(crate) async fn load(&self, id: Uuid) -> Outcome {
        if let Some(outcome) = self.known(id) {
            return outcome;
        }
        // The crate reports keys that a batch leaves out. Ours leaves out none.
        let outcome = self.batches.try_load(id).await.unwrap_or(Err(UpstreamError::Lost));
        self.record(id, outcome)
    }

    pub(crate) async fn load_many(&self, ids: Vec<Uuid>) -> Vec<Outcome> {
        let known = ids.iter().map(|id| self.known(*id)).collect::<Vec<_>>();
        let unknown = ids.iter().zip(&known).filter(|(_, known)| known.is_none()).map(|(id, _)| *id);
        let unknown = unknown.collect::<Vec<_>>();
        let found = match unknown.is_empty() {
            true => HashMap::new(),
            false => self.batches.try_load_many(unknown).await.unwrap_or_default(),
        };
        let outcome = |(id, known): (&Uuid, Option<Outcome>)| {
            known.unwrap_or_else(|| {
                self.record(*id, found.get(id).cloned().unwrap_or(Err(UpstreamError::Lost)))
            })
        };
        ids.iter().zip(known).map(outcome).collect()
    }

    /// The outcome of `id`, if the operation has it already or the cache does.
    fn known(&self, id: Uuid) -> Option<Outcome> {
        match self.reads.outcomes().entry(id) {
            Entry::Occupied(told) => Some(told.get().clone()),
            Entry::Vacant(new) => {
                let rejected = self.reads.rejection().map(Err);
                let known = rejected.or_else(|| self.cache.get_fresh(&self.caller, id).map(Ok))?;
                Some(new.insert(known).clone())
            }
        }
    }

    /// Records `outcome`, unless the operation has another one by now. Returns the recorded one.
    fn record(&self, id: Uuid, outcome: Outcome) -> Outcome {
        match self.reads.outcomes().entry(id) {
            Entry::Occupied(told) => told.get().clone(),
            Entry::Vacant(new) => {
                if let Err(error) = &outcome {
                    self.reads.note_failure(Some(id), error);
                }
                new.insert(outcome).clone()
            }
        }
    }
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loader").finish_non_exhaustive()
    }
}
