//! Subscriptions. The upstream has no push, so each watched appointment is polled: by one [poller](super::poller) for each
//! caller scope and id, as long as it has subscribers. A slow subscriber finds the latest state, not a queue.
//!
//! In a fleet, the poller with the [lease](super::poll_lease) polls for all replicas, and sends its
//! [findings](super::findings) to the others.
//!
//! The state is a [`Guarded`](crate::cache::validity::Guarded) copy like any other. A new subscriber receives it only while it
//! is valid and fresh; otherwise the poller reads again, and the subscriber waits.

use std::{sync::Arc, time::Instant as StdInstant};

use futures_util::{Stream, stream};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use super::{
    appointment_cache::AppointmentCache,
    findings::Finding,
    following::{Heard, PollNews},
    keys::AppointmentKey,
    poll_lease::Fence,
    poller::{Poller, Signals},
    served::CachedLookup,
    watch_registry::{PollCommand, Reader, Subscription, Watch, WatchRegistry, WatchState, show},
};
use crate::{
    cache::{
        read_through::Read,
        validity::{Subject, Validity},
    },
    caller::Caller,
    fleet::message::{Observation, Position},
    model::SharedAppointment,
    upstream::error::UpstreamError,
};

/// An event for a subscriber.
pub type Update = Result<SharedAppointment, UpstreamError>;

/// Subscriptions to appointments. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Subscriptions {
    registry: WatchRegistry,
    cache: AppointmentCache,
}

impl Subscriptions {
    pub(crate) fn new(registry: WatchRegistry, cache: AppointmentCache) -> Self {
        Self { registry, cache }
    }

    /// The appointment now, then each time that it has changed. Ends with an error that is final; errors that may pass
    /// are waited out.
    pub(crate) fn watch(&self, caller: &Caller, id: Uuid) -> impl Stream<Item = Update> + Send + use<> {
        let key = AppointmentKey { scope: caller.scope(), id };
        let subscription = self.registry.subscribe(key, caller.identity(), || self.start(caller, key));
        let start = subscription.map(|subscription| Subscriber {
            state: subscription.watch.state.subscribe(),
            subscription,
            validity: self.cache.validity().clone(),
            waiting_since: StdInstant::now(),
            is_new: true,
            last: None,
        });
        stream::unfold(Some(start), async |state| match state {
            None => None,
            Some(Err(error)) => Some((Err(error), None)),
            Some(Ok(mut subscriber)) => {
                let update = subscriber.next().await;
                let state = update.is_ok().then_some(Ok(subscriber));
                Some((update, state))
            }
        })
    }

    /// Publishes the result of a change by `caller` to subscribers of the same scope. Pollers of other scopes poll at once: a
    /// scope never receives another scope's response.
    pub(crate) fn changed(&self, caller: &Caller, id: Uuid, answer: Option<Read<CachedLookup>>) {
        for watch in self.registry.watches_of(id) {
            let answer = answer.as_ref().filter(|_| watch.key.scope == caller.scope());
            let is_shown =
                answer.is_some_and(|answer| show(&watch.state, self.cache.validity(), answer, Reader::This));
            watch.commands.send_replace(if is_shown { PollCommand::Wait } else { PollCommand::Poll });
        }
    }

    /// The appointment `id` was changed on another replica: all pollers poll at once, or wait for those that do.
    pub(crate) fn changed_elsewhere(&self, id: Uuid) {
        for watch in self.registry.watches_of(id) {
            watch.commands.send_replace(PollCommand::Poll);
        }
    }

    /// A change of the appointment `id` was published at `position`: later findings of pollers are of use to the other
    /// replicas from now on.
    pub(crate) fn published(&self, id: Uuid, position: Position) {
        for watch in self.registry.watches_of(id) {
            watch.news.tell_published(position);
        }
    }

