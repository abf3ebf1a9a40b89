//! So many at once and no more: WebSockets, event streams, and operations, which may wait a little for their turn.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::{
    config::Limits,
    graphql::{
        error::ApiError,
        limit::{OverLimit, TOO_MUCH},
    },
    metrics::{Counted, Level, metrics},
};

/// Places, of which there are so many.
#[derive(Debug)]
pub struct Places {
    free: Arc<Semaphore>,
    most: usize,
    limit: &'static str,
    taken: Level,
}

/// A place, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    _counted: Counted,
}

impl Places {
    /// `most` places under the name of a `limit`, counted in `taken`.
    pub fn new(most: usize, limit: &'static str, taken: Level) -> Self {
        Self { free: Arc::new(Semaphore::new(most)), most, limit, taken }
    }

    /// A place, if one is free now.
    ///
    /// # Errors
    /// `OVERLOADED`
    pub(super) fn take(&self) -> Result<Place, ApiError> {
        self.free
            .clone()
            .try_acquire_owned()
            .map(|permit| self.place(permit))
            .map_err(|_| self.none_is_free())
    }

    fn place(&self, permit: OwnedSemaphorePermit) -> Place {
        Place { _permit: permit, _counted: self.taken.one() }
    }

    fn none_is_free(&self) -> ApiError {
        OverLimit::overloaded(self.limit, self.most, TOO_MUCH)
    }
}

/// Places for operations, and a short line before them.
#[derive(Debug)]
pub struct Turns {
    places: Places,
    line: Places,
    patience: Duration,
}

impl Turns {
    /// As `limits.operations`, `limits.operations_waiting` and `limits.operations_wait` say.
    pub fn new(limits: &Limits) -> Self {
        let metrics = metrics();
        Self {
            places: Places::new(limits.operations, "operations", metrics.operations_in_flight.clone()),
            line: Places::new(limits.operations_waiting, "operations", metrics.operations_waiting.clone()),
            patience: limits.operations_wait,
        }
    }

    /// A place, at once or after a short wait; those who wait get theirs in the order in which they came.
    ///
    /// # Errors
    /// `OVERLOADED`, where there is no room to wait either, or where the wait was too long.
    pub(super) async fn take(&self) -> Result<Place, ApiError> {
        if let Ok(place) = self.places.take() {
            return Ok(place);
        }
        let none_is_free = || self.places.none_is_free();
        let _in_line = self.line.take().map_err(|_| none_is_free())?;
        match timeout(self.patience, self.places.free.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(self.places.place(permit)),
            // The places are never closed.
            Ok(Err(_)) | Err(_) => Err(none_is_free()),
        }
    }
}
