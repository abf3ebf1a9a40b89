//! When the upstream wants to be asked again: the header `Retry-After`, RFC 9110 section 10.2.3.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

/// The longest wait that is believed: who means longer is asked once in a while all the same.
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// Seconds, or a date; none where the header is neither, or not there. A date that has passed is now, and none is further
/// away than an hour.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    read(headers.get(RETRY_AFTER)?.to_str().ok()?.trim()).map(|wait| wait.min(LONGEST))
}

fn read(value: &str) -> Option<Duration> {
    if value.bytes().all(|byte| byte.is_ascii_digit()) {
        let is_there = !value.is_empty();
        return is_there.then(|| Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    Some(at.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(value: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, value.parse().ok()?);
        retry_after(&headers)
    }

    #[test]
    fn seconds_and_dates_are_read() {
        assert_eq!(header("120"), Some(Duration::from_secs(120)));
        assert_eq!(header(" 0 "), Some(Duration::ZERO));
        assert_eq!(header("99999999999999999999999"), Some(LONGEST));
        assert_eq!(header("Fri, 31 Dec 1999 23:59:59 GMT"), Some(Duration::ZERO));
        let later = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
        assert!(header(&later).is_some_and(|wait| (90..=100).contains(&wait.as_secs())));
        for value in ["", "-1", "1.5", "soon"] {
            assert_eq!(header(value), None, "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(value: String) {
            let _ = header(&value);
        }
    }
}
