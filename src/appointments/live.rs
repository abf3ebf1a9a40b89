//! Appointments as they change. The upstream has no push, so it is polled: by one poller for each (caller scope, id),
//! however many subscribe, for as long as somebody does.
//!
//! Here is what subscribers see; what they see is found out in [`poller`](super::poller). A [`Watch`] lives like a
//! [`Flight`](super::flight::Flight): the subscribers hold it, the table holds it weakly, and with the last subscriber the
//! poller goes. A subscriber that is slow finds the latest state when it comes back, not a queue.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use futures_util::{Stream, stream};
use tokio::{sync::watch, task::AbortHandle};
use uuid::Uuid;

use super::{
    cache::{AppointmentCache, Key},
    poller::Poller,
};
use crate::{
    caller::{Caller, Scope},
    config::LiveConfig,
    model::SharedAppointment,
    upstream::UpstreamError,
};

/// What a subscriber sees.
pub type Seen = Result<SharedAppointment, UpstreamError>;

/// The appointments that are being watched. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Live(Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    watches: Mutex<Watches>,
    pub(super) cache: AppointmentCache,
    pub(super) config: LiveConfig,
}

/// What is being watched, and how much of it by whom.
#[derive(Debug, Default)]
struct Watches {
    /// Each with who was the first to watch it.
    by_key: HashMap<Key, (Weak<Watch>, Scope)>,
    count_by_caller: HashMap<Scope, usize>,
}

/// An appointment that is being watched by somebody.
#[derive(Debug)]
struct Watch {
    key: Key,
    shown: Arc<watch::Sender<Shown>>,
    orders: watch::Sender<Order>,
    poller: AbortHandle,
    table: Weak<Inner>,
}

/// What those who watch are shown.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) seen: Option<Seen>,
    /// Whether it was not changed since, as far as the gateway knows: who comes after a change waits for what is now.
    pub(super) is_current: bool,
}

/// What a change through this gateway tells a poller: what it has asked for is outdated.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Order {
    /// What is now has been shown: the next look is due after a pause.
    #[default]
    Wait,
    /// Nobody knows what is now: ask at once.
    Look,
}

impl Live {
    pub(super) fn new(config: LiveConfig, cache: AppointmentCache) -> Self {
        Self(Arc::new(Inner { watches: Mutex::default(), cache, config }))
    }

    /// The appointment at once, then each time that it has changed. Ends with an error that is final; errors that may pass
    /// are waited out.
    pub(super) fn watch(&self, caller: &Caller, id: Uuid) -> impl Stream<Item = Seen> + Send + use<> {
        let start = self.join(caller, id).map(|watch| Subscriber {
            shown: watch.shown.subscribe(),
            _watch: watch,
            is_new: true,
            last: None,
        });
        stream::unfold(Some(start), async |state| match state {
            None => None,
            Some(Err(error)) => Some((Err(error), None)),
            Some(Ok(mut subscriber)) => {
                let seen = subscriber.next().await;
                let state = seen.is_ok().then_some(Ok(subscriber));
                Some((seen, state))
            }
        })
    }

    /// Shows a change that `caller` made to those who watch with the same token, and has the pollers of all others ask:
    /// what one token's change answered is not shown to another.
    pub(super) fn changed(&self, caller: &Caller, id: Uuid, now: Option<&SharedAppointment>) {
        // Taken out of the table first: the last hold on a watch takes the table's lock as it goes.
        let watches: Vec<_> = self
            .0
            .lock()
            .by_key
            .iter()
            .filter(|(key, _)| key.id == id)
            .filter_map(|(_, (watch, _))| watch.upgrade())
            .collect();
        for watch in watches {
            let order = match now {
                Some(appointment) if watch.key.scope == caller.scope() => {
                    watch.shown.send_if_modified(|shown| shown.show(appointment));
                    Order::Wait
                }
                _ => {
                    watch.shown.send_if_modified(Shown::outdate);
                    Order::Look
                }
            };
            watch.orders.send_replace(order);
        }
    }

    /// Has the poller of those who watch with `caller`'s token ask, since it is not what the caller took it for.
    pub(super) fn look(&self, caller: &Caller, id: Uuid) {
        let key = Key { scope: caller.scope(), id };
        // Taken out of the table first, as above.
        let watch = self.0.lock().watch(&key);
        if let Some(watch) = watch {
            watch.shown.send_if_modified(Shown::outdate);
            watch.orders.send_replace(Order::Look);
        }
    }

