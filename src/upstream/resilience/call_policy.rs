//! How a call is made: in its turn, if the route's breaker lets it through; and, where it only reads, again.
//!
//! A call has an entry in the [`FairQueue`] from its beginning to its end, and a permit while an attempt is under way. A change is one attempt. A GET that met what may pass is repeated, soon and seldom: `upstream.retries` times
//! at most, after a random pause or the one that the upstream asked for, while somebody waits for longer than that
//! ([`Deadline`]), and within the [`Budget`] of all calls.

use std::{
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::{Either, select};
use tokio::time::{Instant, sleep, timeout};

use super::{
    breaker::{Admission, Breaker, Condition, Health},
    hedging::Latency,
    retry_after::Pauses,
    retry_budget::Budget,
};
use crate::{
    caller::{Caller, Scope},
    config::upstream::UpstreamConfig,
    error::limit::Limit,
    fair_queue::{Entry, FairQueue, Permit, ledger::Bounds},
    metrics::metrics,
    upstream::{answer::Answered, deadline::Deadline, error::UpstreamError},
};

/// The longest pause before the first repetition; before each further one, twice as long.
const BACK_OFF: Duration = Duration::from_millis(50);

/// The longest pause that the upstream did not ask for.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(1);

/// How many repetitions are allowed before any call has earned one.
const FIRST_RETRIES: u32 = 10;

/// How many second calls are.
const FIRST_HEDGES: u32 = 1;

/// What is asked of the upstream, by what tends to fail together. Never by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// `GET …/appointments/{id}`
    Appointment,
    /// `GET …/appointments`
    List,
    /// Everything that changes something.
    Change,
}

impl Route {
    const EACH: [Self; 3] = [Self::Appointment, Self::List, Self::Change];

    /// As it is logged and counted.
    fn word(self) -> &'static str {
        match self {
            Self::Appointment => "appointment",
            Self::List => "list",
            Self::Change => "change",
        }
    }
}

/// The way to the upstream. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct CallPolicy(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    retries: u32,
    retry_budget: Budget,
    hedge_budget: Budget,
    /// Whether there are second calls at all.
    hedges: bool,
    queue: FairQueue<Scope>,
    pauses: Pauses,
    /// By route.
    breakers: [Mutex<Breaker>; 3],
    latencies: [Mutex<Latency>; 3],
}

/// The right to one attempt, until it is dropped.
#[derive(Debug)]
pub struct CallPermit {
    attempts: CallPolicy,
    route: Route,
    /// Whom the upstream sees.
    seen_as: Option<Scope>,
    /// None once it is known what came of it.
    admission: Option<Admission>,
    began: Instant,
    _permit: Permit<Scope>,
}

impl CallPolicy {
    pub(crate) fn new(config: &UpstreamConfig) -> Self {
        let breaker = || Breaker::new(config.breaker, Instant::now(), fastrand::Rng::new());
        let bounds = Bounds {
            running: config.max_concurrent,
            waiting: config.max_waiting,
            caller_share: config.caller_share,
        };
        let (running, waiting) = (metrics().upstream_under_way.clone(), metrics().upstream_waiting.clone());
        Self(Arc::new(Inner {
            retries: config.retries,
            retry_budget: Budget::new(config.retry_percent, FIRST_RETRIES),
            hedge_budget: Budget::new(config.hedge_percent, FIRST_HEDGES),
            hedges: config.hedge_percent > 0,
            queue: FairQueue::new(bounds, running, waiting),
            pauses: Pauses::new(config.max_paused),
            breakers: Route::EACH.map(|_| Mutex::new(breaker())),
            latencies: Route::EACH.map(|_| Mutex::new(Latency::new())),
        }))
    }

    /// Makes a call that only reads, by `send`ing it as often as it takes and is allowed.
    ///
    /// # Errors
    /// What came of the last attempt; without one [`UpstreamError::Overloaded`], [`UpstreamError::BreakerOpen`], and
    /// [`UpstreamError::RateLimited`] where the upstream told the caller to wait.
    pub(crate) async fn read<T, F>(
        &self,
        route: Route,
        caller: &Caller,
        deadline: &Deadline,
        send: impl Fn() -> F,
    ) -> Result<T, UpstreamError>
    where
        T: Answered,
        F: Future<Output = Result<T, UpstreamError>>,
    {
        self.check(route)?;
        let entry = self.enter(caller)?;
        self.0.retry_budget.earn();
        self.0.hedge_budget.earn();
        let mut retries = 0;
        loop {
            self.wait_out_pause(caller.seen_as(), deadline).await?;
            let error = match self.attempt(route, caller, &entry, deadline, &send).await {
                Err(error) => error,
                answer => return answer,
            };
            let Some(pause) = self.pause_before_retry(&error, retries, deadline) else { return Err(error) };
            tracing::debug!(
                route = route.word(),
                %error,
                pause_ms = pause.as_millis() as u64,
                "to be called again"
            );
            sleep(pause).await;
            retries += 1;
        }
    }

