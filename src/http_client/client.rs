//! The reqwest client of all outgoing calls, and the reading of its errors.

use std::{error::Error, io, time::Duration};

use reqwest::{Client, Url, redirect};

use super::{proxy::proxy, replay, tls};
use crate::config::upstream::UpstreamConfig;

const USER_AGENT: &str = concat!("appointments-gateway/", env!("CARGO_PKG_VERSION"));

/// The share of `upstream.timeout` that connecting may take.
const CONNECT_SHARE: f64 = 0.9;

/// A client without redirects and `Referer`, which repeats only requests that the server has certainly not processed. Its
/// only proxy is `upstream.proxy`. Connections are closed after `idle_timeout`. `uses_tls` says whether it calls an
/// `https://` URL.
///
/// # Errors
/// A text for the operator, if the certificates or the proxy cannot be used.
pub(crate) fn client(
    config: &UpstreamConfig,
    idle_timeout: Duration,
    uses_tls: bool,
) -> Result<Client, String> {
    // It fails if a provider is installed already, and any will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut http = Client::builder()
        .user_agent(USER_AGENT)
        // Connecting is part of the call. It fails before the call times out, so that a change that was not sent is
        // known not to have been sent.
        .connect_timeout(config.connect_timeout.min(config.timeout.mul_f64(CONNECT_SHARE)))
        .pool_max_idle_per_host(config.max_concurrent)
        .pool_idle_timeout(idle_timeout)
        // Changes must be made exactly once. Retries of reads are up to `upstream::resilience`, which counts them.
        .redirect(redirect::Policy::none())
        .retry(replay::policy())
        .referer(false)
        // The proxies of the environment are meant for other programs.
        .no_proxy()
        // Tolerance for old servers, which may compare the names of headers case-sensitively, or break lines of headers,
        // insert spaces before colons or send lines that are no headers.
        .http1_title_case_headers()
        .http1_allow_obsolete_multiline_headers_in_responses(true)
        .http1_allow_spaces_after_header_name_in_responses(true)
        .http1_ignore_invalid_headers_in_responses(true);
    if let Some(proxy) = proxy(config)? {
        http = http.proxy(proxy);
    }
    if uses_tls || config.proxy.as_ref().is_some_and(is_https) {
        tls::build(http, config)
    } else {
        tls::build_plain(http)
    }
}

/// Whether calls to `url` use TLS.
pub(crate) fn is_https(url: &Url) -> bool {
    url.scheme() == "https"
}

/// The error and its chain of causes, in one line.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        text.push_str(": ");
        text.push_str(&cause_text);
        // The causes of this one repeat the peer's debug data, which may hold anything.
        source = cause.source().filter(|_| cause_text != "http2 error");
    }
    text
}

/// Whether the error means that this machine ran out of file descriptors, buffers, local ports or memory. Such an error
/// is no evidence against the upstream, so it does not count for the circuit breaker.
pub(crate) fn is_exhausted(error: &(dyn Error + 'static)) -> bool {
    let is_exhaustion = |error: &io::Error| {
        // The error wrapped by an `io::Error` is not part of its chain of sources.
        is_local_exhaustion(error) || error.get_ref().is_some_and(|inner| is_exhausted(inner))
    };
    error.downcast_ref::<io::Error>().is_some_and(is_exhaustion) || error.source().is_some_and(is_exhausted)
}

#[cfg(unix)]
fn is_local_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let exhaustions = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    Errno::from_io_error(error).is_some_and(|errno| exhaustions.contains(&errno))
}

#[cfg(not(unix))]
fn is_local_exhaustion(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::OutOfMemory | io::ErrorKind::AddrNotAvailable)
}

#[cfg(all(test, unix))]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn exhaustion_is_found_anywhere_in_the_error_chain() {
        for (errno, expected) in [
            (Errno::MFILE, true),
            (Errno::NFILE, true),
            (Errno::NOBUFS, true),
            (Errno::NOMEM, true),
            (Errno::ADDRNOTAVAIL, true),
            (Errno::CONNREFUSED, false),
            (Errno::CONNRESET, false),
            (Errno::TIMEDOUT, false),
            (Errno::HOSTUNREACH, false),
        ] {
            let bare = io::Error::from(errno);
            assert_eq!(is_exhausted(&bare), expected, "{errno}");
            let wrapped = io::Error::other(io::Error::other(bare));
            assert_eq!(is_exhausted(&wrapped), expected, "{errno}");
        }
        assert!(!is_exhausted(&io::Error::other("anything")));
    }
}
