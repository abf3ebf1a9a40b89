//! Rate limiting: a token bucket per caller (`rate_limit.*`).
//!
//! Buckets belong to callers, not to client addresses: behind a proxy all clients share the proxy's address, and
//! forwarded addresses can be forged. Requests without a valid token share one bucket, since they never reach the
//! upstream. If that bucket is empty, a request with an invalid token still gets the reason for its rejection: a client
//! that is only told to retry later would never learn that its token has expired.

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
    auth::bearer::BearerToken,
    caller::{Caller, Scope},
    config::rate_limit::RateLimitConfig,
    error::{
        ApiError,
        code::ErrorCode,
        limit::{Limit, LimitExceeded},
    },
};

/// The minimum time between two sweeps for full buckets.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The rate limit of operations.
pub struct RateLimit(Option<Buckets<DefaultClock>>);

impl RateLimit {
    /// A rate limit as configured, or none.
    pub fn new(config: &RateLimitConfig) -> Self {
        Self(Buckets::new(config, DefaultClock::default()))
    }

    /// Takes a token from the bucket of `caller`. `token` is the credential that identifies the caller.
    ///
    /// # Errors
    /// `RATE_LIMITED` with the time until the next token, or the reason why the credential was rejected. `OVERLOADED`,
    /// if the credential could not be verified under load.
    pub(crate) fn admit(
        &self,
        caller: &Result<Caller, ApiError>,
        token: &Result<Option<BearerToken>, ApiError>,
    ) -> Result<(), ApiError> {
        if let Err(error) = caller
            && error.code() == ErrorCode::Overloaded
        {
            return Err(error.clone());
        }
        let Some(buckets) = &self.0 else { return Ok(()) };
        let taken = buckets.take(scope_of(caller));
        taken.map_err(|wait| buckets.rejection(wait, caller, token))
    }

    /// Admits an array of `operations`, for the first of which [`Self::admit`] has already taken a token. Takes the
    /// remaining tokens, or none.
    ///
    /// # Errors
    /// As [`Self::admit`], with the time until the whole array is admitted. `BAD_REQUEST` if it exceeds
    /// `rate_limit.burst`.
    pub(crate) fn admit_array(
        &self,
        operations: usize,
        caller: &Result<Caller, ApiError>,
        token: &Result<Option<BearerToken>, ApiError>,
    ) -> Result<(), ApiError> {
        let Some(buckets) = &self.0 else { return Ok(()) };
        let burst = buckets.burst.get();
        let operations = u32::try_from(operations).unwrap_or(u32::MAX);
        if operations > burst {
            let message = format!(
                "Array has {operations} operations, which exceeds the {burst} operations that a caller may send at \
                 once (rate_limit.burst). Send smaller arrays."
            );
            let limit = Limit::RequestRate;
            return Err(LimitExceeded::bad_request(
                limit,
                Some(burst.into()),
                Some(operations.into()),
                message,
            ));
        }
        let Some(further) = NonZeroU32::new(operations.saturating_sub(1)) else { return Ok(()) };
        let taken = buckets.take_many(scope_of(caller), further);
        taken.map_err(|wait| buckets.rejection(wait, caller, token))
    }
}

/// The owner of the token bucket for requests of `caller`. Requests without a valid token share one bucket.
fn scope_of(caller: &Result<Caller, ApiError>) -> Option<Scope> {
    caller.as_ref().ok().map(Caller::identity)
}

struct Buckets<C: Clock> {
    limiter: RateLimiter<Option<Scope>, BucketStore, C, NoOpMiddleware<C::Instant>>,
    clock: C,
    per_second: NonZeroU32,
    burst: NonZeroU32,
    max_buckets: usize,
    last_sweep: Mutex<Option<Instant>>,
}

