//! Rate limiting: a token bucket per caller (`rate_limit.*`).
//!
//! Buckets belong to callers, not to client addresses: behind a proxy all clients share the proxy's address, and
//! forwarded addresses can be forged. Requests without a valid token share one bucket, since they never reach the
//! upstream. If that bucket is empty, a request with an invalid token still gets the reason for its rejection: a client
//! that is only told to retry later would never learn that its token has expired.

mod buckets;
mod exchange;

use std::{fmt, num::NonZeroU32, sync::Arc, time::Duration};

use governor::clock::DefaultClock;
use tokio::sync::mpsc;

use self::buckets::Buckets;
use crate::{
    auth::bearer::BearerToken,
    caller::{Caller, Scope},
    config::rate_limit::RateLimitConfig,
    error::{
        ApiError,
        code::ErrorCode,
        limit::{Limit, LimitExceeded},
    },
    fleet::Fleet,
};

/// The rate limit of operations.
pub struct RateLimit(Option<Arc<Buckets<DefaultClock>>>);

impl RateLimit {
    /// A rate limit as configured, or none. The replicas of a `fleet` have one together.
    pub fn new(config: &RateLimitConfig, fleet: &Fleet) -> Self {
        let (activity, messages) = mpsc::channel(1);
        let activity = fleet.is_configured().then_some(activity);
        let is_shared = activity.is_some();
        let buckets = Buckets::new(config, DefaultClock::default(), activity).map(Arc::new);
        if let Some(buckets) = buckets.as_ref().filter(|_| is_shared) {
            tokio::spawn(exchange::run(Arc::downgrade(buckets), messages, fleet.clone()));
        }
        Self(buckets)
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
        taken.map_err(|wait| rejection(buckets, wait, caller, token))
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
        taken.map_err(|wait| rejection(buckets, wait, caller, token))
    }
}

/// The owner of the token bucket for requests of `caller`. Requests without a valid token share one bucket.
fn scope_of(caller: &Result<Caller, ApiError>) -> Option<Scope> {
    caller.as_ref().ok().map(Caller::identity)
}

/// The error of a request that would be admitted after `wait`.
fn rejection(
    buckets: &Buckets<DefaultClock>,
    wait: Duration,
    caller: &Result<Caller, ApiError>,
    token: &Result<Option<BearerToken>, ApiError>,
) -> ApiError {
    match caller {
        Err(rejected) if !matches!(token, Ok(None)) => rejected.clone(),
        _ => LimitExceeded::rate_limited(Limit::RequestRate, buckets.per_second.get().into(), wait),
    }
}

impl fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit").finish_non_exhaustive()
    }
}
