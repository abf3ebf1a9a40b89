//! Entity tags (RFC 9110, section 8.8.3). Each identifies one representation of a response to one caller.
//!
//! A tag is a keyed digest of the caller's scope, the media type, the content coding and the uncompressed body. Equal
//! content of two callers therefore has two tags, and a tag reveals nothing about the content.

use std::iter;

use axum::http::{HeaderMap, HeaderValue, header};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::accept::MediaType;
use crate::{
    caller::Scope,
    credentials::key_ring::KeyRing,
    http::compression::{AcceptEncoding, Coding},
};

/// The key for the digests of entity tags. Replicas of a fleet have the same one, so that a client may revalidate its copy with
/// any of them. While keys are rotated, tags under another key do not match.
#[derive(Clone)]
pub struct EntityTagKey([u8; 32]);

/// The tags of a response, one for each content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntityTags([[u8; DIGEST]; CODINGS.len()]);

/// The tag of one representation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntityTag {
    opaque: [u8; LENGTH],
    is_weak: bool,
}

/// The header `If-None-Match` of a request (RFC 9110, section 13.1.2), not parsed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IfNoneMatch<'h>(&'h HeaderMap);

const CODINGS: [Option<Coding>; 3] = [None, Some(Coding::Brotli), Some(Coding::Gzip)];

/// The bytes of a digest.
const DIGEST: usize = 16;

/// The characters of a digest in base64.
const LENGTH: usize = 22;

/// The content codings in the suffix that a proxy may add to the tag of a response that it compresses: Apache and Caddy
/// add `-gzip`, Jetty adds `--gzip`.
const SUFFIXES: [&[u8]; 4] = [b"gzip", b"br", b"zstd", b"deflate"];

impl EntityTagKey {
    /// The key for entity tags of `keys`.
    pub fn of(keys: &KeyRing) -> Self {
        Self(keys.first().entity_tags)
    }

    /// The tags of the response `body` to a caller of `scope`.
    pub(crate) fn tags(&self, scope: Scope, media_type: MediaType, body: &[u8]) -> EntityTags {
        let media_type = media_type.content_type().as_bytes();
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        // Scopes have one length, and the length prefix ends the media type.
        hasher.update(&scope.digest()).update(&(media_type.len() as u64).to_le_bytes()).update(media_type);
        hasher.update(body);
        // The content coding selects a part of the digest, so one pass over the body suffices for all codings.
        let mut tags = [[0; DIGEST]; CODINGS.len()];
        hasher.finalize_xof().fill(tags.as_flattened_mut());
        EntityTags(tags)
    }
}

impl EntityTags {
    /// The tag of the representation in `coding`. A compressed one has a weak tag, since its bytes depend on the effort of
    /// the compression.
    pub(crate) fn of(&self, coding: Option<Coding>) -> EntityTag {
        let index = CODINGS.iter().position(|it| *it == coding).unwrap_or(0);
        let mut opaque = [0; LENGTH];
        // The length is right, so this cannot fail.
        let _ = URL_SAFE_NO_PAD.encode_slice(self.0[index], &mut opaque);
        EntityTag { opaque, is_weak: coding.is_some() }
    }
}

impl EntityTag {
    /// The value of `ETag`.
    pub(crate) fn header_value(self) -> HeaderValue {
        let Self { opaque, is_weak } = self;
        let prefix: &[u8] = if is_weak { b"W/\"" } else { b"\"" };
        let value = [prefix, &opaque, b"\""].concat();
        HeaderValue::from_maybe_shared(bytes::Bytes::from(value))
            .unwrap_or_else(|_| HeaderValue::from_static("\"\""))
    }

    /// Whether `opaque` is this tag, with or without the suffix of a proxy that has compressed the response.
    fn matches(self, opaque: &[u8]) -> bool {
        opaque.strip_prefix(&self.opaque).is_some_and(|suffix| {
            let coding = suffix.iter().position(|byte| byte.is_ascii_alphabetic());
            match coding {
                None => suffix.is_empty(),
                Some(start) => {
                    start > 0
                        && suffix[..start].iter().all(|byte| b"-;:.".contains(byte))
                        && SUFFIXES.contains(&&suffix[start..])
                }
            }
        })
    }
}

