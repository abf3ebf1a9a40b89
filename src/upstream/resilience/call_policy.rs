//! The call policy: concurrency limit with fair queuing, circuit breaker, retries and hedging.
//!
//! A call holds a slot in the [`FairQueue`] from its beginning to its end, and a permit during each attempt. A change
//! is a single attempt. A read that fails transiently is retried up to `upstream.retries` times: after a random backoff
//! and no sooner than `Retry-After` permits, before the last waiter's [`Deadline`], and within the [`RetryBudget`] of
//! all calls.

use std::{
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::{Either, select};
use tokio::time::{Instant, sleep, timeout};

use super::{
    breaker::{Admission, BreakerState, CircuitBreaker},
    hedging::LatencyHistogram,
    retry_after::RetryAfterPauses,
    retry_budget::RetryBudget,
};
use crate::{
    caller::{Caller, Scope},
    config::upstream::UpstreamConfig,
    error::limit::Limit,
    fair_queue::{Entry, FairQueue, Permit, ledger::Bounds},
    metrics::metrics,
    upstream::{
        deadline::Deadline,
        error::UpstreamError,
        outcome::{CallOutcome, Health},
        response::UpstreamResponse,
    },
};

/// The maximum backoff before the first retry. It doubles with each further retry.
const BASE_BACKOFF: Duration = Duration::from_millis(50);

/// The maximum backoff before any retry.
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// The initial allowance of the retry budget.
const INITIAL_RETRIES: u32 = 10;

/// The initial allowance of the hedge budget.
const INITIAL_HEDGES: u32 = 1;

/// A group of calls that tend to fail together. Each route has its own circuit breaker and latency histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// `GET …/appointments/{id}`
    Appointment,
    /// `GET …/appointments`
    List,
    /// Every change.
    Change,
}

impl Route {
    const ALL: [Self; 3] = [Self::Appointment, Self::List, Self::Change];

    /// The value of a metric label and of a log field.
    fn label(self) -> &'static str {
        match self {
            Self::Appointment => "appointment",
            Self::List => "list",
            Self::Change => "change",
        }
    }
}

/// The state of the call policy, shared by all calls. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct CallPolicy(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    retries: u32,
    retry_budget: RetryBudget,
    hedge_budget: RetryBudget,
    is_hedging_enabled: bool,
    queue: FairQueue<Scope>,
    pauses: RetryAfterPauses,
    /// By route.
    breakers: [Mutex<CircuitBreaker>; 3],
    latencies: [Mutex<LatencyHistogram>; 3],
}

/// Permission for one attempt. Released on drop.
#[derive(Debug)]
pub struct CallPermit {
    policy: CallPolicy,
    route: Route,
    /// The identity that the upstream's rate limit applies to.
    upstream_identity: Option<Scope>,
    /// `None` once the outcome is recorded.
    admission: Option<Admission>,
    began: Instant,
    _permit: Permit<Scope>,
}

impl CallPolicy {
    pub(crate) fn new(config: &UpstreamConfig) -> Self {
        let breaker = || CircuitBreaker::new(config.breaker, Instant::now(), fastrand::Rng::new());
        let bounds = Bounds {
            running: config.max_concurrent,
            waiting: config.max_waiting,
            caller_share: config.caller_share,
        };
        let (running, waiting) = (metrics().upstream_under_way.clone(), metrics().upstream_waiting.clone());
        Self(Arc::new(Inner {
            retries: config.retries,
            retry_budget: RetryBudget::new(config.retry_percent, INITIAL_RETRIES),
            hedge_budget: RetryBudget::new(config.hedge_percent, INITIAL_HEDGES),
            is_hedging_enabled: config.hedge_percent > 0,
            queue: FairQueue::new(bounds, running, waiting),
            pauses: RetryAfterPauses::new(config.max_paused),
            breakers: Route::ALL.map(|_| Mutex::new(breaker())),
            latencies: Route::ALL.map(|_| Mutex::new(LatencyHistogram::new())),
        }))
    }

