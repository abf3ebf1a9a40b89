//! The reqwest client of all outgoing calls.

use std::time::Duration;

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
