//! Stale data in a response, for its `extensions`: cached data served past its TTL, because the upstream failed
//! (stale-if-error) or while it is revalidated.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_graphql::PathSegment;
use serde::Serialize;

/// A stale part of the response: `{"path": ["appointment"], "ageSeconds": 40}`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stale {
    /// The path in `data`, of an appointment or of a whole page of the list.
    pub path: Vec<PathSegment>,
    /// Seconds since the data was fetched, rounded down.
    pub age_seconds: u64,
}

/// Collects the stale parts of one operation as its fields are resolved. `limits.items` bounds their number.
#[derive(Debug, Default)]
pub(crate) struct StaleRecorder(Mutex<Vec<Stale>>);

impl StaleRecorder {
    /// Records a stale value of this `age` at `path`.
    pub(crate) fn record(&self, path: Vec<PathSegment>, age: Duration) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.push(Stale { path, age_seconds: age.as_secs() });
    }

    /// Takes the recorded parts, in order of recording.
    pub(crate) fn take(&self) -> Vec<Stale> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
