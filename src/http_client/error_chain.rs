//! The chain of causes of an error of an outgoing call.

use std::{error::Error, io};

/// The error and its chain of causes, in one line.
pub(crate) fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = describe(error);
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&describe(cause));
        source = cause.source();
    }
    text
}

/// The text of one error. That of a `GOAWAY` would repeat the debug data of the peer, which may hold anything.
fn describe(error: &(dyn Error + 'static)) -> String {
    match error.downcast_ref::<h2::Error>() {
        Some(error) if error.is_go_away() => {
            let reason = error.reason().map(|reason| format!(": {reason}"));
            format!("the server closed the HTTP/2 connection{}", reason.unwrap_or_default())
        }
        _ => error.to_string(),
    }
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
