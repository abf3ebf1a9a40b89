//! Asks for a watched appointment again and again: often while something may happen at any moment, seldom otherwise, at
//! once when it was changed through this gateway, and not before the upstream wants to be asked.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use uuid::Uuid;

use super::{
    cache::Fetched,
    generations::Asked,
    live::{Inner, Order, Shown},
};
use crate::{
    caller::Caller,
    config::LiveConfig,
    model::{Appointment, SharedAppointment},
    upstream::UpstreamError,
};

/// Asks for one appointment again and again.
pub(super) struct Poller {
    pub(super) live: Arc<Inner>,
    pub(super) caller: Caller,
    pub(super) id: Uuid,
    pub(super) shown: Arc<watch::Sender<Shown>>,
}

impl Poller {
    pub(super) async fn run(self, mut ordered: watch::Receiver<Order>) {
        let mut etag = None;
        let mut failures = 0;
        let mut is_first = true;
        let mut order = Order::Look;
        // What the upstream asked for when it limited the rate, whatever orders come meanwhile.
        let mut not_before = Instant::now();
        loop {
            let pause = match order {
                Order::Wait => jittered(self.interval()),
                Order::Look => {
                    let asked = self.live.cache.generations().ask(self.caller.scope(), self.id);
                    let first = std::mem::take(&mut is_first);
                    let look = async {
                        sleep_until(not_before).await;
                        self.ask(first, etag.clone()).await
                    };
                    let answer = tokio::select! {
                        biased;
                        // It was changed meanwhile: what is under way may be what it was before.
                        told = next_order(&mut ordered) => Err(told),
                        answer = look => Ok(answer),
                    };
                    match answer {
                        Err(told) => {
                            (order, etag) = (told, None);
                            continue;
                        }
                        Ok(_) if self.live.cache.generations().is_changed(self.id, asked) => {
                            etag = None;
                            continue;
                        }
                        Ok(Ok(Fetched { appointment: Some(appointment), etag: new })) => {
                            failures = 0;
                            let is_shown = self.show(&appointment, asked);
                            // Of what was not shown, nothing is to be heard again as unchanged.
                            etag = new.filter(|_| is_shown);
                            jittered(self.interval())
                        }
                        Ok(Ok(Fetched { appointment: None, .. })) => {
                            return self.end(UpstreamError::NotFound);
                        }
                        Ok(Err(error @ (UpstreamError::Unauthenticated | UpstreamError::Forbidden))) => {
                            return self.end(error);
                        }
                        Ok(Err(error)) => {
                            failures += 1;
                            if let UpstreamError::RateLimited { retry_after: Some(wait) } = error {
                                not_before = Instant::now() + wait;
                            }
                            jittered(after_failure(self.interval(), failures, &self.live.config))
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
    async fn ask(&self, is_first: bool, etag: Option<String>) -> Result<Fetched, UpstreamError> {
        let cache = &self.live.cache;
        // The next look is this one's repetition, so the call need not be repeated for it.
        let deadline = Instant::now();
        if is_first {
            let appointment = cache.current(&self.caller, self.id, deadline).await?;
            return Ok(Fetched { appointment, etag: None });
        }
        cache.look(&self.caller, self.id, deadline, etag.zip(self.latest())).await
    }

    fn latest(&self) -> Option<SharedAppointment> {
        self.shown.borrow().seen.as_ref().and_then(|seen| seen.as_ref().ok().cloned())
    }

    /// Shows what was `asked` for, unless it was changed since; whether it did.
    fn show(&self, appointment: &SharedAppointment, asked: Asked) -> bool {
        // A change counts before it is shown, so whichever of the two comes first, the older is not shown last.
        let mut is_current = false;
        self.shown.send_if_modified(|shown| {
            is_current = !self.live.cache.generations().is_changed(self.id, asked);
            is_current && shown.show(appointment)
        });
        is_current
    }

    fn end(&self, error: UpstreamError) {
        self.shown.send_replace(Shown { seen: Some(Err(error)), is_current: true });
    }

    /// Short while something may happen at any moment, long otherwise.
    fn interval(&self) -> Duration {
        let config = &self.live.config;
        self.latest()
            .map_or(config.fast_interval, |appointment| interval(&appointment, Timestamp::now(), config))
    }
}

impl Drop for Poller {
    /// A poller ends with an error that it shows, or when nobody watches any more, unless it panics or is
    /// ended.
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

/// Twice as long for each failure in a row, up to the slow interval.
fn after_failure(interval: Duration, failures: u32, config: &LiveConfig) -> Duration {
    interval.saturating_mul(2_u32.saturating_pow(failures)).min(config.slow_interval).max(interval)
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
    fn failures_make_it_slower_and_never_faster() {
        let config = Config::default().live;
        for interval in [config.fast_interval, Duration::from_secs(10), config.slow_interval] {
            let mut last = interval;
            for failures in 1..=1000 {
                let pause = after_failure(interval, failures, &config);
                assert!(pause >= last && pause <= config.slow_interval, "{pause:?} after {failures}");
                last = pause;
            }
            assert_eq!(last, config.slow_interval);
        }
    }

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
