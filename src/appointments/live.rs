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

use super::cache::{AppointmentCache, Key};
use crate::{
    caller::Caller,
    config::LiveConfig,
    model::{Appointment, SharedAppointment},
    upstream::{Answer, UpstreamClient, UpstreamError},
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
    latest: watch::Receiver<Option<Seen>>,
    orders: watch::Sender<Order>,
    poller: AbortHandle,
    table: Weak<Inner>,
}

/// What a change through this gateway tells a poller.
#[derive(Debug, Clone, Default)]
enum Order {
    #[default]
    None,
    /// It is now like this.
    Show(SharedAppointment),
    /// It is not what it was: ask at once.
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
            latest: watch.latest.clone(),
            _watch: watch,
            is_new: true,
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
                Some(appointment) if watch.key.scope == caller.scope() => Order::Show(appointment.clone()),
                _ => Order::Look,
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
        let (show, latest) = watch::channel(None);
        let (orders, ordered) = watch::channel(Order::None);
        let poller = Poller { live: self.0.clone(), caller: caller.clone(), id, show, ordered };
        let poller = tokio::spawn(poller.run()).abort_handle();
        let watch = Arc::new(Watch { key, latest, orders, poller, table: Arc::downgrade(&self.0) });
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
        !matches!(*self.latest.borrow(), Some(Err(_)))
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
    latest: watch::Receiver<Option<Seen>>,
    /// Held so that the poller goes on.
    _watch: Arc<Watch>,
    is_new: bool,
    expires: Option<Instant>,
}

impl Subscriber {
    async fn next(&mut self) -> Seen {
        let news = async {
            loop {
                if !std::mem::take(&mut self.is_new) && self.latest.changed().await.is_err() {
                    // The poller ends with an error that it shows, or not at all, unless it panics.
                    return Err(UpstreamError::Lost);
                }
                if let Some(seen) = self.latest.borrow_and_update().clone() {
                    return seen;
                }
            }
        };
        match self.expires {
            Some(at) => {
                tokio::time::timeout_at(at, news).await.unwrap_or(Err(UpstreamError::Unauthenticated))
            }
            None => news.await,
        }
    }
}

/// Asks for one appointment again and again.
struct Poller {
    live: Arc<Inner>,
    caller: Caller,
    id: Uuid,
    show: watch::Sender<Option<Seen>>,
    ordered: watch::Receiver<Order>,
}

impl Poller {
    async fn run(mut self) {
        let mut etag = None;
        let mut failures = 0;
        // What is remembered will do for the beginning.
        let mut outcome = self.live.cache.get(&self.caller, self.id).await;
        loop {
            let pause = match outcome {
                Ok(Some(appointment)) => {
                    failures = 0;
                    self.show(appointment);
                    self.interval()
                }
                Ok(None) => return self.end(UpstreamError::NotFound),
                Err(error @ (UpstreamError::Unauthenticated | UpstreamError::Forbidden)) => {
                    return self.end(error);
                }
                Err(error) => {
                    failures += 1;
                    self.after_failure(&error, failures)
                }
            };
            outcome = self.next(pause, &mut etag).await;
        }
    }

    /// Waits for the time to ask again, or for an order, and asks or obeys.
    async fn next(&mut self, pause: Duration, etag: &mut Option<String>) -> super::Outcome {
        let ordered = tokio::time::timeout(jittered(pause), self.ordered.changed()).await;
        // An order counts once. The last one stays where it was.
        if matches!(ordered, Ok(Ok(())))
            && let Order::Show(appointment) = &*self.ordered.borrow_and_update()
        {
            *etag = None;
            return Ok(Some(appointment.clone()));
        }
        loop {
            let asked = self.live.cache.generations().ask(self.id);
            let answer = self.live.upstream.appointment(&self.caller, self.id, etag.as_deref()).await;
            if answer.is_ok() && self.live.cache.generations().is_outdated(self.id, asked) {
                // It was changed meanwhile: this may be what it was before.
                *etag = None;
                continue;
            }
            return match answer {
                Ok(Answer { appointment, keep, etag: new, is_unchanged }) => {
                    // An answer that says "not modified" has no appointment: it is the one that was shown last.
                    let appointment = if is_unchanged { self.latest() } else { appointment };
                    if !is_unchanged {
                        *etag = new;
                    }
                    self.live.cache.keep(&self.caller, self.id, appointment.clone(), keep, asked);
                    Ok(appointment)
                }
                Err(error) => {
                    if matches!(error, UpstreamError::Unauthenticated | UpstreamError::Forbidden) {
                        self.live.cache.revoke(&self.caller, self.id);
                    }
                    Err(error)
                }
            };
        }
    }

    fn latest(&self) -> Option<SharedAppointment> {
        self.show.borrow().as_ref().and_then(|seen| seen.as_ref().ok().cloned())
    }

    fn show(&self, appointment: SharedAppointment) {
        self.show.send_if_modified(|latest| {
            let is_news = !matches!(latest, Some(Ok(known)) if **known == *appointment);
            *latest = Some(Ok(appointment));
            is_news
        });
    }

    fn end(&self, error: UpstreamError) {
        self.show.send_replace(Some(Err(error)));
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
            UpstreamError::RateLimited { retry_after: Some(wait) } => doubled.max(*wait),
            _ => doubled,
        }
    }
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
