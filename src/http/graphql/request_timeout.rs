//! The request header `x-request-timeout`, which shortens `http.deadline` for one request.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, StatusCode};
use tokio::time::Instant;

use crate::http::refusal::Refusal;

const X_REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout");

/// The deadline of a request that has just begun: after `maximum`, or earlier if its `headers` say so.
///
/// # Errors
/// 400 for a timeout that is not a single positive duration with a unit. It is not ignored, since the client relies on
/// it.
pub(crate) fn deadline(headers: &HeaderMap, maximum: Duration) -> Result<Instant, Refusal> {
    let mut values = headers.get_all(X_REQUEST_TIMEOUT).iter();
    let timeout = match values.next() {
        None => maximum,
        Some(value) => {
            let timeout = value.to_str().ok().filter(|_| values.next().is_none()).and_then(parse);
            timeout.ok_or_else(invalid)?.min(maximum)
        }
    };
    Ok(Instant::now() + timeout)
}

fn parse(text: &str) -> Option<Duration> {
    humantime::parse_duration(text.trim()).ok().filter(|timeout| !timeout.is_zero())
}

fn invalid() -> Refusal {
    Refusal::new(
        StatusCode::BAD_REQUEST,
        "Header x-request-timeout is not a single positive duration. Send a number with a unit, such as 800ms or 2s.",
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_timeout_is_a_positive_number_with_a_unit() {
        for (text, expected) in [
            ("800ms", Some(Duration::from_millis(800))),
            (" 2s ", Some(Duration::from_secs(2))),
            ("1m 30s", Some(Duration::from_secs(90))),
            ("100000h", Some(Duration::from_secs(360_000_000))),
            ("1ns", Some(Duration::from_nanos(1))),
            ("0", None),
            ("0ms", None),
            ("-1s", None),
            ("800", None),
            ("ms", None),
            ("", None),
            ("soon", None),
            ("99999999999999999999999h", None),
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_timeout_lengthens_the_deadline(text in "[ -~]{0,20}|[0-9]{1,12}(ns|us|ms|s|m|h|d|y)") {
            let headers = HeaderMap::from_iter([(X_REQUEST_TIMEOUT, text.parse().unwrap())]);
            let maximum = Duration::from_secs(10);
            if let Ok(deadline) = deadline(&headers, maximum) {
                prop_assert!(deadline <= Instant::now() + maximum);
            }
        }
    }
}
