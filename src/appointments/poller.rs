//! Asks for a watched appointment again and again: often while something may happen at any moment, seldom otherwise, at
//! once when it was changed through this gateway, and not before the upstream wants to be asked.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::sync::watch;
use uuid::Uuid;

use super::{
    generations::Asked,
    live::{Inner, Order, Shown},
};
use crate::{
    caller::Caller,
    config::LiveConfig,
    model::{Appointment, SharedAppointment},
    upstream::{Keep, UpstreamError},
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
        loop {
            let pause = match order {
                Order::Wait => jittered(self.interval()),
                Order::Look => {
                    let asked = self.live.cache.generations().ask(self.id);
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
                        Ok(_) if self.live.cache.generations().is_changed(self.id, asked) => {
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
            !self.live.cache.generations().is_changed(self.id, asked) && shown.show(appointment)
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
