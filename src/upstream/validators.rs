//! The validators of a response (RFC 9110, section 8.8), and conditional requests with them (section 13.1).

use std::time::SystemTime;

use reqwest::{
    RequestBuilder,
    header::{
        CACHE_CONTROL, DATE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH,
        LAST_MODIFIED,
    },
};
use serde::{Deserialize, Serialize};

use super::cache_control::{self, CacheDirectives};

/// The maximum length of a validator. A longer one is ignored.
const MAX_LENGTH: usize = 256;

/// The validators of a response, for conditional requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validators {
    etag: Option<Box<str>>,
    last_modified: Option<Box<str>>,
    /// The `Cache-Control` of the response. It also holds for a 304 without one.
    directives: CacheDirectives,
}

impl Validators {
    /// The validators in the `headers` of a response; none if it has no valid ones, or if `directives` forbid storing
    /// it.
    ///
    /// `Last-Modified` is used only if the response was sent at least one second later. Otherwise a change within the
    /// same second would go unnoticed (RFC 9110, section 8.8.2.2).
    pub(crate) fn of(headers: &HeaderMap, directives: CacheDirectives) -> Option<Self> {
        let last_modified = text(headers, &LAST_MODIFIED).filter(|modified| {
            let sent = text(headers, &DATE).and_then(date).unwrap_or_else(SystemTime::now);
            date(modified).is_some_and(|at| sent.duration_since(at).is_ok_and(|age| age.as_secs() >= 1))
        });
        let etag = text(headers, &ETAG).filter(|etag| is_entity_tag(etag));
        let validators =
            Self { etag: etag.map(Into::into), last_modified: last_modified.map(Into::into), directives };
        let is_usable = validators.etag.is_some() || validators.last_modified.is_some();
        (is_usable && !directives.forbids_storage()).then_some(validators)
    }

    /// Makes `request` conditional. A server that supports `If-None-Match` ignores `If-Modified-Since` beside it.
    pub(crate) fn apply_to(&self, request: RequestBuilder) -> RequestBuilder {
        let conditions = [(IF_NONE_MATCH, &self.etag), (IF_MODIFIED_SINCE, &self.last_modified)];
        let conditions = conditions.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
        conditions.fold(request, |request, (name, value)| request.header(name, value))
    }

    /// Whether a 304 with these `headers` selects the response with these validators (RFC 9111, section 4.3.4). Entity
    /// tags are compared weakly, since proxies weaken them.
    pub(crate) fn are_confirmed_by(&self, headers: &HeaderMap) -> bool {
        if let (Some(own), Some(confirmed)) = (&self.etag, text(headers, &ETAG)) {
            return opaque_tag(own) == opaque_tag(confirmed);
        }
        match (&self.last_modified, text(headers, &LAST_MODIFIED)) {
            (Some(own), Some(confirmed)) => date(own) == date(confirmed),
            _ => true,
        }
    }

    /// The validators after a 304 with these `headers`, which replace the `Cache-Control` of the response.
    pub(crate) fn renewed(&self, headers: &HeaderMap) -> Self {
        let directives = if headers.contains_key(CACHE_CONTROL) {
            cache_control::parse(headers)
        } else {
            self.directives.at_age_of(headers)
        };
        Self { directives, ..self.clone() }
    }

    pub(crate) fn directives(&self) -> CacheDirectives {
        self.directives
    }

    /// The size in bytes.
    pub(crate) fn size(&self) -> usize {
        let length = |text: &Option<Box<str>>| text.as_deref().map_or(0, str::len);
        size_of::<Self>() + length(&self.etag) + length(&self.last_modified)
    }
}

/// The value of the header `name`, if there is exactly one, of visible ASCII and at most [`MAX_LENGTH`] bytes.
fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    Some(HeaderValue::to_str(value).ok()?.trim()).filter(|text| text.len() <= MAX_LENGTH)
}

fn date(text: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(text).ok()
}

