//! A circuit breaker: when too many calls of a route fail, the next ones fail without being made, until a few probes have
//! found the upstream well again.
//!
//! It knows no clock: what time it is, it is told.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::upstream::BreakerConfig;

/// How many calls are let through, and have to go well, before it closes.
const PROBES: u32 = 3;

/// When to come back while probes are under way.
const SHORTLY: Duration = Duration::from_secs(1);

/// Into how many parts the window is divided that slides over what has happened.
const PARTS: usize = 10;

/// The breaker of one route.
#[derive(Debug)]
pub(crate) struct Breaker {
    config: BreakerConfig,
    state: State,
    /// Counts the changes of state: what was let through before the latest tells nothing of what is now.
    epoch: u64,
    dice: fastrand::Rng,
}

#[derive(Debug)]
enum State {
    Closed(Window),
    Open { until: Instant },
    HalfOpen { under_way: u32, went_well: u32 },
}

/// What operators are told of a breaker; in metrics, as the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Calls are made.
    Closed = 0,
    /// A few are made, to see.
    HalfOpen = 1,
    /// None is made.
    Open = 2,
}

impl Condition {
    /// As it is logged and counted.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

/// A call that was let through.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Admission {
    epoch: u64,
}

/// What a call that was let through tells of the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// It answered, be it with a refusal.
    Well,
    /// It failed, or did not answer.
    Ill,
    /// Nothing: the call was given up.
    Unknown,
}

impl Breaker {
    pub(crate) fn new(config: BreakerConfig, now: Instant, dice: fastrand::Rng) -> Self {
        let state = State::Closed(Window::new(config.window, now));
        Self { config, state, epoch: 0, dice }
    }

    pub(crate) fn condition(&self) -> Condition {
        match self.state {
            State::Closed(_) => Condition::Closed,
            State::HalfOpen { .. } => Condition::HalfOpen,
            State::Open { .. } => Condition::Open,
        }
    }

    /// Whether a call would be let through now.
    ///
    /// # Errors
    /// When to come back.
    pub(crate) fn check(&self, now: Instant) -> Result<(), Duration> {
        match self.state {
            State::Open { until } if now < until => Err(until - now),
            State::HalfOpen { under_way, went_well } if under_way + went_well >= PROBES => Err(SHORTLY),
            _ => Ok(()),
        }
    }

    /// Lets a call through, which then has to be [settled](Self::settle).
    ///
    /// # Errors
    /// When to come back.
    pub(crate) fn admit(&mut self, now: Instant) -> Result<Admission, Duration> {
        self.check(now)?;
        match &mut self.state {
            State::Closed(_) => {}
            State::Open { .. } => self.turn(State::HalfOpen { under_way: 1, went_well: 0 }),
            State::HalfOpen { under_way, .. } => *under_way += 1,
        }
        Ok(Admission { epoch: self.epoch })
    }

    /// What came of a call that was let through.
    pub(crate) fn settle(&mut self, call: Admission, health: Health, now: Instant) {
        if call.epoch != self.epoch {
            return;
        }
        match &mut self.state {
            State::Closed(window) if health != Health::Unknown => {
                let (calls, failures) = window.record(health == Health::Ill, now);
                let BreakerConfig { percent, calls: fewest, .. } = self.config;
                if percent > 0 && calls >= fewest && failures * 100 >= percent * calls {
                    self.open(now);
                }
            }
            State::HalfOpen { under_way, went_well } => {
                *under_way -= 1;
                match health {
                    Health::Unknown => {}
                    Health::Ill => self.open(now),
                    Health::Well if *went_well + 1 < PROBES => *went_well += 1,
                    Health::Well => self.turn(State::Closed(Window::new(self.config.window, now))),
                }
            }
            State::Closed(_) | State::Open { .. } => {}
        }
    }

    /// A little longer than configured, so that several gateways do not come back at once.
    fn open(&mut self, now: Instant) {
        let pause = self.config.pause.mul_f64(1.0 + 0.2 * self.dice.f64());
        self.turn(State::Open { until: now + pause });
    }

    fn turn(&mut self, state: State) {
        self.state = state;
        self.epoch += 1;
    }
}

