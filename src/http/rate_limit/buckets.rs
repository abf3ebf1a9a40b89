//! Token buckets, one per caller.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, Reference as _},
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed, StateStore, keyed::ShrinkableKeyedStateStore},
};
use tokio::sync::mpsc;

use crate::{caller::Scope, config::rate_limit::RateLimitConfig};

/// The minimum time between two sweeps for full buckets.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The longest time until a bucket is full. Only a corrupt value in Redis could exceed it.
pub(super) const MAX_DEBT: Duration = Duration::from_secs(24 * 60 * 60);

/// The buckets of all callers.
pub(super) struct Buckets<C: Clock> {
    limiter: RateLimiter<Withdrawal, BucketStore, C, NoOpMiddleware<C::Instant>>,
    store: BucketStore,
    clock: C,
    /// The time from which `Nanos` count.
    start: C::Instant,
    pub(super) per_second: NonZeroU32,
    pub(super) burst: NonZeroU32,
    last_sweep: Mutex<Option<Instant>>,
}

/// Tokens to take from a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Withdrawal {
    /// The caller; None for the common bucket.
    scope: Option<Scope>,
    tokens: NonZeroU32,
}

/// Tokens that a caller has taken since the last report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) scope: Scope,
    pub(super) tokens: u32,
}

impl<C: Clock + Clone> Buckets<C> {
    /// None if rate limiting is disabled. With `activity`, the buckets count the tokens to report, and send a message when
    /// there are some.
    pub(super) fn new(
        config: &RateLimitConfig,
        clock: C,
        activity: Option<mpsc::Sender<()>>,
    ) -> Option<Self> {
        let per_second = NonZeroU32::new(config.per_second)?;
        let burst = NonZeroU32::new(config.burst)?;
        let quota = Quota::per_second(per_second).allow_burst(burst);
        let store = BucketStore(Arc::new(Store {
            callers: Mutex::default(),
            common: InMemoryState::default(),
            max_buckets: config.max_callers,
            activity,
        }));
        let start = clock.now();
        let limiter = RateLimiter::new(quota, store.clone(), clock.clone());
        Some(Self { limiter, store, clock, start, per_second, burst, last_sweep: Mutex::new(None) })
    }

    /// Takes a token from the bucket of `scope`, or returns the time until there is one.
    pub(super) fn take(&self, scope: Option<Scope>) -> Result<(), Duration> {
        self.sweep();
        let one = Withdrawal { scope, tokens: NonZeroU32::MIN };
        self.limiter.check_key(&one).map_err(|until| until.wait_time_from(self.clock.now()))
    }

    /// Takes `tokens` or none.
    ///
    /// # Errors
    /// The time until there are `tokens + 1`: a repeated request first takes one.
    pub(super) fn take_many(&self, scope: Option<Scope>, tokens: NonZeroU32) -> Result<(), Duration> {
        match self.limiter.check_key_n(&Withdrawal { scope, tokens }, tokens) {
            Ok(taken) => taken.map_err(|until| until.wait_time_from(self.clock.now()) + self.refill(1)),
            // The caller has checked the burst.
            Err(_) => Err(self.refill(1)),
        }
    }

    /// The time in which so many tokens are refilled.
    pub(super) fn refill(&self, tokens: u32) -> Duration {
        (Duration::from_secs(1) / self.per_second.get()).saturating_mul(tokens)
    }

    /// The callers that have taken tokens since the last call.
    pub(super) fn take_active(&self) -> Vec<Scope> {
        std::mem::take(&mut self.store.lock().active)
    }

    /// The tokens of `callers`, which then count as reported.
    pub(super) fn take_reports(&self, callers: &[Scope]) -> Vec<Report> {
        let mut buckets = self.store.lock();
        let report = |scope: &Scope| {
            let bucket = buckets.by_scope.get_mut(scope)?;
            Some(Report { scope: *scope, tokens: std::mem::take(&mut bucket.unreported) })
        };
        callers.iter().filter_map(report).collect()
    }

    /// The present, for [`fill_later`](Self::fill_later).
    pub(super) fn now(&self) -> Nanos {
        self.clock.now().duration_since(self.start)
    }

