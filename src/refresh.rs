//! Background refresh of a remote value: the gateway's own token, and the keys of the callers' token issuer.
//!
//! Readers get the current value. They wait for the first value only, and one fetch serves all of them. After a failed
//! fetch the previous value stays in use, and the next fetch follows after a backoff.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{Instant, timeout},
};

/// The maximum number of doublings of the backoff.
const MAX_DOUBLINGS: u32 = 5;

/// The result of a fetch.
#[derive(Debug)]
pub struct Fetched<T> {
    /// The value.
    pub value: T,
    /// The time until the next fetch.
    pub renew_in: Duration,
    /// The lifetime of the value; `None` if it stays valid until it is replaced.
    pub lifetime: Option<Duration>,
}

/// The error of a fetch. The text is for the log.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The reason.
    pub why: Arc<str>,
    /// The server's `Retry-After`.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// An error without `Retry-After`.
    pub fn new(why: &str) -> Self {
        Self { why: why.into(), retry_after: None }
    }
}

/// The minimum intervals between fetches.
#[derive(Debug, Clone, Copy)]
pub struct RefreshIntervals {
    /// After a first failure. It doubles with each further failure.
    pub after_failure: Duration,
    /// Between two early fetches ([`AutoRefresh::newer_than`]).
    pub between_early: Duration,
}

/// A value that is refreshed until the last clone of this handle is dropped. Cheap to clone.
pub struct AutoRefresh<T>(Arc<Inner<T>>);

struct Inner<T> {
    state: watch::Sender<RefreshState<T>>,
    between_early: Duration,
    task: AbortHandle,
}

/// A fetched value in use.
#[derive(Debug)]
pub struct Current<T> {
    /// The value.
    pub value: T,
    /// The sequence number of the value, from 1.
    pub generation: u64,
    expires: Option<Instant>,
}

struct RefreshState<T> {
    current: Option<Arc<Current<T>>>,
    /// The error of the last fetch, if it failed.
    failure: Option<Arc<str>>,
    is_fetching: bool,
    /// The time of the last request for an early fetch.
    last_early: Option<Instant>,
}

impl<T: Send + Sync + 'static> AutoRefresh<T> {
    /// Starts the background refresh. `fetch` applies its own timeout and size limits.
    pub fn start<F>(intervals: RefreshIntervals, fetch: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Fetched<T>, Failure>> + Send + 'static,
    {
        let state = watch::Sender::new(RefreshState {
            current: None,
            failure: None,
            is_fetching: true,
            last_early: None,
        });
        let task = tokio::spawn(run(state.clone(), intervals, fetch)).abort_handle();
        Self(Arc::new(Inner { state, between_early: intervals.between_early, task }))
    }

    /// Returns the current value. Waits for the fetch in flight if there is none.
    ///
    /// # Errors
    /// The error of the last fetch, if there is no valid value.
    pub async fn current(&self) -> Result<Arc<Current<T>>, Arc<str>> {
        if let Some(current) = self.0.state.borrow().usable() {
            return Ok(current);
        }
        let mut state = self.0.state.subscribe();
        let state = state.wait_for(|state| !state.is_fetching || state.usable().is_some()).await;
        let state = state.map_err(|_| Arc::from("its refresh task has ended"))?;
        state.usable().ok_or_else(|| state.failure.clone().unwrap_or_else(|| "it has expired".into()))
    }

    /// Returns a value newer than `known`, which turned out to be invalid. Starts an early fetch, unless the last one
    /// is less than `between_early` ago or the last fetch failed. Returns `None` if there is no newer value.
    pub async fn newer_than(&self, known: &Current<T>) -> Option<Arc<Current<T>>> {
        self.0.state.send_if_modified(|state| {
            let is_current = state.current.as_ref().is_some_and(|it| it.generation == known.generation);
            let is_too_early = state.last_early.is_some_and(|at| at.elapsed() < self.0.between_early);
            let starts_fetch = is_current && !state.is_fetching && state.failure.is_none() && !is_too_early;
            if starts_fetch {
                state.is_fetching = true;
                state.last_early = Some(Instant::now());
            }
            starts_fetch
        });
        let newer =
            |state: &RefreshState<T>| state.usable().filter(|current| current.generation > known.generation);
        let mut state = self.0.state.subscribe();
        let state = state.wait_for(|state| !state.is_fetching || newer(state).is_some()).await.ok()?;
        newer(&state)
    }

    /// The current value, without waiting.
    pub fn latest(&self) -> Option<Arc<Current<T>>> {
        self.0.state.borrow().usable()
    }

    /// Applies `find` to the current value and to each later one, until it returns a result.
    pub async fn wait_for<R>(&self, find: impl Fn(&T) -> Option<R>) -> R {
        let mut state = self.0.state.subscribe();
        let mut seen = None;
        loop {
            let current = state.borrow_and_update().current.clone();
            if let Some(current) = current.filter(|current| seen != Some(current.generation)) {
                if let Some(found) = find(&current.value) {
                    return found;
                }
                seen = Some(current.generation);
            }
            if state.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Whether the last fetch failed, so that the current value may be outdated.
    pub fn is_failing(&self) -> bool {
        self.0.state.borrow().failure.is_some()
    }
}

impl<T> RefreshState<T> {
    fn usable(&self) -> Option<Arc<Current<T>>> {
        self.current.clone().filter(|current| current.expires.is_none_or(|at| Instant::now() < at))
    }
}

async fn run<T, F>(state: watch::Sender<RefreshState<T>>, intervals: RefreshIntervals, fetch: impl Fn() -> F)
where
    T: Send + Sync + 'static,
    F: Future<Output = Result<Fetched<T>, Failure>> + Send + 'static,
{
    let mut generation = 0;
    let mut failures = 0;
    loop {
        // A separate task, so that a panic becomes a failure for the waiters.
        let fetched = tokio::spawn(fetch()).await;
        let fetched = fetched.unwrap_or_else(|_| Err(Failure::new("the fetch panicked")));
        let delay = match fetched {
            Ok(Fetched { value, renew_in, lifetime }) => {
                (generation, failures) = (generation + 1, 0);
                let expires = lifetime.and_then(|lifetime| Instant::now().checked_add(lifetime));
                state.send_modify(|state| {
                    state.current = Some(Arc::new(Current { value, generation, expires }));
                    (state.failure, state.is_fetching) = (None, false);
                });
                renew_in
            }
            Err(Failure { why, retry_after }) => {
                let backoff = intervals.after_failure * 2_u32.pow(failures.min(MAX_DOUBLINGS));
                failures += 1;
                state.send_modify(|state| (state.failure, state.is_fetching) = (Some(why), false));
                // Jitter of a tenth, so that several gateways do not fetch in step.
                backoff.mul_f64(0.9 + 0.2 * fastrand::f64()).max(retry_after.unwrap_or_default())
            }
        };
        let mut early = state.subscribe();
        let _ = timeout(delay, early.wait_for(|state| state.is_fetching)).await;
        state.send_modify(|state| state.is_fetching = true);
    }
}

impl<T> Clone for AutoRefresh<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Drop for Inner<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<T> fmt::Debug for AutoRefresh<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AutoRefresh").finish_non_exhaustive()
    }
}
