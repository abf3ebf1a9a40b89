//! Graceful shutdown: one signal to everything that is open, and a tracker that waits for it.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

/// Announces the shutdown, signals it to all holders of a [`ShutdownGuard`] and waits for them.
#[derive(Debug, Default)]
pub struct GracefulShutdown {
    is_announced: AtomicBool,
    signal: CancellationToken,
    tracker: TaskTracker,
}

/// Keeps the shutdown waiting until it is dropped. Connections, WebSockets and event streams each hold one.
#[derive(Debug)]
pub struct ShutdownGuard {
    /// A child of the shared token, so that connections do not contend for one lock each time they are polled.
    signal: CancellationToken,
    _tracked: TaskTrackerToken,
}

impl GracefulShutdown {
    /// A shutdown that has not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes `/readyz` respond with 503. Requests are still served, while load balancers take the gateway out of
    /// rotation.
    pub fn announce(&self) {
        self.is_announced.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_announced(&self) -> bool {
        self.is_announced.load(Ordering::Relaxed)
    }

    /// A guard for something that the shutdown has to wait for.
    pub fn guard(&self) -> ShutdownGuard {
        ShutdownGuard { signal: self.signal.child_token(), _tracked: self.tracker.token() }
    }

    /// The number of guards.
    pub fn open_count(&self) -> usize {
        self.tracker.len()
    }

    /// Signals the shutdown, and returns when all guards have been dropped.
    pub async fn shut_down(&self) {
        self.announce();
        self.signal.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

impl ShutdownGuard {
    /// Returns when the shutdown is signalled.
    pub async fn signalled(&self) {
        self.signal.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn shutdown_signals_every_guard_and_waits_for_all() {
        let shutdown = GracefulShutdown::new();
        let guards = [shutdown.guard(), shutdown.guard()];
        assert_eq!((shutdown.open_count(), shutdown.is_announced()), (2, false));
        shutdown.announce();
        assert!(shutdown.is_announced());
        assert!(guards.iter().all(|guard| !guard.signal.is_cancelled()), "an announcement ends nothing");
        let [first, second] = guards;
        let late = async {
            first.signalled().await;
            // A guard of a request that arrives meanwhile counts too, and has the signal at once.
            let third = shutdown.guard();
            third.signalled().await;
            drop(first);
            tokio::task::yield_now().await;
            assert_eq!(shutdown.open_count(), 2);
            drop((second, third));
        };
        tokio::join!(shutdown.shut_down(), late);
        assert_eq!(shutdown.open_count(), 0);
    }
}
