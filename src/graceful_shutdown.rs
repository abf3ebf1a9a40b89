//! The end of the process, as everything that is open sees it come.

use tokio::sync::watch;

/// Tells all that is open to end, and waits for it.
#[derive(Debug)]
pub struct GracefulShutdown(watch::Sender<Stage>);

/// Held by everything that is waited for, for as long as it is open: a connection, a WebSocket, an event stream.
#[derive(Debug)]
pub struct ShutdownGuard(watch::Receiver<Stage>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Serving,
    /// Everything is served as before, while load balancers look away.
    Announced,
    Ending,
}

impl GracefulShutdown {
    /// Nothing is open, and nothing is to end.
    pub fn new() -> Self {
        Self(watch::Sender::new(Stage::Serving))
    }

    /// Has `/readyz` say that the end is near.
    pub fn announce(&self) {
        self.0.send_replace(Stage::Announced);
    }

    pub(crate) fn is_announced(&self) -> bool {
        *self.0.borrow() != Stage::Serving
    }

    /// Something more to wait for.
    pub fn open(&self) -> ShutdownGuard {
        ShutdownGuard(self.0.subscribe())
    }

    /// How many there are to wait for.
    pub fn count(&self) -> usize {
        self.0.receiver_count()
    }

    /// Tells all to end, and returns when they have.
    pub async fn finish(&self) {
        self.0.send_replace(Stage::Ending);
        self.0.closed().await;
    }
}

impl Default for GracefulShutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl ShutdownGuard {
    /// Returns when it is time to end.
    pub async fn told_to_end(&mut self) {
        // An error says that nobody is left to tell: that is the end too.
        let _ = self.0.wait_for(|stage| *stage == Stage::Ending).await;
    }
}
