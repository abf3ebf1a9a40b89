//! Pauses after a 429 with `Retry-After`. An upstream's rate limit applies to a token, so the pause delays all reads
//! with that token; with the gateway's own token, these are the reads of all callers. Changes are sent.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::{
    caller::Scope,
    metrics::metrics,
    upstream::{deadline::Deadline, error::UpstreamError},
};

/// The pauses by upstream identity ([`Caller::upstream_identity`](crate::caller::Caller::upstream_identity)), at most
/// `upstream.max_paused`. Beyond that, calls are sent and the upstream rejects them itself.
#[derive(Debug)]
pub(crate) struct RetryAfterPauses {
    maximum: usize,
    ends: Mutex<PauseEnds>,
}

/// The end of each pause.
#[derive(Debug, Default)]
struct PauseEnds {
    by_client: HashMap<Option<Scope>, Instant>,
    /// The same pauses ordered by their end, so that expired ones are found without a scan.
    in_order: BTreeSet<(Instant, Option<Scope>)>,
}

impl RetryAfterPauses {
    pub(crate) fn new(maximum: usize) -> Self {
        Self { maximum, ends: Mutex::default() }
    }

    /// Starts a pause of `client`, or extends it. A pause is never shortened.
    pub(crate) fn begin(&self, client: Option<Scope>, wait: Duration, now: Instant) {
        let mut ends = self.lock();
        ends.remove_expired(now);
        let known = ends.by_client.get(&client).copied();
        if known.is_some() || ends.by_client.len() < self.maximum {
            let end = known.unwrap_or(now).max(now + wait);
            ends.remove(client);
            ends.by_client.insert(client, end);
            ends.in_order.insert((end, client));
        }
    }

    /// Waits until the pause of `client` ends.
    ///
    /// # Errors
    /// Fails at once if `deadline` passes before the pause ends.
    pub(crate) async fn wait(&self, client: Option<Scope>, deadline: &Deadline) -> Result<(), UpstreamError> {
        while let Some(remaining) = self.remaining(client, Instant::now()) {
            if !deadline.outlasts(remaining) {
                metrics().upstream_paused.inc();
                return Err(UpstreamError::RateLimited { retry_after: Some(remaining) });
            }
            sleep(remaining).await;
        }
        Ok(())
    }

    /// The remaining pause of `client`.
    pub(crate) fn remaining(&self, client: Option<Scope>, now: Instant) -> Option<Duration> {
        let mut ends = self.lock();
        let remaining = ends.by_client.get(&client)?.saturating_duration_since(now);
        if remaining.is_zero() {
            ends.remove(client);
        }
        Some(remaining).filter(|remaining| !remaining.is_zero())
    }

    fn lock(&self) -> MutexGuard<'_, PauseEnds> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PauseEnds {
    fn remove_expired(&mut self, now: Instant) {
        while let Some(&(end, client)) = self.in_order.first()
            && end <= now
        {
            self.remove(client);
        }
    }

    fn remove(&mut self, client: Option<Scope>) {
        if let Some(end) = self.by_client.remove(&client) {
            self.in_order.remove(&(end, client));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::{Caller, ScopeKey};

    const SECOND: Duration = Duration::from_secs(1);

    fn scopes<const N: usize>() -> [Option<Scope>; N] {
        let key = ScopeKey::random();
        std::array::from_fn(|n| Caller::with_token(&n.to_string(), &key).upstream_identity())
    }

    #[test]
    fn a_pause_applies_to_one_caller_and_ends() {
        let ([one, other], now) = (scopes(), Instant::now());
        let pauses = RetryAfterPauses::new(10);
        pauses.begin(one, 2 * SECOND, now);
        assert_eq!(pauses.remaining(one, now), Some(2 * SECOND));
        assert_eq!(pauses.remaining(other, now), None);
        // A later `Retry-After` never shortens the pause.
        pauses.begin(one, SECOND, now + SECOND / 2);
        assert_eq!(pauses.remaining(one, now + SECOND), Some(SECOND));
        assert_eq!(pauses.remaining(one, now + 2 * SECOND), None);
        assert!(pauses.lock().by_client.is_empty() && pauses.lock().in_order.is_empty());
    }

    #[test]
    fn pauses_are_bounded_and_expired_ones_are_removed() {
        let ([one, two, three], now) = (scopes(), Instant::now());
        let pauses = RetryAfterPauses::new(2);
        pauses.begin(one, SECOND, now);
        pauses.begin(two, 3 * SECOND, now);
        pauses.begin(three, 3 * SECOND, now);
        assert_eq!(pauses.remaining(three, now), None);
        pauses.begin(three, SECOND, now + SECOND);
        assert_eq!(pauses.remaining(three, now + SECOND), Some(SECOND));
        assert_eq!(pauses.remaining(two, now + SECOND), Some(2 * SECOND));
        let none = RetryAfterPauses::new(0);
        none.begin(one, SECOND, now);
        assert_eq!(none.remaining(one, now), None);
    }
}
