//! A circuit breaker: after too many failures on a route, calls fail at once, until a few probes succeed. Each success
//! admits many more calls, so that a burst after the first one is served.
//!
//! The breaker reads no clock. Callers pass the current time.

use std::time::Duration;

use tokio::time::Instant;

use crate::{config::upstream::BreakerConfig, upstream::outcome::Health};

/// The number of successes in the half-open state that close the breaker. Without a success, as many calls may be in
/// flight.
const PROBES: u32 = 3;

/// The factor by which each success in the half-open state raises the limit of calls in flight. After the first success,
/// the limit exceeds the default of `upstream.max_concurrent`.
const GROWTH: u32 = 32;

/// The retry time of a rejected call while probes are in flight.
const PROBE_RETRY_AFTER: Duration = Duration::from_secs(1);

/// The number of buckets of the sliding window.
const BUCKETS: usize = 10;

/// The circuit breaker of one route.
#[derive(Debug)]
pub(crate) struct CircuitBreaker {
    config: BreakerConfig,
    phase: Phase,
    /// The number of state transitions. Results of calls admitted in an earlier epoch are ignored.
    epoch: u64,
    rng: fastrand::Rng,
}

/// The state with its data.
#[derive(Debug)]
enum Phase {
    Closed(SlidingWindow),
    Open { until: Instant },
    HalfOpen { in_flight: u32, succeeded: u32 },
}

/// The state of a breaker. The number is the value of the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BreakerState {
    /// Calls are admitted.
    Closed = 0,
    /// Only probes are admitted.
    HalfOpen = 1,
    /// No call is admitted.
    Open = 2,
}

impl BreakerState {
    /// All states.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 3] = [Self::Closed, Self::HalfOpen, Self::Open];

    /// The value of a metric label and of a log field.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

/// An admitted call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Admission {
    epoch: u64,
}

impl CircuitBreaker {
    pub(crate) fn new(config: BreakerConfig, now: Instant, rng: fastrand::Rng) -> Self {
        let phase = Phase::Closed(SlidingWindow::new(config.window, now));
        Self { config, phase, epoch: 0, rng }
    }

    pub(crate) fn state(&self) -> BreakerState {
        match self.phase {
            Phase::Closed(_) => BreakerState::Closed,
            Phase::HalfOpen { .. } => BreakerState::HalfOpen,
            Phase::Open { .. } => BreakerState::Open,
        }
    }

    /// Checks whether a call would be admitted now.
    ///
    /// # Errors
    /// The time after which to retry.
    pub(crate) fn check(&self, now: Instant) -> Result<(), Duration> {
        match self.phase {
            Phase::Open { until } if now < until => Err(until - now),
            Phase::HalfOpen { in_flight, succeeded } if in_flight >= half_open_limit(succeeded) => {
                Err(PROBE_RETRY_AFTER)
            }
            _ => Ok(()),
        }
    }

    /// Admits a call. Its result has to be [recorded](Self::record).
    ///
    /// # Errors
    /// The time after which to retry.
    pub(crate) fn admit(&mut self, now: Instant) -> Result<Admission, Duration> {
        self.check(now)?;
        match &mut self.phase {
            Phase::Closed(_) => {}
            Phase::Open { .. } => self.transition(Phase::HalfOpen { in_flight: 1, succeeded: 0 }),
            Phase::HalfOpen { in_flight, .. } => *in_flight += 1,
        }
        Ok(Admission { epoch: self.epoch })
    }

    /// Records the result of an admitted call.
    pub(crate) fn record(&mut self, call: Admission, health: Health, now: Instant) {
        if call.epoch != self.epoch {
            return;
        }
        match &mut self.phase {
            Phase::Closed(window) if health != Health::Unknown => {
                let (calls, failures) = window.record(health == Health::Unhealthy, now);
                let BreakerConfig { percent, calls: min_calls, .. } = self.config;
                if percent > 0 && calls >= min_calls && failures * 100 >= percent * calls {
                    self.open(now);
                }
            }
            Phase::HalfOpen { in_flight, succeeded } => {
                *in_flight -= 1;
                match health {
                    Health::Unknown => {}
                    Health::Unhealthy => self.open(now),
                    Health::Healthy if *succeeded + 1 < PROBES => *succeeded += 1,
                    Health::Healthy => {
                        self.transition(Phase::Closed(SlidingWindow::new(self.config.window, now)))
                    }
                }
            }
            Phase::Closed(_) | Phase::Open { .. } => {}
        }
    }

    /// Opens the breaker. Jitter keeps several gateways from probing at the same time.
    fn open(&mut self, now: Instant) {
        let pause = self.config.pause.mul_f64(1.0 + 0.2 * self.rng.f64());
        self.transition(Phase::Open { until: now + pause });
    }

    fn transition(&mut self, phase: Phase) {
        self.phase = phase;
        self.epoch += 1;
    }
}

/// The limit of calls in flight in the half-open state.
fn half_open_limit(succeeded: u32) -> u32 {
    PROBES * GROWTH.pow(succeeded)
}

