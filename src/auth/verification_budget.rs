//! The budget of signature checks (token buckets). A signature check is the expensive part of rejecting a forged token.
//!
//! Half of the budget is open to every token. The other half is reserved for known subjects, with a token verified
//! before, so that a flood of forged tokens does not lock out known callers with a new token. A forged token can name a
//! known subject, so one subject may take at most a hundredth of the reserve.

use std::{fmt, num::NonZeroU32, sync::Arc};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use moka::sync::Cache;

use crate::{caller::Scope, config::auth::CallersConfig};

/// The number of shares of the reserve. One subject may take one share.
const SHARES: u32 = 100;

/// The budget of signature checks per second.
pub(crate) struct VerificationBudget<C: Clock = DefaultClock> {
    /// `None` for an unlimited budget.
    halves: Option<Halves<C>>,
}

struct Halves<C: Clock> {
    open: TokenBucket<C>,
    /// `None` if subjects are not remembered, or if the budget is too small to be divided.
    reserve: Option<Reserve<C>>,
}

struct Reserve<C: Clock> {
    bucket: TokenBucket<C>,
    share: Quota,
    /// The known subjects, each with its share.
    subjects: Cache<Scope, Arc<TokenBucket<C>>>,
    clock: C,
}

type TokenBucket<C> = RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as Clock>::Instant>>;

impl VerificationBudget {
    /// A budget of `callers.verifications_per_second` that remembers up to `callers.max_verified` subjects.
    pub(crate) fn new(config: &CallersConfig) -> Self {
        Self::with_clock(config.verifications_per_second, config.max_verified as u64, DefaultClock::default())
    }
}

impl<C> VerificationBudget<C>
where
    C: Clock + Clone + Send + Sync + 'static,
    C::Instant: Send + Sync,
{
    fn with_clock(per_second: u32, max_subjects: u64, clock: C) -> Self {
        let reserved = if max_subjects == 0 { 0 } else { per_second / 2 };
        let halves = NonZeroU32::new(per_second - reserved).map(|open| Halves {
            open: TokenBucket::direct_with_clock(Quota::per_second(open), clock.clone()),
            reserve: NonZeroU32::new(reserved).map(|reserved| Reserve {
                bucket: TokenBucket::direct_with_clock(Quota::per_second(reserved), clock.clone()),
                share: Quota::per_second(NonZeroU32::new(reserved.get() / SHARES).unwrap_or(NonZeroU32::MIN)),
                subjects: Cache::new(max_subjects),
                clock,
            }),
        });
        Self { halves }
    }

    /// Takes one check for a token that names `subject`. Returns whether the budget allowed it.
    pub(crate) fn take(&self, subject: Scope) -> bool {
        self.take_if(|reserve| reserve.subjects.get(&subject).is_some_and(|share| share.check().is_ok()))
    }

    /// Takes another check for the same token, with the next key. The share of the subject counts tokens, so that it
    /// suffices for a token whatever the number of keys.
    pub(crate) fn take_another(&self, subject: Scope) -> bool {
        self.take_if(|reserve| reserve.subjects.contains_key(&subject))
    }

    /// Takes one check, from the reserve only if `may_use` it.
    fn take_if(&self, may_use: impl FnOnce(&Reserve<C>) -> bool) -> bool {
        let Some(halves) = &self.halves else { return true };
        let from_reserve = |reserve: &Reserve<C>| may_use(reserve) && reserve.bucket.check().is_ok();
        halves.open.check().is_ok() || halves.reserve.as_ref().is_some_and(from_reserve)
    }

    /// Adds a known subject, after a token of it was verified.
    pub(crate) fn add_subject(&self, subject: Scope) {
        if let Some(Halves { reserve: Some(reserve), .. }) = &self.halves
            && !reserve.subjects.contains_key(&subject)
        {
            let share = TokenBucket::direct_with_clock(reserve.share, reserve.clock.clone());
            reserve.subjects.insert(subject, Arc::new(share));
        }
    }
}

impl<C: Clock> fmt::Debug for VerificationBudget<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerificationBudget").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use governor::clock::FakeRelativeClock;

    use super::*;
    use crate::caller::{ScopeKey, ScopeSource};

    fn budget(
        per_second: u32,
        max_subjects: u64,
    ) -> (VerificationBudget<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (VerificationBudget::with_clock(per_second, max_subjects, clock.clone()), clock)
    }

    /// The number of allowed checks among a hundred thousand.
    fn taken(budget: &VerificationBudget<FakeRelativeClock>, subject: Scope) -> usize {
        (0..100_000).filter(|_| budget.take(subject)).count()
    }

    #[test]
    fn half_of_the_budget_is_reserved_for_known_subjects() {
        let key = ScopeKey::random();
        let subject = |subject| key.scope(ScopeSource::Subject { issuer: "issuer", subject });
        let (budget, clock) = budget(1000, 100);
        budget.add_subject(subject("alice"));
        budget.add_subject(subject("bob"));
        assert_eq!(taken(&budget, subject("mallory")), 500);
        assert_eq!(taken(&budget, subject("alice")), 5, "a hundredth of the other half");
        assert_eq!(taken(&budget, subject("bob")), 5, "regardless of tokens that name alice");
        budget.add_subject(subject("alice"));
        assert_eq!(taken(&budget, subject("alice")), 0, "another verified token adds no share");
        clock.advance(Duration::from_secs(1));
        assert_eq!(taken(&budget, subject("alice")), 505, "known subjects have both halves");
        assert_eq!(taken(&budget, subject("bob")), 5);
    }

    #[test]
    fn the_share_of_a_subject_counts_tokens_instead_of_keys() {
        let key = ScopeKey::random();
        let subject = |subject| key.scope(ScopeSource::Subject { issuer: "issuer", subject });
        let (budget, _) = budget(100, 100);
        budget.add_subject(subject("alice"));
        assert_eq!(taken(&budget, subject("mallory")), 50);
        assert!(budget.take(subject("alice")) && budget.take_another(subject("alice")));
        assert!(!budget.take(subject("alice")), "one token is her share");
        assert!(!budget.take_another(subject("mallory")));
        let rest = (0..100_000).filter(|_| budget.take_another(subject("alice"))).count();
        assert_eq!(rest, 48, "the reserve bounds the keys of all subjects");
    }

    #[test]
    fn a_small_budget_is_not_divided_below_one() {
        let key = ScopeKey::random();
        let subject = |subject| key.scope(ScopeSource::Subject { issuer: "issuer", subject });
        for (per_second, max_subjects, open, reserved) in
            [(1, 9, 1, 0), (2, 9, 1, 1), (7, 9, 4, 1), (7, 0, 7, 0)]
        {
            let (budget, _) = budget(per_second, max_subjects);
            budget.add_subject(subject("alice"));
            assert_eq!(taken(&budget, subject("mallory")), open);
            assert_eq!(taken(&budget, subject("alice")), reserved);
        }
        let (budget, _) = budget(0, 9);
        assert_eq!(taken(&budget, subject("mallory")), 100_000, "0 is unlimited");
    }
}