    /// Waits for the turn of a change. It is the one attempt that there is, so the breaker of changes has its probes of
    /// those that are wanted anyway.
    ///
    /// # Errors
    /// [`UpstreamError::Overloaded`], [`UpstreamError::BreakerOpen`]: nothing is sent then.
    pub(crate) async fn turn_to_change(&self, caller: &Caller) -> Result<CallPermit, UpstreamError> {
        self.check(Route::Change)?;
        let entry = self.enter(caller)?;
        self.turn(Route::Change, caller, &entry).await
    }

    /// One attempt, and a second one beside it where the first takes unusually long.
    async fn attempt<T, F>(
        &self,
        route: Route,
        caller: &Caller,
        entry: &Arc<Entry<Scope>>,
        deadline: &Deadline,
        send: &impl Fn() -> F,
    ) -> Result<T, UpstreamError>
    where
        T: Answered,
        F: Future<Output = Result<T, UpstreamError>>,
    {
        let turn = self.turn(route, caller, entry).await?;
        let began = turn.began;
        let mut first = pin!(turn.carry_out(send()));
        let Some(unusual) = self.unusual(route, deadline) else { return first.await };
        if let Ok(answer) = timeout(unusual, &mut first).await {
            return answer;
        }
        let Some(turn) = self.turn_to_hedge(route, caller) else { return first.await };
        metrics().upstream_hedges.count("sent");
        // What this machine has no resources for says nothing of the other call.
        let is_no_answer =
            |error: &UpstreamError| error.is_transient() || matches!(error, UpstreamError::Exhausted { .. });
        let is_answer = |answer: &Result<T, UpstreamError>| !answer.as_ref().is_err_and(is_no_answer);
        match select(first, pin!(turn.carry_out(send()))).await {
            Either::Left((answer, second)) => {
                if is_answer(&answer) {
                    return answer;
                }
                let answer = second.await;
                if is_answer(&answer) {
                    metrics().upstream_hedges.count("won");
                }
                answer
            }
            Either::Right((answer, first)) => {
                if !is_answer(&answer) {
                    return first.await;
                }
                metrics().upstream_hedges.count("won");
                // At least as long: without it, what is usual would get shorter with each slow call that is given up.
                self.record(route, began.elapsed());
                answer
            }
        }
    }

    /// Takes a place in the queue for a call.
    fn enter(&self, caller: &Caller) -> Result<Arc<Entry<Scope>>, UpstreamError> {
        let full = UpstreamError::Overloaded { limit: Limit::UpstreamQueue };
        self.0.queue.enter(caller.who()).ok_or(full)
    }

    /// Waits for a permit, then asks the breaker.
    async fn turn(
        &self,
        route: Route,
        caller: &Caller,
        entry: &Arc<Entry<Scope>>,
    ) -> Result<CallPermit, UpstreamError> {
        self.check(route)?;
        let permit = entry.permit().await;
        self.admit(route, caller, permit)
    }

    /// A second call takes what is free, and is no probe of a breaker.
    fn turn_to_hedge(&self, route: Route, caller: &Caller) -> Option<CallPermit> {
        let permit = self.0.queue.enter(caller.who())?.try_permit()?;
        let is_closed = self.with_breaker(route, |breaker, _| breaker.condition()) == Condition::Closed;
        (is_closed && self.0.hedge_budget.spend()).then(|| self.admit(route, caller, permit).ok())?
    }

    fn admit(
        &self,
        route: Route,
        caller: &Caller,
        permit: Permit<Scope>,
    ) -> Result<CallPermit, UpstreamError> {
        let admission = self.with_breaker(route, Breaker::admit).map_err(|wait| refused(route, wait))?;
        Ok(CallPermit {
            attempts: self.clone(),
            route,
            seen_as: caller.seen_as(),
            admission: Some(admission),
            began: Instant::now(),
            _permit: permit,
        })
    }

    /// Whether it is worth while to wait for a permit.
    fn check(&self, route: Route) -> Result<(), UpstreamError> {
        self.with_breaker(route, |breaker, now| breaker.check(now)).map_err(|wait| refused(route, wait))
    }

    /// Does something with the breaker of `route`, and says so if that changed its state.
    fn with_breaker<T>(&self, route: Route, act: impl FnOnce(&mut Breaker, Instant) -> T) -> T {
        let mut breaker = self.0.breakers[route as usize].lock().unwrap_or_else(PoisonError::into_inner);
        let before = breaker.condition();
        let result = act(&mut breaker, Instant::now());
        let after = breaker.condition();
        if after != before {
            metrics().upstream_breaker.set(route.word(), after as i64);
            metrics().upstream_breaker_turns.count(after.word());
            let (route, state) = (route.word(), after.word());
            match after {
                Condition::Open => tracing::warn!(route, state, "breaker: too many calls failed"),
                Condition::HalfOpen => tracing::info!(route, state, "breaker: a few calls are let through"),
                Condition::Closed => tracing::info!(route, state, "breaker: the upstream is well again"),
            }
        }
        result
    }

