//! The poller of a watched appointment. Its interval is short near the appointment's time and long otherwise. It polls at once
//! after a change through this gateway, or when a subscriber waits, and obeys `Retry-After`.
//!
//! In a fleet, each replica with subscribers has a poller, and the one with the [lease](PollLease) polls for all of them. The
//! others [follow](Following) it. A poller gives the lease up when it fails: another replica may reach the upstream.

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
    findings::{Finding, StateDigest},
    following::{Following, Heard, Occasion, PollNews, lease_duration},
    keys::AppointmentKey,
    poll_lease::{Claim, Fence, PollLease},
    served::CachedLookup,
    watch_registry::{PollCommand, Reader, WatchState, show},
};
use crate::{
    cache::read_through::Read,
    caller::Caller,
    config::live::LiveConfig,
    fleet::message::Position,
    model::{Appointment, DateTime, SharedAppointment},
    upstream::error::UpstreamError,
};

/// The pause before a poller checks again whether its replica has received a message that it has published itself.
const RECEIPT_CHECK: Duration = Duration::from_millis(5);

/// Polls one appointment.
pub(crate) struct Poller {
    cache: AppointmentCache,
    config: LiveConfig,
    caller: Caller,
    id: Uuid,
    signals: Signals,
    lease: PollLease,
    following: Following,
    /// The last finding that was sent to the other replicas.
    announced: Option<Announced>,
    /// The last change of this replica that was published. The others refuse findings that do not take account of it.
    published: Option<Position>,
    /// Whether the latest state may have to be sent once this replica has received that message.
    may_announce: bool,
    /// The last result. It determines the polling interval.
    last: Option<SharedAppointment>,
    last_read: Option<Read<CachedLookup>>,
    /// How many polls have failed in a row.
    failures: u32,
    /// The time that `Retry-After` named. It also holds for commands.
    not_before: Instant,
}

/// The signals between a poller and its watch.
#[derive(Debug, Clone)]
pub(crate) struct Signals {
    pub(crate) state: Arc<watch::Sender<WatchState>>,
    /// Notified when a subscriber waits for a valid state.
    pub(crate) wanted: Arc<Notify>,
    /// From the other replicas.
    pub(crate) news: Arc<PollNews>,
}

#[derive(Debug, Clone, Copy)]
struct Announced {
    fence: Fence,
    state: StateDigest,
    as_of: Position,
}

/// The next step of a poller.
enum Step {
    Poll(Occasion),
    WaitUntil(Instant),
}

impl Poller {
    pub(crate) fn new(
        cache: AppointmentCache,
        config: LiveConfig,
        caller: Caller,
        id: Uuid,
        signals: Signals,
    ) -> Self {
        let fleet = cache.resource().copies.fleet.clone();
        Self {
            lease: PollLease::new(fleet, caller.scopes(), id),
            cache,
            config,
            caller,
            id,
            signals,
            following: Following::nobody(),
            announced: None,
            published: None,
            may_announce: false,
            last: None,
            last_read: None,
            failures: 0,
            not_before: Instant::now(),
        }
    }

    pub(crate) async fn run(mut self, mut commands: watch::Receiver<PollCommand>) {
        let mut step = Step::Poll(Occasion::First);
        loop {
            step = match step {
                Step::Poll(occasion) => match self.poll(occasion, &mut commands).await {
                    Ok(step) => step,
                    Err(error) => return self.end(error),
                },
                Step::WaitUntil(time) => self.wait(time, &mut commands).await,
            };
        }
    }

