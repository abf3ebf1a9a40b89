//! Lenient parsing of JSON, as PHP applications write it.
//!
//! - A document may start with byte order marks.
//! - A text may have bytes that are not UTF-8, control characters or invalid escapes. [`document`] repairs such a text,
//!   so that it costs only its own value.
//! - An empty object may be written as an empty array, and an array as an object with numeric member names: PHP has one
//!   type for both.

use std::{borrow::Cow, fmt};

use serde::{
    Deserializer,
    de::{DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Half of a surrogate pair: valid JSON, but no valid text. A text with it is malformed.
const INVALID_TEXT: &str = "\\udfff";

/// Parses a JSON document and decodes it. `None` if `body` is not JSON.
pub(crate) fn document<T>(body: &[u8], decode: impl FnOnce(&RawValue) -> T) -> Option<T> {
    let body = trimmed(body);
    if let Ok(value) = serde_json::from_slice(body) {
        return Some(decode(value));
    }
    let repaired = repaired(body)?;
    serde_json::from_str(&repaired).ok().map(decode)
}

/// `body` without the whitespace and the byte order marks around it. Each file of a PHP application may add one.
pub(crate) fn trimmed(body: &[u8]) -> &[u8] {
    let mut body = body.trim_ascii();
    while let Some(rest) = body.strip_prefix(BYTE_ORDER_MARK) {
        body = rest.trim_ascii_start();
    }
    body
}

/// Returns `body` with valid texts: control characters are escaped, and [`INVALID_TEXT`] replaces all else that no text
/// may contain. `None` if there is nothing to replace.
fn repaired(body: &[u8]) -> Option<String> {
    let mut repaired = String::with_capacity(body.len() + 16);
    let mut is_changed = false;
    let mut is_in_text = false;
    for chunk in body.utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some(next) = rest.chars().next() {
            let length = match next {
                '\\' if is_in_text => escape_length(rest).unwrap_or(0),
                next => next.len_utf8(),
            };
            is_in_text ^= next == '"';
            let replacement: Cow<'_, str> = match next {
                _ if length == 0 => INVALID_TEXT.into(),
                '\0'..' ' if is_in_text => format!("\\u{:04x}", next as u32).into(),
                _ => rest[..length].into(),
            };
            is_changed |= replacement != rest[..length];
            repaired.push_str(&replacement);
            rest = &rest[length.max(1)..];
        }
        if !chunk.invalid().is_empty() {
            is_changed = true;
            repaired.push_str(INVALID_TEXT);
        }
    }
    is_changed.then_some(repaired)
}

/// The length of the escape at the start of `text`; `None` if it is invalid.
fn escape_length(text: &str) -> Option<usize> {
    match text.as_bytes().get(1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(2),
        b'u' => {
            let digits = text.as_bytes().get(2..6)?;
            digits.iter().all(u8::is_ascii_hexdigit).then_some(6)
        }
        _ => None,
    }
}

/// Calls `each` for every member of an object, in order. Returns false if `value` is neither an object nor an empty
/// array.
pub(crate) fn members<'a>(value: &'a RawValue, each: impl FnMut(&[u8], &'a RawValue)) -> bool {
    match value.get().as_bytes() {
        [b'{', ..] => serde_json::Deserializer::from_str(value.get()).deserialize_map(Members(each)).is_ok(),
        [b'[', rest @ ..] => rest.trim_ascii() == b"]",
        _ => false,
    }
}

/// Calls `each` for every element of an array, in order. Returns false if `value` is neither an array nor an object
/// with only numeric member names.
pub(crate) fn elements<'a>(value: &'a RawValue, mut each: impl FnMut(&'a RawValue)) -> bool {
    if value.get().starts_with('[') {
        return serde_json::Deserializer::from_str(value.get()).deserialize_seq(Elements(each)).is_ok();
    }
    let mut items = Vec::new();
    let mut is_list = true;
    let is_object = members(value, |name, item| {
        is_list &= !name.is_empty() && name.iter().all(u8::is_ascii_digit);
        items.push(item);
    });
    let is_list = is_object && is_list;
    if is_list {
        items.into_iter().for_each(&mut each);
    }
    is_list
}

struct Members<F>(F);

impl<'de, F: FnMut(&[u8], &'de RawValue)> Visitor<'de> for Members<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut name = Vec::new();
        while map.next_key_seed(MemberName(&mut name))?.is_some() {
            let value = map.next_value::<&RawValue>()?;
            (self.0)(&name, value);
        }
        Ok(())
    }
}

struct Elements<F>(F);

impl<'de, F: FnMut(&'de RawValue)> Visitor<'de> for Elements<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while let Some(value) = seq.next_element::<&RawValue>()? {
            (self.0)(value);
        }
        Ok(())
    }
}

/// Reads a member's name as bytes into a reused buffer. JSON allows a name with half of a surrogate pair, which a `str`
/// cannot hold.
struct MemberName<'b>(&'b mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for MemberName<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for MemberName<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_bytes<E>(self, name: &[u8]) -> Result<(), E> {
        self.0.clear();
        self.0.extend_from_slice(name);
        Ok(())
    }
}

/// Decodes a JSON string.
pub(crate) fn string(json: &str) -> Option<String> {
    serde_json::from_str(json).ok()
}