impl<'h> IfNoneMatch<'h> {
    /// None without the header.
    pub(crate) fn from_headers(headers: &'h HeaderMap) -> Option<Self> {
        headers.contains_key(header::IF_NONE_MATCH).then_some(Self(headers))
    }

    /// The tag of the client's copy, if it is current: it is one of the `tags` of the response, which would be sent in
    /// `coding`. A copy in another coding matches if the client `accepts` that coding. Tags are compared weakly, since
    /// proxies weaken them.
    pub(crate) fn matching(
        self,
        tags: &EntityTags,
        coding: Option<Coding>,
        accepts: AcceptEncoding,
    ) -> Option<EntityTag> {
        let values = || self.0.get_all(header::IF_NONE_MATCH).iter().map(HeaderValue::as_bytes);
        if values().any(|value| value.trim_ascii() == b"*") {
            return Some(tags.of(coding));
        }
        let is_accepted = |coding: &Option<Coding>| coding.is_none_or(|coding| accepts.accepts(coding));
        let others = CODINGS.into_iter().filter(|it| *it != coding && is_accepted(it));
        iter::once(coding)
            .chain(others)
            .map(|coding| tags.of(coding))
            .find(|tag| values().flat_map(opaque_tags).any(|opaque| tag.matches(opaque)))
    }
}

/// The opaque tags in a list, without quotation marks and without marks of weakness. Tags without quotation marks are
/// tolerated.
fn opaque_tags(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = list;
    iter::from_fn(move || {
        let is_separator = |byte: &u8| *byte == b',' || byte.is_ascii_whitespace();
        let start = rest.iter().position(|byte| !is_separator(byte))?;
        rest = &rest[start..];
        rest = rest.strip_prefix(b"W/").or_else(|| rest.strip_prefix(b"w/")).unwrap_or(rest);
        let (delimiter, skipped) = match rest.strip_prefix(b"\"") {
            Some(quoted) => {
                rest = quoted;
                (b'"', 1)
            }
            None => (b',', 0),
        };
        let end = rest.iter().position(|byte| *byte == delimiter).unwrap_or(rest.len());
        let opaque = rest[..end].trim_ascii_end();
        rest = &rest[rest.len().min(end + skipped)..];
        Some(opaque)
    })
}

