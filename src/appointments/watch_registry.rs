//! The registry of watched appointments: their latest state, their subscribers, and the limits on both.
//!
//! A [`Watch`] lives like a [`Flight`](crate::cache::single_flight::Flight): its subscribers hold it, the registry holds it
//! weakly, and its poller ends with the last subscriber.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
};
use uuid::Uuid;

use super::{following::PollNews, keys::AppointmentKey, served::CachedLookup};
use crate::{
    cache::{
        read_through::Read,
        validity::{Guarded, ReadVersion, Validity},
    },
    caller::{Caller, Scope},
    config::live::LiveConfig,
    error::limit::Limit,
    model::SharedAppointment,
    upstream::error::UpstreamError,
};

/// The watched appointments. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct WatchRegistry(Arc<Registry>);

#[derive(Debug)]
pub(crate) struct Registry {
    watches: Mutex<Watches>,
    config: LiveConfig,
}

/// The watches, and how many of them and of their subscribers each caller has.
#[derive(Debug, Default)]
struct Watches {
    by_id: HashMap<Uuid, HashMap<Scope, WatchEntry>>,
    by_scope: HashMap<Scope, ScopeWatches>,
    watches: SubscriptionCounts,
    subscribers: SubscriptionCounts,
}

/// A registry entry.
#[derive(Debug)]
struct WatchEntry {
    watch: Weak<Watch>,
    /// The caller that was the first to watch.
    first: Scope,
    subscribers: usize,
}

/// The appointments that a scope watches.
#[derive(Debug, Default)]
struct ScopeWatches {
    ids: HashSet<Uuid>,
    /// Whether the scope's token is known to be rejected, so that further 401s trigger no polls.
    is_rejected: bool,
}

/// Counts, in total and per caller.
#[derive(Debug, Default)]
struct SubscriptionCounts {
    total: usize,
    by_caller: HashMap<Scope, usize>,
}

/// A watched appointment.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) key: AppointmentKey,
    /// The caller for which the poller polls.
    pub(crate) caller: Caller,
    pub(crate) state: Arc<watch::Sender<WatchState>>,
    pub(crate) commands: watch::Sender<PollCommand>,
    pub(crate) wanted: Arc<Notify>,
    pub(crate) news: Arc<PollNews>,
    pub(crate) poller: AbortHandle,
    pub(crate) registry: Weak<Registry>,
}

/// The state that subscribers receive.
#[derive(Debug, Default)]
pub(crate) struct WatchState {
    pub(crate) latest: Option<Guarded<SharedAppointment>>,
    /// The error that has ended the watch.
    pub(crate) end: Option<UpstreamError>,
    /// Whether a subscriber waits because the latest state was not valid for it.
    pub(crate) is_wanted: bool,
}

/// The replica that has read a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    This,
    Another,
}

/// The command to a poller after a change through this gateway: the result of its current read is outdated.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum PollCommand {
    /// The new state has been shown: poll after a pause.
    #[default]
    Wait,
    /// The new state is unknown: poll at once.
    Poll,
}

/// When a watch whose state was revoked polls again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recheck {
    Now,
    /// At its next poll, or for the next subscriber.
    Later,
}

impl WatchRegistry {
    pub(crate) fn config(&self) -> &LiveConfig {
        &self.0.config
    }

    pub(crate) fn downgrade(&self) -> Weak<Registry> {
        Arc::downgrade(&self.0)
    }

    /// Subscribes `caller` to `key`. For the first subscriber, `start` starts the watch.
    ///
    /// # Errors
    /// [`UpstreamError::Overloaded`] with the limit that is reached.
    pub(crate) fn subscribe(
        &self,
        key: AppointmentKey,
        caller: Scope,
        start: impl FnOnce() -> Watch,
    ) -> Result<Subscription, UpstreamError> {
        // Declared before the lock is taken, thus dropped after it: the last holder of a watch takes the lock.
        let existing;
        let mut watches = self.0.lock();
        existing = watches.get(&key);
        let alive = existing.as_ref().filter(|watch| watch.is_alive());
        watches.admit(key, caller, alive.is_some(), &self.0.config)?;
        let watch = match alive {
            Some(watch) => watch.clone(),
            None => {
                let watch = Arc::new(start());
                watches.insert(key, caller, Arc::downgrade(&watch));
                watch
            }
        };
        watches.enter(&key, caller);
        Ok(Subscription { watch, caller })
    }

