//! The caching dataloader: what resolvers ask for appointments, and change them through.
//!
//! [`Appointments`] belongs to one operation of one caller. It gathers the ids that the operation's fields ask for
//! into one batch ([`loader`]) over what all operations of the process share ([`Shared`]): what is kept ([`cache`],
//! [`lists`], in memory with a bound: [`kept`]), what is under way ([`flight`]), what is watched ([`live`], [`poller`]),
//! and when what was changed ([`generations`], by [`changes`]).

mod cache;
mod changes;
mod flight;
mod generations;
mod kept;
mod lists;
mod live;
mod loader;
mod poller;

use futures_util::Stream;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

pub use changes::Changed;
pub use lists::{Place, Window};
pub use live::Seen;

use crate::{
    caller::Caller,
    config::{CacheConfig, LiveConfig},
    model::{Change, SharedAppointment},
    upstream::{UpstreamClient, UpstreamError},
};

/// What is known of an id: the appointment, that there is none, or why neither could be learnt.
pub type Outcome = Result<Option<SharedAppointment>, UpstreamError>;

/// What all operations of the process share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shared {
    cache: cache::AppointmentCache,
    lists: lists::ListCache,
    live: live::Live,
    upstream: UpstreamClient,
}

impl Shared {
    /// Empty caches before `upstream`.
    pub fn new(cache: &CacheConfig, live: LiveConfig, upstream: UpstreamClient) -> Self {
        let appointments = cache::AppointmentCache::new(cache, upstream.clone());
        Self {
            lists: lists::ListCache::new(cache, appointments.clone(), upstream.clone()),
            live: live::Live::new(live, appointments.clone()),
            cache: appointments,
            upstream,
        }
    }
}

/// The appointments as one operation of one caller sees them: within the operation an id has one outcome.
#[derive(Debug)]
pub struct Appointments {
    shared: Shared,
    caller: Caller,
    deadline: Instant,
    loader: loader::Loader,
}

impl Appointments {
    /// For an operation of `caller` that stops waiting at `deadline`.
    pub fn new(shared: Shared, caller: Caller, deadline: Instant) -> Self {
        let loader = loader::Loader::new(shared.cache.clone(), caller.clone(), deadline);
        Self { shared, caller, deadline, loader }
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

    /// A window of the list of those that the caller may see.
    ///
    /// # Errors
    /// As [`UpstreamError`] says.
    pub async fn window(&self, place: Place) -> Result<Window, UpstreamError> {
        let window = self.shared.lists.window(&self.caller, place, self.deadline);
        timeout_at(self.deadline, window).await.unwrap_or(Err(UpstreamError::DeadlinePassed))
    }

    /// Sends a change, once.
    ///
    /// # Errors
    /// [`UpstreamError::OutcomeUnknown`] where it may have happened; all others say that it did not, or, as a 5xx does,
    /// nothing of it.
    pub async fn change(&self, change: Change) -> Result<Changed, UpstreamError> {
        self.shared.change(&self.caller, change, self.deadline).await
    }

    /// The appointment now, and again each time that it has changed; ends with the error that ended it.
    pub fn watch(&self, id: Uuid) -> impl Stream<Item = Seen> + Send + use<> {
        self.shared.live.watch(&self.caller, id)
    }
}
