//! Lenient reading of JSON: the members of an object and the elements of an array, whatever their types.

use std::fmt;

use serde::{
    Deserializer,
    de::{DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// Shows `each` the members of an object in their order, so that of equal names the last counts; false if `value` is
/// no object.
pub(crate) fn members<'a>(value: &'a RawValue, each: impl FnMut(&[u8], &'a RawValue)) -> bool {
    value.get().starts_with('{')
        && serde_json::Deserializer::from_str(value.get()).deserialize_map(Members(each)).is_ok()
}

/// Shows `each` the elements of a list; false if `value` is no list.
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
        while map.next_key_seed(Name(&mut name))?.is_some() {
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

/// A member's name as bytes, into a buffer that serves for all: as a `str`, a name with half of a surrogate pair in it
/// (which is JSON) would end the reading.
struct Name<'b>(&'b mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Name<'_> {
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

pub(crate) fn string(json: &str) -> Option<String> {
    serde_json::from_str(json).ok()
}