    /// Notes that the bucket of `scope` in Redis will be full at `full_at`, if no more tokens are reported.
    pub(super) fn fill_later(&self, scope: Scope, full_at: Nanos) {
        if let Some(bucket) = self.store.lock().by_scope.get_mut(&scope) {
            let full_at = full_at + self.refill(bucket.unreported);
            bucket.full_at = bucket.full_at.max(Some(full_at));
        }
    }

    /// At the maximum number of buckets, drops the full ones: a new bucket is full as well.
    fn sweep(&self) {
        if self.limiter.len() < self.store.0.max_buckets {
            return;
        }
        let mut last_sweep = lock(&self.last_sweep);
        if last_sweep.is_none_or(|last| last.elapsed() >= SWEEP_INTERVAL) {
            *last_sweep = Some(Instant::now());
            self.limiter.retain_recent();
        }
    }
}

/// The states of all buckets. Cheap to clone.
#[derive(Clone)]
struct BucketStore(Arc<Store>);

struct Store {
    callers: Mutex<CallerBuckets>,
    /// The bucket of requests without a valid token, and of callers beyond `max_buckets`.
    common: InMemoryState,
    max_buckets: usize,
    /// Receives a message when `active` is no longer empty; None if nothing is reported.
    activity: Option<mpsc::Sender<()>>,
}

#[derive(Default)]
struct CallerBuckets {
    by_scope: HashMap<Scope, Bucket>,
    /// Callers with tokens to report.
    active: Vec<Scope>,
}

#[derive(Default)]
struct Bucket {
    /// When the bucket will be full again: the theoretical arrival time of the GCRA.
    full_at: Option<Nanos>,
    /// The number of tokens to report.
    unreported: u32,
}

impl BucketStore {
    fn lock(&self) -> MutexGuard<'_, CallerBuckets> {
        lock(&self.0.callers)
    }
}

impl StateStore for BucketStore {
    type Key = Withdrawal;

    fn measure_and_replace<T, F, E>(
        &self,
        Withdrawal { scope, tokens }: &Withdrawal,
        decide: F,
    ) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let Store { common, max_buckets, activity, .. } = &*self.0;
        if let Some(scope) = scope {
            let mut buckets = self.lock();
            let CallerBuckets { by_scope, active } = &mut *buckets;
            if by_scope.len() < *max_buckets || by_scope.contains_key(scope) {
                let bucket = by_scope.entry(*scope).or_default();
                let (outcome, full_at) = decide(bucket.full_at)?;
                bucket.full_at = Some(full_at);
                if let Some(activity) = activity {
                    if active.is_empty() {
                        // A message that is not received yet serves as well.
                        let _ = activity.try_send(());
                    }
                    if bucket.unreported == 0 {
                        active.push(*scope);
                    }
                    bucket.unreported = bucket.unreported.saturating_add(tokens.get());
                }
                return Ok(outcome);
            }
        }
        common.measure_and_replace(&NotKeyed::NonKey, decide)
    }
}

impl ShrinkableKeyedStateStore<Withdrawal> for BucketStore {
    fn retain_recent(&self, drop_below: Nanos) {
        let is_needed = |bucket: &Bucket| {
            bucket.unreported > 0 || bucket.full_at.is_some_and(|full_at| full_at > drop_below)
        };
        self.lock().by_scope.retain(|_, bucket| is_needed(bucket));
    }

    fn shrink_to_fit(&self) {
        self.lock().by_scope.shrink_to_fit();
    }

    fn len(&self) -> usize {
        self.lock().by_scope.len()
    }

    fn is_empty(&self) -> bool {
        self.lock().by_scope.is_empty()
    }
}