impl<C: Clock + Clone> Buckets<C> {
    /// None if rate limiting is disabled.
    fn new(config: &RateLimitConfig, clock: C) -> Option<Self> {
        let per_second = NonZeroU32::new(config.per_second)?;
        let burst = NonZeroU32::new(config.burst)?;
        let quota = Quota::per_second(per_second).allow_burst(burst);
        let max_buckets = config.max_callers;
        let store = BucketStore { by_scope: Mutex::default(), shared: InMemoryState::default(), max_buckets };
        let limiter = RateLimiter::new(quota, store, clock.clone());
        Some(Self { limiter, clock, per_second, burst, max_buckets, last_sweep: Mutex::new(None) })
    }

    /// Takes a token from the bucket of `scope`, or returns the time until there is one.
    fn take(&self, scope: Option<Scope>) -> Result<(), Duration> {
        self.sweep();
        self.limiter.check_key(&scope).map_err(|until| until.wait_time_from(self.clock.now()))
    }

    /// Takes `count` tokens or none.
    ///
    /// # Errors
    /// The time until there are `count + 1` tokens: [`RateLimit::admit`] takes one of a repeated request first.
    fn take_many(&self, scope: Option<Scope>, count: NonZeroU32) -> Result<(), Duration> {
        let one_more = Duration::from_secs(1) / self.per_second.get();
        match self.limiter.check_key_n(&scope, count) {
            Ok(taken) => taken.map_err(|until| until.wait_time_from(self.clock.now()) + one_more),
            // The caller has checked the burst.
            Err(_) => Err(one_more),
        }
    }

    /// The error of a request that would be admitted after `wait`.
    fn rejection(
        &self,
        wait: Duration,
        caller: &Result<Caller, ApiError>,
        token: &Result<Option<BearerToken>, ApiError>,
    ) -> ApiError {
        match caller {
            Err(rejected) if !matches!(token, Ok(None)) => rejected.clone(),
            _ => LimitExceeded::rate_limited(Limit::RequestRate, self.per_second.get().into(), wait),
        }
    }

    /// At the maximum number of buckets, drops the full ones: a new bucket is full as well.
    fn sweep(&self) {
        if self.limiter.len() < self.max_buckets {
            return;
        }
        let mut last_sweep = lock(&self.last_sweep);
        if last_sweep.is_none_or(|last| last.elapsed() >= SWEEP_INTERVAL) {
            *last_sweep = Some(Instant::now());
            self.limiter.retain_recent();
        }
    }
}

/// The states of all buckets.
struct BucketStore {
    by_scope: Mutex<HashMap<Scope, InMemoryState>>,
    /// The bucket shared by requests without a valid token, and by callers beyond `max_buckets`.
    shared: InMemoryState,
    max_buckets: usize,
}

impl StateStore for BucketStore {
    type Key = Option<Scope>;

    fn measure_and_replace<T, F, E>(&self, scope: &Option<Scope>, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        if let Some(scope) = scope {
            let mut buckets = lock(&self.by_scope);
            if buckets.len() < self.max_buckets || buckets.contains_key(scope) {
                return buckets.entry(*scope).or_default().measure_and_replace(&NotKeyed::NonKey, decide);
            }
        }
        self.shared.measure_and_replace(&NotKeyed::NonKey, decide)
    }
}

impl ShrinkableKeyedStateStore<Option<Scope>> for BucketStore {
    fn retain_recent(&self, drop_below: Nanos) {
        let is_recent = |state: &InMemoryState| {
            // Returning the state as an error leaves it unchanged.
            let read = |at: Option<Nanos>| Err::<((), Nanos), _>(at);
            let at = state.measure_and_replace(&NotKeyed::NonKey, read);
            matches!(at, Err(Some(at)) if at > drop_below)
        };
        lock(&self.by_scope).retain(|_, state| is_recent(state));
    }

    fn shrink_to_fit(&self) {
        lock(&self.by_scope).shrink_to_fit();
    }

    fn len(&self) -> usize {
        lock(&self.by_scope).len()
    }

    fn is_empty(&self) -> bool {
        lock(&self.by_scope).is_empty()
    }
}

/// Ignores poisoning: no panic can leave these maps inconsistent.
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
        let config = RateLimitConfig { per_second: 0, burst: 1, max_callers: 1 };
        assert!(Buckets::new(&config, DefaultClock::default()).is_none());
    }
}
