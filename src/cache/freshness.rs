//! Freshness: how long a copy may be served after it was read (RFC 9111, section 4.2; RFC 5861).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{caller::Caller, config::cache::CacheConfig, upstream::cache_control::CacheDirectives};

/// How long a copy may be served, counted from the moment at which it was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Freshness {
    ttl: Duration,
    /// Beyond `ttl`, during an outage of the upstream.
    stale_if_error: Duration,
    /// Beyond `ttl`, while a refresh is in flight.
    stale_while_revalidate: Duration,
    /// Beyond `ttl`, to be revalidated by a conditional request.
    keep_expired: Duration,
    /// Whether the upstream forbids storing copies.
    forbids_storage: bool,
}

/// The configured bounds on serving and keeping stale copies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StalePolicy {
    if_error: Duration,
    while_revalidate: Duration,
    keep_expired: Duration,
}

/// The purpose for which a copy is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadPurpose {
    /// Requires a fresh copy.
    Fresh,
    /// The caller of the read starts a refresh if the copy is stale.
    WhileRevalidating,
    /// The upstream is down.
    OnError,
    /// To revalidate it: the value is served only if the upstream confirms it, so any age is permitted.
    Revalidate,
}

impl StalePolicy {
    /// How long a copy is kept past its TTL at most.
    pub(crate) fn longest(self) -> Duration {
        self.if_error.max(self.while_revalidate).max(self.keep_expired)
    }

    /// Stale copies are neither served nor kept.
    pub(crate) const NEVER: Self =
        Self { if_error: Duration::ZERO, while_revalidate: Duration::ZERO, keep_expired: Duration::ZERO };

    /// The same, but copies are never served stale.
    pub(crate) fn only_revalidated(self) -> Self {
        Self { keep_expired: self.keep_expired, ..Self::NEVER }
    }

    /// The policy of `cache.stale_if_error`, `cache.stale_while_revalidate` and `cache.keep_expired`.
    pub(crate) fn of(config: &CacheConfig) -> Self {
        Self {
            if_error: config.stale_if_error,
            while_revalidate: config.stale_while_revalidate,
            keep_expired: config.keep_expired,
        }
    }
}

impl Freshness {
    /// Fresh for `ttl` and never served stale.
    pub(crate) fn of(ttl: Duration) -> Self {
        let [stale_if_error, stale_while_revalidate, keep_expired] = [Duration::ZERO; 3];
        Self { ttl, stale_if_error, stale_while_revalidate, keep_expired, forbids_storage: false }
    }

    /// The strictest of three: the configuration, the upstream's `Cache-Control`, and the expiry of the caller's token.
    /// A copy that is never fresh is not served stale either. It may still be kept, to be revalidated by every read,
    /// unless the upstream forbids storage or a `ttl` of 0 disables caching.
    pub(crate) fn new(
        ttl: Duration,
        policy: StalePolicy,
        upstream: CacheDirectives,
        caller: &Caller,
    ) -> Self {
        let left = caller.time_left().unwrap_or(Duration::MAX);
        let is_kept = !upstream.forbids_storage() && !ttl.is_zero();
        let ttl = upstream.limit(ttl).min(left);
        let left = left - ttl;
        let (stale_left, kept_for) =
            (if ttl.is_zero() { Duration::ZERO } else { left }, if is_kept { left } else { Duration::ZERO });
        Self {
            ttl,
            stale_if_error: upstream.limit_stale_if_error(policy.if_error).min(stale_left),
            stale_while_revalidate: upstream
                .limit_stale_while_revalidate(policy.while_revalidate)
                .min(stale_left),
            keep_expired: policy.keep_expired.min(kept_for),
            forbids_storage: upstream.forbids_storage(),
        }
    }

    /// The same, but not kept to be revalidated.
    pub(crate) fn without_revalidation(self) -> Self {
        Self { keep_expired: Duration::ZERO, ..self }
    }

    /// The same for a copy that another replica has stored `age` ago: not more than `ttl`, `policy` and the expiry of the
    /// caller's token permit here.
    pub(crate) fn of_shared_copy(
        self,
        age: Duration,
        ttl: Duration,
        policy: StalePolicy,
        caller: &Caller,
    ) -> Self {
        let left = caller.time_left().map_or(Duration::MAX, |left| left.saturating_add(age));
        let is_kept = !self.forbids_storage && !ttl.is_zero();
        let ttl = self.ttl.min(ttl).min(left);
        let left = left - ttl;
        let stale_left = if ttl.is_zero() { Duration::ZERO } else { left };
        Self {
            ttl,
            stale_if_error: self.stale_if_error.min(policy.if_error).min(stale_left),
            stale_while_revalidate: self.stale_while_revalidate.min(policy.while_revalidate).min(stale_left),
            keep_expired: self.keep_expired.min(policy.keep_expired).min(if is_kept {
                left
            } else {
                Duration::ZERO
            }),
            forbids_storage: self.forbids_storage,
        }
    }

