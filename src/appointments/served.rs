//! Appointments as they are served.

use std::time::Duration;

use crate::{model::SharedAppointment, upstream::error::UpstreamError};

/// What is known of an id: the appointment, that there is none, or why neither could be learnt.
pub type Outcome = Result<Option<Served>, UpstreamError>;

/// An appointment as it is served.
#[derive(Debug, Clone)]
pub struct Served {
    /// What it is, or was.
    pub appointment: SharedAppointment,
    /// How long ago it was fetched, where it is stale: past its time, and not known to be still so.
    pub age: Option<Duration>,
}

impl Served {
    pub(crate) fn now(appointment: SharedAppointment) -> Self {
        Self { appointment, age: None }
    }
}