/// Whether `text` has the form `"…"` or `W/"…"`. Other forms could be parsed as a list of tags, or as `*`.
fn is_entity_tag(text: &str) -> bool {
    let tag = opaque_tag(text).strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    tag.is_some_and(|tag| tag.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"'))
}

/// The entity tag without its mark of weakness.
fn opaque_tag(text: &str) -> &str {
    text.strip_prefix("W/").unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OLD: &str = "Wed, 21 Oct 2015 07:28:00 GMT";

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn validators(lines: &[(&'static str, &str)]) -> Option<(Option<String>, Option<String>)> {
        let headers = headers(lines);
        let validators = Validators::of(&headers, cache_control::parse(&headers))?;
        Some((validators.etag.map(Into::into), validators.last_modified.map(Into::into)))
    }

    #[test]
    fn validators_are_short_well_formed_and_unambiguous() {
        let etag = |tag: &str| Some((Some(tag.to_owned()), None));
        let (long, longest) = (format!("\"{}\"", "a".repeat(255)), format!("\"{}\"", "a".repeat(254)));
        for (lines, expected) in [
            (&[][..], None),
            (&[("etag", "\"a\"")], etag("\"a\"")),
            (&[("etag", "W/\"a,b\"")], etag("W/\"a,b\"")),
            (&[("etag", "\"\"")], etag("\"\"")),
            (&[("etag", &longest)], etag(&longest)),
            (&[("etag", &long)], None),
            (&[("etag", "a")], None),
            (&[("etag", "*")], None),
            (&[("etag", "\"")], None),
            (&[("etag", "w/\"a\"")], None),
            (&[("etag", "\"a\", \"b\"")], None),
            (&[("etag", "\"a\""), ("etag", "\"b\"")], None),
            (&[("etag", "\"a\""), ("cache-control", "no-store")], None),
            (&[("etag", "\"a\""), ("cache-control", "no-cache")], etag("\"a\"")),
            (&[("last-modified", OLD)], Some((None, Some(OLD.to_owned())))),
            (
                &[("last-modified", OLD), ("date", "Wed, 21 Oct 2015 07:28:01 GMT")],
                Some((None, Some(OLD.to_owned()))),
            ),
            (&[("last-modified", OLD), ("date", OLD)], None),
            (&[("last-modified", OLD), ("date", "Wed, 21 Oct 2015 07:27:00 GMT")], None),
            (&[("last-modified", "yesterday")], None),
        ] {
            assert_eq!(validators(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_304_confirms_a_response_with_equal_validators() {
        let other = "Wed, 21 Oct 2015 07:28:09 GMT";
        for (of_response, of_304, expected) in [
            (&[("etag", "\"a\"")][..], &[][..], true),
            (&[("etag", "\"a\"")], &[("etag", "\"a\"")], true),
            (&[("etag", "\"a\"")], &[("etag", "W/\"a\"")], true),
            (&[("etag", "W/\"a\"")], &[("etag", "\"a\"")], true),
            (&[("etag", "W/\"a\"")], &[("etag", "W/\"b\"")], false),
            (&[("etag", "\"a\"")], &[("etag", "\"A\"")], false),
            (
                &[("etag", "\"a\""), ("last-modified", OLD)],
                &[("etag", "\"a\""), ("last-modified", other)],
                true,
            ),
            (&[("etag", "\"a\"")], &[("last-modified", OLD)], true),
            (&[("last-modified", OLD)], &[], true),
            (&[("last-modified", OLD)], &[("last-modified", OLD)], true),
            (&[("last-modified", OLD)], &[("last-modified", other)], false),
            (&[("last-modified", OLD)], &[("etag", "\"a\"")], true),
        ] {
            let validators = Validators::of(&headers(of_response), CacheDirectives::UNSPECIFIED).unwrap();
            assert_eq!(
                validators.are_confirmed_by(&headers(of_304)),
                expected,
                "{of_response:?}, {of_304:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn arbitrary_headers_give_short_validators(etag: Vec<u8>, modified: Vec<u8>) {
            let mut headers = HeaderMap::new();
            for (name, bytes) in [(ETAG, etag), (LAST_MODIFIED, modified)] {
                if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                    headers.insert(name, value);
                }
            }
            if let Some(validators) = Validators::of(&headers, CacheDirectives::UNSPECIFIED) {
                prop_assert!(validators.size() <= size_of::<Validators>() + 2 * MAX_LENGTH);
                prop_assert!(validators.are_confirmed_by(&headers));
            }
        }
    }
}
