//! How often each caller may ask: a token bucket for each scope (`rate_limit.*`).
//!
//! A bucket belongs to a credential, not to an address: behind a proxy that is the proxy's, and what a proxy says of
//! addresses can be made up. Those without a credential share one bucket, since nothing is fetched for them.

use std::{
    collections::HashMap,
    fmt,
    num::NonZeroU32,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
    nanos::Nanos,
    state::{InMemoryState, NotKeyed, StateStore, keyed::ShrinkableKeyedStateStore},
};

use crate::{
    caller::{Caller, Scope},
    config::RateLimitConfig,
    graphql::{error::ApiError, limit::OverLimit},
};

/// How often at most all buckets are looked through for those that are full again.
const SWEEP: Duration = Duration::from_secs(1);

/// Counts what callers ask for.
pub struct RateLimit(Option<Buckets>);

struct Buckets {
    limiter: RateLimiter<Option<Scope>, Store, DefaultClock>,
    per_second: u32,
    most: usize,
    swept: Mutex<Option<Instant>>,
}

impl RateLimit {
    /// As `config` says.
    pub fn new(config: &RateLimitConfig) -> Self {
        let rate = NonZeroU32::new(config.per_second).zip(NonZeroU32::new(config.burst));
        Self(rate.map(|(per_second, burst)| {
            let quota = Quota::per_second(per_second).allow_burst(burst);
            let store =
                Store { of: Mutex::default(), shared: InMemoryState::default(), most: config.max_callers };
            Buckets {
                limiter: RateLimiter::new(quota, store, DefaultClock::default()),
                per_second: config.per_second,
                most: config.max_callers,
                swept: Mutex::new(None),
            }
        }))
    }

    /// Counts one operation of `caller`.
    ///
    /// # Errors
    /// `RATE_LIMITED`, with how long it is until there is one more.
    pub(super) fn admit(&self, caller: &Result<Caller, ApiError>) -> Result<(), ApiError> {
        let Some(buckets) = &self.0 else { return Ok(()) };
        let scope = caller.as_ref().ok().map(Caller::scope);
        buckets.sweep();
        buckets.limiter.check_key(&scope).map_err(|until| {
            let wait = until.wait_time_from(DefaultClock::default().now());
            // Who is told to come back at once would.
            let wait = wait.max(Duration::from_millis(1));
            OverLimit::too_often("rate_limit.per_second", self.per_second(), wait)
        })
    }

    fn per_second(&self) -> u64 {
        self.0.as_ref().map_or(0, |buckets| buckets.per_second.into())
    }
}

impl Buckets {
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
    /// Of those without a credential, and of those who come when there is no room for a bucket more.
    shared: InMemoryState,
    most: usize,
}

impl StateStore for Store {
    type Key = Option<Scope>;

    fn measure_and_replace<T, F, E>(&self, scope: &Option<Scope>, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        if let Some(scope) = scope {
            let mut of = lock(&self.of);
            if of.len() < self.most || of.contains_key(scope) {
                return of.entry(*scope).or_default().measure_and_replace(&NotKeyed::NonKey, decide);
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
        f.debug_struct("RateLimit").field("per_second", &self.per_second()).finish_non_exhaustive()
    }
}