    /// Waits until the upstream wants to hear again of whom it sees.
    async fn wait_out_pause(&self, seen_as: Option<Scope>, deadline: &Deadline) -> Result<(), UpstreamError> {
        while let Some(left) = self.0.pauses.left(seen_as, Instant::now()) {
            if !deadline.outlasts(left) {
                metrics().upstream_paused.inc();
                return Err(UpstreamError::RateLimited { retry_after: Some(left) });
            }
            sleep(left).await;
        }
        Ok(())
    }

    /// How long to wait before the call is repeated; none where it is not.
    fn pause_before_retry(
        &self,
        error: &UpstreamError,
        retries: u32,
        deadline: &Deadline,
    ) -> Option<Duration> {
        if retries >= self.0.retries || !error.is_transient() {
            return None;
        }
        // Never before the time that the upstream named, and not all at that time.
        let pause = error.retry_after().unwrap_or_default() + back_off(retries);
        if !deadline.outlasts(pause) {
            return None;
        }
        if !self.0.retry_budget.spend() {
            metrics().upstream_retries_withheld.inc();
            return None;
        }
        metrics().upstream_retries.count(error.outcome());
        Some(pause)
    }

    /// After what time a call takes unusually long, where anybody is in a hurry.
    fn unusual(&self, route: Route, deadline: &Deadline) -> Option<Duration> {
        if !self.0.hedges || !deadline.outlasts(Duration::ZERO) {
            return None;
        }
        self.0.latencies[route as usize].lock().unwrap_or_else(PoisonError::into_inner).p95()
    }

    fn record(&self, route: Route, took: Duration) {
        let mut latency = self.0.latencies[route as usize].lock().unwrap_or_else(PoisonError::into_inner);
        latency.record(took);
    }
}

impl CallPermit {
    /// Sends what was waited for, which ends within `upstream.timeout`.
    pub(crate) async fn carry_out<T: Answered>(
        self,
        send: impl Future<Output = Result<T, UpstreamError>>,
    ) -> Result<T, UpstreamError> {
        let answer = send.await;
        // Whatever it was asked for, and whatever comes of a call beside it.
        if let Err(UpstreamError::RateLimited { retry_after: Some(wait) }) = answer {
            self.attempts.0.pauses.begin(self.seen_as, wait, Instant::now());
        }
        let health = match &answer {
            Err(error) if error.is_failure() => Health::Ill,
            // The upstream has no part in it.
            Err(UpstreamError::NoServiceToken(_) | UpstreamError::Exhausted { .. }) => Health::Unknown,
            _ => Health::Well,
        };
        self.end(answer.as_ref().map_or_else(UpstreamError::outcome, T::outcome), health);
        answer
    }

    fn end(mut self, outcome: &str, health: Health) {
        let took = self.began.elapsed();
        metrics().upstream_call_duration.observe(took.as_secs_f64());
        if health == Health::Well {
            self.attempts.record(self.route, took);
        }
        self.settle(outcome, health);
    }

    fn settle(&mut self, outcome: &str, health: Health) {
        if let Some(admission) = self.admission.take() {
            metrics().upstream_calls.count(outcome);
            self.attempts.with_breaker(self.route, |breaker, now| breaker.settle(admission, health, now));
        }
    }
}

impl Drop for CallPermit {
    /// Nobody waits for it any more, so nothing comes of it.
    fn drop(&mut self) {
        self.settle("abandoned", Health::Unknown);
    }
}

fn refused(route: Route, retry_after: Duration) -> UpstreamError {
    metrics().upstream_breaker_refusals.count(route.word());
    UpstreamError::BreakerOpen { retry_after }
}

/// Anything from nothing to a bound that doubles: calls that failed together do not come back together.
fn back_off(retries: u32) -> Duration {
    let longest = BACK_OFF.saturating_mul(2_u32.saturating_pow(retries)).min(LONGEST_BACK_OFF);
    longest.mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pause_is_short_each_further_one_is_longer_and_no_two_are_the_same() {
        for (retries, longest) in [(0, 50), (1, 100), (2, 200), (4, 800), (5, 1000), (40, 1000)] {
            let longest = Duration::from_millis(longest);
            let pauses: Vec<_> = (0..1000).map(|_| back_off(retries)).collect();
            assert!(pauses.iter().all(|pause| *pause <= longest), "{retries}");
            // Full jitter: from nothing to the longest, evenly.
            for tenth in 0..10 {
                let part = longest * tenth / 10..longest * (tenth + 1) / 10;
                assert!(pauses.iter().any(|pause| part.contains(pause)), "{retries}: {part:?}");
            }
        }
    }
}