    /// The remaining freshness after `age`.
    pub(crate) fn after(self, age: Duration) -> Self {
        let stale_for = age.saturating_sub(self.ttl);
        Self {
            ttl: self.ttl.saturating_sub(age),
            stale_if_error: self.stale_if_error.saturating_sub(stale_for),
            stale_while_revalidate: self.stale_while_revalidate.saturating_sub(stale_for),
            keep_expired: self.keep_expired.saturating_sub(stale_for),
            ..self
        }
    }

    /// How long a copy of this `age` stays fresh; none if it is stale.
    pub(crate) fn left(self, age: Duration) -> Option<Duration> {
        let left = self.ttl.saturating_sub(age);
        (!left.is_zero()).then_some(left)
    }

    /// Whether a copy of this `age` may be put to this `purpose`.
    pub(crate) fn permits(self, purpose: ReadPurpose, age: Duration) -> bool {
        let beyond = match purpose {
            ReadPurpose::Fresh => Duration::ZERO,
            ReadPurpose::WhileRevalidating => self.stale_while_revalidate,
            ReadPurpose::OnError => self.stale_if_error,
            ReadPurpose::Revalidate => return true,
        };
        age < self.ttl + beyond
    }

    /// Whether the upstream forbids storing copies, for the gateway and for its clients.
    pub(crate) fn forbids_storage(self) -> bool {
        self.forbids_storage
    }

    /// Whether a copy may be stored at all.
    pub(crate) fn is_storable(self) -> bool {
        !self.lifetime().is_zero()
    }

    /// How long a copy may be used for any purpose.
    pub(crate) fn lifetime(self) -> Duration {
        self.ttl + self.stale_if_error.max(self.stale_while_revalidate).max(self.keep_expired)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::caller::ScopeKey;

    prop_compose! {
        fn seconds()(seconds in 0..100_u64) -> Duration {
            Duration::from_secs(seconds)
        }
    }

    prop_compose! {
        fn freshness()(ttl in seconds(), if_error in seconds(), meanwhile in seconds(), kept in seconds()) -> Freshness {
            Freshness {
                ttl, stale_if_error: if_error, stale_while_revalidate: meanwhile, keep_expired: kept, forbids_storage: false,
            }
        }
    }

    const PURPOSES: [ReadPurpose; 3] =
        [ReadPurpose::Fresh, ReadPurpose::WhileRevalidating, ReadPurpose::OnError];

    proptest! {
        #[test]
        fn nothing_is_gained_by_sharing_a_copy(
            shared in freshness(), local in freshness(), age in seconds(), later in seconds(),
        ) {
            let caller = Caller::with_token("token", &ScopeKey::random());
            let policy = StalePolicy {
                if_error: local.stale_if_error,
                while_revalidate: local.stale_while_revalidate,
                keep_expired: local.keep_expired,
            };
            let limited = shared.of_shared_copy(age, local.ttl, policy, &caller);
            prop_assert!(limited.lifetime() <= shared.lifetime() && limited.lifetime() <= local.lifetime());
            for purpose in PURPOSES {
                let is_permitted = limited.permits(purpose, later);
                prop_assert!(!is_permitted || shared.permits(purpose, later) && local.permits(purpose, later));
            }
            prop_assert_eq!(shared.of_shared_copy(age, shared.ttl, StalePolicy {
                if_error: shared.stale_if_error,
                while_revalidate: shared.stale_while_revalidate,
                keep_expired: shared.keep_expired,
            }, &caller).permits(ReadPurpose::Fresh, later), shared.permits(ReadPurpose::Fresh, later));
        }

        #[test]
        fn a_token_that_expires_ends_a_shared_copy(shared in freshness(), age in seconds(), left in 1..100_u64) {
            let expires = std::time::SystemTime::now() + Duration::from_secs(left);
            let exp = expires.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap().as_secs();
            let claims = base64::Engine::encode(
                &base64::engine::general_purpose::URL_SAFE_NO_PAD,
                format!("{{\"exp\":{exp}}}"),
            );
            let caller = Caller::with_token(&format!("e30.{claims}.c2ln"), &ScopeKey::random());
            let policy = StalePolicy { if_error: Duration::MAX, while_revalidate: Duration::MAX, keep_expired: Duration::MAX };
            let limited = shared.of_shared_copy(age, Duration::MAX, policy, &caller);
            prop_assert!(limited.lifetime() <= age + Duration::from_secs(left));
        }

        #[test]
        fn the_rest_of_a_freshness_permits_the_same(freshness in freshness(), age in seconds(), later in seconds()) {
            for purpose in PURPOSES {
                prop_assert_eq!(freshness.after(age).permits(purpose, later), freshness.permits(purpose, age + later));
            }
        }
    }
}
