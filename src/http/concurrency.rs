//! Concurrency limits of WebSockets, event streams and operations. Operations wait briefly in an admission queue, which
//! is fair between callers. Load shedding: operations beyond it get `OVERLOADED`.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::{
    caller::{Caller, Scope},
    config::limits::Limits,
    error::{
        ApiError,
        limit::{Limit, LimitExceeded},
        limit_errors::SERVER_OVERLOADED,
    },
    fair_queue::{self, FairQueue, ledger::Bounds},
    metrics::{ActiveGauge, metrics},
};

/// A slot of a concurrency limit, freed when it is dropped. Callers without a valid credential share one key.
pub(crate) type Permit = fair_queue::Permit<Option<Scope>>;

/// A concurrency limit without a queue.
#[derive(Debug)]
pub struct ConcurrencyLimit {
    queue: FairQueue<Option<Scope>>,
    maximum: usize,
    limit: Limit,
}

impl ConcurrencyLimit {
    /// A limit of `maximum` for all callers together. `limit` is its name in errors, and `level` its gauge.
    pub fn new(maximum: usize, limit: Limit, level: ActiveGauge) -> Self {
        let bounds = Bounds { running: maximum, waiting: 0, caller_share: 100 };
        Self { queue: FairQueue::new(bounds, level, ActiveGauge::default()), maximum, limit }
    }

    /// Returns a permit, if one is free.
    ///
    /// # Errors
    /// `OVERLOADED` otherwise.
    pub(crate) fn admit(&self) -> Result<Permit, ApiError> {
        self.queue.enter(None).and_then(|entry| entry.try_permit()).ok_or_else(|| self.overloaded())
    }

    fn overloaded(&self) -> ApiError {
        LimitExceeded::overloaded(self.limit, self.maximum, SERVER_OVERLOADED)
    }
}

/// The concurrency limit of operations, with a short fair queue. Each caller may use a share of both.
#[derive(Debug)]
pub struct AdmissionQueue {
    limit: ConcurrencyLimit,
    max_wait: Duration,
}

impl AdmissionQueue {
    /// Bounded by `limits.operations`, `limits.operations_waiting`, `limits.caller_share` and `limits.operations_wait`.
    pub fn new(limits: &Limits) -> Self {
        let bounds = Bounds {
            running: limits.operations,
            waiting: limits.operations_waiting,
            caller_share: limits.caller_share,
        };
        let (running, waiting) =
            (metrics().operations_in_flight.clone(), metrics().operations_waiting.clone());
        let queue = FairQueue::new(bounds, running, waiting);
        let limit = ConcurrencyLimit { queue, maximum: limits.operations, limit: Limit::Operations };
        Self { limit, max_wait: limits.operations_wait }
    }

    /// Returns a permit for one operation of `caller`, after a short wait if necessary. Waiting callers take turns.
    ///
    /// # Errors
    /// `OVERLOADED`, if the queue or the caller's share of it is full, after `limits.operations_wait`, or at the `deadline`.
    pub(crate) async fn admit(
        &self,
        caller: &Result<Caller, ApiError>,
        deadline: Instant,
    ) -> Result<Permit, ApiError> {
        let overloaded = || self.limit.overloaded();
        let caller = caller.as_ref().ok().map(Caller::identity);
        let entry = self.limit.queue.enter(caller).ok_or_else(overloaded)?;
        match entry.try_permit() {
            Some(permit) => Ok(permit),
            None => {
                let end = deadline.min(Instant::now() + self.max_wait);
                timeout_at(end, entry.permit()).await.map_err(|_| overloaded())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{caller::ScopeKey, config::Config, error::code::ErrorCode};

    #[tokio::test]
    async fn callers_without_a_valid_credential_share_one_key() {
        let limits = Limits { operations: 8, operations_waiting: 0, ..Config::default().limits };
        let queue = AdmissionQueue::new(&limits);
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut permits = Vec::new();
        for reason in ["no token", "malformed", "expired", "unknown"] {
            permits
                .push(queue.admit(&Err(ApiError::Unauthenticated(reason.into())), deadline).await.unwrap());
        }
        let refused = queue.admit(&Err(ApiError::Internal), deadline).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::Overloaded);
        let caller = Ok(Caller::with_token("known", &ScopeKey::random()));
        assert!(queue.admit(&caller, deadline).await.is_ok());
        drop(permits);
        assert!(queue.admit(&Err(ApiError::Internal), deadline).await.is_ok());
    }
}