    /// Makes a read: calls `send` for each attempt.
    ///
    /// # Errors
    /// The error of the last attempt. Without an attempt: [`UpstreamError::Overloaded`],
    /// [`UpstreamError::BreakerOpen`], or [`UpstreamError::RateLimited`] during a pause for `Retry-After`.
    pub(crate) async fn read<T, F>(
        &self,
        route: Route,
        caller: &Caller,
        deadline: &Deadline,
        send: impl Fn() -> F,
    ) -> Result<T, UpstreamError>
    where
        T: UpstreamResponse,
        F: Future<Output = Result<T, UpstreamError>>,
    {
        self.check(route)?;
        let entry = self.enter(caller)?;
        self.0.retry_budget.earn();
        self.0.hedge_budget.earn();
        let mut retries = 0;
        loop {
            let error = match self.attempt(route, caller, &entry, deadline, &send).await {
                Err(error) => error,
                response => return response,
            };
            let Some(delay) = self.retry_delay(&error, retries, deadline) else { return Err(error) };
            tracing::debug!(
                route = route.label(),
                %error,
                delay_ms = delay.as_millis() as u64,
                "upstream call scheduled for retry"
            );
            sleep(delay).await;
            retries += 1;
        }
    }

    /// Waits for the permit of a change. A change has one attempt, and no attempt is made only to probe the breaker.
    ///
    /// # Errors
    /// [`UpstreamError::Overloaded`], [`UpstreamError::BreakerOpen`]: nothing was sent.
    pub(crate) async fn change_permit(&self, caller: &Caller) -> Result<CallPermit, UpstreamError> {
        self.check(Route::Change)?;
        let entry = self.enter(caller)?;
        let permit = entry.permit().await;
        self.admit(Route::Change, caller, permit)
    }

    /// Makes one attempt. If it is slower than the route's p95, a second attempt runs in parallel (hedging).
    async fn attempt<T, F>(
        &self,
        route: Route,
        caller: &Caller,
        entry: &Arc<Entry<Scope>>,
        deadline: &Deadline,
        send: &impl Fn() -> F,
    ) -> Result<T, UpstreamError>
    where
        T: UpstreamResponse,
        F: Future<Output = Result<T, UpstreamError>>,
    {
        let permit = self.read_permit(route, caller, entry, deadline).await?;
        let began = permit.began;
        let mut first = pin!(permit.execute(send()));
        let Some(delay) = self.hedge_delay(route, deadline) else { return first.await };
        if let Ok(result) = timeout(delay, &mut first).await {
            return result;
        }
        let Some(permit) = self.hedge_permit(route, caller) else { return first.await };
        metrics().upstream_hedges.count("sent");
        // Neither a transient error nor a local lack of resources decides over the other attempt.
        let is_inconclusive =
            |error: &UpstreamError| error.is_transient() || matches!(error, UpstreamError::Exhausted { .. });
        let is_conclusive = |result: &Result<T, UpstreamError>| !result.as_ref().is_err_and(is_inconclusive);
        match select(first, pin!(permit.execute(send()))).await {
            Either::Left((result, second)) => {
                if is_conclusive(&result) {
                    return result;
                }
                let result = second.await;
                if is_conclusive(&result) {
                    metrics().upstream_hedges.count("won");
                }
                result
            }
            Either::Right((result, first)) => {
                if !is_conclusive(&result) {
                    return first.await;
                }
                metrics().upstream_hedges.count("won");
                // A lower bound of the abandoned attempt's duration. Without it, each abandoned slow call would lower
                // the p95.
                self.record_latency(route, began.elapsed());
                result
            }
        }
    }

    /// Takes a slot in the queue for a call.
    fn enter(&self, caller: &Caller) -> Result<Arc<Entry<Scope>>, UpstreamError> {
        let full = UpstreamError::Overloaded { limit: Limit::UpstreamQueue };
        self.0.queue.enter(caller.identity()).ok_or(full)
    }

