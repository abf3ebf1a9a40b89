//! The `Host` header: every request has exactly one, and it is valid (RFC 9112, section 3.2).

use std::{borrow::Cow, net::Ipv6Addr};

use axum::http::{Request, StatusCode, Version, header, uri::Authority};

use super::refusal::Refusal;

/// Rejects a request whose `Host` is missing, repeated or invalid. HTTP/1.0 does not require it.
///
/// # Errors
/// 400.
pub(crate) fn check<B>(request: &Request<B>) -> Result<(), Refusal> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let fault = match (hosts.next(), hosts.next()) {
        (None, _) if request.version() < Version::HTTP_11 => return Ok(()),
        (Some(host), None) if is_valid(host.as_bytes()) => return Ok(()),
        (None, _) => "is missing",
        (Some(_), None) => "is invalid",
        (Some(_), Some(_)) => "is repeated",
    };
    let message = format!("Host header {fault}. Send exactly one, such as \"Host: gateway.example:8080\".");
    Err(Refusal::new(StatusCode::BAD_REQUEST, message))
}

/// Whether `value` is a host name or address and an optional port (RFC 9110, section 7.2). The empty value, which the
/// grammar allows, names no host of an http address.
fn is_valid(value: &[u8]) -> bool {
    let Some(value) = without_escapes(value) else { return false };
    let Ok(authority) = Authority::try_from(&*value) else { return false };
    let host = authority.host();
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains('['),
    };
    // A user name may be in front of the host.
    let port = authority.as_str().strip_prefix(host);
    let is_port = port.is_some_and(|port| match port.strip_prefix(':') {
        Some(number) => number.is_empty() || !number.starts_with('+') && number.parse::<u16>().is_ok(),
        None => port.is_empty(),
    });
    is_host && is_port
}

/// `value` with a letter in place of each percent-encoded byte, which [`Authority`] does not know in host names; `None` if
/// one is incomplete.
fn without_escapes(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut parts = value.split(|byte| *byte == b'%');
    let mut plain = Cow::Borrowed(parts.next()?);
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        plain.to_mut().extend([b"x", rest].concat());
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_an_optional_port() {
        for host in [
            "a",
            "A.example",
            "a.example.",
            "a_b-c~d",
            "a%41.example:80",
            "a:80",
            "a:",
            "a:65535",
            "127.0.0.1",
            "127.0.0.1:8080",
            "[::1]",
            "[::1]:80",
            "[2001:DB8::1]:",
            "xn--bcher-kva.example",
            "a!$&'()*+,;=b",
            "1",
        ] {
            assert!(is_valid(host.as_bytes()), "{host}");
        }
        for host in [
            "",
            " ",
            ":",
            ":80",
            "a b",
            "a, b",
            "a/",
            "a/b",
            "/",
            "a?b",
            "a#b",
            "http://a",
            "a@b",
            "@",
            "u:p@a",
            "a:b",
            "a:80:80",
            "a:-1",
            "a:+80",
            "a:65536",
            "a:8 0",
            "::1",
            "[::1",
            "::1]",
            "[]",
            "[a]",
            "[::1]a",
            "[::1]80",
            "a[::1]",
            "[127.0.0.1]",
            "[fe80::1%25eth0]",
            "a%zz",
            "a%4",
            "a:%38",
            "[%3a:]",
            "a\"b",
            "a<b>",
            "a\\b",
            "{a}",
            "b\u{fc}cher",
            "a\tb",
        ] {
            assert!(!is_valid(host.as_bytes()), "{host}");
        }
    }

    proptest! {
        #[test]
        fn the_check_never_panics(host: Vec<u8>) {
            is_valid(&host);
        }

        #[test]
        fn names_and_addresses_are_valid(name in "[a-z0-9._~-]{1,50}", address: Ipv6Addr, port: u16) {
            prop_assert!(is_valid(name.as_bytes()));
            let with_port = format!("{name}:{port}");
            prop_assert!(is_valid(with_port.as_bytes()));
            let literal = format!("[{address}]:{port}");
            prop_assert!(is_valid(literal.as_bytes()));
        }
    }
}
