//! Appointments as they change. The upstream has no push, so it is polled: by one poller for each (caller scope, id),
//! however many subscribe, for as long as somebody does.
//!
//! A [`Watch`] lives like a [`Flight`](super::flight::Flight): the subscribers hold it, the table holds it weakly, and
//! with the last subscriber the poller goes. A subscriber that is slow finds the latest state when it comes back, not
//! a queue.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures_util::{Stream, stream};
use jiff::Timestamp;
use tokio::{sync::watch, task::AbortHandle, time::Instant};
use uuid::Uuid;

use super::cache::{AppointmentCache, Asked, Key};
use crate::{
    caller::Caller,
    config::LiveConfig,
    model::{Appointment, SharedAppointment},
    upstream::{Keep, UpstreamClient, UpstreamError},
};

/// What a subscriber sees.
pub type Seen = Result<SharedAppointment, UpstreamError>;

/// The appointments that are being watched. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Live(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    watches: Mutex<HashMap<Key, Weak<Watch>>>,
    cache: AppointmentCache,
    upstream: UpstreamClient,
    config: LiveConfig,
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
struct Shown {
    seen: Option<Seen>,
    /// Whether it was not changed since, as far as the gateway knows: who comes after a change waits for what is now.
    is_current: bool,
}

/// What a change through this gateway tells a poller: what it has asked for is outdated.
#[derive(Debug, Clone, Copy, Default)]
enum Order {
    /// What is now has been shown: the next look is due after a pause.
    #[default]
    Wait,
    /// Nobody knows what is now: ask at once.
    Look,
}

impl Live {
    pub(super) fn new(config: LiveConfig, cache: AppointmentCache, upstream: UpstreamClient) -> Self {
        Self(Arc::new(Inner { watches: Mutex::default(), cache, upstream, config }))
    }