    /// Waits out the caller's pause and then for a permit. Both the breaker and the pause are checked again afterwards:
    /// either may have changed while the call was queued.
    async fn read_permit(
        &self,
        route: Route,
        caller: &Caller,
        entry: &Arc<Entry<Scope>>,
        deadline: &Deadline,
    ) -> Result<CallPermit, UpstreamError> {
        loop {
            self.0.pauses.wait(caller.upstream_identity(), deadline).await?;
            self.check(route)?;
            let permit = entry.permit().await;
            if !self.is_paused(caller) {
                return self.admit(route, caller, permit);
            }
        }
    }

    /// Whether a pause for `Retry-After` applies to `caller`.
    fn is_paused(&self, caller: &Caller) -> bool {
        self.0.pauses.remaining(caller.upstream_identity(), Instant::now()).is_some()
    }

    /// Takes a permit for a hedged attempt. It does not wait, is not sent during a pause, and never probes a breaker.
    fn hedge_permit(&self, route: Route, caller: &Caller) -> Option<CallPermit> {
        if self.is_paused(caller) {
            return None;
        }
        let permit = self.0.queue.enter(caller.identity())?.try_permit()?;
        let is_closed = self.with_breaker(route, |breaker, _| breaker.state()) == BreakerState::Closed;
        (is_closed && self.0.hedge_budget.spend()).then(|| self.admit(route, caller, permit).ok())?
    }

    fn admit(
        &self,
        route: Route,
        caller: &Caller,
        permit: Permit<Scope>,
    ) -> Result<CallPermit, UpstreamError> {
        let admission =
            self.with_breaker(route, CircuitBreaker::admit).map_err(|wait| breaker_rejection(route, wait))?;
        Ok(CallPermit {
            policy: self.clone(),
            route,
            upstream_identity: caller.upstream_identity(),
            admission: Some(admission),
            began: Instant::now(),
            _permit: permit,
        })
    }

    /// Fails at once if the breaker would reject the call after its wait.
    fn check(&self, route: Route) -> Result<(), UpstreamError> {
        self.with_breaker(route, |breaker, now| breaker.check(now))
            .map_err(|wait| breaker_rejection(route, wait))
    }

    /// Runs `act` on the breaker of `route`, and reports a change of its state.
    fn with_breaker<T>(&self, route: Route, act: impl FnOnce(&mut CircuitBreaker, Instant) -> T) -> T {
        let mut breaker = self.0.breakers[route as usize].lock().unwrap_or_else(PoisonError::into_inner);
        let before = breaker.state();
        let result = act(&mut breaker, Instant::now());
        let after = breaker.state();
        if after != before {
            let (route, state) = (route.label(), after.label());
            metrics().upstream_breaker.set(route, after as i64);
            metrics().upstream_breaker_turns.count(state);
            match after {
                BreakerState::Open => tracing::warn!(route, state, "circuit breaker opened"),
                BreakerState::HalfOpen => tracing::info!(route, state, "circuit breaker half-opened"),
                BreakerState::Closed => tracing::info!(route, state, "circuit breaker closed"),
            }
        }
        result
    }

    /// The delay before the next retry; `None` if the call is not retried.
    fn retry_delay(&self, error: &UpstreamError, retries: u32, deadline: &Deadline) -> Option<Duration> {
        if retries >= self.0.retries || !error.is_transient() {
            return None;
        }
        // `Retry-After` is a minimum. The backoff spreads the retries of concurrent calls.
        let delay = error.retry_after().unwrap_or_default() + backoff(retries);
        if !deadline.outlasts(delay) {
            return None;
        }
        if !self.0.retry_budget.spend() {
            metrics().upstream_retries_withheld.inc();
            return None;
        }
        metrics().upstream_retries.count(error.outcome().label());
        Some(delay)
    }

