//! GraphQL's lexical grammar (specification, section 2.1), for checks that must precede parsing or that the parser makes
//! impossible.

use std::{borrow::Cow, collections::HashSet, ops::Range};

/// The tokens of `text`: strings, words and single punctuators, without comments. Any text can be split, also invalid
/// syntax.
pub(crate) fn of(text: &str) -> impl Iterator<Item = &[u8]> {
    spans(text).map(|span| &text.as_bytes()[span])
}

/// The byte ranges of those tokens.
pub(crate) fn spans(text: &str) -> impl Iterator<Item = Range<usize>> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let rest = &bytes[at..];
            let length = match rest.first()? {
                b' ' | b'\t' | b'\r' | b'\n' | b',' => {
                    at += 1;
                    continue;
                }
                b'#' => {
                    at += line(rest);
                    continue;
                }
                b'"' => string(rest),
                byte if is_word(*byte) => rest.iter().take_while(|byte| is_word(**byte)).count(),
                _ => 1,
            };
            // An escape at the end of the text counts one byte too many.
            let start = at;
            at += length.min(rest.len());
            return Some(start..at);
        }
    })
}

/// Returns a repeated field of an input object, which the specification forbids (section 5.6.3). The parser keeps only the
/// last one.
pub(crate) fn repeated_field(text: &str) -> Option<Cow<'_, str>> {
    enum Bracket<'t> {
        /// Around arguments, where a curly bracket opens an input object.
        Round,
        /// Around an input object, with its fields seen so far.
        Object(HashSet<&'t [u8]>),
        Other,
    }
    let (mut open, mut round): (Vec<Bracket<'_>>, _) = (Vec::new(), 0_usize);
    let mut previous: &[u8] = b"";
    for token in of(text) {
        match token {
            b"(" => {
                round += 1;
                open.push(Bracket::Round);
            }
            b"{" if round > 0 => open.push(Bracket::Object(HashSet::new())),
            b"{" | b"[" => open.push(Bracket::Other),
            b")" | b"}" | b"]" => {
                if let Some(Bracket::Round) = open.pop() {
                    round -= 1;
                }
            }
            b":" => {
                if let Some(Bracket::Object(fields)) = open.last_mut()
                    && !fields.insert(previous)
                {
                    return Some(String::from_utf8_lossy(previous));
                }
            }
            _ => {}
        }
        previous = token;
    }
    None
}

/// Whether the byte belongs to a word: letters, digits, underscores and bytes outside ASCII.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

fn line(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(bytes.len())
}

/// The length of the string or block string at the start of `bytes`. An unterminated one extends to the end of the text.
fn string(bytes: &[u8]) -> usize {
    let (quotes, is_block): (&[u8], _) =
        if bytes.starts_with(br#"""""#) { (br#"""""#, true) } else { (b"\"", false) };
    let mut at = quotes.len();
    while at < bytes.len() {
        let rest = &bytes[at..];
        if is_block && rest.starts_with(br#"\""""#) {
            at += 4;
        } else if rest.starts_with(quotes) {
            return at + quotes.len();
        } else if !is_block && rest[0] == b'\\' {
            at += 2;
        } else if !is_block && matches!(rest[0], b'\n' | b'\r') {
            return at;
        } else {
            at += 1;
        }
    }
    bytes.len()
}
