//! GraphQL's lexical grammar (specification, section 2.1).

/// A token with its source text. Any text can be split into tokens, also invalid syntax.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token<'t> {
    pub(crate) kind: Kind,
    pub(crate) text: &'t str,
    /// The offset in the document, in bytes.
    pub(crate) start: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Punctuator,
    Name,
    Int,
    Float,
    /// A terminated string. Its escape sequences may be invalid.
    String,
    BlockString,
    /// A malformed number or string, with the reason.
    Malformed(&'static str),
    /// A character that starts no token.
    Unknown,
}

/// The tokens of a text, without white space, commas, comments and byte order marks.
#[derive(Debug, Clone)]
pub(crate) struct Tokens<'t> {
    text: &'t str,
    at: usize,
}

pub(crate) fn of(text: &str) -> Tokens<'_> {
    Tokens { text, at: 0 }
}

impl<'t> Iterator for Tokens<'t> {
    type Item = Token<'t>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = loop {
            let rest = &self.text.as_bytes()[self.at..];
            self.at += match rest {
                [b' ' | b'\t' | b'\r' | b'\n' | b',', ..] => 1,
                [b'#', ..] => rest.iter().take_while(|byte| !is_line_end(**byte)).count(),
                [0xEF, 0xBB, 0xBF, ..] => 3,
                _ => break rest,
            };
        };
        let (kind, length) = match rest.first()? {
            b'!' | b'$' | b'&' | b'(' | b')' | b':' | b'=' | b'@' | b'[' | b']' | b'{' | b'|' | b'}' => {
                (Kind::Punctuator, 1)
            }
            b'.' if rest.starts_with(b"...") => (Kind::Punctuator, 3),
            b'"' if rest.starts_with(br#"""""#) => block_string(rest),
            b'"' => string(rest),
            b'-' | b'0'..=b'9' => number(rest),
            byte if is_name_start(*byte) => {
                (Kind::Name, rest.iter().take_while(|byte| is_name_continue(**byte)).count())
            }
            _ => (Kind::Unknown, self.text[self.at..].chars().next().map_or(0, char::len_utf8)),
        };
        let start = self.at;
        self.at += length;
        Some(Token { kind, text: &self.text[start..self.at], start })
    }
}

fn is_name_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_'
}

fn is_name_continue(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// The kind and length of the number at the start of `bytes`.
fn number(bytes: &[u8]) -> (Kind, usize) {
    let digits = |at: usize| bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let is_at = |at: usize, signs: &[u8]| bytes.get(at).is_some_and(|byte| signs.contains(byte));
    let mut at = usize::from(bytes[0] == b'-');
    let whole = digits(at);
    let mut is_valid = whole == 1 || whole > 1 && bytes[at] != b'0';
    at += whole;
    let mut kind = Kind::Int;
    if is_at(at, b".") {
        kind = Kind::Float;
        let fraction = digits(at + 1);
        is_valid &= fraction > 0;
        at += 1 + fraction;
    }
    if is_at(at, b"eE") {
        kind = Kind::Float;
        at += 1 + usize::from(is_at(at + 1, b"+-"));
        let exponent = digits(at);
        is_valid &= exponent > 0;
        at += exponent;
    }
    let tail = bytes[at..].iter().take_while(|byte| is_name_continue(**byte) || **byte == b'.').count();
    if is_valid && tail == 0 { (kind, at) } else { (Kind::Malformed("malformed number"), at + tail) }
}

/// The kind and length of the string at the start of `bytes`. An unterminated one extends to the end of its line.
fn string(bytes: &[u8]) -> (Kind, usize) {
    let mut at = 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return (Kind::String, at + 1),
            b'\\' if bytes.get(at + 1).is_some_and(|next| matches!(next, b'"' | b'\\')) => at += 2,
            byte if is_line_end(*byte) => break,
            _ => at += 1,
        }
    }
    (Kind::Malformed("unterminated string"), at)
}

/// The kind and length of the block string at the start of `bytes`. An unterminated one extends to the end of the text.
fn block_string(bytes: &[u8]) -> (Kind, usize) {
    let mut at = 3;
    while at < bytes.len() {
        let rest = &bytes[at..];
        if rest.starts_with(br#"""""#) {
            return (Kind::BlockString, at + 3);
        }
        at += if rest.starts_with(br#"\""""#) { 4 } else { 1 };
    }
    (Kind::Malformed("unterminated block string"), bytes.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_are_split_per_specification() {
        for (text, expected) in [
            ("a:b2,_c # d\n...e", &["a", ":", "b2", "_c", "...", "e"][..]),
            ("\u{feff}{\u{feff}a}", &["{", "a", "}"]),
            ("#a\rb#\n", &["b"]),
            ("[1 -2,0.5e+3-0]", &["[", "1", "-2", "0.5e+3", "-0", "]"]),
            (r#""a\"b""\\"c"#, &[r#""a\"b""#, r#""\\""#, "c"]),
            (r#""" """"\""" """ """"""d"#, &[r#""""#, r#"""""\""" """"#, r#""""""""#, "d"]),
        ] {
            let tokens: Vec<_> = of(text).collect();
            assert!(tokens.iter().all(|token| !matches!(token.kind, Kind::Malformed(_) | Kind::Unknown)));
            assert_eq!(tokens.iter().map(|token| token.text).collect::<Vec<_>>(), expected, "{text}");
        }
    }

    #[test]
    fn malformed_tokens_are_found() {
        for text in [
            "00",
            "01",
            "-",
            "-a",
            "1.",
            ".5",
            "1.e5",
            "1e",
            "1e+",
            "1.2.3",
            "1a",
            "1.5_",
            "0x1",
            "1...",
            "+1",
            "\"a",
            "\"a\n\"",
            "\"a\\\"",
            "\"\"\"a\"\"",
            "\"\"\"a\\\"\"\"",
            "é",
            "..",
            "'",
            "%",
            "\u{a0}",
            "\0",
        ] {
            let first = of(text).next().unwrap();
            assert!(matches!(first.kind, Kind::Malformed(_) | Kind::Unknown), "{text}: {first:?}");
        }
    }

    proptest! {
        #[test]
        fn tokens_are_ordered_parts_of_the_text(text in "([a-z0-9{}()\".\\\\#\n\r é-]|\"\"\"|\u{feff}){0,40}") {
            let mut end = 0;
            for token in of(&text) {
                prop_assert!(token.start >= end && !token.text.is_empty());
                end = token.start + token.text.len();
                prop_assert_eq!(&text[token.start..end], token.text);
            }
        }
    }
}