    /// The delay before a hedged attempt, which is the route's p95; `None` if the call is not hedged.
    fn hedge_delay(&self, route: Route, deadline: &Deadline) -> Option<Duration> {
        if !self.0.is_hedging_enabled || !deadline.outlasts(Duration::ZERO) {
            return None;
        }
        self.0.latencies[route as usize].lock().unwrap_or_else(PoisonError::into_inner).p95()
    }

    fn record_latency(&self, route: Route, duration: Duration) {
        let mut latency = self.0.latencies[route as usize].lock().unwrap_or_else(PoisonError::into_inner);
        latency.record(duration);
    }
}

impl CallPermit {
    /// Runs one attempt and records its outcome. `send` completes within `upstream.timeout`.
    pub(crate) async fn execute<T: UpstreamResponse>(
        self,
        send: impl Future<Output = Result<T, UpstreamError>>,
    ) -> Result<T, UpstreamError> {
        let result = send.await;
        // The pause starts even if the other attempt of a hedged call succeeds.
        if let Err(UpstreamError::RateLimited { retry_after: Some(wait) }) = result {
            self.policy.0.pauses.begin(self.upstream_identity, wait, Instant::now());
        }
        self.finish(result.as_ref().map_or_else(UpstreamError::outcome, T::outcome));
        result
    }

    fn finish(mut self, outcome: CallOutcome) {
        let duration = self.began.elapsed();
        metrics().upstream_call_duration.observe(duration.as_secs_f64());
        if outcome.health() == Health::Healthy {
            self.policy.record_latency(self.route, duration);
        }
        self.record(outcome);
    }

    /// Records the outcome once.
    fn record(&mut self, outcome: CallOutcome) {
        if let Some(admission) = self.admission.take() {
            metrics().upstream_calls.count(outcome.label());
            self.policy.with_breaker(self.route, |breaker, now| {
                breaker.record(admission, outcome.health(), now);
            });
        }
    }
}

impl Drop for CallPermit {
    /// Records an attempt that was dropped before it completed.
    fn drop(&mut self) {
        self.record(CallOutcome::Abandoned);
    }
}

/// Counts a call that an open breaker rejects.
fn breaker_rejection(route: Route, retry_after: Duration) -> UpstreamError {
    metrics().upstream_breaker_refusals.count(route.label());
    UpstreamError::BreakerOpen { retry_after }
}

/// Exponential backoff with full jitter, so that calls that failed together are not retried together.
fn backoff(retries: u32) -> Duration {
    let maximum = BASE_BACKOFF.saturating_mul(2_u32.saturating_pow(retries)).min(MAX_BACKOFF);
    maximum.mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_exponentially_with_full_jitter() {
        for (retries, maximum) in [(0, 50), (1, 100), (2, 200), (4, 800), (5, 1000), (40, 1000)] {
            let maximum = Duration::from_millis(maximum);
            let delays: Vec<_> = (0..1000).map(|_| backoff(retries)).collect();
            assert!(delays.iter().all(|delay| *delay <= maximum), "{retries}");
            // Evenly distributed from zero to the maximum.
            for tenth in 0..10 {
                let part = maximum * tenth / 10..maximum * (tenth + 1) / 10;
                assert!(delays.iter().any(|delay| part.contains(delay)), "{retries}: {part:?}");
            }
        }
    }

    #[test]
    fn every_route_and_breaker_state_has_its_metrics() {
        let text = metrics().text();
        for route in Route::ALL.map(Route::label) {
            for series in ["breaker", "breaker_refusals_total"] {
                let series = format!("gateway_upstream_{series}{{route=\"{route}\"}}");
                assert!(text.contains(&series), "{series}");
            }
        }
        for state in BreakerState::ALL.map(BreakerState::label) {
            let series = format!("gateway_upstream_breaker_turns_total{{to=\"{state}\"}}");
            assert!(text.contains(&series), "{series}");
        }
    }
}
