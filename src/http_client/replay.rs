//! Replays of requests that the server has certainly not processed (RFC 9113, section 8.7): the stream was refused, or
//! its number is above the last one of a `GOAWAY`. They are safe for changes too.

use std::error::Error;

use reqwest::retry;

/// Replays such a request at once, up to twice. The timeouts of the call include its replays.
pub(super) fn policy() -> retry::Builder {
    retry::for_host(AnyHost).no_budget().classify_fn(|attempt| {
        if attempt.error().is_some_and(is_unprocessed) { attempt.retryable() } else { attempt.success() }
    })
}

/// Whether the error, which came in place of a response, proves that the server has not processed the request.
pub(crate) fn is_unprocessed(error: &(dyn Error + 'static)) -> bool {
    if let Some(error) = error.downcast_ref::<h2::Error>() {
        // h2 reports a `GOAWAY` only to streams above its last one.
        let is_refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        return error.is_remote() && (is_refused || error.is_go_away());
    }
    // hyper cancels a request whose connection closed before its first byte was sent.
    error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled)
        || error.source().is_some_and(is_unprocessed)
}

/// The policy applies to every host of a client.
struct AnyHost;

impl PartialEq<&str> for AnyHost {
    fn eq(&self, _: &&str) -> bool {
        true
    }
}
