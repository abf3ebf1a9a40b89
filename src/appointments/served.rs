//! Appointments as they are served.

use std::time::Duration;

use crate::{cache::store::Size, model::SharedAppointment, upstream::error::UpstreamError};

/// The outcome of a read: the appointment, its absence, or the failure.
pub type Outcome = Result<Option<Served>, UpstreamError>;

/// A served appointment.
#[derive(Debug, Clone)]
pub struct Served {
    /// The appointment.
    pub appointment: SharedAppointment,
    /// How long ago it was fetched, if it is stale.
    pub age: Option<Duration>,
}

impl Served {
    pub(crate) fn now(appointment: SharedAppointment) -> Self {
        Self { appointment, age: None }
    }
}

/// A cached lookup: an appointment, or its absence.
pub(crate) type CachedLookup = Option<SharedAppointment>;

impl Size for CachedLookup {
    fn size(&self) -> usize {
        self.as_ref().map_or(0, |appointment| appointment.size())
    }
}
