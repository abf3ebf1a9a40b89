//! A digest of a request: equal requests have equal digests, however their variables are written.
//!
//! The document counts as it was sent or found by its id, and so does the operation name. Members of objects in the variables
//! may come in any order. A missing variable and null are different.

use async_graphql::{Name, Value, Variables};
use blake3::Hasher;

/// The digest of a document, an operation name and variables, by `hasher`, which is keyed.
pub(crate) fn digest(mut hasher: Hasher, text: &str, name: Option<&str>, variables: &Variables) -> [u8; 32] {
    bytes(&mut hasher, 0, text.as_bytes());
    bytes(&mut hasher, u8::from(name.is_some()), name.unwrap_or_default().as_bytes());
    object(&mut hasher, variables.iter());
    *hasher.finalize().as_bytes()
}

/// The tag and the length make the encoding unambiguous.
fn bytes(hasher: &mut Hasher, tag: u8, bytes: &[u8]) {
    hasher.update(&[tag]).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
}

fn object<'v>(hasher: &mut Hasher, members: impl Iterator<Item = (&'v Name, &'v Value)>) {
    let mut members: Vec<_> = members.collect();
    members.sort_unstable_by_key(|(name, _)| *name);
    bytes(hasher, 2, &(members.len() as u64).to_le_bytes());
    for (name, member) in members {
        bytes(hasher, 3, name.as_bytes());
        value(hasher, member);
    }
}

/// Recursion is bounded by that of the JSON parser.
fn value(hasher: &mut Hasher, it: &Value) {
    match it {
        Value::Null => bytes(hasher, 4, b""),
        Value::Boolean(it) => bytes(hasher, 5, &[u8::from(*it)]),
        Value::Number(it) => bytes(hasher, 6, it.to_string().as_bytes()),
        Value::String(it) => bytes(hasher, 7, it.as_bytes()),
        Value::Enum(it) => bytes(hasher, 8, it.as_bytes()),
        Value::Binary(it) => bytes(hasher, 9, it),
        Value::List(items) => {
            bytes(hasher, 10, &(items.len() as u64).to_le_bytes());
            items.iter().for_each(|item| value(hasher, item));
        }
        Value::Object(members) => object(hasher, members.iter()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, name: Option<&str>, variables: &str) -> [u8; 32] {
        let variables = Variables::from_json(serde_json::from_str(variables).unwrap());
        digest(Hasher::new_keyed(&[7; 32]), text, name, &variables)
    }

    #[test]
    fn the_order_of_members_makes_no_difference() {
        let one = of("text", None, r#"{"a": {"b": 1, "c": [{"d": 2, "e": null}]}, "f": true}"#);
        let other = of("text", None, r#"{"f":true,"a":{"c":[{"e":null,"d":2}],"b":1}}"#);
        assert_eq!(one, other);
    }

    #[test]
    fn every_difference_of_content_makes_one() {
        let requests = [
            ("text", None, "{}"),
            ("text ", None, "{}"),
            ("tex", Some("t"), "{}"),
            ("text", Some(""), "{}"),
            ("text", Some("name"), "{}"),
            ("text", None, r#"{"a": null}"#),
            ("text", None, r#"{"a": 1}"#),
            ("text", None, r#"{"a": 1.5}"#),
            ("text", None, r#"{"a": "1"}"#),
            ("text", None, r#"{"a": true}"#),
            ("text", None, r#"{"a": false}"#),
            ("text", None, r#"{"a": []}"#),
            ("text", None, r#"{"a": {}}"#),
            ("text", None, r#"{"a": [1, 2]}"#),
            ("text", None, r#"{"a": [2, 1]}"#),
            ("text", None, r#"{"a": [[1], 2]}"#),
            ("text", None, r#"{"a": [[1, 2]]}"#),
            ("text", None, r#"{"a": {"b": 1}}"#),
            ("text", None, r#"{"a": {}, "b": 1}"#),
            ("text", None, r#"{"b": 1}"#),
            ("text", None, r#"{"a": "b"}"#),
            ("text", None, r#"{"ab": ""}"#),
        ];
        let digests = requests.map(|(text, name, variables)| of(text, name, variables));
        for (n, digest) in digests.iter().enumerate() {
            assert_eq!(digests.iter().position(|it| it == digest), Some(n), "{:?}", requests[n]);
        }
    }
}
