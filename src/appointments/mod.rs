//! The caching dataloader: what resolvers ask for appointments, and change them through.
//!
//! [`Appointments`] belongs to one operation of one caller. It gathers the ids that the operation's fields ask for
//! into one batch ([`loader`]) over what all operations of the process share ([`Shared`]): what is kept ([`cache`],
//! [`lists`], in memory with a bound: [`kept`], and with one for each caller: [`shares`]), what is under way ([`flight`]),
//! what is watched ([`live`], [`poller`]). Which of the copies may be served is for [`crate::cache`] to say; [`changes`] and
//! refusals end them. What is made from appointments knows from which ([`provenance`]), and can be kept for as long as these
//! are current ([`derived`]).

mod cache;
mod changes;
mod derived;
mod failures;
mod flight;
mod kept;
mod lists;
mod live;
mod loader;
mod poller;
mod provenance;
mod shares;

use std::{sync::Arc, time::Duration};

use futures_util::Stream;
use tokio::time::Instant;
use uuid::Uuid;

pub use changes::Changed;
pub use derived::{Derived, Made};
pub use kept::Size;
pub use lists::{Place, Window};
pub use live::Update;
pub use provenance::Provenance;

use crate::{
    cache::Validity,
    caller::Caller,
    config::{CacheConfig, LiveConfig},
    metrics::metrics,
    model::{Change, SharedAppointment},
    upstream::{UpstreamClient, UpstreamError},
};

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
    fn now(appointment: SharedAppointment) -> Self {
        Self { appointment, age: None }
    }
}

/// What all operations of the process share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shared {
    cache: cache::AppointmentCache,
    lists: lists::ListCache,
    subscriptions: live::Subscriptions,
    upstream: UpstreamClient,
}

impl Shared {
    /// Empty caches before `upstream`.
    pub fn new(cache: &CacheConfig, live: LiveConfig, upstream: UpstreamClient) -> Self {
        let validity = Validity::new();
        let pages = lists::Pages::new(cache.list_size, cache.caller_share);
        let watches = live::WatchRegistry::new(live);
        let appointments =
            cache::AppointmentCache::new(cache, validity, pages.clone(), watches.clone(), upstream.clone());
        Self {
            lists: lists::ListCache::new(cache, pages, appointments.clone(), upstream.clone()),
            subscriptions: live::Subscriptions::new(watches, appointments.clone()),
            cache: appointments,
            upstream,
        }
    }

    fn validity(&self) -> &Validity {
        self.cache.validity()
    }

    /// Shows how much is kept, as of now, in the [metrics].
    pub fn observe(&self) {
        let (appointments, pages) = (self.cache.total(), self.lists.total());
        metrics().kept.set(&[("appointments", appointments), ("pages", pages)]);
    }
}

/// The appointments as one operation of one caller sees them: within the operation an id has one outcome. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Appointments(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Shared,
    caller: Caller,
    deadline: Instant,
    loader: loader::Loader,
    record: Arc<provenance::Record>,
}

impl Appointments {
    /// For an operation of `caller` that stops waiting at `deadline`.
    pub fn new(shared: Shared, caller: Caller, deadline: Instant) -> Self {
        let record = Arc::<provenance::Record>::default();
        let loader = loader::Loader::new(shared.cache.clone(), caller.clone(), deadline, record.clone());
        Self(Arc::new(Inner { shared, caller, deadline, loader, record }))
    }

    /// Whose operation it is.
    pub fn caller(&self) -> &Caller {
        &self.0.caller
    }

    /// One appointment, none where there is none by that id.
    ///
    /// # Errors
    /// As [`UpstreamError`] says.
    pub async fn get(&self, id: Uuid) -> Outcome {
        self.0.loader.load(id).await
    }

    /// Several, in the order of `ids`. One that fails leaves the others as they are.
    pub async fn get_many(&self, ids: Vec<Uuid>) -> Vec<Outcome> {
        self.0.loader.load_many(ids).await
    }

    /// A window of the list of those that the caller may see.
    ///
    /// # Errors
    /// As [`UpstreamError`] says.
    pub async fn window(&self, place: Place) -> Result<Window, UpstreamError> {
        let Inner { shared, caller, deadline, record, .. } = &*self.0;
        if let Some(error) = record.rejection() {
            return Err(error);
        }
        let window = shared.lists.window(caller, place, *deadline, record).await;
        window.inspect_err(|error| record.note_failure(None, error))
    }

    /// Sends a change, once.
    ///
    /// # Errors
    /// [`UpstreamError::OutcomeUnknown`] where it may have happened; all others say that it did not, or, as a 5xx does,
    /// nothing of it.
    pub async fn change(&self, change: Change) -> Result<Changed, UpstreamError> {
        let Inner { shared, caller, deadline, record, .. } = &*self.0;
        record.mark_uncacheable();
        shared.change(caller, change, *deadline).await
    }

    /// The appointment now, and again each time that it has changed; ends with the error that ended it.
    pub fn watch(&self, id: Uuid) -> impl Stream<Item = Update> + Send + use<> {
        self.0.record.mark_uncacheable();
        self.0.shared.subscriptions.watch(&self.0.caller, id)
    }

    /// What the operation, which is over, was served: none unless all of it is kept and fresh, and for one that failed in
    /// part, changed something or watched something.
    pub fn provenance(&self) -> Option<Provenance> {
        let Inner { shared, caller, record, .. } = &*self.0;
        Provenance::of(record, caller.scope(), shared)
    }
}
