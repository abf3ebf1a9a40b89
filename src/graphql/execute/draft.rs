//! The answer to an operation while its resolvers write it: its budget (`limits.answer`, `http.max_response_memory`)
//! and the errors of malformed values.
//!
//! Both are checked before anything long is written, so that an answer which turns out too large stops growing at once.

use async_graphql::{PathSegment, ServerError};

use super::json;
use crate::{
    error::{ApiError, limit::OverLimit},
    metrics::metrics,
    response_memory::{Owner, Reservation, ResponseMemory},
};

/// What an answer has cost so far.
#[derive(Debug)]
pub(crate) struct Draft {
    owner: Owner,
    pub(crate) is_mutation: bool,
    /// `limits.answer`
    maximum: usize,
    /// `http.max_response_memory`
    memory: usize,
    reservation: Reservation,
    /// The JSON that has been written, beside `errors`.
    pub(crate) written: usize,
    /// The size up to which nothing has to be checked or reserved; 0 once the answer is too large.
    pub(crate) ceiling: usize,
    pub(crate) excess: Option<Excess>,
    pub(crate) errors: Errors,
}

/// The bound that an answer exceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excess {
    /// `limits.answer`
    GraphqlResponse(usize),
    /// `http.max_response_memory`
    Memory(usize),
}

/// The errors of malformed values, as JSON with commas between them. There can be one for each field of each
/// appointment, and as a `ServerError` each would take several times as much.
#[derive(Debug, Default)]
pub(crate) struct Errors {
    pub(crate) json: Vec<u8>,
    pub(crate) count: u64,
}

/// Returns the path to the field that is being written.
pub(crate) type Parent<'p> = &'p dyn Fn() -> Vec<PathSegment>;

impl Draft {
    /// An empty one of at most `maximum` bytes, for `owner`.
    pub(crate) fn new(is_mutation: bool, maximum: usize, owner: Owner, memory: &ResponseMemory) -> Self {
        Self {
            is_mutation,
            owner,
            maximum,
            memory: memory.maximum(),
            reservation: memory.reservation_of(owner),
            written: 0,
            ceiling: 0,
            excess: None,
            errors: Errors::default(),
        }
    }

    /// Why the answer is too large, if it is.
    pub(crate) fn excess(&self) -> Option<Excess> {
        self.excess
    }

    /// Takes the draft, and leaves an empty one for the next event.
    pub(crate) fn take(&mut self, memory: &ResponseMemory) -> Self {
        let next = Self::new(self.is_mutation, self.maximum, self.owner, memory);
        std::mem::replace(self, next)
    }

    /// Reserves memory for the beginning of an answer.
    ///
    /// # Errors
    /// [`Excess::Memory`]
    pub(crate) fn begin(&mut self) -> Result<(), Excess> {
        self.reservation.grow_to(1).map_err(|_| Excess::Memory(self.memory))
    }

    /// Whether the answer may grow by `more` bytes of JSON.
    pub(crate) fn has_room(&mut self, more: usize) -> bool {
        self.check(more).is_ok()
    }

    pub(crate) fn check(&mut self, more: usize) -> Result<(), Excess> {
        self.check_total(self.written + self.errors.json.len() + more)
    }

    /// Makes sure that the answer may have `total` bytes, and that they are reserved.
    ///
    /// # Errors
    /// Why it may not; once that happens, it may not have any.
    pub(crate) fn check_total(&mut self, total: usize) -> Result<(), Excess> {
        if total <= self.ceiling { Ok(()) } else { self.extend(total) }
    }

    #[cold]
    fn extend(&mut self, total: usize) -> Result<(), Excess> {
        let excess = self.excess.or_else(|| {
            if total > self.maximum {
                return Some(Excess::GraphqlResponse(self.maximum));
            }
            self.reservation.grow_to(total).err().map(|_| Excess::Memory(self.memory))
        });
        self.excess = excess;
        self.ceiling = if excess.is_some() { 0 } else { self.reservation.bytes().min(self.maximum) };
        excess.map_or(Ok(()), Err)
    }

    /// The memory that is reserved for the answer.
    pub(crate) fn into_reservation(self) -> Reservation {
        self.reservation
    }
}

impl Errors {
    /// Counts the errors that clients are told.
    pub(crate) fn observe(&self) {
        if self.count > 0 {
            metrics().errors.count_many(ApiError::UpstreamInvalidResponse("").code(), self.count);
        }
    }

    /// Adds an error.
    pub(crate) fn push(&mut self, error: &ServerError) {
        if self.count > 0 {
            self.json.push(b',');
        }
        json::value(error, &mut self.json);
        self.count += 1;
    }
}

impl From<Excess> for ApiError {
    fn from(excess: Excess) -> Self {
        match excess {
            Excess::GraphqlResponse(maximum) => OverLimit::answer(maximum),
            Excess::Memory(maximum) => OverLimit::response_memory(maximum),
        }
    }
}
