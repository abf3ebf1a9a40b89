//! The results of changes.

use uuid::Uuid;

use crate::model::{SharedAppointment, change::InputFault};

/// The result of a change.
#[derive(Debug, Clone)]
pub enum Changed {
    /// Applied: the changed appointment, if the upstream returned it.
    To(Option<SharedAppointment>),
    /// Applied earlier, when the request was first sent: the id of the appointment, if the upstream returned it.
    Earlier(Option<Uuid>),
    /// Rejected: the upstream did not accept the input.
    Rejected(Vec<InputFault>),
}
