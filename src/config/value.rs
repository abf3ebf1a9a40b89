//! Parsers of configuration values.
//!
//! An error says what is wrong and what to write instead. It does not repeat the text, which may be a misplaced secret.

use std::{net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use axum::http::HeaderName;
use bytesize::ByteSize;
use jsonwebtoken::{Algorithm, AlgorithmFamily};
use url::{Host, Url, form_urlencoded};

use super::secret::Secret;

/// The maximum duration. Adding it to a point in time cannot overflow.
const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "is not an address; write IP:PORT, such as 127.0.0.1:8080 or [::1]:8080".to_owned())
}

/// Parses `text` unless it is empty.
pub(crate) fn optional<T>(
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

/// A URL to which the gateway appends paths.
pub(crate) fn base_url(text: &str) -> Result<Option<Url>, String> {
    match url(text)? {
        Some(url) if url.query().is_some() => Err("contains a query (?); remove it".to_owned()),
        url => Ok(url),
    }
}

fn url(text: &str) -> Result<Option<Url>, String> {
    let Some(url) = http_url(text)? else { return Ok(None) };
    if has_user_info(&url) {
        return Err("contains a user name or password; remove them: requests carry bearer tokens".to_owned());
    }
    if url.fragment().is_some() {
        return Err("contains a fragment (#); remove it".to_owned());
    }
    Ok(Some(url))
}

/// The URL of a forward proxy.
pub(crate) fn proxy_url(text: &str) -> Result<Option<Url>, String> {
    let Some(url) = http_url(text)? else { return Ok(None) };
    if has_user_info(&url) {
        return Err("contains a user name or password; write them into the file of upstream.proxy_auth_file"
            .to_owned());
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(
            "contains a path, query (?) or fragment (#); write http://HOST:PORT or https://HOST:PORT"
                .to_owned(),
        );
    }
    Ok(Some(url))
}

/// An `http://` or `https://` URL.
fn http_url(text: &str) -> Result<Option<Url>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let url = Url::parse(text)
        .map_err(|error| format!("is not a URL ({error}); write https://HOST[:PORT][/PATH]"))?;
    if matches!(url.scheme(), "http" | "https") {
        Ok(Some(url))
    } else {
        Err("must begin with http:// or https://".to_owned())
    }
}

fn has_user_info(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

/// A URL that receives secrets or supplies keys: it must be encrypted, or local. It may have a query.
pub(crate) fn secure_url(text: &str) -> Result<Option<Url>, String> {
    let Some(url) = url(text)? else { return Ok(None) };
    if url.scheme() == "https" || is_loopback(&url) {
        Ok(Some(url))
    } else {
        Err("must begin with https://, except on a loopback address".to_owned())
    }
}

/// Whether the host of `url` is a loopback address.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

pub(crate) fn text(text: &str) -> Result<Option<String>, String> {
    if text.chars().any(char::is_control) {
        return Err("contains line breaks or other control characters; write a single line".to_owned());
    }
    let text = text.trim();
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

/// Texts separated by commas.
pub(crate) fn texts(value: &str) -> Result<Vec<String>, String> {
    let Some(value) = text(value)? else { return Ok(Vec::new()) };
    Ok(value.split(',').map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned).collect())
}

/// Additional parameters of a token request, form-encoded.
pub(crate) fn token_parameters(value: &str) -> Result<Vec<(String, String)>, String> {
    /// The parameters that other keys set.
    const RESERVED: [(&str, &str); 4] = [
        ("grant_type", "the gateway sends client_credentials"),
        ("client_id", "set identity.client_id instead"),
        ("client_secret", "set identity.client_secret_file instead"),
        ("scope", "set identity.scope instead"),
    ];
    let Some(value) = text(value)? else { return Ok(Vec::new()) };
    for pair in value.split('&') {
        if pair.find('=').is_none_or(|name_length| name_length == 0) {
            return Err("is not form-encoded; write NAME=VALUE pairs joined by &, such as audience=https%3A%2F%2Fapi.example"
                .to_owned());
        }
    }
    let parameters: Vec<_> = form_urlencoded::parse(value.as_bytes()).into_owned().collect();
    match RESERVED.iter().find(|(reserved, _)| parameters.iter().any(|(name, _)| name == reserved)) {
        Some((name, remedy)) => Err(format!("contains {name}; remove it: {remedy}")),
        None => Ok(parameters),
    }
}

pub(crate) fn secret(value: &str) -> Result<Option<Secret>, String> {
    Ok(text(value)?.map(Secret::new))
}

/// Reads a secret from the single line of a file.
pub(crate) fn secret_file(path: &str) -> Result<Option<Secret>, String> {
    if path.is_empty() {
        return Ok(None);
    }
    match secret(read(path)?.trim_end_matches(['\r', '\n'])) {
        Ok(Some(secret)) => Ok(Some(secret)),
        Ok(None) => Err("is empty; write the secret into the file, on a single line".to_owned()),
        Err(_) => {
            Err("contains several lines or control characters; write only the secret into the file, on a single line"
                .to_owned())
        }
    }
}

/// Reads `user:password` from the single line of a file.
pub(crate) fn credentials_file(path: &str) -> Result<Option<Secret>, String> {
    let credentials = secret_file(path)?;
    match credentials.as_ref().map(|credentials| credentials.expose().split_once(':')) {
        None => Ok(None),
        Some(Some((user, _))) if !user.is_empty() => Ok(credentials),
        _ => Err("contains no user name and password; write user:password into the file, on a single line"
            .to_owned()),
    }
}

/// Reads a file and parses its contents.
pub(crate) fn contents<T>(
    path: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    if path.is_empty() { Ok(None) } else { parse(&read(path)?).map(Some) }
}

fn read(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path)
        .map_err(|error| format!("cannot be read ({error}); name a text file that this user can read"))
}

