//! Shortening of long names before async-graphql validates a document.
//!
//! The library repeats the operation name in the message of each unused variable, and compares unknown names with many
//! known ones. Short names bound that work by the number of names alone.

use std::collections::HashMap;

use super::tokens::{self, Kind};

/// The length of replacements in bytes, number included. Names of at least this length are replaced, so that no replacement
/// equals an unchanged name.
const LENGTH: usize = 80;

/// The length of the number that makes a replacement unique, in bytes.
const NUMBER: usize = 8;

/// A document text with shortened names, and the replacement of each long name.
pub(crate) struct ShortNames<'t> {
    pub(crate) text: String,
    names: HashMap<&'t str, String>,
}

impl<'t> ShortNames<'t> {
    /// Replaces the long names in `text`, which is valid syntax; None if it has none. Positions stay unchanged.
    pub(crate) fn of(text: &'t str) -> Option<Self> {
        let mut names = HashMap::new();
        let mut short = Vec::new();
        for token in tokens::of(text).filter(|token| token.kind == Kind::Name && token.text.len() >= LENGTH) {
            let name = token.text;
            if short.is_empty() {
                short = text.as_bytes().to_vec();
            }
            let number = names.len();
            let replacement =
                names.entry(name).or_insert_with(|| format!("{}{number:08x}", &name[..LENGTH - NUMBER]));
            let (start, end) = short[token.start..][..name.len()].split_at_mut(LENGTH);
            start.copy_from_slice(replacement.as_bytes());
            end.fill(b' ');
        }
        let text = String::from_utf8(short).ok()?;
        (!names.is_empty()).then_some(Self { text, names })
    }

    /// The replacement of `name`, or `name` itself.
    pub(crate) fn get<'n>(&'n self, name: &'n str) -> &'n str {
        self.names.get(name).map_or(name, String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn long_names_are_replaced_in_place() {
        let (one, two) = (format!("{}one", "a".repeat(100)), format!("{}two", "a".repeat(100)));
        let text =
            format!("query {one}(${two}: Int) {{ {two}: {one}(a: ${two}, b: \"{one}\") @{one} }} # {one}");
        let short = ShortNames::of(&text).unwrap();
        let (first, second) = (short.get(&one), short.get(&two));
        assert_eq!((first.len(), second.len()), (LENGTH, LENGTH));
        assert_ne!(first, second);
        let pad = " ".repeat(one.len() - LENGTH);
        let (first, second) = (format!("{first}{pad}"), format!("{second}{pad}"));
        assert_eq!(
            short.text,
            format!(
                "query {first}(${second}: Int) {{ {second}: {first}(a: ${second}, b: \"{one}\") @{first} }} # {one}"
            )
        );
        assert!(ShortNames::of("query A { a(b: 1, c: \"x\") }").is_none());
        assert!(ShortNames::of(&format!("{{ a(b: {}) }}", "1".repeat(200))).is_none());
    }

    proptest! {
        #[test]
        fn different_names_stay_different(names in prop::collection::hash_set("[ab]{0,2}a{75,85}[0-9a-f]{0,9}", 1..20)) {
            let text = names.iter().cloned().collect::<Vec<_>>().join(" ");
            if let Some(short) = ShortNames::of(&text) {
                let replaced = names.iter().map(|name| short.get(name)).collect::<HashSet<_>>();
                prop_assert_eq!(replaced.len(), names.len());
                prop_assert!(replaced.iter().all(|name| name.len() <= LENGTH));
                prop_assert_eq!(short.text.len(), text.len());
            }
        }

        #[test]
        fn shortening_never_panics(text: String) {
            let _ = ShortNames::of(&text);
        }
    }
}