    fn join(&self, caller: &Caller, id: Uuid) -> Result<Arc<Watch>, UpstreamError> {
        let key = Key { scope: caller.scope(), id };
        // Declared before the lock is taken, so let go of after: the last hold on a watch takes the lock as it goes.
        let known;
        let mut watches = self.0.lock();
        known = watches.watch(&key);
        if let Some(watch) = known.as_ref().filter(|watch| watch.is_alive()) {
            return Ok(watch.clone());
        }
        if watches.is_full_for(caller.who(), &self.0.config) {
            return Err(UpstreamError::Overloaded { limit: "live.max_watched" });
        }
        let shown = Arc::new(watch::Sender::new(Shown::default()));
        let (orders, ordered) = watch::channel(Order::default());
        let poller = Poller { live: self.0.clone(), caller: caller.clone(), id, shown: shown.clone() };
        let poller = tokio::spawn(poller.run(ordered)).abort_handle();
        let watch = Arc::new(Watch { key, shown, orders, poller, table: Arc::downgrade(&self.0) });
        watches.insert(key, caller.who(), Arc::downgrade(&watch));
        Ok(watch)
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Watches> {
        // Nothing that runs under the lock leaves the table half changed.
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watches {
    fn watch(&self, key: &Key) -> Option<Arc<Watch>> {
        self.by_key.get(key).and_then(|(watch, _)| watch.upgrade())
    }

    /// Whether `who` may not watch anything more.
    fn is_full_for(&self, who: Scope, config: &LiveConfig) -> bool {
        let of_caller = self.count_by_caller.get(&who).copied().unwrap_or(0);
        self.by_key.len() >= config.max_watched || of_caller >= config.max_of_caller()
    }

    fn insert(&mut self, key: Key, who: Scope, watch: Weak<Watch>) {
        // One that has ended may be there.
        self.remove(&key);
        self.by_key.insert(key, (watch, who));
        *self.count_by_caller.entry(who).or_default() += 1;
    }

    fn remove(&mut self, key: &Key) {
        if let Some((_, who)) = self.by_key.remove(key)
            && let Entry::Occupied(mut count) = self.count_by_caller.entry(who)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl Watch {
    /// Whether it has not ended with an error.
    fn is_alive(&self) -> bool {
        !matches!(self.shown.borrow().seen, Some(Err(_)))
    }
}

impl Shown {
    /// Shows `appointment`; whether that is anything new to anybody.
    pub(super) fn show(&mut self, appointment: &SharedAppointment) -> bool {
        let is_known = match &self.seen {
            Some(Err(_)) => return false,
            Some(Ok(known)) => **known == **appointment,
            None => false,
        };
        let is_news = !is_known || !self.is_current;
        *self = Self { seen: Some(Ok(appointment.clone())), is_current: true };
        is_news
    }

    /// Has those who come wait until something is shown again.
    fn outdate(&mut self) -> bool {
        self.is_current &= matches!(self.seen, Some(Err(_)));
        false
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.poller.abort();
        let Some(inner) = self.table.upgrade() else { return };
        let mut watches = inner.lock();
        // Another watch may have taken the place since.
        if watches.by_key.get(&self.key).is_some_and(|(watch, _)| std::ptr::eq(watch.as_ptr(), self)) {
            watches.remove(&self.key);
        }
    }
}

struct Subscriber {
    shown: watch::Receiver<Shown>,
    /// Held so that the poller goes on.
    _watch: Arc<Watch>,
    is_new: bool,
    last: Option<SharedAppointment>,
}

impl Subscriber {
    async fn next(&mut self) -> Seen {
        loop {
            if !std::mem::take(&mut self.is_new) && self.shown.changed().await.is_err() {
                return Err(UpstreamError::Lost);
            }
            if let Some(seen) = self.news() {
                return seen;
            }
        }
    }

    /// What is shown, unless it is outdated, or what this subscriber has seen last.
    fn news(&mut self) -> Option<Seen> {
        let shown = self.shown.borrow_and_update();
        let seen = shown.seen.as_ref().filter(|_| shown.is_current)?;
        if let Ok(appointment) = seen {
            if self.last.as_ref().is_some_and(|last| **last == **appointment) {
                return None;
            }
            self.last = Some(appointment.clone());
        }
        Some(seen.clone())
    }
}