    /// A poller of another replica has found something. This replica has received all messages before `position`.
    pub(crate) fn observed(&self, observation: &Observation, position: Position) {
        let Observation { scopes, id, fence, as_of, finding } = observation;
        let fence = Fence { epoch: as_of.epoch, token: *fence };
        if as_of.epoch != position.epoch {
            return;
        }
        for watch in self.registry.watches_of(*id) {
            if scopes.contains(&watch.key.scope) && watch.news.admit(fence) {
                watch.news.tell(self.apply(&watch, *as_of, Finding::decode(finding)));
            }
        }
    }

    /// Shows a finding to the subscribers of `watch`, if it is good for a read that starts now.
    fn apply(&self, watch: &Watch, as_of: Position, finding: Option<Finding>) -> Heard {
        let found = match finding {
            // Of another version of the gateway.
            None => return Heard::Refused,
            Some(Finding::Left { retry_after }) => return Heard::Left(retry_after),
            Some(Finding::Read(found)) => found,
        };
        let (validity, Watch { key, caller, state, .. }) = (self.cache.validity(), watch);
        let version = validity.start_read(key.scope, Subject::Appointment(key.id));
        if !validity.is_shareable(&version, as_of.sequence) {
            return Heard::Refused;
        }
        if !state.borrow().trusts_findings() {
            return Heard::Refused;
        }
        let last = state.borrow().latest();
        let ttl = &self.cache.resource().copies.ttl;
        let limit = |freshness, age| ttl.of_shared_copy(caller, freshness, age);
        let Some(read) = found.into_read(last, version, limit) else { return Heard::OtherState };
        // First, as a read of this replica: a subscriber that reads after an event finds it.
        self.cache.store(*key, &read);
        if show(state, validity, &read, Reader::Another) { Heard::Shown } else { Heard::Refused }
    }

    fn start(&self, caller: &Caller, key: AppointmentKey) -> Watch {
        let state = Arc::new(watch::Sender::new(WatchState::default()));
        let (commands, received) = watch::channel(PollCommand::default());
        let (wanted, news) = (Arc::new(Notify::new()), Arc::new(PollNews::default()));
        let poller = Poller::new(
            self.cache.clone(),
            self.registry.config().clone(),
            caller.clone(),
            key.id,
            Signals { state: state.clone(), wanted: wanted.clone(), news: news.clone() },
        );
        let poller = tokio::spawn(poller.run(received)).abort_handle();
        let (caller, registry) = (caller.clone(), self.registry.downgrade());
        Watch { key, caller, state, commands, wanted, news, poller, registry }
    }
}

struct Subscriber {
    state: watch::Receiver<WatchState>,
    subscription: Subscription,
    validity: Validity,
    /// Results that are stored after this moment have been waited for.
    waiting_since: StdInstant,
    is_new: bool,
    last: Option<SharedAppointment>,
}

impl Subscriber {
    async fn next(&mut self) -> Update {
        self.waiting_since = StdInstant::now();
        loop {
            if !std::mem::take(&mut self.is_new) && self.state.changed().await.is_err() {
                return Err(UpstreamError::Lost);
            }
            if let Some(update) = self.latest_unseen() {
                return update;
            }
        }
    }

    /// The latest state, if it is valid and not the one that this subscriber has seen last.
    fn latest_unseen(&mut self) -> Option<Update> {
        let state = self.state.borrow_and_update();
        if let Some(error) = &state.end {
            return Some(Err(error.clone()));
        }
        // Before the first state, the poller is reading it.
        let latest = state.latest.as_ref()?;
        let Some(appointment) = self.validity.read_awaited(latest, self.waiting_since) else {
            drop(state);
            self.want();
            return None;
        };
        if self.last.as_ref().is_some_and(|last| **last == **appointment) {
            return None;
        }
        self.last = Some(appointment.clone());
        Some(Ok(appointment.clone()))
    }

    /// Has the poller poll, and the result shown even if it is equal to the latest state.
    fn want(&self) {
        let Watch { state, wanted, .. } = &*self.subscription.watch;
        state.send_if_modified(|state| {
            state.is_wanted = true;
            false
        });
        wanted.notify_one();
    }
}
