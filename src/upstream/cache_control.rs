//! How long the upstream lets an answer be kept: the header `Cache-Control`, RFC 9111 section 5.2.2.
//!
//! Every cache of the gateway belongs to one caller, so `private` and `s-maxage` change nothing.

use std::time::Duration;

use reqwest::header::{AGE, CACHE_CONTROL, HeaderMap};

/// What the upstream said of keeping its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: the configured time holds.
    Unsaid,
    /// No longer than this.
    AtMost(Duration),
    /// Not at all.
    Never,
}

impl Keep {
    /// `ttl`, or less where the upstream said so.
    pub fn limit(self, ttl: Duration) -> Duration {
        match self {
            Self::Unsaid => ttl,
            Self::AtMost(limit) => ttl.min(limit),
            Self::Never => Duration::ZERO,
        }
    }
}

/// Reads `Cache-Control`, less what `Age` says has passed already.
///
/// `no-store` and `no-cache` forbid keeping, with one exception: `no-cache, private` and nothing else is what the
/// upstream's framework puts on every answer of which the application said nothing, so it says nothing. Whoever means
/// it sends any other directive with it, or `no-store`. A value that cannot be read counts as the strictest.
pub(super) fn keep(headers: &HeaderMap) -> Keep {
    let mut directives = Vec::new();
    for value in headers.get_all(CACHE_CONTROL) {
        let Ok(value) = value.to_str() else { return Keep::Never };
        directives
            .extend(value.split(',').map(str::trim).filter(|it| !it.is_empty()).map(str::to_ascii_lowercase));
    }
    directives.sort_unstable();
    if directives.is_empty() || directives == ["no-cache", "private"] {
        return Keep::Unsaid;
    }
    let age = headers
        .get(AGE)
        .and_then(|age| age.to_str().ok())
        .and_then(|age| age.trim().parse().ok())
        .unwrap_or(0);
    directives.iter().fold(Keep::Unsaid, |kept, directive| {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match (kept, name.trim_end()) {
            (Keep::Never, _) | (_, "no-store" | "no-cache") => Keep::Never,
            (kept, "max-age") => {
                let limit = Duration::from_secs(seconds(value).saturating_sub(age));
                Keep::AtMost(kept.limit(limit))
            }
            (kept, _) => kept,
        }
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

    fn read(lines: &[&str], age: Option<&str>) -> Keep {
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
        let at_most = |seconds| Keep::AtMost(Duration::from_secs(seconds));
        for (lines, age, expected) in [
            (&[][..], None, Keep::Unsaid),
            (&["private"], None, Keep::Unsaid),
            (&["no-cache, private"], None, Keep::Unsaid),
            (&["private", "no-cache"], None, Keep::Unsaid),
            (&["no-cache"], None, Keep::Never),
            (&["no-cache, private, must-revalidate"], None, Keep::Never),
            (&["No-Store"], None, Keep::Never),
            (&["max-age=60, no-store"], None, Keep::Never),
            (&["no-store, max-age=60"], None, Keep::Never),
            (&["max-age=7"], None, at_most(7)),
            (&["max-age=\"7\""], None, at_most(7)),
            (&["public, MAX-AGE = 7"], None, at_most(7)),
            (&["max-age=60", "max-age=5"], None, at_most(5)),
            (&["max-age=60"], Some("50"), at_most(10)),
            (&["max-age=60"], Some("90"), at_most(0)),
            (&["max-age=-1"], None, at_most(0)),
            (&["max-age"], None, at_most(0)),
            (&["max-age=99999999999999999999999"], None, at_most(u64::from(u32::MAX))),
            (&["s-maxage=0, stale-if-error=60"], None, Keep::Unsaid),
        ] {
            assert_eq!(read(lines, age), expected, "{lines:?} at age {age:?}");
        }
        assert_eq!(at_most(60).limit(Duration::from_secs(30)), Duration::from_secs(30));
        assert_eq!(at_most(10).limit(Duration::from_secs(30)), Duration::from_secs(10));
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
            let ttl = Duration::from_secs(30);
            prop_assert!(keep(&headers).limit(ttl) <= ttl);
        }
    }
}