    pub(crate) fn new(config: LiveConfig) -> Self {
        Self(Arc::new(Registry { watches: Mutex::default(), config }))
    }

    /// Ends the state that subscribers of `key` are shown.
    pub(crate) fn revoke(&self, key: AppointmentKey, recheck: Recheck) {
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
            let keys: Vec<_> = of_scope.ids.iter().map(|id| AppointmentKey { scope, id: *id }).collect();
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

    pub(crate) fn watches_of(&self, id: Uuid) -> Vec<Arc<Watch>> {
        let watches = self.0.lock();
        let entries = watches.by_id.get(&id).into_iter().flat_map(HashMap::values);
        entries.filter_map(|entry| entry.watch.upgrade()).collect()
    }
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Watches> {
        // Nothing that runs under the lock leaves the registry half changed.
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watches {
    fn get(&self, key: &AppointmentKey) -> Option<Arc<Watch>> {
        self.entry(key)?.watch.upgrade()
    }

    fn entry(&self, key: &AppointmentKey) -> Option<&WatchEntry> {
        self.by_id.get(&key.id)?.get(&key.scope)
    }

    /// Checks that `caller` may subscribe to `key`.
    fn admit(
        &self,
        key: AppointmentKey,
        caller: Scope,
        is_watched: bool,
        config: &LiveConfig,
    ) -> Result<(), UpstreamError> {
        let over = |limit| Err(UpstreamError::Overloaded { limit });
        if !is_watched
            && (self.watches.total >= config.max_watched
                || self.watches.of(caller) >= config.max_watched_per_caller())
        {
            return over(Limit::WatchedAppointments);
        }
        let of_watch = self.entry(&key).filter(|_| is_watched).map_or(0, |entry| entry.subscribers);
        if of_watch >= config.max_subscribers {
            return over(Limit::Subscribers);
        }
        let (total, own) = (self.subscribers.total, self.subscribers.of(caller));
        if !may_take(config.max_subscriptions, config.caller_share.into(), total, own) {
            return over(Limit::Subscriptions);
        }
        Ok(())
    }

    fn insert(&mut self, key: AppointmentKey, caller: Scope, watch: Weak<Watch>) {
        // An ended watch may be there.
        self.remove(&key);
        self.by_id
            .entry(key.id)
            .or_default()
            .insert(key.scope, WatchEntry { watch, first: caller, subscribers: 0 });
        self.watches.add(caller);
        let of_scope = self.by_scope.entry(key.scope).or_default();
        of_scope.ids.insert(key.id);
        of_scope.is_rejected = false;
    }

    fn remove(&mut self, key: &AppointmentKey) {
        let Entry::Occupied(mut entries) = self.by_id.entry(key.id) else { return };
        if let Some(entry) = entries.get_mut().remove(&key.scope) {
            self.watches.subtract(entry.first);
            if let Entry::Occupied(mut of_scope) = self.by_scope.entry(key.scope) {
                of_scope.get_mut().ids.remove(&key.id);
                if of_scope.get().ids.is_empty() {
                    of_scope.remove();
                }
            }
        }
        if entries.get().is_empty() {
            entries.remove();
        }
    }

    fn enter(&mut self, key: &AppointmentKey, caller: Scope) {
        self.subscribers.add(caller);
        if let Some(entry) = self.by_id.get_mut(&key.id).and_then(|entries| entries.get_mut(&key.scope)) {
            entry.subscribers += 1;
        }
    }

    fn leave(&mut self, watch: &Arc<Watch>, caller: Scope) {
        self.subscribers.subtract(caller);
        let AppointmentKey { scope, id } = watch.key;
        let entry = self.by_id.get_mut(&id).and_then(|entries| entries.get_mut(&scope));
        // Another watch may have taken the place since.
        if let Some(entry) = entry.filter(|entry| std::ptr::eq(entry.watch.as_ptr(), Arc::as_ptr(watch))) {
            entry.subscribers -= 1;
        }
    }
}

/// Whether a caller with `own` of the `taken` units may take another. Its limit is `percent` of the units that the other
/// callers leave, at least one.
fn may_take(maximum: usize, percent: usize, taken: usize, own: usize) -> bool {
    let left_by_others = maximum.saturating_sub(taken - own);
    taken < maximum && own < (left_by_others * percent / 100).max(1)
}

impl SubscriptionCounts {
    fn of(&self, caller: Scope) -> usize {
        self.by_caller.get(&caller).copied().unwrap_or(0)
    }

    fn add(&mut self, caller: Scope) {
        self.total += 1;
        *self.by_caller.entry(caller).or_default() += 1;
    }

    fn subtract(&mut self, caller: Scope) {
        if let Entry::Occupied(mut count) = self.by_caller.entry(caller) {
            self.total -= 1;
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl Watch {
    pub(crate) fn is_alive(&self) -> bool {
        self.state.borrow().end.is_none()
    }
}

/// Shows the result of a read to the subscribers, unless it is outdated, or older than the latest state; returns whether it
/// did.
pub(crate) fn show(
    state: &watch::Sender<WatchState>,
    validity: &Validity,
    read: &Read<CachedLookup>,
    reader: Reader,
) -> bool {
    let Some(appointment) = &read.value else { return false };
    let mut is_shown = false;
    state.send_if_modified(|state| {
        // Checked under the state's lock: of two results, the outdated one is not shown last.
        let latest = state.latest.as_ref().map(Guarded::version);
        let is_newer =
            |latest: &ReadVersion| latest.started > read.version.started && !validity.is_outdated(latest);
        is_shown = state.end.is_none()
            && !validity.is_outdated(&read.version)
            && !latest.is_some_and(is_newer)
            && (reader == Reader::This || state.trusts_findings());
        if !is_shown {
            return false;
        }
        let is_same = |latest: &Guarded<SharedAppointment>| latest.account(|it| **it == **appointment);
        let is_news = state.is_wanted || !state.latest.as_ref().is_some_and(is_same);
        let freshness = read.freshness.after(read.shared_age.unwrap_or_default());
        let copy = Guarded::new(appointment.clone(), read.version.clone(), freshness);
        *state = WatchState { latest: Some(copy), ..WatchState::default() };
        is_news
    });
    is_shown
}

impl WatchState {
    pub(crate) fn ended(error: UpstreamError) -> Self {
        Self { end: Some(error), ..Self::default() }
    }

    /// The latest state, for the poller to choose its interval by.
    pub(crate) fn latest(&self) -> Option<SharedAppointment> {
        self.latest.as_ref().map(|latest| latest.account(Clone::clone))
    }

    /// Whether the findings of another replica may be shown: this one has read the first state itself, and nothing has been
    /// revoked since the latest.
    pub(crate) fn trusts_findings(&self) -> bool {
        self.latest.as_ref().is_some_and(|latest| !latest.version().is_revoked())
    }

    /// The latest state, as a read.
    pub(crate) fn latest_read(&self) -> Option<Read<CachedLookup>> {
        let latest = self.latest.as_ref()?;
        let (value, version, freshness) = (self.latest(), latest.version().clone(), latest.freshness());
        Some(Read { value, validators: None, version, freshness, shared_age: None })
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
        if watches.entry(&self.key).is_some_and(|entry| std::ptr::eq(entry.watch.as_ptr(), self)) {
            watches.remove(&self.key);
        }
    }
}

/// A subscriber's claim to a watch, which keeps the watch alive.
pub(crate) struct Subscription {
    pub(crate) watch: Arc<Watch>,
    caller: Scope,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(registry) = self.watch.registry.upgrade() {
            registry.lock().leave(&self.watch, self.caller);
        }
    }
}
