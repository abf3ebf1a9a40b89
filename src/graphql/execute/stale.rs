//! What of an answer is stale, for its extensions: served from memory past its time, since the upstream failed or while
//! it is asked anew.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_graphql::PathSegment;
use serde::Serialize;

/// Something in an answer that is stale: `{"path": ["appointment"], "ageSeconds": 40}`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stale {
    /// Where it is in `data`: an appointment, or a window of the list with all that is in it.
    pub path: Vec<PathSegment>,
    /// How long ago it was fetched, in whole seconds, rounded down.
    pub age_seconds: u64,
}

/// What the fields of one operation note as they are resolved. As many as they serve appointments: `limits.items`.
#[derive(Debug, Default)]
pub(crate) struct Staleness(Mutex<Vec<Stale>>);

impl Staleness {
    /// Records a stale value of this `age` at `path`.
    pub(crate) fn note(&self, path: Vec<PathSegment>, age: Duration) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.push(Stale { path, age_seconds: age.as_secs() });
    }

    /// What was noted, in the order in which it was.
    pub(crate) fn noted(&self) -> Vec<Stale> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
