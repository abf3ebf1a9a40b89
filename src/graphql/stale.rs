//! What of an answer is stale, for its extensions: served from memory past its time, since the upstream failed or while
//! it is asked anew.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_graphql::{Context, PathSegment};
use serde::Serialize;

use super::Run;

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
pub(super) struct Staleness(Mutex<Vec<Stale>>);

impl Staleness {
    /// Notes that the field that is being resolved serves something of this `age`: at `index`, where it serves a list.
    /// It has to be a field of the operation itself.
    pub(super) fn note(ctx: &Context<'_>, index: Option<usize>, age: Duration) {
        let field = ctx.field();
        let key = PathSegment::Field(field.alias().unwrap_or_else(|| field.name()).to_owned());
        let path = [key].into_iter().chain(index.map(PathSegment::Index)).collect();
        let Self(noted) = &Run::of(ctx).staleness;
        let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
        noted.push(Stale { path, age_seconds: age.as_secs() });
    }

    /// What was noted, in the order in which it was.
    pub(super) fn noted(&self) -> Vec<Stale> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
