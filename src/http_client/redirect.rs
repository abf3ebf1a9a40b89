//! Redirects of reads. Only those within an origin are followed, so that a credential is never sent to another one.

use reqwest::{
    StatusCode, Url,
    header::{HeaderMap, LOCATION},
};

/// The maximum number of redirects per read.
pub(crate) const MAX_REDIRECTS: usize = 3;

/// The address to which a response from `url` redirects, if it lies within the origin of `url`.
pub(crate) fn target(status: StatusCode, headers: &HeaderMap, url: &Url) -> Option<Url> {
    let location = headers.get(LOCATION).filter(|_| is_redirect(status))?.to_str().ok()?;
    let target = url.join(location).ok()?;
    // The HTTP client would send a user name or a password as a credential.
    let has_user_info = !target.username().is_empty() || target.password().is_some();
    (target.origin() == url.origin() && !has_user_info).then_some(target)
}

/// Whether a response with this `status` refers to another address for the same read.
pub(crate) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_redirects_within_the_origin_have_a_target() {
        let url = Url::parse("https://issuer.example/keys?p=a").unwrap();
        let target = |status: u16, location: &str| {
            let headers = HeaderMap::from_iter([(LOCATION, location.parse().unwrap())]);
            target(StatusCode::from_u16(status).unwrap(), &headers, &url).map(String::from)
        };
        for status in [301, 302, 303, 307, 308] {
            assert_eq!(target(status, "/v2/keys?p=b").as_deref(), Some("https://issuer.example/v2/keys?p=b"));
        }
        assert_eq!(target(302, "?p=b").as_deref(), Some("https://issuer.example/keys?p=b"));
        assert_eq!(target(302, "https://ISSUER.example:443/k").as_deref(), Some("https://issuer.example/k"));
        for elsewhere in [
            "http://issuer.example/keys",
            "https://issuer.example:444/keys",
            "https://other.example/keys",
            "//other.example/keys",
            "https://user@issuer.example/keys",
            "https://:secret@issuer.example/keys",
            "https://[",
        ] {
            assert_eq!(target(302, elsewhere), None, "{elsewhere}");
        }
        for status in [200, 201, 300, 304, 305, 404] {
            assert_eq!(target(status, "/keys"), None, "{status}");
        }
    }
}
