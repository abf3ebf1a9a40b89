//! How often each caller may ask: a token bucket for each (`rate_limit.*`).
//!
//! A bucket belongs to who asks, not to an address: behind a proxy that is the proxy's, and what a proxy says of
//! addresses can be made up. Requests without a valid token share one bucket, since nothing is fetched for them. Those of
//! them that bring a token are told what is wrong with it, also when the bucket is empty: a client that is told only to
//! come later never learns that its token has expired.

use std::{
    collections::HashMap,
    fmt,
    num::NonZeroU32,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed, StateStore, keyed::ShrinkableKeyedStateStore},
};

use crate::{
    auth::bearer::Token,
    caller::{Caller, Scope},
    config::rate_limit::RateLimitConfig,
    error::{
        ApiError,
        code::ErrorCode,
        limit::{Limit, LimitExceeded},
    },
};

/// How often at most all buckets are looked through for those that are full again.
const SWEEP: Duration = Duration::from_secs(1);

/// Counts what callers ask for.
pub struct RateLimit(Option<Buckets<DefaultClock>>);

impl RateLimit {
    /// As `config` says.
    pub fn new(config: &RateLimitConfig) -> Self {
        Self(Buckets::new(config, DefaultClock::default()))
    }

    /// Counts one operation of `caller`, which is whom `token` stands for.
    ///
    /// # Errors
    /// `RATE_LIMITED`, with how long it is until there is one more; where there is a token that stands for nobody, the
    /// reason for that instead. `OVERLOADED` where there are too many tokens to verify.
    pub(crate) fn admit(
        &self,
        caller: &Result<Caller, ApiError>,
        token: &Result<Option<Token>, ApiError>,
    ) -> Result<(), ApiError> {
        if let Err(error) = caller
            && error.code() == ErrorCode::Overloaded
        {
            return Err(error.clone());
        }
        let Some(buckets) = &self.0 else { return Ok(()) };
        let who = caller.as_ref().ok().map(Caller::who);
        buckets.take(who).map_err(|wait| match caller {
            Err(rejected) if !matches!(token, Ok(None)) => rejected.clone(),
            _ => LimitExceeded::rate_limited(Limit::RequestRate, buckets.per_second.get().into(), wait),
        })
    }
}

struct Buckets<C: Clock> {
    limiter: RateLimiter<Option<Scope>, Store, C, NoOpMiddleware<C::Instant>>,
    clock: C,
    per_second: NonZeroU32,
    most: usize,
    swept: Mutex<Option<Instant>>,
}

impl<C: Clock + Clone> Buckets<C> {
    /// None where there is no limit.
    fn new(config: &RateLimitConfig, clock: C) -> Option<Self> {
        let per_second = NonZeroU32::new(config.per_second)?;
        let quota = Quota::per_second(per_second).allow_burst(NonZeroU32::new(config.burst)?);
        let most = config.max_callers;
        let store = Store { of: Mutex::default(), shared: InMemoryState::default(), most };
        let limiter = RateLimiter::new(quota, store, clock.clone());
        Some(Self { limiter, clock, per_second, most, swept: Mutex::new(None) })
    }

    /// Takes one out of the bucket of `who`, or else says how long it is until there is one.
    fn take(&self, who: Option<Scope>) -> Result<(), Duration> {
        self.sweep();
        self.limiter.check_key(&who).map_err(|until| until.wait_time_from(self.clock.now()))
    }

    /// Where there are as many buckets as there may be, does away with those that are full: they say nothing.
    fn sweep(&self) {
        if self.limiter.len() < self.most {
            return;
        }
        let mut swept = lock(&self.swept);
        if swept.is_none_or(|swept| swept.elapsed() >= SWEEP) {
            *swept = Some(Instant::now());
            self.limiter.retain_recent();
        }
    }
}

/// The state of every bucket.
struct Store {
    of: Mutex<HashMap<Scope, InMemoryState>>,
    /// Of those who are nobody, and of those who come when there is no room for a bucket more.
    shared: InMemoryState,
    most: usize,
}

