//! Decoded responses of the upstream.

use super::{cache_control::CacheDirectives, outcome::CallOutcome, validators::Validators};
use crate::model::{SharedAppointment, change::InputFault};

/// The response to a read, which may have been conditional.
#[derive(Debug, Clone)]
pub struct ReadResponse<T> {
    /// The value; `None` if it still has the validators of the request (304).
    pub value: Option<T>,
    /// The validators for the next conditional request.
    pub validators: Option<Validators>,
    /// The upstream's bounds on caching.
    pub directives: CacheDirectives,
}

/// A page of the list.
#[derive(Debug, Clone)]
pub struct Page {
    /// The appointments in the upstream's order; `None` in place of an item that is not an appointment.
    pub items: Vec<Option<PageItem>>,
    /// The page size, if the upstream states it.
    pub per_page: Option<u32>,
    /// The length of the list, if the upstream states it.
    pub total: Option<u64>,
    /// Whether another page follows, if the upstream states it.
    pub has_next: Option<bool>,
}

/// An appointment on a page.
#[derive(Debug, Clone)]
pub struct PageItem {
    /// The appointment with the members that the list shows.
    pub appointment: SharedAppointment,
    /// Whether the item has every documented member. If so, a read of the appointment itself would add nothing.
    pub is_complete: bool,
}

/// The response to a change.
#[derive(Debug, Clone)]
pub enum ChangeResponse {
    /// The upstream made the change.
    Applied {
        /// The appointment after the change; `None` if the response does not contain it.
        appointment: Option<SharedAppointment>,
        /// The upstream's bounds on caching.
        directives: CacheDirectives,
    },
    /// The upstream rejected the input.
    Rejected(Vec<InputFault>),
}

/// A response to any call.
pub(crate) trait UpstreamResponse {
    /// The outcome of a call with this response.
    fn outcome(&self) -> CallOutcome;
}

impl UpstreamResponse for ReadResponse<Option<SharedAppointment>> {
    fn outcome(&self) -> CallOutcome {
        if matches!(self.value, Some(None)) { CallOutcome::NotFound } else { CallOutcome::Ok }
    }
}

impl UpstreamResponse for ReadResponse<Page> {
    fn outcome(&self) -> CallOutcome {
        CallOutcome::Ok
    }
}

impl UpstreamResponse for ChangeResponse {
    fn outcome(&self) -> CallOutcome {
        match self {
            Self::Applied { .. } => CallOutcome::Ok,
            Self::Rejected(_) => CallOutcome::Rejected,
        }
    }
}
