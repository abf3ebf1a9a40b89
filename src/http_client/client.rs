//! What all calls out of the gateway have in common: a client, and words for what it says went wrong.

use std::{error::Error, io};

use reqwest::{Client, redirect};

use crate::config::upstream::UpstreamConfig;

const USER_AGENT: &str = concat!("appointments-gateway/", env!("CARGO_PKG_VERSION"));

/// A client that follows nothing, repeats nothing and sends what it is told to.
///
/// # Errors
/// A text for the operator where the TLS library or the extra certificates cannot be loaded.
pub(crate) fn client(config: &UpstreamConfig) -> Result<Client, String> {
    // A second call finds it installed, which is all that is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut http = Client::builder()
        .user_agent(USER_AGENT)
        // A part of the whole: it never takes longer.
        .connect_timeout(config.connect_timeout.min(config.timeout))
        .pool_max_idle_per_host(config.max_concurrent)
        // A change is sent once. What may be repeated is repeated by us, where we can see it.
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .no_proxy();
    if let Some(path) = &config.ca_file {
        let fault = |what: &dyn std::fmt::Display| format!("upstream.ca_file: {}: {what}", path.display());
        let pem = std::fs::read(path).map_err(|error| fault(&error))?;
        let certificates =
            reqwest::Certificate::from_pem_bundle(&pem).map_err(|_| fault(&"no PEM certificates"))?;
        if certificates.is_empty() {
            return Err(fault(&"holds no PEM certificate"));
        }
        http = http.tls_certs_merge(certificates);
    }
    http.build().map_err(|error| format!("upstream: TLS cannot be set up: {}", causes(&error)))
}

/// An error with all that caused it, in one line.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        text.push_str(": ");
        text.push_str(&cause_text);
        // What lies below repeats what the other side gave as its reason, which may be anything.
        source = cause.source().filter(|_| cause_text != "http2 error");
    }
    text
}

/// Whether an error means that this machine ran out of open files, buffers, local ports or memory. It says nothing of the
/// other side.
pub(crate) fn is_exhausted(error: &(dyn Error + 'static)) -> bool {
    let is_local = |error: &io::Error| {
        // An error within an `io::Error` is none of its sources.
        is_local(error) || error.get_ref().is_some_and(|inner| is_exhausted(inner))
    };
    error.downcast_ref::<io::Error>().is_some_and(is_local) || error.source().is_some_and(is_exhausted)
}

#[cfg(unix)]
fn is_local(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let locals = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    Errno::from_io_error(error).is_some_and(|errno| locals.contains(&errno))
}

#[cfg(not(unix))]
fn is_local(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::OutOfMemory | io::ErrorKind::AddrNotAvailable)
}

#[cfg(all(test, unix))]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn exhaustion_is_found_wherever_it_is_in_the_chain() {
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
