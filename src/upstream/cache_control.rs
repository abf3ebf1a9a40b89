//! The response header `Cache-Control` (RFC 9111, section 5.2.2): upper bounds on the freshness of a response.
//!
//! Each cache entry of the gateway belongs to one caller scope, so `private` and `s-maxage` have no effect.

use std::time::Duration;

use reqwest::header::{AGE, CACHE_CONTROL, HeaderMap};

/// The upstream's bounds on caching a response. `None` means that the upstream set no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheDirectives {
    fresh: Option<Duration>,
    stale_if_error: Option<Duration>,
    stale_while_revalidate: Option<Duration>,
}

impl CacheDirectives {
    /// No bounds: the configured times apply.
    pub const UNSPECIFIED: Self = Self { fresh: None, stale_if_error: None, stale_while_revalidate: None };

    /// The response must not be cached.
    pub const NO_STORE: Self = Self { fresh: Some(Duration::ZERO), ..Self::NEVER_STALE };

    /// The response must not be served stale.
    const NEVER_STALE: Self = Self {
        fresh: None,
        stale_if_error: Some(Duration::ZERO),
        stale_while_revalidate: Some(Duration::ZERO),
    };

    /// Whether the response must not be cached.
    pub fn forbids_caching(self) -> bool {
        self.fresh == Some(Duration::ZERO)
    }

    /// Returns `ttl`, or the upstream's freshness lifetime if that is shorter.
    pub fn limit(self, ttl: Duration) -> Duration {
        shorter(self.fresh, ttl)
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
        }
    }
}

fn shorter(stated: Option<Duration>, bound: Duration) -> Duration {
    stated.map_or(bound, |stated| stated.min(bound))
}

/// Parses `Cache-Control` and subtracts `Age` from `max-age`.
///
/// `no-store` and `no-cache` forbid caching, with one exception: exactly `no-cache, private` is the default of the
/// upstream's framework for responses without an explicit policy, so it counts as unspecified. Any further directive
/// makes it explicit. `must-revalidate` and `proxy-revalidate` forbid serving stale copies. An invalid value counts as
/// the strictest one.
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
    let age = headers
        .get(AGE)
        .and_then(|age| age.to_str().ok())
        .and_then(|age| age.trim().parse().ok())
        .unwrap_or(0);
    directives.iter().fold(CacheDirectives::UNSPECIFIED, |combined, directive| {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        let stated = || Some(Duration::from_secs(seconds(value)));
        combined.and(match name.trim_end() {
            "no-store" | "no-cache" => CacheDirectives::NO_STORE,
            "must-revalidate" | "proxy-revalidate" => CacheDirectives::NEVER_STALE,
            "max-age" => {
                let left = Duration::from_secs(seconds(value).saturating_sub(age));
                CacheDirectives { fresh: Some(left), ..CacheDirectives::UNSPECIFIED }
            }
            "stale-if-error" => CacheDirectives { stale_if_error: stated(), ..CacheDirectives::UNSPECIFIED },
            "stale-while-revalidate" => {
                CacheDirectives { stale_while_revalidate: stated(), ..CacheDirectives::UNSPECIFIED }
            }
            _ => CacheDirectives::UNSPECIFIED,
        })
    })
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
        let stale = |error, meanwhile| CacheDirectives {
            fresh: None,
            stale_if_error: Some(Duration::from_secs(error)),
            stale_while_revalidate: Some(Duration::from_secs(meanwhile)),
        };
        for (lines, age, expected) in [
            (&[][..], None, CacheDirectives::UNSPECIFIED),
            (&["private"], None, CacheDirectives::UNSPECIFIED),
            (&["no-cache, private"], None, CacheDirectives::UNSPECIFIED),
            (&["private", "no-cache"], None, CacheDirectives::UNSPECIFIED),
            (&["no-cache"], None, CacheDirectives::NO_STORE),
            (&["no-cache, private, must-revalidate"], None, CacheDirectives::NO_STORE),
            (&["No-Store"], None, CacheDirectives::NO_STORE),
            (&["max-age=60, no-store"], None, CacheDirectives::NO_STORE),
            (&["no-store, max-age=60"], None, CacheDirectives::NO_STORE),
            (&["max-age=7"], None, at_most(7)),
            (&["max-age=\"7\""], None, at_most(7)),
            (&["public, MAX-AGE = 7"], None, at_most(7)),
            (&["max-age=60", "max-age=5"], None, at_most(5)),
            (&["max-age=60"], Some("50"), at_most(10)),
            (&["max-age=60"], Some("90"), at_most(0)),
            (&["max-age=-1"], None, at_most(0)),
            (&["max-age"], None, at_most(0)),
            (&["max-age=99999999999999999999999"], None, at_most(u64::from(u32::MAX))),
            (&["s-maxage=0"], None, CacheDirectives::UNSPECIFIED),
            (&["must-revalidate"], None, stale(0, 0)),
            (&["proxy-revalidate, stale-if-error=60"], None, stale(0, 0)),
            (&["stale-if-error=60, stale-while-revalidate=5"], Some("50"), stale(60, 5)),
            (&["stale-if-error=60, Stale-If-Error=\"7\"", "stale-while-revalidate=x"], None, stale(7, 0)),
        ] {
            assert_eq!(read(lines, age), expected, "{lines:?} at age {age:?}");
        }
        assert_eq!(at_most(60).limit(Duration::from_secs(30)), Duration::from_secs(30));
        assert_eq!(at_most(10).limit(Duration::from_secs(30)), Duration::from_secs(10));
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
