//! How long the upstream lets an answer be kept: the header `Cache-Control`, RFC 9111 section 5.2.2.
//!
//! Every cache of the gateway belongs to one caller, so `private` and `s-maxage` change nothing.

use std::time::Duration;

use reqwest::header::{AGE, CACHE_CONTROL, HeaderMap};

/// What the upstream said of keeping its answer. Each is a bound, and none where it said nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheDirectives {
    fresh: Option<Duration>,
    stale_if_error: Option<Duration>,
    stale_while_revalidate: Option<Duration>,
}

impl CacheDirectives {
    /// Nothing: the configured times hold.
    pub const UNSAID: Self = Self { fresh: None, stale_if_error: None, stale_while_revalidate: None };

    /// Not at all.
    pub const NEVER: Self = Self { fresh: Some(Duration::ZERO), ..Self::FRESH };

    /// As long as it is fresh, and no longer.
    const FRESH: Self = Self {
        fresh: None,
        stale_if_error: Some(Duration::ZERO),
        stale_while_revalidate: Some(Duration::ZERO),
    };

    /// `ttl`, or less where the upstream said so.
    pub fn limit(self, ttl: Duration) -> Duration {
        least(self.fresh, ttl)
    }

    /// How long past that it may be served where the upstream fails (RFC 5861, section 4): `bound`, or less.
    pub fn limit_stale_if_error(self, bound: Duration) -> Duration {
        least(self.stale_if_error, bound)
    }

    /// How long past that it may be served while it is asked for anew (RFC 5861, section 3): `bound`, or less.
    pub fn limit_stale_while_revalidate(self, bound: Duration) -> Duration {
        least(self.stale_while_revalidate, bound)
    }

    /// What both allow.
    fn and(self, other: Self) -> Self {
        let least =
            |one: Option<Duration>, other: Option<Duration>| one.map_or(other, |it| Some(least(other, it)));
        Self {
            fresh: least(self.fresh, other.fresh),
            stale_if_error: least(self.stale_if_error, other.stale_if_error),
            stale_while_revalidate: least(self.stale_while_revalidate, other.stale_while_revalidate),
        }
    }
}

fn least(said: Option<Duration>, bound: Duration) -> Duration {
    said.map_or(bound, |said| said.min(bound))
}

/// Reads `Cache-Control`, less what `Age` says has passed already.
///
/// `no-store` and `no-cache` forbid keeping, with one exception: `no-cache, private` and nothing else is what the
/// upstream's framework puts on every answer of which the application said nothing, so it says nothing. Whoever means
/// it sends any other directive with it, or `no-store`. `must-revalidate` and `proxy-revalidate` forbid to serve what is
/// stale. A value that cannot be read counts as the strictest.
pub(crate) fn keep(headers: &HeaderMap) -> CacheDirectives {
    let mut directives = Vec::new();
    for value in headers.get_all(CACHE_CONTROL) {
        let Ok(value) = value.to_str() else { return CacheDirectives::NEVER };
        directives
            .extend(value.split(',').map(str::trim).filter(|it| !it.is_empty()).map(str::to_ascii_lowercase));
    }
    directives.sort_unstable();
    if directives == ["no-cache", "private"] {
        return CacheDirectives::UNSAID;
    }
    let age = headers
        .get(AGE)
        .and_then(|age| age.to_str().ok())
        .and_then(|age| age.trim().parse().ok())
        .unwrap_or(0);
    directives.iter().fold(CacheDirectives::UNSAID, |kept, directive| {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        let said = || Some(Duration::from_secs(seconds(value)));
        kept.and(match name.trim_end() {
            "no-store" | "no-cache" => CacheDirectives::NEVER,
            "must-revalidate" | "proxy-revalidate" => CacheDirectives::FRESH,
            "max-age" => {
                let left = Duration::from_secs(seconds(value).saturating_sub(age));
                CacheDirectives { fresh: Some(left), ..CacheDirectives::UNSAID }
            }
            "stale-if-error" => CacheDirectives { stale_if_error: said(), ..CacheDirectives::UNSAID },
            "stale-while-revalidate" => {
                CacheDirectives { stale_while_revalidate: said(), ..CacheDirectives::UNSAID }
            }
            _ => CacheDirectives::UNSAID,
        })
    })
}

/// Delta-seconds, RFC 9111 section 1.2.2: too large means very long; what is no number counts as 0. Some senders put
/// it into quotes.
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
        keep(&headers)
    }

    #[test]
    fn directives_tighten_and_never_loosen() {
        let at_most = |seconds| CacheDirectives {
            fresh: Some(Duration::from_secs(seconds)),
            ..CacheDirectives::UNSAID
        };
        let stale = |error, meanwhile| CacheDirectives {
            fresh: None,
            stale_if_error: Some(Duration::from_secs(error)),
            stale_while_revalidate: Some(Duration::from_secs(meanwhile)),
        };
        for (lines, age, expected) in [
            (&[][..], None, CacheDirectives::UNSAID),
            (&["private"], None, CacheDirectives::UNSAID),
            (&["no-cache, private"], None, CacheDirectives::UNSAID),
            (&["private", "no-cache"], None, CacheDirectives::UNSAID),
            (&["no-cache"], None, CacheDirectives::NEVER),
            (&["no-cache, private, must-revalidate"], None, CacheDirectives::NEVER),
            (&["No-Store"], None, CacheDirectives::NEVER),
            (&["max-age=60, no-store"], None, CacheDirectives::NEVER),
            (&["no-store, max-age=60"], None, CacheDirectives::NEVER),
            (&["max-age=7"], None, at_most(7)),
            (&["max-age=\"7\""], None, at_most(7)),
            (&["public, MAX-AGE = 7"], None, at_most(7)),
            (&["max-age=60", "max-age=5"], None, at_most(5)),
            (&["max-age=60"], Some("50"), at_most(10)),
            (&["max-age=60"], Some("90"), at_most(0)),
            (&["max-age=-1"], None, at_most(0)),
            (&["max-age"], None, at_most(0)),
            (&["max-age=99999999999999999999999"], None, at_most(u64::from(u32::MAX))),
            (&["s-maxage=0"], None, CacheDirectives::UNSAID),
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
        for (keep, expected) in [
            (CacheDirectives::UNSAID, 300),
            (at_most(10), 300),
            (stale(7, 900), 7),
            (CacheDirectives::NEVER, 0),
        ] {
            assert_eq!(keep.limit_stale_if_error(window), Duration::from_secs(expected));
        }
        assert_eq!(stale(7, 900).limit_stale_while_revalidate(window), window);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_and_never_loosen(bytes: Vec<u8>, age: Vec<u8>) {
            let mut headers = HeaderMap::new();
            if let Ok(value) = bytes.try_into() {
                headers.insert(CACHE_CONTROL, value);
            }
            if let Ok(value) = age.try_into() {
                headers.insert(AGE, value);
            }
            let bound = Duration::from_secs(30);
            let keep = keep(&headers);
            prop_assert!(keep.limit(bound) <= bound);
            prop_assert!(keep.limit_stale_if_error(bound) <= bound);
            prop_assert!(keep.limit_stale_while_revalidate(bound) <= bound);
        }
    }
}
