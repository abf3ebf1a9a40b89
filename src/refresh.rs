//! A value from outside that one task keeps fresh in the background: the gateway's own token, a set of keys.
//!
//! Who needs it takes what is there; nobody waits but for the first one, and one fetch serves all who wait. A fetch that
//! fails leaves what was there in use, and is not repeated at once.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{Instant, timeout},
};

/// Pauses double with each failure in a row, as often as this.
const MOST_DOUBLINGS: u32 = 5;

/// What a fetch has brought.
#[derive(Debug)]
pub struct Fetched<T> {
    /// The value.
    pub value: T,
    /// When to fetch the next one.
    pub renew_in: Duration,
    /// How long this one may be used; none for as long as there is no other.
    pub lasts: Option<Duration>,
}

/// Why a fetch has brought nothing. The text is for the log.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What went wrong.
    pub why: Arc<str>,
    /// How long the other side wants to be left alone, where it says so.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// For this reason.
    pub fn new(why: &str) -> Self {
        Self { why: why.into(), retry_after: None }
    }
}

/// How often a value is fetched at most.
#[derive(Debug, Clone, Copy)]
pub struct Pauses {
    /// After a first failure.
    pub after_failure: Duration,
    /// Between two fetches before their time.
    pub between_early: Duration,
}

/// A value that is kept fresh for as long as this or a clone of it lives. Cheap to clone.
pub struct AutoRefresh<T>(Arc<Inner<T>>);

struct Inner<T> {
    state: watch::Sender<State<T>>,
    between_early: Duration,
    task: AbortHandle,
}

/// A value as it is in use.
#[derive(Debug)]
pub struct Current<T> {
    /// The value.
    pub value: T,
    /// Counts the values, from 1.
    pub generation: u64,
    expires: Option<Instant>,
}

struct State<T> {
    current: Option<Arc<Current<T>>>,
    /// Why the last fetch failed, if it did.
    failure: Option<Arc<str>>,
    is_under_way: bool,
    /// When a fetch before its time was asked for last.
    early: Option<Instant>,
}

impl<T: Send + Sync + 'static> AutoRefresh<T> {
    /// Starts to keep what `fetch` brings; a fetch has a clock and bounds of its own.
    pub fn start<F>(pauses: Pauses, fetch: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Fetched<T>, Failure>> + Send + 'static,
    {
        let state =
            watch::Sender::new(State { current: None, failure: None, is_under_way: true, early: None });
        let task = tokio::spawn(keep(state.clone(), pauses, fetch)).abort_handle();
        Self(Arc::new(Inner { state, between_early: pauses.between_early, task }))
    }

    /// The value. While there is none, that of the fetch under way is waited for.
    ///
    /// # Errors
    /// Why the last fetch failed, where there is none to use.
    pub async fn current(&self) -> Result<Arc<Current<T>>, Arc<str>> {
        if let Some(current) = self.0.state.borrow().usable() {
            return Ok(current);
        }
        let mut state = self.0.state.subscribe();
        let state = state.wait_for(|state| !state.is_under_way || state.usable().is_some()).await;
        let state = state.map_err(|_| Arc::from("nobody fetches it"))?;
        state.usable().ok_or_else(|| state.failure.clone().unwrap_or_else(|| "it has expired".into()))
    }

    /// A value that came after `known`, which turned out not to do; fetched before its time unless that happened not
    /// long ago, or failed a moment ago. None where there is no newer one.
    pub async fn newer_than(&self, known: &Current<T>) -> Option<Arc<Current<T>>> {
        self.0.state.send_if_modified(|state| {
            let is_current = state.current.as_ref().is_some_and(|it| it.generation == known.generation);
            let is_early_again = state.early.is_some_and(|at| at.elapsed() < self.0.between_early);
            let is_asked_for =
                is_current && !state.is_under_way && state.failure.is_none() && !is_early_again;
            if is_asked_for {
                state.is_under_way = true;
                state.early = Some(Instant::now());
            }
            is_asked_for
        });
        let newer = |state: &State<T>| state.usable().filter(|current| current.generation > known.generation);
        let mut state = self.0.state.subscribe();
        let state = state.wait_for(|state| !state.is_under_way || newer(state).is_some()).await.ok()?;
        newer(&state)
    }

    /// The value, where there is one now.
    pub fn latest(&self) -> Option<Arc<Current<T>>> {
        self.0.state.borrow().usable()
    }

    /// Waits until `find` finds something in a value: first in the current one, then in each that replaces it. A fetch
    /// that fails replaces none.
    pub async fn until<R>(&self, find: impl Fn(&T) -> Option<R>) -> R {
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

    /// Whether the last fetch failed, so that there may be a newer one than is known.
    pub fn is_failing(&self) -> bool {
        self.0.state.borrow().failure.is_some()
    }
}

impl<T> State<T> {
    fn usable(&self) -> Option<Arc<Current<T>>> {
        self.current.clone().filter(|current| current.expires.is_none_or(|at| Instant::now() < at))
    }
}

async fn keep<T, F>(state: watch::Sender<State<T>>, pauses: Pauses, fetch: impl Fn() -> F)
where
    T: Send + Sync + 'static,
    F: Future<Output = Result<Fetched<T>, Failure>> + Send + 'static,
{
    let mut generation = 0;
    let mut failures = 0;
    loop {
        // In a task of its own: should it panic, those who wait are told.
        let fetched = tokio::spawn(fetch()).await;
        let fetched = fetched.unwrap_or_else(|_| Err(Failure::new("it could not be fetched")));
        let pause = match fetched {
            Ok(Fetched { value, renew_in, lasts }) => {
                (generation, failures) = (generation + 1, 0);
                let expires = lasts.and_then(|lasts| Instant::now().checked_add(lasts));
                state.send_modify(|state| {
                    state.current = Some(Arc::new(Current { value, generation, expires }));
                    (state.failure, state.is_under_way) = (None, false);
                });
                renew_in
            }
            Err(Failure { why, retry_after }) => {
                let pause = pauses.after_failure * 2_u32.pow(failures.min(MOST_DOUBLINGS));
                failures += 1;
                state.send_modify(|state| (state.failure, state.is_under_way) = (Some(why), false));
                // A tenth more or less, so that gateways that began together do not stay together.
                pause.mul_f64(0.9 + 0.2 * fastrand::f64()).max(retry_after.unwrap_or_default())
            }
        };
        let mut asked = state.subscribe();
        let _ = timeout(pause, asked.wait_for(|state| state.is_under_way)).await;
        state.send_modify(|state| state.is_under_way = true);
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