    /// Polls, unless another replica does.
    ///
    /// # Errors
    /// The error that ends the watch.
    async fn poll(
        &mut self,
        occasion: Occasion,
        commands: &mut watch::Receiver<PollCommand>,
    ) -> Result<Step, UpstreamError> {
        let result = tokio::select! {
            biased;
            // The appointment was changed in the meantime, so the result of the call may be outdated.
            received = next_command(commands) => return Ok(self.obey(received)),
            result = self.read(occasion) => result,
        };
        let Some(result) = result else { return Ok(Step::WaitUntil(self.following.wake())) };
        // Subscribers that came meanwhile have waited for this result.
        let _ = self.signals.wanted.notified().now_or_never();
        // Before the check: if no change has outdated the read by now, it takes account of all changes up to this message.
        let as_of = self.lease.position();
        match result {
            Ok(read) if self.cache.validity().is_outdated(&read.version) => Ok(Step::Poll(occasion)),
            Ok(Read { value: None, .. }) => Err(UpstreamError::NotFound),
            Ok(read) => {
                self.failures = 0;
                self.cache.resource().copies.watches.accept(self.caller.scope());
                self.last.clone_from(&read.value);
                if show(&self.signals.state, self.cache.validity(), &read, Reader::This) {
                    self.announce(&read, as_of).await;
                } else if self.cache.validity().is_outdated(&read.version) {
                    // By now.
                    return Ok(Step::Poll(occasion));
                }
                self.last_read = Some(read);
                Ok(self.rest())
            }
            Err(error) if error.is_final() => Err(error),
            Err(error) => Ok(self.fail(error)),
        }
    }

    /// Waits for the end of the pause, or for a reason to poll earlier.
    async fn wait(&mut self, time: Instant, commands: &mut watch::Receiver<PollCommand>) -> Step {
        tokio::select! {
            received = next_command(commands) => self.obey(received),
            () = self.signals.wanted.notified() => Step::Poll(Occasion::Wanted),
            () = self.signals.news.arrival() => self.hear(time),
            () = sleep(RECEIPT_CHECK), if self.may_announce => {
                self.announce_again();
                Step::WaitUntil(time)
            }
            () = sleep_until(time) => Step::Poll(Occasion::Tick),
        }
    }

    fn obey(&mut self, command: PollCommand) -> Step {
        match command {
            PollCommand::Wait => {
                self.last = self.signals.state.borrow().latest();
                self.announce_again();
                self.rest()
            }
            PollCommand::Poll => {
                self.following.changed(self.interval());
                Step::Poll(Occasion::Changed)
            }
        }
    }

    /// Takes note of the news of other replicas during a pause until `time`.
    fn hear(&mut self, time: Instant) -> Step {
        let (heard, published) = self.signals.news.take();
        if published.is_some() {
            self.published = published;
            self.announce_again();
        }
        let is_over = |fence| self.signals.news.is_over(fence);
        if self.lease.fence().is_some_and(is_over) {
            self.lease.lose();
        }
        let Some(heard) = heard.filter(|_| self.lease.fence().is_none()) else {
            return Step::WaitUntil(time);
        };
        if heard == Heard::Shown {
            self.failures = 0;
            self.last = self.signals.state.borrow().latest();
        }
        self.following.heard(heard, self.interval());
        match heard {
            Heard::Shown | Heard::Refused => Step::WaitUntil(self.following.wake()),
            Heard::OtherState => Step::Poll(Occasion::Tick),
            Heard::Left(retry_after) => {
                self.not_before = self.not_before.max(Instant::now() + retry_after);
                Step::Poll(Occasion::Tick)
            }
        }
    }

    /// Reads the appointment. None if another replica polls, so that this one waits for its findings.
    async fn read(&mut self, occasion: Occasion) -> Option<Result<Read<CachedLookup>, UpstreamError>> {
        sleep_until(self.not_before).await;
        if !self.may_read(occasion).await {
            return None;
        }
        let key = AppointmentKey { scope: self.caller.scope(), id: self.id };
        let (cache, caller, last_read) = (&self.cache, &self.caller, self.last_read.clone());
        // The next poll retries this one, so the call need not be retried for it.
        let deadline = Instant::now();
        let read = async {
            if occasion == Occasion::First {
                return cache.read_fresh(caller, key, deadline).await;
            }
            // The last read is revalidated even if the cache has no room for its entry.
            cache.revalidate(caller, key, deadline, last_read).await
        };
        Some(self.lease.hold_during(read).await)
    }