    /// The appointment at once, then each time that it has changed. Ends with an error that is final, or when the
    /// caller's token expires; errors that may pass are waited out.
    pub(super) fn watch(&self, caller: &Caller, id: Uuid) -> impl Stream<Item = Seen> + Send + use<> {
        let start = self.join(caller, id).map(|watch| Subscriber {
            shown: watch.shown.subscribe(),
            _watch: watch,
            is_new: true,
            last: None,
            expires: caller.time_left().map(|left| Instant::now() + left),
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
            .iter()
            .filter(|(key, _)| key.id == id)
            .filter_map(|(_, watch)| watch.upgrade())
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

    fn join(&self, caller: &Caller, id: Uuid) -> Result<Arc<Watch>, UpstreamError> {
        let key = Key { scope: caller.scope(), id };
        // Declared before the lock is taken, so let go of after: the last hold on a watch takes the lock as it goes.
        let known;
        let mut watches = self.0.lock();
        known = watches.get(&key).and_then(Weak::upgrade);
        if let Some(watch) = known.as_ref().filter(|watch| watch.is_alive()) {
            return Ok(watch.clone());
        }
        if watches.len() >= self.0.config.max_watched {
            return Err(UpstreamError::Overloaded);
        }
        let shown = Arc::new(watch::Sender::new(Shown::default()));
        let (orders, ordered) = watch::channel(Order::default());
        let poller = Poller { live: self.0.clone(), caller: caller.clone(), id, shown: shown.clone() };
        let poller = tokio::spawn(poller.run(ordered)).abort_handle();
        let watch = Arc::new(Watch { key, shown, orders, poller, table: Arc::downgrade(&self.0) });
        watches.insert(key, Arc::downgrade(&watch));
        Ok(watch)
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Weak<Watch>>> {
        // Nothing that runs under the lock leaves the table half changed.
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn show(&mut self, appointment: &SharedAppointment) -> bool {
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
        if watches.get(&self.key).is_some_and(|watch| std::ptr::eq(watch.as_ptr(), self)) {
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
    expires: Option<Instant>,
}

impl Subscriber {
    async fn next(&mut self) -> Seen {
        let expires = self.expires;
        let news = async {
            loop {
                if !std::mem::take(&mut self.is_new) && self.shown.changed().await.is_err() {
                    return Err(UpstreamError::Lost);
                }
                if let Some(seen) = self.news() {
                    return seen;
                }
            }
        };
        match expires {
            Some(at) => {
                tokio::time::timeout_at(at, news).await.unwrap_or(Err(UpstreamError::Unauthenticated))
            }
            None => news.await,
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

/// Asks for one appointment again and again.
struct Poller {
    live: Arc<Inner>,
    caller: Caller,
    id: Uuid,
    shown: Arc<watch::Sender<Shown>>,
}

impl Poller {
    async fn run(self, mut ordered: watch::Receiver<Order>) {
        let mut etag = None;
        let mut failures = 0;
        let mut is_first = true;
        let mut order = Order::Look;
        loop {
            let pause = match order {
                Order::Wait => jittered(self.interval()),
                Order::Look => {
                    let asked = self.live.cache.ask(self.id);
                    let answer = tokio::select! {
                        biased;
                        // It was changed meanwhile: what is under way may be what it was before.
                        told = next_order(&mut ordered) => Err(told),
                        answer = self.ask(std::mem::take(&mut is_first), etag.clone()) => Ok(answer),
                    };
                    match answer {
                        Err(told) => {
                            (order, etag) = (told, None);
                            continue;
                        }
                        Ok(_) if self.live.cache.is_outdated(self.id, asked) => {
                            etag = None;
                            continue;
                        }
                        Ok(Ok(Learnt { appointment: Some(appointment), keep, etag: new })) => {
                            (failures, etag) = (0, new);
                            self.show(&appointment, keep, asked);
                            jittered(self.interval())
                        }
                        Ok(Ok(Learnt { appointment: None, keep, .. })) => {
                            self.keep(None, keep, asked);
                            return self.end(UpstreamError::NotFound);
                        }
                        Ok(Err(error @ (UpstreamError::Unauthenticated | UpstreamError::Forbidden))) => {
                            self.live.cache.revoke(&self.caller, self.id);
                            return self.end(error);
                        }
                        Ok(Err(error)) => {
                            failures += 1;
                            self.after_failure(&error, failures)
                        }
                    }
                }
            };
            // An order or, without one, the time to look again.
            let told = tokio::time::timeout(pause, next_order(&mut ordered)).await;
            if told.is_ok() {
                etag = None;
            }
            order = told.unwrap_or(Order::Look);
        }
    }

    /// What is known, which will do for the beginning, or what the upstream says.
    async fn ask(&self, is_first: bool, etag: Option<String>) -> Result<Learnt, UpstreamError> {
        if is_first {
            let appointment = self.live.cache.get(&self.caller, self.id).await?;
            return Ok(Learnt { appointment, keep: None, etag: None });
        }
        let answer = self.live.upstream.appointment(&self.caller, self.id, etag.as_deref()).await?;
        Ok(if answer.is_unchanged {
            // An answer that says "not modified" has no appointment: it is the one that was shown last.
            Learnt { appointment: self.latest(), keep: Some(answer.keep), etag }
        } else {
            Learnt { appointment: answer.appointment, keep: Some(answer.keep), etag: answer.etag }
        })
    }

    fn keep(&self, appointment: Option<SharedAppointment>, keep: Option<Keep>, asked: Asked) {
        if let Some(keep) = keep {
            self.live.cache.keep(&self.caller, self.id, appointment, keep, asked);
        }
    }

    fn latest(&self) -> Option<SharedAppointment> {
        self.shown.borrow().seen.as_ref().and_then(|seen| seen.as_ref().ok().cloned())
    }

    fn show(&self, appointment: &SharedAppointment, keep: Option<Keep>, asked: Asked) {
        self.keep(Some(appointment.clone()), keep, asked);
        // A change counts before it is shown, so whichever of the two comes first, the older is not shown last.
        self.shown.send_if_modified(|shown| {
            !self.live.cache.is_outdated(self.id, asked) && shown.show(appointment)
        });
    }

    fn end(&self, error: UpstreamError) {
        self.shown.send_replace(Shown { seen: Some(Err(error)), is_current: true });
    }

    /// Short while something may happen at any moment, long otherwise.
    fn interval(&self) -> Duration {
        let config = &self.live.config;
        self.latest()
            .map_or(config.slow_interval, |appointment| interval(&appointment, Timestamp::now(), config))
    }

    /// Twice as long for each failure in a row, and not before the upstream wants to be asked again.
    fn after_failure(&self, error: &UpstreamError, failures: u32) -> Duration {
        let config = &self.live.config;
        let doubled =
            config.fast_interval.saturating_mul(2_u32.saturating_pow(failures)).min(config.slow_interval);
        tracing::warn!(appointment.id = %self.id, %error, failures, "poll failed");
        match error {
            UpstreamError::RateLimited { retry_after: Some(wait) } => {
                // Never less than that, and any number of seconds may be named.
                wait.saturating_add(jittered(doubled))
            }
            _ => jittered(doubled),
        }
    }
}

impl Drop for Poller {
    /// A poller ends with an error that it shows, or when nobody watches any more, unless it panics.
    fn drop(&mut self) {
        self.shown.send_if_modified(|shown| {
            let is_lost = !matches!(shown.seen, Some(Err(_)));
            if is_lost {
                *shown = Shown { seen: Some(Err(UpstreamError::Lost)), is_current: true };
            }
            is_lost
        });
    }
}

/// What a look has brought.
struct Learnt {
    appointment: Option<SharedAppointment>,
    /// None where it is known to the cache already.
    keep: Option<Keep>,
    etag: Option<String>,
}

/// The next order. Without those who give them there is no poller.
async fn next_order(ordered: &mut watch::Receiver<Order>) -> Order {
    if ordered.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    *ordered.borrow_and_update()
}

fn interval(appointment: &Appointment, now: Timestamp, config: &LiveConfig) -> Duration {
    let is_over =
        appointment.cancelled_at.value().is_some() || appointment.session_ended_at.value().is_some();
    if is_over {
        return config.slow_interval;
    }
    if appointment.session_started_at.value().is_some() {
        return config.fast_interval;
    }
    let Some(at) = appointment.appointment_at.value() else { return config.slow_interval };
    let away = at.0.duration_since(now).unsigned_abs();
    if away <= config.near {
        return config.fast_interval;
    }
    // Not past the moment from which on it is near.
    let until_near = if at.0 > now { away - config.near } else { config.slow_interval };
    until_near.clamp(config.fast_interval, config.slow_interval)
}

/// A tenth more or less, so that pollers that began together do not stay together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.9 + 0.2 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::{
        config::Config,
        model::{DateTime, Field},
    };

    #[test]
    fn the_interval_follows_the_appointment() {
        let config = Config::default().live;
        let now = Timestamp::UNIX_EPOCH;
        let at = |seconds: i64| Field::Value(DateTime(now + SignedDuration::from_secs(seconds)));
        let with = |change: &dyn Fn(&mut Appointment)| {
            let mut appointment = Appointment::bare(Uuid::nil());
            change(&mut appointment);
            interval(&appointment, now, &config)
        };
        let (fast, slow) = (config.fast_interval, config.slow_interval);
        assert_eq!(with(&|_| {}), slow);
        assert_eq!(with(&|it| it.appointment_at = at(60)), fast);
        assert_eq!(with(&|it| it.appointment_at = at(-60)), fast);
        assert_eq!(with(&|it| it.appointment_at = at(86_400)), slow);
        assert_eq!(with(&|it| it.appointment_at = at(-86_400)), slow);
        let ten_before_near = config.near.as_secs() as i64 + 10;
        assert_eq!(with(&|it| it.appointment_at = at(ten_before_near)), Duration::from_secs(10));
        assert_eq!(with(&|it| it.session_started_at = at(-86_400)), fast);
        assert_eq!(with(&|it| (it.session_started_at, it.session_ended_at) = (at(-60), at(-30))), slow);
        assert_eq!(with(&|it| (it.appointment_at, it.cancelled_at) = (at(60), at(-30))), slow);
    }
}
