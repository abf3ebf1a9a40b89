//! What the upstream answers, as those above see it.

use super::cache_control::CacheDirectives;
use crate::model::{SharedAppointment, change::InputFault};

/// What the upstream says of one appointment.
#[derive(Debug, Clone)]
pub struct AppointmentAnswer {
    /// The appointment; none where the upstream knows none by that id, or where it is unchanged.
    pub appointment: Option<SharedAppointment>,
    /// Whether it is still what it was at the `ETag` that was sent.
    pub is_unchanged: bool,
    /// What to send to be told only of changes.
    pub etag: Option<String>,
    /// How long the upstream lets it be kept.
    pub keep: CacheDirectives,
}

/// A page of the list.
#[derive(Debug, Clone)]
pub struct Page {
    /// The appointments in their order; none where there was something that is no appointment.
    pub items: Vec<Option<PageItem>>,
    /// How long pages are, where the upstream says so.
    pub per_page: Option<u32>,
    /// How long the list is, where the upstream says so.
    pub total: Option<u64>,
    /// Whether there is another page, where the upstream says so.
    pub has_next: Option<bool>,
    /// How long the upstream lets it be kept.
    pub keep: CacheDirectives,
}

/// An appointment on a page.
#[derive(Debug, Clone)]
pub struct PageItem {
    /// The appointment, as far as the list shows it.
    pub appointment: SharedAppointment,
    /// Whether it has every documented member, so that a read of the appointment itself would show no more.
    pub is_whole: bool,
}

/// What the upstream did with a change.
#[derive(Debug, Clone)]
pub enum Applied {
    /// Made it.
    To {
        /// The appointment as it now is; none where the upstream did not show it.
        appointment: Option<SharedAppointment>,
        /// How long the upstream lets it be kept.
        keep: CacheDirectives,
    },
    /// Did not accept the input.
    Rejected(Vec<InputFault>),
}

/// An answer of any kind.
pub(crate) trait Answered {
    /// The word under which a call that was answered so is counted.
    fn outcome(&self) -> &'static str;
}

impl Answered for AppointmentAnswer {
    fn outcome(&self) -> &'static str {
        if self.appointment.is_some() || self.is_unchanged { "ok" } else { "not_found" }
    }
}

impl Answered for Page {
    fn outcome(&self) -> &'static str {
        "ok"
    }
}

impl Answered for Applied {
    fn outcome(&self) -> &'static str {
        match self {
            Self::To { .. } => "ok",
            Self::Rejected(_) => "rejected",
        }
    }
}
