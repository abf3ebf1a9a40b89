//! A budget of signature checks: they are the expensive part of refusing a forged token.
//!
//! Half of the budget is open to every token. The other half is reserved for subjects that had a token verified before,
//! so that a flood of forged tokens does not keep known callers from renewing theirs. A forged token can claim to be of a
//! known subject, so one subject gets no more than a hundredth of the reserve: knowing some subjects costs these their
//! part of it, not everybody theirs.

use std::{fmt, num::NonZeroU32, sync::Arc};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use moka::sync::Cache;

use crate::{caller::Scope, config::auth::CallersConfig};

/// The part of the reserve that one subject may take.
const SHARES: u32 = 100;

/// Counts the signature checks of each second.
pub(crate) struct Verifications<C: Clock = DefaultClock> {
    /// None where there is no bound.
    budget: Option<Budget<C>>,
}

struct Budget<C: Clock> {
    open: Bucket<C>,
    /// None where subjects are not remembered, and where the budget is too small to be divided.
    reserve: Option<Reserve<C>>,
}

struct Reserve<C: Clock> {
    bucket: Bucket<C>,
    share: Quota,
    /// The subjects that had a token verified, each with its share.
    subjects: Cache<Scope, Arc<Bucket<C>>>,
    clock: C,
}

type Bucket<C> = RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as Clock>::Instant>>;

impl Verifications {
    /// As `callers.verifications_per_second` says; `callers.max_verified` subjects are remembered.
    pub(crate) fn new(config: &CallersConfig) -> Self {
        Self::with_clock(config.verifications_per_second, config.max_verified as u64, DefaultClock::default())
    }
}

impl<C> Verifications<C>
where
    C: Clock + Clone + Send + Sync + 'static,
    C::Instant: Send + Sync,
{
    fn with_clock(per_second: u32, max_subjects: u64, clock: C) -> Self {
        let reserved = if max_subjects == 0 { 0 } else { per_second / 2 };
        let budget = NonZeroU32::new(per_second - reserved).map(|open| Budget {
            open: Bucket::direct_with_clock(Quota::per_second(open), clock.clone()),
            reserve: NonZeroU32::new(reserved).map(|reserved| Reserve {
                bucket: Bucket::direct_with_clock(Quota::per_second(reserved), clock.clone()),
                share: Quota::per_second(NonZeroU32::new(reserved.get() / SHARES).unwrap_or(NonZeroU32::MIN)),
                subjects: Cache::new(max_subjects),
                clock,
            }),
        });
        Self { budget }
    }

    /// Takes one check, of a token that claims to be of `subject`; whether there was one left.
    pub(crate) fn take(&self, subject: Scope) -> bool {
        let Some(budget) = &self.budget else { return true };
        let from_reserve = |reserve: &Reserve<C>| {
            let share = reserve.subjects.get(&subject);
            share.is_some_and(|share| share.check().is_ok()) && reserve.bucket.check().is_ok()
        };
        budget.open.check().is_ok() || budget.reserve.as_ref().is_some_and(from_reserve)
    }

    /// Remembers that a token of `subject` was verified.
    pub(crate) fn verified(&self, subject: Scope) {
        if let Some(Budget { reserve: Some(reserve), .. }) = &self.budget
            && !reserve.subjects.contains_key(&subject)
        {
            let share = Bucket::direct_with_clock(reserve.share, reserve.clock.clone());
            reserve.subjects.insert(subject, Arc::new(share));
        }
    }
}

impl<C: Clock> fmt::Debug for Verifications<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifications").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use governor::clock::FakeRelativeClock;

    use super::*;
    use crate::caller::{ScopeKey, ScopeOf};

    fn budget(per_second: u32, max_subjects: u64) -> (Verifications<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (Verifications::with_clock(per_second, max_subjects, clock.clone()), clock)
    }

    /// How many of a hundred thousand checks are made.
    fn taken(verifications: &Verifications<FakeRelativeClock>, subject: Scope) -> usize {
        (0..100_000).filter(|_| verifications.take(subject)).count()
    }

    #[test]
    fn half_of_the_budget_is_for_known_subjects_and_shared_among_them() {
        let key = ScopeKey::random();
        let subject = |subject| key.scope(ScopeOf::Subject { issuer: "issuer", subject });
        let (verifications, clock) = budget(1000, 100);
        verifications.verified(subject("alice"));
        verifications.verified(subject("bob"));
        assert_eq!(taken(&verifications, subject("mallory")), 500);
        assert_eq!(taken(&verifications, subject("alice")), 5, "a hundredth of the other half");
        assert_eq!(taken(&verifications, subject("bob")), 5, "whoever claims to be alice");
        verifications.verified(subject("alice"));
        assert_eq!(taken(&verifications, subject("alice")), 0, "a verified token is no new share");
        clock.advance(Duration::from_secs(1));
        assert_eq!(taken(&verifications, subject("alice")), 505, "known subjects have both halves");
        assert_eq!(taken(&verifications, subject("bob")), 5);
    }

    #[test]
    fn a_small_budget_is_not_divided_below_one() {
        let key = ScopeKey::random();
        let subject = |subject| key.scope(ScopeOf::Subject { issuer: "issuer", subject });
        for (per_second, max_subjects, open, reserved) in
            [(1, 9, 1, 0), (2, 9, 1, 1), (7, 9, 4, 1), (7, 0, 7, 0)]
        {
            let (verifications, _) = budget(per_second, max_subjects);
            verifications.verified(subject("alice"));
            assert_eq!(taken(&verifications, subject("mallory")), open);
            assert_eq!(taken(&verifications, subject("alice")), reserved);
        }
        let (verifications, _) = budget(0, 9);
        assert_eq!(taken(&verifications, subject("mallory")), 100_000, "0 is no bound");
    }
}
