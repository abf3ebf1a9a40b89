//! The circuit breaker of calls to the shared Redis. While it is open, calls are refused at once.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How many calls in a row have to fail.
const FAILURES: u32 = 5;

/// How long the breaker stays open before it admits a call on trial.
const PAUSE: Duration = Duration::from_secs(1);

/// A circuit breaker.
#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// When the next call on trial is admitted.
    open_until: Option<Instant>,
}

/// An admitted call.
pub(super) struct Attempt<'b>(&'b Breaker);

impl Breaker {
    /// None while the breaker is open.
    pub(super) fn admit(&self) -> Option<Attempt<'_>> {
        let mut state = self.lock();
        let now = Instant::now();
        if let Some(until) = &mut state.open_until {
            if now < *until {
                return None;
            }
            *until = now + PAUSE;
        }
        Some(Attempt(self))
    }

    /// Closes the breaker for a new connection.
    pub(super) fn reset(&self) {
        *self.lock() = State::default();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempt<'_> {
    pub(super) fn report(self, is_ok: bool) {
        if is_ok {
            return self.0.reset();
        }
        let mut state = self.0.lock();
        state.failures += 1;
        if state.failures >= FAILURES && state.open_until.is_none() {
            state.open_until = Some(Instant::now() + PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_open_it_and_a_trial_closes_it() {
        let breaker = Breaker::default();
        let fail = || breaker.admit().map(|attempt| attempt.report(false)).is_some();
        assert!((0..FAILURES - 1).all(|_| fail()));
        breaker.admit().unwrap().report(true);
        assert!((0..FAILURES).all(|_| fail()));
        assert!(!fail());
        tokio::time::advance(PAUSE).await;
        assert!(fail() && !fail(), "one call on trial");
        tokio::time::advance(PAUSE).await;
        breaker.admit().unwrap().report(true);
        assert!(fail() && fail());
    }
}
