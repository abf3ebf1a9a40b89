//! The poller of a watched appointment. Its interval is short near the appointment's time and long otherwise. It polls at once
//! after a change through this gateway, or when a subscriber waits, and obeys `Retry-After`.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use jiff::Timestamp;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until},
};
use uuid::Uuid;

use super::{
    appointment_cache::AppointmentCache,
    keys::AppointmentKey,
    served::CachedLookup,
    watch_registry::{PollCommand, WatchState, show},
};
use crate::{
    cache::read_through::Read,
    caller::Caller,
    config::live::LiveConfig,
    model::{Appointment, DateTime, SharedAppointment},
    upstream::error::UpstreamError,
};

/// Polls one appointment.
pub(crate) struct Poller {
    pub(crate) cache: AppointmentCache,
    pub(crate) config: LiveConfig,
    pub(crate) caller: Caller,
    pub(crate) id: Uuid,
    pub(crate) state: Arc<watch::Sender<WatchState>>,
    /// Notified when a subscriber waits for a valid state.
    pub(crate) wanted: Arc<Notify>,
    /// The last result. It determines the polling interval.
    pub(crate) last: Option<SharedAppointment>,
}

impl Poller {
    pub(crate) async fn run(mut self, mut commands: watch::Receiver<PollCommand>) {
        let mut last_read = None;
        let mut failures = 0;
        let mut is_first = true;
        let mut command = PollCommand::Poll;
        // The time that `Retry-After` named. It also holds for commands.
        let mut not_before = Instant::now();
        loop {
            let pause = match command {
                PollCommand::Wait => {
                    self.last = self.state.borrow().latest();
                    jittered(self.interval())
                }
                PollCommand::Poll => {
                    let first = std::mem::take(&mut is_first);
                    let poll = async {
                        sleep_until(not_before).await;
                        self.read(first, last_read.clone()).await
                    };
                    let result = tokio::select! {
                        biased;
                        // The appointment was changed in the meantime, so the result of the call may be outdated.
                        received = next_command(&mut commands) => Err(received),
                        result = poll => Ok(result),
                    };
                    if result.is_ok() {
                        // Subscribers that came meanwhile have waited for this result.
                        let _ = self.wanted.notified().now_or_never();
                    }
                    match result {
                        Err(received) => {
                            command = received;
                            continue;
                        }
                        Ok(Ok(read)) if self.cache.validity().is_outdated(&read.version) => continue,
                        Ok(Ok(Read { value: None, .. })) => {
                            return self.end(UpstreamError::NotFound);
                        }
                        Ok(Ok(read)) => {
                            failures = 0;
                            self.cache.resource().copies.watches.accept(self.caller.scope());
                            self.last.clone_from(&read.value);
                            if !show(&self.state, self.cache.validity(), &read) {
                                // It is outdated by now.
                                continue;
                            }
                            last_read = Some(read);
                            jittered(self.interval())
                        }
                        Ok(Err(error)) if error.is_final() => return self.end(error),
                        Ok(Err(error)) => {
                            failures += 1;
                            self.log(&error, failures);
                            if let UpstreamError::RateLimited { retry_after: Some(wait) } = error {
                                not_before = Instant::now() + wait;
                            }
                            jittered(after_failure(self.interval(), failures, &self.config))
                        }
                    }
                }
            };
            command = tokio::select! {
                received = next_command(&mut commands) => received,
                () = self.wanted.notified() => PollCommand::Poll,
                () = sleep(pause) => PollCommand::Poll,
            };
        }
    }

    /// The cached appointment, which is good enough for the first poll, or the upstream's.
    async fn read(
        &self,
        is_first: bool,
        last: Option<Read<CachedLookup>>,
    ) -> Result<Read<CachedLookup>, UpstreamError> {
        // The next poll retries this one, so the call need not be retried for it.
        let deadline = Instant::now();
        let key = AppointmentKey { scope: self.caller.scope(), id: self.id };
        if is_first {
            return self.cache.read_fresh(&self.caller, key, deadline).await;
        }
        // The last read is revalidated even if the cache has no room for its entry.
        self.cache.revalidate(&self.caller, key, deadline, last).await
    }

    fn end(&self, error: UpstreamError) {
        self.state.send_replace(WatchState::ended(error));
    }

    /// One line for each outage, not for each poll.
    fn log(&self, error: &UpstreamError, failures: u32) {
        if failures == 1 && !error.is_caused_by_caller() {
            tracing::warn!(appointment.id = %self.id, %error, "poll failed");
        }
    }

    /// The time until the next poll: short while the appointment may change at any moment, long otherwise.
    fn interval(&self) -> Duration {
        let interval =
            |appointment: &SharedAppointment| interval(appointment, Timestamp::now(), &self.config);
        self.last.as_ref().map_or(self.config.fast_interval, interval)
    }
}

impl Drop for Poller {
    /// A poller ends with an error that subscribers receive, or without subscribers, unless it panics.
    fn drop(&mut self) {
        self.state.send_if_modified(|state| {
            let is_lost = !state.is_ended();
            if is_lost {
                *state = WatchState::ended(UpstreamError::Lost);
            }
            is_lost
        });
    }
}

/// The next command. Without a watch there is no poller.
async fn next_command(commands: &mut watch::Receiver<PollCommand>) -> PollCommand {
    if commands.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    *commands.borrow_and_update()
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
    let until = at.duration_since(DateTime::from(now));
    let away = until.unsigned_abs();
    if away <= config.near {
        return config.fast_interval;
    }
    // Not past the moment from which on it is near.
    let until_near = if until.is_positive() { away - config.near } else { config.slow_interval };
    until_near.clamp(config.fast_interval, config.slow_interval)
}

/// Twice as long for each failure in a row, up to the slow interval.
fn after_failure(interval: Duration, failures: u32, config: &LiveConfig) -> Duration {
    interval.saturating_mul(2_u32.saturating_pow(failures)).min(config.slow_interval).max(interval)
}

/// Varies by a tenth, so that pollers that started together do not stay together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.9 + 0.2 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::{config::Config, model::Field};

    #[test]
    fn failures_never_shorten_the_interval() {
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
        let at = |seconds: i64| Field::Value(DateTime::from(now + SignedDuration::from_secs(seconds)));
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