/// Calls and failures within a sliding window of time.
#[derive(Debug)]
struct SlidingWindow {
    /// Calls and failures of each bucket.
    buckets: [(u64, u64); BUCKETS],
    length: Duration,
    began: Instant,
    /// The number of the latest bucket, counted from the beginning.
    latest: u128,
}

impl SlidingWindow {
    fn new(length: Duration, now: Instant) -> Self {
        Self { buckets: [(0, 0); BUCKETS], length, began: now, latest: 0 }
    }

    /// Adds a call. Returns the calls and failures within the window that ends now.
    fn record(&mut self, is_failure: bool, now: Instant) -> (u64, u64) {
        let elapsed = now.saturating_duration_since(self.began).as_nanos();
        let bucket = (elapsed * BUCKETS as u128 / self.length.as_nanos().max(1)).max(self.latest);
        // These buckets hold counts that are one window old.
        for stale in (self.latest + 1..=bucket).take(BUCKETS) {
            self.buckets[(stale % BUCKETS as u128) as usize] = (0, 0);
        }
        self.latest = bucket;
        let (calls, failures) = &mut self.buckets[(bucket % BUCKETS as u128) as usize];
        *calls += 1;
        *failures += u64::from(is_failure);
        self.buckets.iter().fold((0, 0), |sum, bucket| (sum.0 + bucket.0, sum.1 + bucket.1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONFIG: BreakerConfig = BreakerConfig {
        percent: 50,
        calls: 4,
        window: Duration::from_secs(10),
        pause: Duration::from_secs(5),
    };

    /// A breaker with a clock.
    struct Clocked {
        breaker: CircuitBreaker,
        now: Instant,
    }

    impl Clocked {
        fn new(config: BreakerConfig) -> Self {
            let now = Instant::now();
            Self { breaker: CircuitBreaker::new(config, now, fastrand::Rng::with_seed(7)), now }
        }

        fn admit(&mut self) -> Result<Admission, Duration> {
            self.breaker.admit(self.now)
        }

        fn record(&mut self, call: Admission, health: Health) -> BreakerState {
            self.breaker.record(call, health, self.now);
            self.breaker.state()
        }

        fn call(&mut self, health: Health) -> BreakerState {
            let call = self.admit().unwrap();
            self.record(call, health)
        }

        fn fail(&mut self, times: u32) {
            for _ in 0..times {
                self.call(Health::Unhealthy);
            }
        }

        /// A breaker that opened `after` ago.
        fn opened(after: Duration) -> Self {
            let mut subject = Self::new(CONFIG);
            subject.fail(4);
            assert_eq!(subject.breaker.state(), BreakerState::Open);
            subject.now += after;
            subject
        }
    }

    /// Longer than any pause with its jitter.
    const AFTER_PAUSE: Duration = Duration::from_millis(6001);

    #[test]
    fn it_opens_at_the_failure_rate_and_the_minimum_of_calls() {
        let mut subject = Clocked::new(CONFIG);
        for health in
            [Health::Unhealthy, Health::Unhealthy, Health::Unhealthy, Health::Unknown, Health::Unknown]
        {
            assert_eq!(subject.call(health), BreakerState::Closed, "below the minimum of calls");
        }
        assert_eq!(subject.call(Health::Healthy), BreakerState::Open, "three of four");

        let mut subject = Clocked::new(CONFIG);
        for health in
            [Health::Healthy, Health::Healthy, Health::Healthy, Health::Unhealthy, Health::Unhealthy]
        {
            assert_eq!(subject.call(health), BreakerState::Closed, "two of five");
        }
        assert_eq!(subject.call(Health::Unhealthy), BreakerState::Open, "three of six");
    }

    #[test]
    fn calls_older_than_the_window_do_not_count() {
        let mut subject = Clocked::new(CONFIG);
        subject.fail(3);
        subject.now += CONFIG.window;
        assert_eq!(subject.call(Health::Unhealthy), BreakerState::Closed);
        // After any pause without calls.
        subject.now += Duration::from_secs(86_400);
        subject.fail(3);
        subject.now += CONFIG.window - CONFIG.window / 5;
        assert_eq!(
            subject.call(Health::Unhealthy),
            BreakerState::Open,
            "the others are still within the window"
        );
    }

    #[test]
    fn an_open_breaker_rejects_calls_with_the_remaining_time() {
        let mut subject = Clocked::opened(Duration::ZERO);
        let wait = subject.admit().unwrap_err();
        assert!((CONFIG.pause..AFTER_PAUSE).contains(&wait), "{wait:?}");
        subject.now += Duration::from_secs(2);
        assert_eq!(subject.admit().unwrap_err(), wait - Duration::from_secs(2));
        subject.now += wait;
        assert!(subject.admit().is_ok());
    }

    #[test]
    fn it_closes_after_all_probes_have_succeeded() {
        let mut subject = Clocked::opened(AFTER_PAUSE);
        let probes = [(); PROBES as usize].map(|()| subject.admit().unwrap());
        assert_eq!(subject.breaker.state(), BreakerState::HalfOpen);
        assert_eq!(subject.admit().unwrap_err(), PROBE_RETRY_AFTER);
        let [first, rest @ ..] = probes;
        // An abandoned probe is replaced.
        assert_eq!(subject.record(first, Health::Unknown), BreakerState::HalfOpen);
        let again = subject.admit().unwrap();
        assert!(subject.admit().is_err());
        for probe in rest {
            assert_eq!(subject.record(probe, Health::Healthy), BreakerState::HalfOpen);
        }
        assert_eq!(subject.record(again, Health::Healthy), BreakerState::Closed);
        assert_eq!(subject.call(Health::Unhealthy), BreakerState::Closed, "the window starts empty");
    }

    #[test]
    fn each_success_admits_many_more_calls() {
        let mut subject = Clocked::opened(AFTER_PAUSE);
        for succeeded in 0..PROBES - 1 {
            let burst = std::iter::from_fn(|| subject.admit().ok()).collect::<Vec<_>>();
            assert_eq!(burst.len(), half_open_limit(succeeded) as usize, "after {succeeded} successes");
            for call in &burst[1..] {
                subject.record(*call, Health::Unknown);
            }
            assert_eq!(subject.record(burst[0], Health::Healthy), BreakerState::HalfOpen);
        }
        let burst = std::iter::from_fn(|| subject.admit().ok()).take(100).collect::<Vec<_>>();
        assert_eq!(
            subject.record(burst[0], Health::Unhealthy),
            BreakerState::Open,
            "one failure ends the recovery"
        );
    }

    #[test]
    fn a_failed_probe_opens_it_again() {
        let mut subject = Clocked::opened(AFTER_PAUSE);
        let (first, second) = (subject.admit().unwrap(), subject.admit().unwrap());
        assert_eq!(subject.record(first, Health::Unhealthy), BreakerState::Open);
        assert_eq!(subject.record(second, Health::Healthy), BreakerState::Open);
        assert!(subject.admit().is_err());
    }

    #[test]
    fn calls_admitted_before_a_transition_are_ignored() {
        let mut subject = Clocked::new(CONFIG);
        let early = [(); 2].map(|()| subject.admit().unwrap());
        subject.fail(4);
        subject.now += AFTER_PAUSE;
        let probe = subject.admit().unwrap();
        for call in early {
            assert_eq!(subject.record(call, Health::Unhealthy), BreakerState::HalfOpen);
        }
        assert_eq!(subject.record(probe, Health::Healthy), BreakerState::HalfOpen);
    }

    #[test]
    fn at_0_percent_it_never_opens() {
        let mut subject = Clocked::new(BreakerConfig { percent: 0, ..CONFIG });
        for _ in 0..100 {
            assert_eq!(subject.call(Health::Unhealthy), BreakerState::Closed);
        }
    }

    proptest! {
        /// In any order of calls, results and time: an open breaker admits nothing, a half-open one as many calls as
        /// its successes permit, and none is stuck.
        #[test]
        fn no_order_of_events_admits_too_many_calls(
            events in prop::collection::vec((0..5_u8, 0..3_usize, 0..4000_u64), 1..400),
        ) {
            let mut subject = Clocked::new(CONFIG);
            let mut under_way = Vec::new();
            // Probes in flight, and those that have succeeded.
            let (mut probes, mut succeeded) = (0, 0);
            for (event, which, millis) in events {
                let health = [Health::Healthy, Health::Unhealthy, Health::Unknown][which];
                let before = subject.breaker.state();
                match event {
                    0 | 1 => {
                        let checked = subject.breaker.check(subject.now);
                        let admitted = subject.admit();
                        prop_assert_eq!(checked.is_ok(), admitted.is_ok());
                        under_way.extend(admitted);
                        match (before, subject.breaker.state()) {
                            (BreakerState::Open, BreakerState::HalfOpen) => (probes, succeeded) = (1, 0),
                            (_, BreakerState::HalfOpen) => probes += u32::from(admitted.is_ok()),
                            _ => {}
                        }
                    }
                    2 | 3 if !under_way.is_empty() => {
                        let call = under_way.swap_remove(millis as usize % under_way.len());
                        let is_probe = call.epoch == subject.breaker.epoch && before == BreakerState::HalfOpen;
                        subject.record(call, health);
                        probes -= u32::from(is_probe);
                        succeeded += u32::from(is_probe && health == Health::Healthy);
                    }
                    _ => subject.now += Duration::from_millis(millis),
                }
                if subject.breaker.state() == BreakerState::HalfOpen {
                    prop_assert!(probes <= PROBES * GROWTH.pow(succeeded));
                }
            }
            // Once all results are recorded and the pause is over, it closes.
            for call in under_way {
                subject.record(call, Health::Unknown);
            }
            for _ in 0..2 * PROBES {
                subject.now += AFTER_PAUSE;
                subject.call(Health::Healthy);
            }
            prop_assert_eq!(subject.breaker.state(), BreakerState::Closed);
        }
    }
}
