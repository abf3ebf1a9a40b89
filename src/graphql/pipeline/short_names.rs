//! A document with shorter names in place of its long ones, for async-graphql's validation.
//!
//! Validation repeats the name of an operation in the message for each of its variables, and compares an unknown name with
//! many known ones. With short names, what that costs is bounded by the number of names, not by their length as well.

use std::collections::HashMap;

use super::tokens;

/// How many bytes of a long name are left, its number included. Names of this length and longer ones are replaced, so that no
/// replacement is a name that is left alone.
const LENGTH: usize = 80;

/// How many bytes of a replacement are its number, which makes it unique.
const NUMBER: usize = 8;

/// A document's text and, for each of its long names, the replacement.
pub(crate) struct ShortNames<'t> {
    pub(crate) text: String,
    names: HashMap<&'t str, String>,
}

impl<'t> ShortNames<'t> {
    /// Replaces the long names in `text`, which is GraphQL; none where there are none. Everything keeps its position.
    pub(crate) fn of(text: &'t str) -> Option<Self> {
        let mut names = HashMap::new();
        let mut short = Vec::new();
        for span in tokens::spans(text) {
            let Some(name) = text.get(span.clone()).filter(|token| is_long_name(token)) else { continue };
            if short.is_empty() {
                short = text.as_bytes().to_vec();
            }
            let number = names.len();
            let replacement =
                names.entry(name).or_insert_with(|| format!("{}{number:08x}", &name[..LENGTH - NUMBER]));
            let (start, end) = short[span].split_at_mut(LENGTH);
            start.copy_from_slice(replacement.as_bytes());
            end.fill(b' ');
        }
        let text = String::from_utf8(short).ok()?;
        (!names.is_empty()).then_some(Self { text, names })
    }

    /// The name that stands for `name`.
    pub(crate) fn get<'n>(&'n self, name: &'n str) -> &'n str {
        self.names.get(name).map_or(name, String::as_str)
    }
}

fn is_long_name(token: &str) -> bool {
    token.len() >= LENGTH
        && token.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
        && !token.starts_with(|first: char| first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn long_names_are_replaced_wherever_they_stand_and_keep_their_position() {
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
        fn any_text_is_read_without_a_panic(text: String) {
            let _ = ShortNames::of(&text);
        }
    }
}