/// How many calls there were of late, and how many of them failed.
#[derive(Debug)]
struct Window {
    parts: [(u64, u64); PARTS],
    length: Duration,
    began: Instant,
    /// The part that is now, counted from the beginning.
    latest: u128,
}

impl Window {
    fn new(length: Duration, now: Instant) -> Self {
        Self { parts: [(0, 0); PARTS], length, began: now, latest: 0 }
    }

    /// Adds a call; how many there were and how many failed, within the window that ends now.
    fn record(&mut self, is_failure: bool, now: Instant) -> (u64, u64) {
        let elapsed = now.saturating_duration_since(self.began).as_nanos();
        let part = (elapsed * PARTS as u128 / self.length.as_nanos().max(1)).max(self.latest);
        // What these held is a whole window old.
        for stale in (self.latest + 1..=part).take(PARTS) {
            self.parts[(stale % PARTS as u128) as usize] = (0, 0);
        }
        self.latest = part;
        let (calls, failures) = &mut self.parts[(part % PARTS as u128) as usize];
        *calls += 1;
        *failures += u64::from(is_failure);
        self.parts.iter().fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1))
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

    struct Subject {
        breaker: Breaker,
        now: Instant,
    }

    impl Subject {
        fn new(config: BreakerConfig) -> Self {
            let now = Instant::now();
            Self { breaker: Breaker::new(config, now, fastrand::Rng::with_seed(7)), now }
        }

        fn admit(&mut self) -> Result<Admission, Duration> {
            self.breaker.admit(self.now)
        }

        fn settle(&mut self, call: Admission, health: Health) -> Condition {
            self.breaker.settle(call, health, self.now);
            self.breaker.condition()
        }

        fn call(&mut self, health: Health) -> Condition {
            let call = self.admit().unwrap();
            self.settle(call, health)
        }

        fn fail(&mut self, times: u32) {
            for _ in 0..times {
                self.call(Health::Ill);
            }
        }

        /// As it is `after` it was opened.
        fn opened(after: Duration) -> Self {
            let mut subject = Self::new(CONFIG);
            subject.fail(4);
            assert_eq!(subject.breaker.condition(), Condition::Open);
            subject.now += after;
            subject
        }
    }

    /// Longer than any pause with what is added to it.
    const RESTED: Duration = Duration::from_millis(6001);

    #[test]
    fn it_opens_when_enough_calls_of_enough_failed() {
        let mut subject = Subject::new(CONFIG);
        for health in [Health::Ill, Health::Ill, Health::Ill, Health::Unknown, Health::Unknown] {
            assert_eq!(subject.call(health), Condition::Closed, "too few calls tell nothing");
        }
        assert_eq!(subject.call(Health::Well), Condition::Open, "three of four");

        let mut subject = Subject::new(CONFIG);
        for health in [Health::Well, Health::Well, Health::Well, Health::Ill, Health::Ill] {
            assert_eq!(subject.call(health), Condition::Closed, "two of five");
        }
        assert_eq!(subject.call(Health::Ill), Condition::Open, "three of six");
    }

    #[test]
    fn what_is_a_window_old_does_not_count() {
        let mut subject = Subject::new(CONFIG);
        subject.fail(3);
        subject.now += CONFIG.window;
        assert_eq!(subject.call(Health::Ill), Condition::Closed);
        // However long nobody called.
        subject.now += Duration::from_secs(86_400);
        subject.fail(3);
        subject.now += CONFIG.window - CONFIG.window / 5;
        assert_eq!(subject.call(Health::Ill), Condition::Open, "the others are not yet a window old");
    }

    #[test]
    fn while_it_is_open_nothing_is_let_through_and_it_is_told_for_how_long() {
        let mut subject = Subject::opened(Duration::ZERO);
        let wait = subject.admit().unwrap_err();
        assert!((CONFIG.pause..RESTED).contains(&wait), "{wait:?}");
        subject.now += Duration::from_secs(2);
        assert_eq!(subject.admit().unwrap_err(), wait - Duration::from_secs(2));
        subject.now += wait;
        assert!(subject.admit().is_ok());
    }

    #[test]
    fn a_few_probes_are_let_through_and_close_it_when_all_went_well() {
        let mut subject = Subject::opened(RESTED);
        let probes = [(); PROBES as usize].map(|()| subject.admit().unwrap());
        assert_eq!(subject.breaker.condition(), Condition::HalfOpen);
        assert_eq!(subject.admit().unwrap_err(), SHORTLY);
        let [first, rest @ ..] = probes;
        // Given up: another may take its place.
        assert_eq!(subject.settle(first, Health::Unknown), Condition::HalfOpen);
        let again = subject.admit().unwrap();
        assert!(subject.admit().is_err());
        for probe in rest {
            assert_eq!(subject.settle(probe, Health::Well), Condition::HalfOpen);
            assert!(subject.admit().is_err(), "no more of them than it takes");
        }
        assert_eq!(subject.settle(again, Health::Well), Condition::Closed);
        assert_eq!(subject.call(Health::Ill), Condition::Closed, "the past is forgotten");
    }

    #[test]
    fn a_probe_that_fails_opens_it_again() {
        let mut subject = Subject::opened(RESTED);
        let (first, second) = (subject.admit().unwrap(), subject.admit().unwrap());
        assert_eq!(subject.settle(first, Health::Ill), Condition::Open);
        assert_eq!(subject.settle(second, Health::Well), Condition::Open);
        assert!(subject.admit().is_err());
    }

    #[test]
    fn what_was_let_through_before_it_opened_tells_nothing_any_more() {
        let mut subject = Subject::new(CONFIG);
        let early = [(); 2].map(|()| subject.admit().unwrap());
        subject.fail(4);
        subject.now += RESTED;
        let probe = subject.admit().unwrap();
        for call in early {
            assert_eq!(subject.settle(call, Health::Ill), Condition::HalfOpen);
        }
        assert_eq!(subject.settle(probe, Health::Well), Condition::HalfOpen);
    }

    #[test]
    fn at_no_percent_it_never_opens() {
        let mut subject = Subject::new(BreakerConfig { percent: 0, ..CONFIG });
        for _ in 0..100 {
            assert_eq!(subject.call(Health::Ill), Condition::Closed);
        }
    }

    proptest! {
        /// In any order of calls, outcomes and time: an open breaker lets nothing through, a half-open one no more than
        /// its probes, and none is stuck.
        #[test]
        fn no_order_of_events_lets_more_through_than_it_may(
            events in prop::collection::vec((0..5_u8, 0..3_usize, 0..4000_u64), 1..400),
        ) {
            let mut subject = Subject::new(CONFIG);
            let mut under_way = Vec::new();
            let mut probes = 0;
            for (event, which, millis) in events {
                let health = [Health::Well, Health::Ill, Health::Unknown][which];
                let before = subject.breaker.condition();
                match event {
                    0 | 1 => {
                        let checked = subject.breaker.check(subject.now);
                        let admitted = subject.admit();
                        prop_assert_eq!(checked.is_ok(), admitted.is_ok());
                        under_way.extend(admitted);
                        if subject.breaker.condition() == Condition::HalfOpen {
                            probes = if before == Condition::Open { 1 } else { probes + u32::from(admitted.is_ok()) };
                        }
                    }
                    2 | 3 if !under_way.is_empty() => {
                        let call = under_way.swap_remove(millis as usize % under_way.len());
                        let is_probe = call.epoch == subject.breaker.epoch && before == Condition::HalfOpen;
                        subject.settle(call, health);
                        probes -= u32::from(is_probe && health == Health::Unknown);
                    }
                    _ => subject.now += Duration::from_millis(millis),
                }
                if subject.breaker.condition() == Condition::HalfOpen {
                    prop_assert!(probes <= PROBES);
                }
            }
            // With everything settled and some patience, it closes.
            for call in under_way {
                subject.settle(call, Health::Unknown);
            }
            for _ in 0..2 * PROBES {
                subject.now += RESTED;
                subject.call(Health::Well);
            }
            prop_assert_eq!(subject.breaker.condition(), Condition::Closed);
        }
    }
}
