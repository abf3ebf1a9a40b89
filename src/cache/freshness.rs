//! Freshness: how long a copy may be served after it was read (RFC 9111, section 4.2; RFC 5861).

use std::time::Duration;

use crate::{caller::Caller, config::cache::CacheConfig, upstream::cache_control::CacheDirectives};

/// How long a copy may be served, counted from the moment at which it was stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Freshness {
    ttl: Duration,
    /// Beyond `ttl`, during an outage of the upstream.
    stale_if_error: Duration,
    /// Beyond `ttl`, while a refresh is in flight.
    stale_while_revalidate: Duration,
    /// Whether the upstream forbids caching.
    is_forbidden: bool,
}

/// The configured bounds on serving stale copies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StalePolicy {
    if_error: Duration,
    while_revalidate: Duration,
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
}

impl StalePolicy {
    /// Stale copies are never served.
    pub(crate) const NEVER: Self = Self { if_error: Duration::ZERO, while_revalidate: Duration::ZERO };

    /// The policy of `cache.stale_if_error` and `cache.stale_while_revalidate`.
    pub(crate) fn of(config: &CacheConfig) -> Self {
        Self { if_error: config.stale_if_error, while_revalidate: config.stale_while_revalidate }
    }
}

impl Freshness {
    /// Fresh for `ttl` and never served stale.
    pub(crate) fn of(ttl: Duration) -> Self {
        Self {
            ttl,
            stale_if_error: Duration::ZERO,
            stale_while_revalidate: Duration::ZERO,
            is_forbidden: false,
        }
    }

    /// The strictest of three: the configuration, the upstream's `Cache-Control`, and the expiry of the caller's token. A
    /// copy that may not be cached while fresh is not cached for later either.
    pub(crate) fn new(
        ttl: Duration,
        policy: StalePolicy,
        upstream: CacheDirectives,
        caller: &Caller,
    ) -> Self {
        let left = caller.time_left().unwrap_or(Duration::MAX);
        let ttl = upstream.limit(ttl).min(left);
        let left = if ttl.is_zero() { Duration::ZERO } else { left - ttl };
        Self {
            ttl,
            stale_if_error: upstream.limit_stale_if_error(policy.if_error).min(left),
            stale_while_revalidate: upstream.limit_stale_while_revalidate(policy.while_revalidate).min(left),
            is_forbidden: upstream.forbids_caching(),
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
        };
        age < self.ttl + beyond
    }

    /// Whether the upstream forbids caching, for the gateway and for its clients.
    pub(crate) fn is_forbidden(self) -> bool {
        self.is_forbidden
    }

    /// Whether a copy may be stored at all.
    pub(crate) fn is_storable(self) -> bool {
        !self.ttl.is_zero()
    }

    /// How long a copy may be served for any purpose.
    pub(crate) fn lifetime(self) -> Duration {
        self.ttl + self.stale_if_error.max(self.stale_while_revalidate)
    }
}