impl StateStore for Store {
    type Key = Option<Scope>;

    fn measure_and_replace<T, F, E>(&self, who: &Option<Scope>, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        if let Some(who) = who {
            let mut of = lock(&self.of);
            if of.len() < self.most || of.contains_key(who) {
                return of.entry(*who).or_default().measure_and_replace(&NotKeyed::NonKey, decide);
            }
        }
        self.shared.measure_and_replace(&NotKeyed::NonKey, decide)
    }
}

impl ShrinkableKeyedStateStore<Option<Scope>> for Store {
    fn retain_recent(&self, drop_below: Nanos) {
        let is_recent = |state: &InMemoryState| {
            // An error leaves the state as it is.
            let look = |at: Option<Nanos>| Err::<((), Nanos), _>(at);
            let at = state.measure_and_replace(&NotKeyed::NonKey, look);
            matches!(at, Err(Some(at)) if at > drop_below)
        };
        lock(&self.of).retain(|_, state| is_recent(state));
    }

    fn shrink_to_fit(&self) {
        lock(&self.of).shrink_to_fit();
    }

    fn len(&self) -> usize {
        lock(&self.of).len()
    }

    fn is_empty(&self) -> bool {
        lock(&self.of).is_empty()
    }
}

/// What is behind the locks here is whole at any moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;
    use crate::caller::ScopeKey;

    fn buckets(
        per_second: u32,
        burst: u32,
        max_callers: usize,
    ) -> (Buckets<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        let config = RateLimitConfig { per_second, burst, max_callers };
        (Buckets::new(&config, clock.clone()).unwrap(), clock)
    }

    fn scope(token: &str, key: &ScopeKey) -> Option<Scope> {
        Some(Caller::with_token(token, key).who())
    }

    #[test]
    fn a_burst_is_let_through_and_then_so_many_a_second() {
        let (key, (buckets, clock)) = (ScopeKey::random(), buckets(2, 3, 10));
        let (one, other) = (scope("a", &key), scope("b", &key));
        for scope in [one, other, None] {
            assert_eq!([(); 3].map(|()| buckets.take(scope)), [Ok(()); 3], "each has its own");
            assert_eq!(buckets.take(scope), Err(Duration::from_millis(500)));
        }
        clock.advance(Duration::from_millis(499));
        assert_eq!(buckets.take(one), Err(Duration::from_millis(1)));
        clock.advance(Duration::from_millis(1));
        assert_eq!(buckets.take(one), Ok(()));
        assert!(buckets.take(one).is_err());
        clock.advance(Duration::from_secs(60));
        assert_eq!([(); 3].map(|()| buckets.take(one)), [Ok(()); 3], "no more than a burst is saved up");
        assert!(buckets.take(one).is_err());
    }

    #[test]
    fn there_are_no_more_buckets_than_there_may_be_and_full_ones_make_room() {
        let (key, (buckets, clock)) = (ScopeKey::random(), buckets(1, 1, 2));
        let scopes = ["a", "b", "c", "d"].map(|token| scope(token, &key));
        assert_eq!(scopes.map(|scope| buckets.take(scope).is_ok()), [true, true, true, false]);
        assert_eq!(buckets.limiter.len(), 2);
        assert!(buckets.take(None).is_err(), "the third has taken what those without a credential share");
        clock.advance(Duration::from_secs(3));
        *lock(&buckets.swept) = None;
        assert_eq!([scopes[2], scopes[3], None].map(|scope| buckets.take(scope)), [Ok(()); 3]);
        assert_eq!(buckets.limiter.len(), 2);
    }

    #[test]
    fn without_a_rate_there_is_no_limit() {
        let config = RateLimitConfig { per_second: 0, burst: 1, max_callers: 1 };
        assert!(Buckets::new(&config, DefaultClock::default()).is_none());
    }
}
