//! Subscriptions. The upstream has no push, so each watched appointment is polled: by one [poller](crate::appointments::poller) for each
//! (caller scope, id), however many subscribe, for as long as somebody does.
//!
//! A [`Watch`] lives like a [`Flight`](crate::cache::single_flight::Flight): its subscribers hold it, the registry holds it weakly, and the
//! poller ends with the last subscriber. A slow subscriber finds the latest state when it comes back, not a queue.
//!
//! The state that subscribers are shown is a [`Guarded`] copy like any other. A new subscriber is shown it only while it is
//! valid and fresh; otherwise it has the poller read again, and waits.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Instant as StdInstant,
};

use futures_util::{Stream, stream};
use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
};
use uuid::Uuid;

use super::{
    cache::{AppointmentCache, Fetched, Key},
    poller::Poller,
};
use crate::{
    cache::validity::{Guarded, Validity},
    caller::{Caller, Scope},
    config::live::LiveConfig,
    error::limit::Limit,
    model::SharedAppointment,
    upstream::error::UpstreamError,
};

/// What a subscriber receives.
pub type Update = Result<SharedAppointment, UpstreamError>;

/// Subscriptions to appointments. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Subscriptions {
    registry: WatchRegistry,
    cache: AppointmentCache,
}

/// The watched appointments. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct WatchRegistry(Arc<Registry>);

#[derive(Debug)]
struct Registry {
    watches: Mutex<Watches>,
    config: LiveConfig,
}

/// The watches, and how many of them and of their subscribers each caller has.
#[derive(Debug, Default)]
struct Watches {
    by_id: HashMap<Uuid, HashMap<Scope, Slot>>,
    by_scope: HashMap<Scope, ScopeWatches>,
    watches: Tally,
    subscribers: Tally,
}

/// The place of a watch in the registry.
#[derive(Debug)]
struct Slot {
    watch: Weak<Watch>,
    /// The caller that was the first to watch.
    first: Scope,
    subscribers: usize,
}

/// The appointments that a scope watches.
#[derive(Debug, Default)]
struct ScopeWatches {
    ids: HashSet<Uuid>,
    /// Whether all their pollers were told that the token was rejected, and none has found it accepted since: each of
    /// their 401s is no news to the others.
    is_rejected: bool,
}

/// Counts in all and by caller.
#[derive(Debug, Default)]
struct Tally {
    total: usize,
    by_caller: HashMap<Scope, usize>,
}

/// An appointment that somebody watches.
#[derive(Debug)]
struct Watch {
    key: Key,
    state: Arc<watch::Sender<WatchState>>,
    commands: watch::Sender<PollCommand>,
    wanted: Arc<Notify>,
    poller: AbortHandle,
    registry: Weak<Registry>,
}

/// What subscribers are shown.
#[derive(Debug, Default)]
pub(crate) struct WatchState {
    latest: Option<Guarded<SharedAppointment>>,
    /// The error that has ended the watch.
    end: Option<UpstreamError>,
    /// Whether a subscriber waits because the latest state was not valid for it.
    is_wanted: bool,
}

/// What a change through this gateway tells a poller: the result of its current read is outdated.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum PollCommand {
    /// The new state has been shown: poll after a pause.
    #[default]
    Wait,
    /// Nobody knows the new state: poll at once.
    Poll,
}

/// When a watch whose state was revoked polls again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recheck {
    Now,
    /// At its next poll, or for the next subscriber.
    Later,
}

impl Subscriptions {
    pub(crate) fn new(registry: WatchRegistry, cache: AppointmentCache) -> Self {
        Self { registry, cache }
    }

