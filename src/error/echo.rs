//! Names of a request as messages repeat them: cut short, so that a refusal stays small whatever it refuses.

use std::borrow::Cow;

/// The longest name that is repeated whole, in bytes.
pub const MAX_ECHO: usize = 64;

/// `message` with every name in it cut short.
pub(crate) fn concise(message: &str) -> Cow<'_, str> {
    let is_name = |sign: char| sign == '_' || sign.is_ascii_alphanumeric() || !sign.is_ascii();
    if message.split(|sign| !is_name(sign)).all(|name| name.len() <= MAX_ECHO) {
        return message.into();
    }
    let mut short = String::new();
    for piece in message.split_inclusive(|sign| !is_name(sign)) {
        let name = piece.trim_end_matches(|sign| !is_name(sign));
        short.push_str(&clip(name));
        short.push_str(&piece[name.len()..]);
    }
    short.into()
}

fn clip(name: &str) -> Cow<'_, str> {
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
    fn long_names_are_cut_short_and_nothing_else() {
        let (short, long) = ("a".repeat(64), "b_9".repeat(30));
        let message = format!("The field \"{short}\" and \"${long}.{long}\": [{long}!].");
        let cut = &long[..64];
        assert_eq!(concise(&message), format!("The field \"{short}\" and \"${cut}….{cut}…\": [{cut}…!]."));
        let plain = "A message of many words is left as it is, however long it is. ".repeat(20);
        assert!(matches!(concise(&plain), Cow::Borrowed(_)));
        assert_eq!(concise(&"é".repeat(33)), format!("{}…", "é".repeat(32)));
    }

    proptest! {
        #[test]
        fn no_word_of_any_message_is_long(message in "([a-z_é]{0,200}[ \".,$]){0,5}") {
            let short = concise(&message);
            prop_assert!(short.split(' ').all(|word| word.split(['"', '.', ',', '$']).all(|it| it.len() <= MAX_ECHO + 3)));
            prop_assert!(short.len() <= message.len() + 3 * 5);
        }
    }
}
