//! The caching dataloader: what resolvers ask for appointments.
//!
//! [`Appointments`] belongs to one operation of one caller. It gathers the ids that the operation's fields ask for
//! into one batch (`loader`) over the cache of the process (`cache`), in which all operations of a caller share
//! what is kept and what is under way (`flight`).

mod cache;
mod flight;
mod loader;

use tokio::time::Instant;
use uuid::Uuid;

pub use cache::AppointmentCache;

use crate::{caller::Caller, model::SharedAppointment, upstream::UpstreamError};

/// What is known of an id: the appointment, that there is none, or why neither could be learnt.
pub type Outcome = Result<Option<SharedAppointment>, UpstreamError>;

/// The appointments as one operation of one caller sees them: within the operation an id has one outcome.
#[derive(Debug)]
pub struct Appointments {
    loader: loader::Loader,
}

impl Appointments {
    /// For an operation of `caller` that stops waiting at `deadline`.
    pub fn new(cache: AppointmentCache, caller: Caller, deadline: Instant) -> Self {
        Self { loader: loader::Loader::new(cache, caller, deadline) }
    }

    /// One appointment, none where there is none by that id.
    ///
    /// # Errors
    /// As [`UpstreamError`] says.
    pub async fn get(&self, id: Uuid) -> Outcome {
        self.loader.load(id).await
    }

    /// Several, in the order of `ids`. One that fails leaves the others as they are.
    pub async fn get_many(&self, ids: Vec<Uuid>) -> Vec<Outcome> {
        self.loader.load_many(ids).await
    }
}
