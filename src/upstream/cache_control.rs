//! The response header `Cache-Control` (RFC 9111, section 5.2.2): upper bounds on the freshness of a response.
//!
//! Each cache entry of the gateway belongs to one caller scope, so `private` and `s-maxage` have no effect.

use std::time::Duration;

use reqwest::header::{AGE, CACHE_CONTROL, HeaderMap};
use serde::{Deserialize, Serialize};

/// The upstream's bounds on caching a response. `None` means that the upstream set no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheDirectives {
    fresh: Option<Duration>,
    /// The age of the response when it arrived, which reduces `fresh`.
    age: Duration,
    stale_if_error: Option<Duration>,
    stale_while_revalidate: Option<Duration>,
    forbids_storage: bool,
}

impl CacheDirectives {
    /// No bounds: the configured times apply.
    pub const UNSPECIFIED: Self = Self {
        fresh: None,
        age: Duration::ZERO,
        stale_if_error: None,
        stale_while_revalidate: None,
        forbids_storage: false,
    };

    /// The response must not be cached.
    pub const NO_STORE: Self = Self { forbids_storage: true, ..Self::NO_CACHE };

    /// The response must not be served without revalidation.
    const NO_CACHE: Self = Self { fresh: Some(Duration::ZERO), ..Self::NEVER_STALE };

    /// The response must not be served stale.
    const NEVER_STALE: Self = Self {
        stale_if_error: Some(Duration::ZERO),
        stale_while_revalidate: Some(Duration::ZERO),
        ..Self::UNSPECIFIED
    };

    /// Returns `ttl`, or the remainder of the upstream's freshness lifetime if that is shorter.
    pub fn limit(self, ttl: Duration) -> Duration {
        shorter(self.fresh.map(|fresh| fresh.saturating_sub(self.age)), ttl)
    }

    /// Whether the response must not be stored, not even to be revalidated.
    pub fn forbids_storage(self) -> bool {
        self.forbids_storage
    }

    /// The same bounds for a response of the age that `headers` state.
    pub(crate) fn at_age_of(self, headers: &HeaderMap) -> Self {
        Self { age: age(headers), ..self }
    }

    /// Returns the time past the TTL for which a copy may be served while the upstream fails (RFC 5861, section 4): at
    /// most `bound`.
    pub fn limit_stale_if_error(self, bound: Duration) -> Duration {
        shorter(self.stale_if_error, bound)
    }

    /// Returns the time past the TTL for which a copy may be served during its revalidation (RFC 5861, section 3): at
    /// most `bound`.
    pub fn limit_stale_while_revalidate(self, bound: Duration) -> Duration {
        shorter(self.stale_while_revalidate, bound)
    }

    /// Combines two sets of directives: the stricter bound of each pair.
    fn and(self, other: Self) -> Self {
        let stricter =
            |one: Option<Duration>, other: Option<Duration>| one.map_or(other, |it| Some(shorter(other, it)));
        Self {
            fresh: stricter(self.fresh, other.fresh),
            stale_if_error: stricter(self.stale_if_error, other.stale_if_error),
            stale_while_revalidate: stricter(self.stale_while_revalidate, other.stale_while_revalidate),
            forbids_storage: self.forbids_storage || other.forbids_storage,
            age: self.age.max(other.age),
        }
    }
}

fn shorter(stated: Option<Duration>, bound: Duration) -> Duration {
    stated.map_or(bound, |stated| stated.min(bound))
}

/// Parses `Cache-Control`, and `Age`, which is subtracted from `max-age`.
///
/// `no-store` forbids caching. `no-cache` requires revalidation before each use, with one exception: exactly
/// `no-cache, private` is the default of the upstream's framework for responses without an explicit policy, so it
/// counts as unspecified. Any further directive makes it explicit. `must-revalidate` and `proxy-revalidate` forbid
/// serving stale copies. An invalid value counts as the strictest one.
pub(crate) fn parse(headers: &HeaderMap) -> CacheDirectives {
    let mut directives = Vec::new();
    for value in headers.get_all(CACHE_CONTROL) {
        let Ok(value) = value.to_str() else { return CacheDirectives::NO_STORE };
        directives
            .extend(value.split(',').map(str::trim).filter(|it| !it.is_empty()).map(str::to_ascii_lowercase));
    }
    directives.sort_unstable();
    if directives == ["no-cache", "private"] {
        return CacheDirectives::UNSPECIFIED;
    }
    let stated = directives.iter().fold(CacheDirectives::UNSPECIFIED, |combined, directive| {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        let stated = || Some(Duration::from_secs(seconds(value)));
        combined.and(match name.trim_end() {
            "no-store" => CacheDirectives::NO_STORE,
            "no-cache" => CacheDirectives::NO_CACHE,
            "must-revalidate" | "proxy-revalidate" => CacheDirectives::NEVER_STALE,
            "max-age" => CacheDirectives { fresh: stated(), ..CacheDirectives::UNSPECIFIED },
            "stale-if-error" => CacheDirectives { stale_if_error: stated(), ..CacheDirectives::UNSPECIFIED },
            "stale-while-revalidate" => {
                CacheDirectives { stale_while_revalidate: stated(), ..CacheDirectives::UNSPECIFIED }
            }
            _ => CacheDirectives::UNSPECIFIED,
        })
    });
    stated.at_age_of(headers)
}