/// Signature algorithms with public keys, separated by commas.
pub(crate) fn algorithms(text: &str) -> Result<Vec<Algorithm>, String> {
    const KNOWN: &str = "RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA";
    let one = |name: &str| {
        let algorithm = name.parse().ok().filter(|it: &Algorithm| it.family() != AlgorithmFamily::Hmac);
        algorithm.ok_or_else(|| {
            format!("contains an unknown or symmetric algorithm; write one or more of: {KNOWN}")
        })
    };
    let algorithms: Vec<_> =
        text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(one).collect::<Result<_, _>>()?;
    if algorithms.is_empty() {
        Err(format!("is empty; write one or more of: {KNOWN}"))
    } else {
        Ok(algorithms)
    }
}

/// Origins, normalised as browsers send them: in lower case, without a default port.
pub(crate) fn origins(text: &str) -> Result<Vec<String>, String> {
    let one = |text: &str| {
        let url = Url::parse(text).ok().filter(|url| {
            let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
            matches!(url.scheme(), "http" | "https") && is_bare && url.username().is_empty()
        });
        url.map(|url| url.origin().ascii_serialization()).ok_or_else(|| {
            "contains an invalid origin; write http://HOST[:PORT] or https://HOST[:PORT], separated by commas"
                .to_owned()
        })
    };
    text.split(',').map(str::trim).filter(|text| !text.is_empty()).map(one).collect()
}

/// Names of HTTP headers, in lower case.
pub(crate) fn header_names(text: &str) -> Result<Vec<String>, String> {
    let one = |name: &str| {
        // An asterisk is a valid name, but in CORS it stands for headers other than Authorization.
        let name = HeaderName::from_bytes(name.as_bytes()).ok().filter(|name| name != "*");
        name.map(|name| name.as_str().to_owned()).ok_or_else(|| {
            "contains an invalid header name; write names separated by commas, such as content-type,traceparent"
                .to_owned()
        })
    };
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(one).collect()
}

pub(crate) fn file(text: &str) -> Result<Option<PathBuf>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    // Opened here so that an unreadable file is reported together with all other errors.
    match std::fs::File::open(text) {
        Ok(_) => Ok(Some(text.into())),
        Err(error) => Err(format!("cannot be read ({error}); name a file that this user can read")),
    }
}

pub(crate) fn duration(text: &str, least: Duration) -> Result<Duration, String> {
    let value = if text == "0" {
        Duration::ZERO
    } else {
        humantime::parse_duration(text).map_err(|_| {
            "is not a duration; write a number with a unit, such as 250ms, 30s or 5m".to_owned()
        })?
    };
    if !(least..=MAX_DURATION).contains(&value) {
        return Err(format!(
            "is out of range; write a duration from {} to 24h",
            humantime::format_duration(least)
        ));
    }
    Ok(value)
}

pub(crate) fn size(text: &str, least: u64) -> Result<ByteSize, String> {
    const MOST: ByteSize = ByteSize::tib(1);
    let has_unit = text.ends_with(['B', 'b']) || text == "0";
    let value = text
        .parse()
        .ok()
        .filter(|_| has_unit)
        .ok_or("is not a size; write a number with a unit, such as 512B, 64KiB or 256MiB")?;
    if !(ByteSize(least)..=MOST).contains(&value) {
        return Err(format!("is out of range; write a size from {least}B to 1TiB"));
    }
    Ok(value)
}

pub(crate) fn count(text: &str, range: RangeInclusive<usize>) -> Result<usize, String> {
    text.parse().ok().filter(|value| range.contains(value)).ok_or_else(|| {
        format!("is out of range; write a whole number from {} to {}", range.start(), range.end())
    })
}

pub(crate) fn switch(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| one_of(&["true", "false"]))
}