impl std::fmt::Debug for EntityTagKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EntityTagKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::caller::{Caller, ScopeKey};

    fn accepting(codings: &str) -> AcceptEncoding {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_str(codings).unwrap());
        AcceptEncoding::from_headers(&headers)
    }

    fn conditions(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::IF_NONE_MATCH, HeaderValue::from_str(line).unwrap());
        }
        headers
    }

    fn tags() -> EntityTags {
        let scope = Caller::with_token("token", &ScopeKey::random()).scope();
        EntityTagKey::of(&KeyRing::random()).tags(scope, MediaType::Json, b"{}")
    }

    fn text(tag: EntityTag) -> String {
        String::from_utf8(tag.opaque.to_vec()).unwrap()
    }

    #[test]
    fn tags_differ_by_key_scope_media_type_coding_and_body() {
        let scopes = ["a", "b"].map(|token| Caller::with_token(token, &ScopeKey::random()).scope());
        let mut distinct = HashSet::new();
        let mut count = 0;
        for key in [KeyRing::random(), KeyRing::random()].map(|keys| EntityTagKey::of(&keys)) {
            for scope in scopes {
                for media_type in [MediaType::Json, MediaType::GraphqlResponse] {
                    for body in [&b""[..], b"a", b"b"] {
                        let tags = key.tags(scope, media_type, body);
                        assert!(tags == key.tags(scope, media_type, body));
                        for coding in CODINGS {
                            distinct.insert(text(tags.of(coding)));
                            count += 1;
                        }
                    }
                }
            }
        }
        assert_eq!(distinct.len(), count);
    }

    #[test]
    fn replicas_with_the_same_first_key_make_the_same_tags() {
        let [old, new] = [0, 1].map(|_| KeyRing::generate_line());
        let tags = |lines: &[&str]| {
            let keys = KeyRing::parse(&lines.join("\n")).unwrap();
            let scope = Caller::with_token("token", &ScopeKey::of(&keys)).scope();
            EntityTagKey::of(&keys).tags(scope, MediaType::Json, b"{}")
        };
        assert_eq!(tags(&[&old]), tags(&[&old, &new]));
        assert_eq!(tags(&[&new, &old]), tags(&[&new]));
        assert_ne!(tags(&[&old]), tags(&[&new]));
    }

    #[test]
    fn compressed_representations_have_weak_tags() {
        let tags = tags();
        let value = |coding| tags.of(coding).header_value().to_str().unwrap().to_owned();
        assert_eq!(value(None), format!("\"{}\"", text(tags.of(None))));
        assert_eq!(value(Some(Coding::Gzip)), format!("W/\"{}\"", text(tags.of(Some(Coding::Gzip)))));
    }

    #[test]
    fn if_none_match_compares_weakly() {
        let tags = tags();
        let tag = text(tags.of(None));
        let unlisted = text(self::tags().of(None));
        for (lines, expected) in [
            (&["*"][..], true),
            (&[" * "], true),
            (&["\"*\""], false),
            (&[&format!("\"{tag}\"")], true),
            (&[&format!("W/\"{tag}\"")], true),
            (&[&format!("w/\"{tag}\"")], true),
            (&[&tag], true),
            (&[&format!("\"{unlisted}\", \"{tag}\"")], true),
            (&[&format!("\"a,b\",W/\"{unlisted}\" ,, W/\"{tag}\",")], true),
            (&["\"a\"", &format!("\"{tag}\"")], true),
            (&[&format!("\"{tag}-gzip\"")], true),
            (&[&format!("W/\"{tag}-br\"")], true),
            (&[&format!("\"{tag}--gzip\"")], true),
            (&[&format!("\"{tag};gzip\"")], true),
            (&[""], false),
            (&["\""], false),
            (&["W/"], false),
            (&["\"\""], false),
            (&[&format!("\"{unlisted}\"")], false),
            (&[&format!("\"{tag}x\"")], false),
            (&[&format!("\"{tag}gzip\"")], false),
            (&[&format!("\"{tag}-lzma\"")], false),
            (&[&format!("\"{tag}-\"")], false),
            (&[&format!("\"{}\"", &tag[1..])], false),
            (&[&format!("\"{}\"", tag.to_ascii_lowercase())], tag == tag.to_ascii_lowercase()),
            (&[&format!("\"x{tag}\"")], false),
        ] {
            let headers = conditions(lines);
            let found = IfNoneMatch::from_headers(&headers).unwrap().matching(&tags, None, accepting(""));
            assert_eq!(found, expected.then(|| tags.of(None)), "{lines:?}");
        }
        assert!(IfNoneMatch::from_headers(&HeaderMap::new()).is_none());
    }

    #[test]
    fn a_copy_in_another_accepted_coding_matches() {
        let tags = tags();
        let (brotli, gzip) = (Some(Coding::Brotli), Some(Coding::Gzip));
        for (owned, sent, accepts, expected) in [
            (None, brotli, "br", true),
            (brotli, None, "br", true),
            (gzip, brotli, "br, gzip", true),
            (gzip, brotli, "br", false),
            (brotli, None, "", false),
            (brotli, None, "br;q=0", false),
        ] {
            let headers = conditions(&[&format!("\"{}\"", text(tags.of(owned)))]);
            let condition = IfNoneMatch::from_headers(&headers).unwrap();
            let found = condition.matching(&tags, sent, accepting(accepts));
            assert_eq!(found, expected.then(|| tags.of(owned)), "{owned:?} {sent:?} {accepts}");
        }
    }

    proptest! {
        #[test]
        fn any_list_is_parsed_without_a_panic(list: Vec<u8>) {
            opaque_tags(&list).for_each(drop);
        }

        #[test]
        fn a_listed_tag_is_found(before in "(W/\"[!#-~]{0,8}\", ){0,3}", after in "(,\"[!#-~]{0,8}\"){0,3}") {
            let list = format!("{before}\"wanted\"{after}");
            prop_assert!(opaque_tags(list.as_bytes()).any(|tag| tag == b"wanted"));
        }
    }
}
