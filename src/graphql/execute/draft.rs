//! A response while resolvers write it: its size budget (`limits.answer`, `http.max_response_memory`) and the errors of
//! malformed values.
//!
//! The budget is checked before each long write, so that an oversized response stops growing at once.

use async_graphql::{PathSegment, ServerError};

use super::json;
use crate::{
    error::{ApiError, code::ErrorCode, limit::LimitExceeded},
    metrics::metrics,
    response_memory::{Owner, Reservation, ResponseMemory},
};

/// The size budget of one response, and the errors collected so far.
#[derive(Debug)]
pub(crate) struct Draft {
    owner: Owner,
    pub(crate) is_mutation: bool,
    /// `limits.answer`
    maximum: usize,
    /// `http.max_response_memory`
    memory: usize,
    reservation: Reservation,
    /// Bytes of JSON written so far, without `errors`.
    pub(crate) written: usize,
    /// The size up to which no further check or reservation is needed; 0 once the budget is exceeded.
    pub(crate) ceiling: usize,
    pub(crate) excess: Option<ExceededBudget>,
    pub(crate) errors: FieldErrors,
}

/// The budget that a response exceeds, with its maximum in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExceededBudget {
    /// `limits.answer`
    ResponseSize(usize),
    /// `http.max_response_memory`
    ResponseMemory(usize),
}

/// The errors of malformed values, as comma-separated JSON. There can be one per field of each appointment, and a
/// `ServerError` takes several times the memory of its JSON.
#[derive(Debug, Default)]
pub(crate) struct FieldErrors {
    pub(crate) json: Vec<u8>,
    pub(crate) count: u64,
}

/// Returns the response path of the field that is being written.
pub(crate) type Parent<'p> = &'p dyn Fn() -> Vec<PathSegment>;

impl Draft {
    /// An empty draft of at most `maximum` bytes, charged to `owner`.
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
            errors: FieldErrors::default(),
        }
    }

    /// The exceeded budget, if any.
    pub(crate) fn excess(&self) -> Option<ExceededBudget> {
        self.excess
    }

    /// Takes the draft and leaves an empty one for the next subscription event.
    pub(crate) fn take(&mut self, memory: &ResponseMemory) -> Self {
        let next = Self::new(self.is_mutation, self.maximum, self.owner, memory);
        std::mem::replace(self, next)
    }

    /// Reserves the first bytes of response memory.
    ///
    /// # Errors
    /// [`ExceededBudget::ResponseMemory`]
    pub(crate) fn begin(&mut self) -> Result<(), ExceededBudget> {
        self.reservation.grow_to(1).map_err(|_| ExceededBudget::ResponseMemory(self.memory))
    }

    /// Whether the response may grow by `more` bytes of JSON.
    pub(crate) fn has_room(&mut self, more: usize) -> bool {
        self.check(more).is_ok()
    }

    pub(crate) fn check(&mut self, more: usize) -> Result<(), ExceededBudget> {
        self.check_total(self.written + self.errors.json.len() + more)
    }

    /// Checks that the response may take `total` bytes, and reserves them.
    ///
    /// # Errors
    /// The exceeded budget. Every later call then fails as well.
    pub(crate) fn check_total(&mut self, total: usize) -> Result<(), ExceededBudget> {
        if total <= self.ceiling { Ok(()) } else { self.extend(total) }
    }

    #[cold]
    fn extend(&mut self, total: usize) -> Result<(), ExceededBudget> {
        let excess = self.excess.or_else(|| {
            if total > self.maximum {
                return Some(ExceededBudget::ResponseSize(self.maximum));
            }
            self.reservation.grow_to(total).err().map(|_| ExceededBudget::ResponseMemory(self.memory))
        });
        self.excess = excess;
        self.ceiling = if excess.is_some() { 0 } else { self.reservation.bytes().min(self.maximum) };
        excess.map_or(Ok(()), Err)
    }

    /// Returns the memory reserved for the response.
    pub(crate) fn into_reservation(self) -> Reservation {
        self.reservation
    }
}

impl FieldErrors {
    /// Counts the errors in the metrics.
    pub(crate) fn observe(&self) {
        if self.count > 0 {
            metrics().errors.count_many(ErrorCode::UpstreamInvalidResponse.as_str(), self.count);
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

impl From<ExceededBudget> for ApiError {
    fn from(excess: ExceededBudget) -> Self {
        match excess {
            ExceededBudget::ResponseSize(maximum) => LimitExceeded::response_too_large(maximum),
            ExceededBudget::ResponseMemory(maximum) => LimitExceeded::response_memory_exhausted(maximum),
        }
    }
}