    /// The appointment now, then each time that it has changed. Ends with an error that is final; errors that may pass
    /// are waited out.
    pub(crate) fn watch(&self, caller: &Caller, id: Uuid) -> impl Stream<Item = Update> + Send + use<> {
        let start = self.subscribe(caller, id).map(|subscription| Subscriber {
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

    /// Shows the answer of a change, which `caller` made, to those who watch with the same scope, and has the pollers of
    /// all others poll: the answer to one scope's change is not shown to another scope.
    pub(crate) fn changed(&self, caller: &Caller, id: Uuid, answer: Option<Fetched>) {
        for watch in self.registry.watches_of(id) {
            let answer = answer.as_ref().filter(|_| watch.key.scope == caller.scope());
            let is_shown = answer.is_some_and(|answer| show(&watch.state, self.cache.validity(), answer));
            watch.commands.send_replace(if is_shown { PollCommand::Wait } else { PollCommand::Poll });
        }
    }

    fn subscribe(&self, caller: &Caller, id: Uuid) -> Result<Subscription, UpstreamError> {
        let key = Key { scope: caller.scope(), id };
        // Declared before the lock is taken, thus dropped after it: the last holder of a watch takes the lock.
        let existing;
        let mut watches = self.registry.0.lock();
        existing = watches.get(&key);
        let alive = existing.as_ref().filter(|watch| watch.is_alive());
        watches.admit(key, caller.who(), alive.is_some(), &self.registry.0.config)?;
        let watch = match alive {
            Some(watch) => watch.clone(),
            None => {
                let watch = self.start(caller, key);
                watches.insert(key, caller.who(), Arc::downgrade(&watch));
                watch
            }
        };
        watches.enter(&key, caller.who());
        Ok(Subscription { watch, who: caller.who() })
    }

    fn start(&self, caller: &Caller, key: Key) -> Arc<Watch> {
        let state = Arc::new(watch::Sender::new(WatchState::default()));
        let (commands, received) = watch::channel(PollCommand::default());
        let wanted = Arc::new(Notify::new());
        let poller = Poller {
            cache: self.cache.clone(),
            config: self.registry.0.config.clone(),
            caller: caller.clone(),
            id: key.id,
            state: state.clone(),
            wanted: wanted.clone(),
            last: None,
        };
        let poller = tokio::spawn(poller.run(received)).abort_handle();
        Arc::new(Watch { key, state, commands, wanted, poller, registry: Arc::downgrade(&self.registry.0) })
    }
}

impl WatchRegistry {
    pub(crate) fn new(config: LiveConfig) -> Self {
        Self(Arc::new(Registry { watches: Mutex::default(), config }))
    }

    /// Ends the state that subscribers of `key` are shown.
    pub(crate) fn revoke(&self, key: Key, recheck: Recheck) {
        // Taken out of the registry first: the last holder of a watch takes the lock.
        let watch = self.0.lock().get(&key);
        let Some(watch) = watch else { return };
        watch.state.send_if_modified(|state| {
            state.latest.iter().for_each(Guarded::evict);
            false
        });
        if recheck == Recheck::Now {
            watch.wanted.notify_one();
        }
    }

    /// Has the pollers of `scope` poll, since its token was rejected.
    pub(crate) fn reject(&self, scope: Scope) {
        let watches: Vec<_> = {
            let mut watches = self.0.lock();
            let Some(of_scope) = watches.by_scope.get_mut(&scope) else { return };
            if std::mem::replace(&mut of_scope.is_rejected, true) {
                return;
            }
            let keys: Vec<_> = of_scope.ids.iter().map(|id| Key { scope, id: *id }).collect();
            keys.iter().filter_map(|key| watches.get(key)).collect()
        };
        for watch in watches {
            watch.wanted.notify_one();
        }
    }

    /// Notes that the upstream has accepted the token of `scope`.
    pub(crate) fn accept(&self, scope: Scope) {
        if let Some(of_scope) = self.0.lock().by_scope.get_mut(&scope) {
            of_scope.is_rejected = false;
        }
    }

    fn watches_of(&self, id: Uuid) -> Vec<Arc<Watch>> {
        let watches = self.0.lock();
        let slots = watches.by_id.get(&id).into_iter().flat_map(HashMap::values);
        slots.filter_map(|slot| slot.watch.upgrade()).collect()
    }
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Watches> {
        // Nothing that runs under the lock leaves the registry half changed.
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watches {
    fn get(&self, key: &Key) -> Option<Arc<Watch>> {
        self.slot(key)?.watch.upgrade()
    }

    fn slot(&self, key: &Key) -> Option<&Slot> {
        self.by_id.get(&key.id)?.get(&key.scope)
    }

    /// Whether `who` may subscribe to `key`, which is watched already or not.
    fn admit(
        &self,
        key: Key,
        who: Scope,
        is_watched: bool,
        config: &LiveConfig,
    ) -> Result<(), UpstreamError> {
        let over = |limit| Err(UpstreamError::Overloaded { limit });
        if !is_watched
            && (self.watches.total >= config.max_watched || self.watches.of(who) >= config.max_of_caller())
        {
            return over(Limit::WatchedAppointments);
        }
        let of_watch = self.slot(&key).filter(|_| is_watched).map_or(0, |slot| slot.subscribers);
        if of_watch >= config.max_subscribers {
            return over(Limit::Subscribers);
        }
        let (total, own) = (self.subscribers.total, self.subscribers.of(who));
        if !may_take(config.max_subscriptions, config.caller_share.into(), total, own) {
            return over(Limit::Subscriptions);
        }
        Ok(())
    }

    fn insert(&mut self, key: Key, who: Scope, watch: Weak<Watch>) {
        // An ended watch may be there.
        self.remove(&key);
        self.by_id.entry(key.id).or_default().insert(key.scope, Slot { watch, first: who, subscribers: 0 });
        self.watches.add(who);
        let of_scope = self.by_scope.entry(key.scope).or_default();
        of_scope.ids.insert(key.id);
        of_scope.is_rejected = false;
    }

    fn remove(&mut self, key: &Key) {
        let Entry::Occupied(mut slots) = self.by_id.entry(key.id) else { return };
        if let Some(slot) = slots.get_mut().remove(&key.scope) {
            self.watches.subtract(slot.first);
            if let Entry::Occupied(mut of_scope) = self.by_scope.entry(key.scope) {
                of_scope.get_mut().ids.remove(&key.id);
                if of_scope.get().ids.is_empty() {
                    of_scope.remove();
                }
            }
        }
        if slots.get().is_empty() {
            slots.remove();
        }
    }

    fn enter(&mut self, key: &Key, who: Scope) {
        self.subscribers.add(who);
        if let Some(slot) = self.by_id.get_mut(&key.id).and_then(|slots| slots.get_mut(&key.scope)) {
            slot.subscribers += 1;
        }
    }

    fn leave(&mut self, watch: &Arc<Watch>, who: Scope) {
        self.subscribers.subtract(who);
        let Key { scope, id } = watch.key;
        let slot = self.by_id.get_mut(&id).and_then(|slots| slots.get_mut(&scope));
        // Another watch may have taken the place since.
        if let Some(slot) = slot.filter(|slot| std::ptr::eq(slot.watch.as_ptr(), Arc::as_ptr(watch))) {
            slot.subscribers -= 1;
        }
    }
}

/// Whether one more of `most` may be taken, of which `taken` are, `own` of them by the caller: a caller may have so many
/// `percent` of those that the others leave, and at least one.
fn may_take(most: usize, percent: usize, taken: usize, own: usize) -> bool {
    let left_by_others = most.saturating_sub(taken - own);
    taken < most && own < (left_by_others * percent / 100).max(1)
}

impl Tally {
    fn of(&self, who: Scope) -> usize {
        self.by_caller.get(&who).copied().unwrap_or(0)
    }

    fn add(&mut self, who: Scope) {
        self.total += 1;
        *self.by_caller.entry(who).or_default() += 1;
    }

    fn subtract(&mut self, who: Scope) {
        if let Entry::Occupied(mut count) = self.by_caller.entry(who) {
            self.total -= 1;
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl Watch {
    fn is_alive(&self) -> bool {
        self.state.borrow().end.is_none()
    }
}

/// Shows the result of a read to the subscribers, unless it is outdated; returns whether it did.
pub(crate) fn show(state: &watch::Sender<WatchState>, validity: &Validity, read: &Fetched) -> bool {
    let Some(appointment) = &read.appointment else { return false };
    let mut is_shown = false;
    state.send_if_modified(|state| {
        // Checked under the state's lock: of two results, the outdated one is not shown last.
        is_shown = state.end.is_none() && !validity.is_outdated(&read.version);
        if !is_shown {
            return false;
        }
        let is_same = |latest: &Guarded<SharedAppointment>| latest.account(|it| **it == **appointment);
        let is_news = state.is_wanted || !state.latest.as_ref().is_some_and(is_same);
        let copy = Guarded::new(appointment.clone(), read.version.clone(), read.freshness);
        *state = WatchState { latest: Some(copy), end: None, is_wanted: false };
        is_news
    });
    is_shown
}

impl WatchState {
    pub(crate) fn ended(error: UpstreamError) -> Self {
        Self { latest: None, end: Some(error), is_wanted: false }
    }

    /// The latest state, for the poller to choose its interval by.
    pub(crate) fn latest(&self) -> Option<SharedAppointment> {
        self.latest.as_ref().map(|latest| latest.account(Clone::clone))
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.end.is_some()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.poller.abort();
        let Some(registry) = self.registry.upgrade() else { return };
        let mut watches = registry.lock();
        // Another watch may have taken the place since.
        if watches.slot(&self.key).is_some_and(|slot| std::ptr::eq(slot.watch.as_ptr(), self)) {
            watches.remove(&self.key);
        }
    }
}

/// The right to be shown the state of a watch. The watch lives as long as somebody has it.
struct Subscription {
    watch: Arc<Watch>,
    who: Scope,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(registry) = self.watch.registry.upgrade() {
            registry.lock().leave(&self.watch, self.who);
        }
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
            if let Some(update) = self.news() {
                return update;
            }
        }
    }

    /// The latest state, if it is valid and not the one that this subscriber has seen last.
    fn news(&mut self) -> Option<Update> {
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