/// Ignores poisoning: no panic can leave these maps inconsistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use governor::clock::{DefaultClock, FakeRelativeClock};

    use super::*;
    use crate::caller::{Caller, ScopeKey};

    fn config(per_second: u32, burst: u32, max_callers: usize) -> RateLimitConfig {
        RateLimitConfig { per_second, burst, max_callers }
    }

    fn buckets(
        per_second: u32,
        burst: u32,
        max_callers: usize,
    ) -> (Buckets<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (Buckets::new(&config(per_second, burst, max_callers), clock.clone(), None).unwrap(), clock)
    }

    fn scope(token: &str, key: &ScopeKey) -> Option<Scope> {
        Some(Caller::with_token(token, key).identity())
    }

    #[test]
    fn a_bucket_allows_a_burst_and_then_the_rate() {
        let (key, (buckets, clock)) = (ScopeKey::random(), buckets(2, 3, 10));
        let (one, other) = (scope("a", &key), scope("b", &key));
        for scope in [one, other, None] {
            assert_eq!([(); 3].map(|()| buckets.take(scope)), [Ok(()); 3], "each scope has its own bucket");
            assert_eq!(buckets.take(scope), Err(Duration::from_millis(500)));
        }
        clock.advance(Duration::from_millis(499));
        assert_eq!(buckets.take(one), Err(Duration::from_millis(1)));
        clock.advance(Duration::from_millis(1));
        assert_eq!(buckets.take(one), Ok(()));
        assert!(buckets.take(one).is_err());
        clock.advance(Duration::from_secs(60));
        assert_eq!([(); 3].map(|()| buckets.take(one)), [Ok(()); 3], "a bucket holds no more than a burst");
        assert!(buckets.take(one).is_err());
    }

    #[test]
    fn full_buckets_are_dropped_at_the_maximum() {
        let (key, (buckets, clock)) = (ScopeKey::random(), buckets(1, 1, 2));
        let scopes = ["a", "b", "c", "d"].map(|token| scope(token, &key));
        assert_eq!(scopes.map(|scope| buckets.take(scope).is_ok()), [true, true, true, false]);
        assert_eq!(buckets.limiter.len(), 2);
        assert!(buckets.take(None).is_err(), "the third caller has emptied the shared bucket");
        clock.advance(Duration::from_secs(3));
        *lock(&buckets.last_sweep) = None;
        assert_eq!([scopes[2], scopes[3], None].map(|scope| buckets.take(scope)), [Ok(()); 3]);
        assert_eq!(buckets.limiter.len(), 2);
    }

    #[test]
    fn a_rate_of_0_disables_the_limit() {
        assert!(Buckets::new(&config(0, 1, 1), DefaultClock::default(), None).is_none());
    }

    /// Replicas with one clock, and the bucket of one caller in Redis.
    struct Replicas {
        clock: FakeRelativeClock,
        scope: Scope,
        buckets: Vec<Buckets<FakeRelativeClock>>,
        activity: Vec<mpsc::Receiver<()>>,
        full_at: Duration,
        now: Duration,
    }

    impl Replicas {
        fn new(number: usize, per_second: u32, burst: u32) -> Self {
            let clock = FakeRelativeClock::default();
            let (senders, activity): (Vec<_>, _) = (0..number).map(|_| mpsc::channel(1)).unzip();
            let replica = |sender| Buckets::new(&config(per_second, burst, 10), clock.clone(), Some(sender));
            let buckets = senders.into_iter().filter_map(replica).collect();
            let scope = Caller::with_token("a", &ScopeKey::random()).identity();
            Self { clock, scope, buckets, activity, full_at: Duration::ZERO, now: Duration::ZERO }
        }

        fn advance(&mut self, by: Duration) {
            self.clock.advance(by);
            self.now += by;
        }

        fn take(&self, replica: usize) -> bool {
            self.buckets[replica].take(Some(self.scope)).is_ok()
        }

        /// As the task and its script do, with an allowance of 200 ms.
        fn exchange(&mut self, replica: usize) {
            if self.activity[replica].try_recv().is_err() {
                return;
            }
            let buckets = &self.buckets[replica];
            for Report { scope, tokens } in buckets.take_reports(&buckets.take_active()) {
                let earliest = self.now.saturating_sub(Duration::from_millis(200));
                self.full_at = self.full_at.max(earliest) + buckets.refill(tokens);
                buckets.fill_later(scope, buckets.now() + self.full_at.saturating_sub(self.now));
            }
        }

        /// Calls each replica in each millisecond for which `calls` says so. Returns the admitted calls of each second.
        fn run(&mut self, seconds: u32, calls: impl Fn(usize, u32) -> bool) -> Vec<u32> {
            let mut admitted = vec![0; seconds as usize];
            for millisecond in 0..seconds * 1000 {
                for replica in 0..self.buckets.len() {
                    let is_admitted = calls(replica, millisecond) && self.take(replica);
                    admitted[millisecond as usize / 1000] += u32::from(is_admitted);
                    // Each replica at its own time.
                    if millisecond % 100 == 37 * replica as u32 % 100 {
                        self.exchange(replica);
                    }
                }
                self.advance(Duration::from_millis(1));
            }
            admitted
        }
    }

    #[test]
    fn a_flood_of_three_replicas_is_held_to_the_rate() {
        let admitted = Replicas::new(3, 100, 50).run(20, |_, _| true);
        let total: u32 = admitted.iter().sum();
        assert!((1950..=2100).contains(&total), "{admitted:?}");
        assert!(admitted[0] > 150, "each replica has a burst: {admitted:?}");
        assert!(admitted[5..].iter().sum::<u32>().abs_diff(1500) < 60, "{admitted:?}");
    }

    #[test]
    fn a_flood_that_moves_between_replicas_is_held_to_the_rate() {
        for period in [50, 150, 1000, 3000] {
            let admitted = Replicas::new(5, 100, 50).run(60, |replica, at| at / period % 5 == replica as u32);
            let total: u32 = admitted.iter().sum();
            assert!((5700..=6600).contains(&total), "{period} {total} {admitted:?}");
        }
    }

    #[test]
    fn calls_below_the_rate_are_admitted_by_any_replica() {
        for number in [1, 2, 5] {
            let calls = |replica: usize, at: u32| at.is_multiple_of(10) && at / 10 % number == replica as u32;
            let admitted = Replicas::new(number as usize, 100, 20).run(10, calls);
            assert_eq!(admitted, [100; 10], "{number}");
        }
    }

    #[test]
    fn a_single_replica_admits_what_it_admits_alone() {
        for (per_second, burst) in [(1, 1), (10, 1), (10, 30), (1000, 5)] {
            let mut replicas = Replicas::new(1, per_second, burst);
            let (alone, clock) = buckets(per_second, burst, 10);
            for millisecond in 0..10_000 {
                for _ in 0..fastrand::u32(0..4) * u32::from(millisecond / 1000 % 3 != 2) {
                    assert_eq!(replicas.take(0), alone.take(Some(replicas.scope)).is_ok());
                }
                if millisecond % 100 == 99 {
                    replicas.exchange(0);
                }
                replicas.advance(Duration::from_millis(1));
                clock.advance(Duration::from_millis(1));
            }
        }
    }

    #[test]
    fn tokens_taken_during_an_exchange_are_not_lost() {
        let mut replicas = Replicas::new(1, 1, 10);
        assert!(replicas.take(0));
        let buckets = &replicas.buckets[0];
        let reports = buckets.take_reports(&buckets.take_active());
        assert_eq!(reports, [Report { scope: replicas.scope, tokens: 1 }]);
        assert!(replicas.take(0));
        // Others have taken 4 tokens.
        buckets.fill_later(replicas.scope, buckets.now() + Duration::from_secs(5));
        assert_eq!([(); 5].map(|()| replicas.take(0)), [true, true, true, true, false]);
        assert!(replicas.activity[0].try_recv().is_ok());
        assert_eq!(buckets.take_reports(&buckets.take_active())[0].tokens, 5);
        assert_eq!(buckets.take_active(), []);
    }

    #[test]
    fn a_bucket_with_tokens_to_report_is_not_dropped() {
        let replicas = Replicas::new(1, 1000, 10);
        assert!(replicas.take(0));
        replicas.clock.advance(Duration::from_secs(1));
        let buckets = &replicas.buckets[0];
        buckets.limiter.retain_recent();
        assert_eq!(buckets.take_reports(&buckets.take_active()).len(), 1);
        buckets.limiter.retain_recent();
        assert_eq!(buckets.limiter.len(), 0);
    }

    #[test]
    fn a_corrupt_bucket_in_redis_does_not_overflow() {
        let replicas = Replicas::new(1, 1, 10);
        let buckets = &replicas.buckets[0];
        assert!(replicas.take(0));
        buckets.fill_later(replicas.scope, buckets.now() + MAX_DEBT);
        assert!(!replicas.take(0));
    }
}
