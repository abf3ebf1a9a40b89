//! Cursors: places in the list, which clients carry around without knowing what is in them.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// How long a window of the list is where the client says nothing; the schema's default.
pub(crate) const DEFAULT_WINDOW: i32 = 25;

/// The longest window of the list.
pub(crate) const LONGEST_WINDOW: i32 = 100;

/// What every cursor of this list begins with, so that one of another list is known as such.
const LIST: &str = "appointments";

/// Further than any list goes, and far from where adding to it overflows.
const FURTHEST: u64 = u32::MAX as u64;

/// A place in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// Counted from 0.
    pub(crate) position: u64,
    /// The longest page that the upstream gives, where that became known on the way here: the next window is then asked
    /// for in pages of that length.
    pub(crate) page_cap: Option<u32>,
}

impl Cursor {
    pub(crate) fn encode(self) -> String {
        let Self { position, page_cap } = self;
        URL_SAFE_NO_PAD.encode(match page_cap {
            Some(cap) => format!("{LIST}:{position}:{cap}"),
            None => format!("{LIST}:{position}"),
        })
    }

    /// The cursor that `text` is; none if it is none of this list.
    pub(crate) fn decode(text: &str) -> Option<Self> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let mut parts = text.strip_prefix(LIST)?.strip_prefix(':')?.split(':');
        let position = parts.next()?.parse().ok().filter(|position| *position <= FURTHEST)?;
        let page_cap = match parts.next() {
            Some(cap) => Some(cap.parse().ok().filter(|cap| (1..=100).contains(cap))?),
            None => None,
        };
        let cursor = Self { position, page_cap };
        // One text for each cursor: "+1" and "01" are none.
        (parts.next().is_none() && cursor.encode() == URL_SAFE_NO_PAD.encode(text)).then_some(cursor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_cursor_of_this_list_is_none() {
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
        fn cursors_come_back_as_they_went(position in 0..=FURTHEST, page_cap in proptest::option::of(1..=100_u32)) {
            let cursor = Cursor { position, page_cap };
            prop_assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text: String) {
            let _ = Cursor::decode(&text);
            let _ = Cursor::decode(&URL_SAFE_NO_PAD.encode(text));
        }
    }
}
