//! Truncation of client-supplied names in error messages, so that error responses stay small.

use std::borrow::Cow;

/// The maximum length of an echoed name, in bytes.
pub const MAX_ECHO: usize = 64;

/// Truncates every long name in `message`.
pub(crate) fn truncate_names(message: &str) -> Cow<'_, str> {
    let is_name = |sign: char| sign == '_' || sign.is_ascii_alphanumeric() || !sign.is_ascii();
    if message.split(|sign| !is_name(sign)).all(|name| name.len() <= MAX_ECHO) {
        return message.into();
    }
    let mut short = String::new();
    for piece in message.split_inclusive(|sign| !is_name(sign)) {
        let name = piece.trim_end_matches(|sign| !is_name(sign));
        short.push_str(&truncate(name));
        short.push_str(&piece[name.len()..]);
    }
    short.into()
}

fn truncate(name: &str) -> Cow<'_, str> {
    if name.len() <= MAX_ECHO {
        return name.into();
    }
    let end = (0..=MAX_ECHO).rev().find(|end| name.is_char_boundary(*end)).unwrap_or_default();
    format!("{}…", &name[..end]).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_long_names_are_truncated() {
        let (short, long) = ("a".repeat(64), "b_9".repeat(30));
        let message = format!("The field \"{short}\" and \"${long}.{long}\": [{long}!].");
        let cut = &long[..64];
        assert_eq!(
            truncate_names(&message),
            format!("The field \"{short}\" and \"${cut}….{cut}…\": [{cut}…!].")
        );
        let plain = "A message of many short words stays unchanged. ".repeat(20);
        assert!(matches!(truncate_names(&plain), Cow::Borrowed(_)));
        assert_eq!(truncate_names(&"é".repeat(33)), format!("{}…", "é".repeat(32)));
    }

    proptest! {
        #[test]
        fn no_truncated_message_has_a_long_name(message in "([a-z_é]{0,200}[ \".,$]){0,5}") {
            let short = truncate_names(&message);
            prop_assert!(short.split(' ').all(|word| word.split(['"', '.', ',', '$']).all(|it| it.len() <= MAX_ECHO + 3)));
            prop_assert!(short.len() <= message.len() + 3 * 5);
        }
    }
}