pub(crate) fn one_of(words: &[&str]) -> String {
    format!("is not a known value; write one of: {}", words.join(", "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_and_sizes_need_units() {
        assert_eq!(duration("250ms", Duration::ZERO), Ok(Duration::from_millis(250)));
        assert_eq!(duration("0", Duration::ZERO), Ok(Duration::ZERO));
        assert_eq!(duration("1m 30s", Duration::ZERO), Ok(Duration::from_secs(90)));
        assert!(duration("30", Duration::ZERO).is_err());
        assert!(duration("-1s", Duration::ZERO).is_err());
        assert!(duration("25h", Duration::ZERO).is_err());
        assert!(duration("0", Duration::from_millis(1)).is_err());
        assert_eq!(size("64KiB", 0), Ok(ByteSize::kib(64)));
        assert_eq!(size("1 MB", 0), Ok(ByteSize::mb(1)));
        assert_eq!(size("0", 0), Ok(ByteSize(0)));
        assert!(size("64", 0).is_err());
        assert!(size("0", 1).is_err());
        assert!(size("9EiB", 0).is_err());
        assert!(count("3.5", 0..=9).is_err());
    }

    #[test]
    fn base_url_rejects_credentials_and_queries() {
        for bad in ["localhost:8080", "ftp://a", "http://u:p@a", "http://a?b", "http://a#b", "http://", "/a"]
        {
            assert!(base_url(bad).is_err_and(|error| !error.contains("u:p")), "{bad}");
        }
        assert!(base_url("https://api.example/base/").is_ok_and(|url| url.is_some()));
    }

    #[test]
    fn origins_are_normalised_as_browsers_send_them() {
        assert_eq!(origins(""), Ok(vec![]));
        let expected = ["https://a.example", "http://b:8080"].map(str::to_owned).to_vec();
        assert_eq!(origins("https://A.example:443/ , http://b:8080"), Ok(expected));
        for bad in ["*", "a.example", "null", "ws://a", "https://a/path", "https://u@a", "https://a,b"] {
            assert!(origins(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn header_names_are_in_lower_case() {
        assert_eq!(header_names(""), Ok(vec![]));
        assert_eq!(header_names("X-Trace , accept,"), Ok(["x-trace", "accept"].map(str::to_owned).to_vec()));
        for bad in ["*", "a b", "a:b", "a,é"] {
            assert!(header_names(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn proxy_urls_have_neither_credentials_nor_a_path() {
        assert_eq!(proxy_url(""), Ok(None));
        for good in ["http://proxy:3128", "https://proxy.example", "http://[::1]:8080/"] {
            assert!(proxy_url(good).is_ok_and(|url| url.is_some()), "{good}");
        }
        for bad in ["proxy:3128", "socks5://proxy", "http://u:p@proxy", "http://proxy/a", "http://proxy?a"] {
            assert!(proxy_url(bad).is_err_and(|error| !error.contains("u:p")), "{bad}");
        }
    }

    #[test]
    fn secure_urls_are_encrypted_or_local() {
        for good in [
            "https://a.example/oauth2/token?clientid=a",
            "http://127.0.0.1:1/t",
            "http://[::1]/t",
            "http://localhost/t",
        ] {
            assert!(secure_url(good).is_ok_and(|url| url.is_some()), "{good}");
        }
        for bad in [
            "http://a.example/t",
            "https://a.example/t#a",
            "http://10.0.0.1/t",
            "http://127.0.0.1.example/t",
            "https://u:p@a/t",
        ] {
            assert!(secure_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn token_parameters_are_decoded_once_and_keep_their_order() {
        let expected =
            [("audience", "https://api.example/a b"), ("resource", "1"), ("resource", "a=&b"), ("x", "")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let text = "audience=https%3A%2F%2Fapi.example/a+b&resource=1&resource=a=%26b&x=";
        assert_eq!(token_parameters(text), Ok(expected));
        assert_eq!(token_parameters(" "), Ok(vec![]));
        for bad in ["audience", "=a", "a=1&", "&a=1", "a=1&&b=2", "a=1\nb=2"] {
            assert!(token_parameters(bad).is_err(), "{bad}");
        }
        for reserved in ["grant_type=x", "a=1&client_id=x", "client_secret=planted", "sc%6Fpe=x"] {
            assert!(token_parameters(reserved).is_err_and(|error| !error.contains("planted")), "{reserved}");
        }
    }

    #[test]
    fn symmetric_algorithms_are_rejected() {
        assert_eq!(algorithms("RS256, ES256"), Ok(vec![Algorithm::RS256, Algorithm::ES256]));
        for bad in ["", " , ", "none", "HS256", "RS256,HS512", "rs256"] {
            assert!(algorithms(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn parsers_never_panic(text: String) {
            let _ = (address(&text), base_url(&text), duration(&text, Duration::ZERO), size(&text, 0), switch(&text));
            let _ = (count(&text, 0..=9), origins(&text), secure_url(&text), algorithms(&text));
            let _ = (proxy_url(&text), header_names(&text));
            let _ = (texts(&text), token_parameters(&text));
        }
    }
}
