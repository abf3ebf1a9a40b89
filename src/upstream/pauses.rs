//! Who was told by the upstream to wait, and until when: a limit on the rate is that of a token, so it binds all calls that
//! are made with it, not only the one that was refused. With the gateway's own token, these are the calls of all callers.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::caller::Scope;

/// Those who are to wait, by whom the upstream sees ([`Caller::seen_as`](crate::caller::Caller::seen_as)): as many as
/// `upstream.max_paused`. One more is not remembered, so its calls are refused by the upstream each for itself.
#[derive(Debug)]
pub(super) struct Pauses {
    most: usize,
    until: Mutex<HashMap<Option<Scope>, Instant>>,
}

impl Pauses {
    pub(super) fn new(most: usize) -> Self {
        Self { most, until: Mutex::default() }
    }

    /// The upstream told who asked to wait.
    pub(super) fn begin(&self, who: Option<Scope>, wait: Duration, now: Instant) {
        let mut pauses = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if pauses.len() >= self.most {
            pauses.retain(|_, until| *until > now);
        }
        if pauses.len() < self.most || pauses.contains_key(&who) {
            let until = pauses.entry(who).or_insert(now);
            *until = (now + wait).max(*until);
        }
    }

    /// How long that one is still to wait.
    pub(super) fn left(&self, who: Option<Scope>, now: Instant) -> Option<Duration> {
        let mut pauses = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let left = pauses.get(&who)?.saturating_duration_since(now);
        if left.is_zero() {
            pauses.remove(&who);
        }
        Some(left).filter(|left| !left.is_zero())
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
        assert!(pauses.until.lock().unwrap().is_empty());
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