    /// Whether this poller reads now: with the lease, without a fleet, or after it has waited for the findings of another.
    async fn may_read(&mut self, occasion: Occasion) -> bool {
        if self.lease.fence().is_none() && self.following.is_known_to_follow() {
            return self.following.may_read(occasion);
        }
        let claim = self.claim().await;
        self.following.claimed(claim, occasion, self.interval())
    }

    async fn claim(&mut self) -> Claim {
        let claim = self.lease.take(lease_duration(self.interval())).await;
        if let Claim::Held(fence) = claim {
            self.signals.news.admit(fence);
        }
        claim
    }

    /// The pause after a new state.
    fn rest(&mut self) -> Step {
        let interval = self.interval();
        self.following.has_state(interval);
        let follows = self.lease.fence().is_none() && self.following.is_known_to_follow();
        Step::WaitUntil(if follows { self.following.wake() } else { Instant::now() + jittered(interval) })
    }

    /// The pause after an error that may pass.
    fn fail(&mut self, error: UpstreamError) -> Step {
        self.failures += 1;
        self.log(&error, self.failures);
        let retry_after = match error {
            UpstreamError::RateLimited { retry_after } => retry_after,
            _ => None,
        };
        if let Some(wait) = retry_after {
            self.not_before = Instant::now() + wait;
        }
        self.lease.release(retry_after);
        let pause = jittered(after_failure(self.interval(), self.failures, &self.config));
        self.following.failed(pause);
        Step::WaitUntil(Instant::now() + pause)
    }

    /// Sends a state that was shown to the other replicas, if this one polls for them. `as_of` is the last message of which it
    /// takes account.
    async fn announce(&mut self, read: &Read<CachedLookup>, as_of: Option<Position>) {
        let duration = lease_duration(self.interval());
        if self.lease.duration().is_some_and(|taken| taken != duration) {
            // For the interval of the new state.
            self.claim().await;
        }
        if let Some(as_of) = as_of {
            self.send(read, as_of);
            self.announce_again();
        }
    }

    /// Sends the latest state again if a change of this replica was published since: the others refuse everything that was
    /// sent before, although it may take account of the change.
    fn announce_again(&mut self) {
        self.may_announce = false;
        let (Some(_), Some(published)) = (self.lease.fence(), self.published) else { return };
        if self.announced.is_some_and(|announced| published.is_covered_by(announced.as_of)) {
            return;
        }
        let Some(position) = self.lease.position().filter(|position| position.epoch == published.epoch)
        else {
            return;
        };
        // Messages of other replicas may come before it.
        self.may_announce = !published.is_covered_by(position);
        if self.may_announce {
            return;
        }
        let latest = self.signals.state.borrow().latest_read();
        if let Some(read) = latest {
            self.send(&read, position);
        }
    }

    fn send(&mut self, read: &Read<CachedLookup>, as_of: Position) {
        let (Some(fence), Some(appointment)) = (self.lease.fence(), &read.value) else { return };
        // A shared copy may be older than the state that the followers show.
        if read.shared_age.is_some() {
            return;
        }
        // While a change may still take effect, each replica reads for itself.
        if !self.cache.validity().is_storable(&read.version) {
            return;
        }
        let last =
            self.announced.filter(|announced| announced.fence == fence).map(|announced| announced.state);
        let (finding, state) = Finding::of(appointment, read, last);
        self.lease.announce(&finding, as_of);
        self.announced = Some(Announced { fence, state, as_of });
    }

    fn end(&self, error: UpstreamError) {
        self.signals.state.send_replace(WatchState::ended(error));
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
        self.signals.state.send_if_modified(|state| {
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