/// The value of `Age` (RFC 9111, section 5.1); 0 if it is missing or invalid.
fn age(headers: &HeaderMap) -> Duration {
    let seconds = headers.get(AGE).and_then(|age| age.to_str().ok()).and_then(|age| age.trim().parse().ok());
    Duration::from_secs(seconds.unwrap_or(0))
}

/// Parses delta-seconds (RFC 9111, section 1.2.2). Values out of range count as very long, other text as 0. Some
/// senders quote the number.
fn seconds(value: &str) -> u64 {
    let digits = value.trim().trim_matches('"');
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return 0;
    }
    digits.parse().unwrap_or(u64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(lines: &[&str], age: Option<&str>) -> CacheDirectives {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CACHE_CONTROL, line.parse().unwrap());
        }
        if let Some(age) = age {
            headers.insert(AGE, age.parse().unwrap());
        }
        parse(&headers)
    }

    #[test]
    fn directives_only_tighten_the_bounds() {
        let at_most = |seconds| CacheDirectives {
            fresh: Some(Duration::from_secs(seconds)),
            ..CacheDirectives::UNSPECIFIED
        };
        let aged = |seconds, age| CacheDirectives { age: Duration::from_secs(age), ..at_most(seconds) };
        let stale = |error, meanwhile| CacheDirectives {
            stale_if_error: Some(Duration::from_secs(error)),
            stale_while_revalidate: Some(Duration::from_secs(meanwhile)),
            ..CacheDirectives::UNSPECIFIED
        };
        for (lines, age, expected) in [
            (&[][..], None, CacheDirectives::UNSPECIFIED),
            (&["private"], None, CacheDirectives::UNSPECIFIED),
            (&["no-cache, private"], None, CacheDirectives::UNSPECIFIED),
            (&["private", "no-cache"], None, CacheDirectives::UNSPECIFIED),
            (&["no-cache"], None, CacheDirectives::NO_CACHE),
            (&["no-cache, private, must-revalidate"], None, CacheDirectives::NO_CACHE),
            (&["no-cache, no-store"], None, CacheDirectives::NO_STORE),
            (&["No-Store"], None, CacheDirectives::NO_STORE),
            (&["max-age=60, no-store"], None, CacheDirectives::NO_STORE),
            (&["no-store, max-age=60"], None, CacheDirectives::NO_STORE),
            (&["max-age=7"], None, at_most(7)),
            (&["max-age=\"7\""], None, at_most(7)),
            (&["public, MAX-AGE = 7"], None, at_most(7)),
            (&["max-age=60", "max-age=5"], None, at_most(5)),
            (&["max-age=60"], Some("50"), aged(60, 50)),
            (&["max-age=60"], Some("90"), aged(60, 90)),
            (&["max-age=-1"], None, at_most(0)),
            (&["max-age"], None, at_most(0)),
            (&["max-age=99999999999999999999999"], None, at_most(u64::from(u32::MAX))),
            (&["s-maxage=0"], None, CacheDirectives::UNSPECIFIED),
            (&["must-revalidate"], None, stale(0, 0)),
            (&["proxy-revalidate, stale-if-error=60"], None, stale(0, 0)),
            (&["stale-if-error=60, stale-while-revalidate=5"], Some("50"), {
                CacheDirectives { age: Duration::from_secs(50), ..stale(60, 5) }
            }),
            (&["stale-if-error=60, Stale-If-Error=\"7\"", "stale-while-revalidate=x"], None, stale(7, 0)),
        ] {
            assert_eq!(read(lines, age), expected, "{lines:?} at age {age:?}");
        }
        assert_eq!(at_most(60).limit(Duration::from_secs(30)), Duration::from_secs(30));
        assert_eq!(at_most(10).limit(Duration::from_secs(30)), Duration::from_secs(10));
        assert_eq!(aged(60, 50).limit(Duration::from_secs(30)), Duration::from_secs(10));
        assert_eq!(aged(60, 90).limit(Duration::from_secs(30)), Duration::ZERO);
        assert!(!at_most(0).forbids_storage() && !CacheDirectives::NO_CACHE.forbids_storage());
        assert!(CacheDirectives::NO_STORE.forbids_storage());
        let window = Duration::from_secs(300);
        for (directives, expected) in [
            (CacheDirectives::UNSPECIFIED, 300),
            (at_most(10), 300),
            (stale(7, 900), 7),
            (CacheDirectives::NO_STORE, 0),
        ] {
            assert_eq!(directives.limit_stale_if_error(window), Duration::from_secs(expected));
        }
        assert_eq!(stale(7, 900).limit_stale_while_revalidate(window), window);
    }

    proptest! {
        #[test]
        fn arbitrary_headers_never_loosen_a_bound(bytes: Vec<u8>, age: Vec<u8>) {
            let mut headers = HeaderMap::new();
            if let Ok(value) = bytes.try_into() {
                headers.insert(CACHE_CONTROL, value);
            }
            if let Ok(value) = age.try_into() {
                headers.insert(AGE, value);
            }
            let bound = Duration::from_secs(30);
            let directives = parse(&headers);
            prop_assert!(directives.limit(bound) <= bound);
            prop_assert!(directives.limit_stale_if_error(bound) <= bound);
            prop_assert!(directives.limit_stale_while_revalidate(bound) <= bound);
        }
    }
}
