//! Who was told by the upstream to wait, and until when: a limit on the rate is that of a token, so it binds all calls that
//! are made with it, not only the one that was refused. With the gateway's own token, these are the calls of all callers.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::caller::Scope;

/// The pauses, by the client that the upstream sees ([`Caller::seen_as`](crate::caller::Caller::seen_as)): at most
/// `upstream.max_paused`. One more is not remembered, so the upstream refuses each of its calls.
#[derive(Debug)]
pub(crate) struct Pauses {
    most: usize,
    until: Mutex<Until>,
}

/// The end of each pause.
#[derive(Debug, Default)]
struct Until {
    by_client: HashMap<Option<Scope>, Instant>,
    /// The same in the order in which the pauses end, so that those that have ended are found without a scan.
    in_order: BTreeSet<(Instant, Option<Scope>)>,
}

impl Pauses {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, until: Mutex::default() }
    }

    /// The upstream told `client` to wait.
    pub(crate) fn begin(&self, client: Option<Scope>, wait: Duration, now: Instant) {
        let mut until = self.lock();
        until.end_passed(now);
        let known = until.by_client.get(&client).copied();
        if known.is_some() || until.by_client.len() < self.most {
            let end = known.unwrap_or(now).max(now + wait);
            until.remove(client);
            until.by_client.insert(client, end);
            until.in_order.insert((end, client));
        }
    }

    /// How long `client` still has to wait.
    pub(crate) fn left(&self, client: Option<Scope>, now: Instant) -> Option<Duration> {
        let mut until = self.lock();
        let left = until.by_client.get(&client)?.saturating_duration_since(now);
        if left.is_zero() {
            until.remove(client);
        }
        Some(left).filter(|left| !left.is_zero())
    }

    fn lock(&self) -> MutexGuard<'_, Until> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Until {
    fn end_passed(&mut self, now: Instant) {
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
        std::array::from_fn(|n| Caller::with_token(&n.to_string(), &key).seen_as())
    }

    #[test]
    fn a_pause_is_the_callers_and_ends() {
        let ([one, other], now) = (scopes(), Instant::now());
        let pauses = Pauses::new(10);
        pauses.begin(one, 2 * SECOND, now);
        assert_eq!(pauses.left(one, now), Some(2 * SECOND));
        assert_eq!(pauses.left(other, now), None);
        // What is told later never makes it shorter.
        pauses.begin(one, SECOND, now + SECOND / 2);
        assert_eq!(pauses.left(one, now + SECOND), Some(SECOND));
        assert_eq!(pauses.left(one, now + 2 * SECOND), None);
        assert!(pauses.lock().by_client.is_empty() && pauses.lock().in_order.is_empty());
    }

    #[test]
    fn no_more_are_remembered_than_allowed_and_those_that_are_over_make_room() {
        let ([one, two, three], now) = (scopes(), Instant::now());
        let pauses = Pauses::new(2);
        pauses.begin(one, SECOND, now);
        pauses.begin(two, 3 * SECOND, now);
        pauses.begin(three, 3 * SECOND, now);
        assert_eq!(pauses.left(three, now), None);
        pauses.begin(three, SECOND, now + SECOND);
        assert_eq!(pauses.left(three, now + SECOND), Some(SECOND));
        assert_eq!(pauses.left(two, now + SECOND), Some(2 * SECOND));
        let none = Pauses::new(0);
        none.begin(one, SECOND, now);
        assert_eq!(none.left(one, now), None);
    }
}
