//! Parser of the `Retry-After` header (RFC 9110, section 10.2.3).

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

/// The upper bound of the delay. Servers that ask for more are called again after this time all the same.
const MAX_DELAY: Duration = Duration::from_secs(60 * 60);

/// The delay that the header asks for, in seconds or as a date, up to [`MAX_DELAY`]. A date in the past is a delay of
/// 0. None if the header is missing or malformed.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    parse(headers.get(RETRY_AFTER)?.to_str().ok()?.trim()).map(|delay| delay.min(MAX_DELAY))
}

fn parse(value: &str) -> Option<Duration> {
    if value.bytes().all(|byte| byte.is_ascii_digit()) {
        let is_number = !value.is_empty();
        // A number that does not fit is a long delay, which is bounded anyway.
        return is_number.then(|| Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
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
    fn seconds_and_dates_are_parsed() {
        assert_eq!(header("120"), Some(Duration::from_secs(120)));
        assert_eq!(header(" 0 "), Some(Duration::ZERO));
        assert_eq!(header("99999999999999999999999"), Some(MAX_DELAY));
        assert_eq!(header("Fri, 31 Dec 1999 23:59:59 GMT"), Some(Duration::ZERO));
        let later = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
        assert!(header(&later).is_some_and(|wait| (90..=100).contains(&wait.as_secs())));
        for value in ["", "-1", "1.5", "soon"] {
            assert_eq!(header(value), None, "{value}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(value: String) {
            let _ = header(&value);
        }
    }
}
