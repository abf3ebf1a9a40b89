//! Cursors: opaque positions in the appointment list.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// The default window length, as in the schema.
pub(crate) const DEFAULT_WINDOW: i32 = 25;

/// The maximum window length.
pub(crate) const MAX_WINDOW: i32 = 100;

/// The prefix of every cursor, which tells cursors of different lists apart.
const LIST_PREFIX: &str = "appointments";

/// The maximum position: beyond any real list, and far below overflow.
const MAX_POSITION: u64 = u32::MAX as u64;

/// A position in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// The index in the list, from 0.
    pub(crate) position: u64,
    /// The upstream's maximum page length, if it has capped a page so far. The next window is fetched in pages of that
    /// length.
    pub(crate) page_cap: Option<u32>,
}

impl Cursor {
    pub(crate) fn encode(self) -> String {
        let Self { position, page_cap } = self;
        URL_SAFE_NO_PAD.encode(match page_cap {
            Some(cap) => format!("{LIST_PREFIX}:{position}:{cap}"),
            None => format!("{LIST_PREFIX}:{position}"),
        })
    }

    /// Parses `text`; None if it is not a cursor of this list.
    pub(crate) fn decode(text: &str) -> Option<Self> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let mut parts = text.strip_prefix(LIST_PREFIX)?.strip_prefix(':')?.split(':');
        let position = parts.next()?.parse().ok().filter(|position| *position <= MAX_POSITION)?;
        let page_cap = match parts.next() {
            Some(cap) => Some(cap.parse().ok().filter(|cap| (1..=100).contains(cap))?),
            None => None,
        };
        let cursor = Self { position, page_cap };
        // Each cursor has one canonical text: "+1" and "01" are invalid.
        (parts.next().is_none() && cursor.encode() == URL_SAFE_NO_PAD.encode(text)).then_some(cursor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn invalid_cursors_are_rejected() {
        for text in [
            "appointments",
            "appointments:",
            "appointments:-1",
            "appointments:01",
            "appointments:1:0",
            "appointments:1:101",
            "appointments:1:2:3",
            "claimants:1",
            "appointments:4294967296",
            "x",
        ] {
            assert_eq!(Cursor::decode(&URL_SAFE_NO_PAD.encode(text)), None, "{text}");
        }
        for text in ["", "!", "appointments:1", "ü"] {
            assert_eq!(Cursor::decode(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn cursors_round_trip(position in 0..=MAX_POSITION, page_cap in proptest::option::of(1..=100_u32)) {
            let cursor = Cursor { position, page_cap };
            prop_assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
        }

        #[test]
        fn decoding_never_panics(text: String) {
            let _ = Cursor::decode(&text);
            let _ = Cursor::decode(&URL_SAFE_NO_PAD.encode(text));
        }
    }
}
