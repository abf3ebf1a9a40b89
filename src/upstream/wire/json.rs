//! Lenient parsing of JSON: iteration over the members of an object and the elements of an array of any types.

use std::fmt;

use serde::{
    Deserializer,
    de::{DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// Calls `each` for every member of an object, in order. Returns false if `value` is not an object.
pub(crate) fn members<'a>(value: &'a RawValue, each: impl FnMut(&[u8], &'a RawValue)) -> bool {
    value.get().starts_with('{')
        && serde_json::Deserializer::from_str(value.get()).deserialize_map(Members(each)).is_ok()
}

/// Calls `each` for every element of an array, in order. Returns false if `value` is not an array.
pub(crate) fn elements<'a>(value: &'a RawValue, each: impl FnMut(&'a RawValue)) -> bool {
    value.get().starts_with('[')
        && serde_json::Deserializer::from_str(value.get()).deserialize_seq(Elements(each)).is_ok()
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
