//! The values of string literals (GraphQL specification, section 2.9.4).

/// The most digits of `\u{…}`. Six are enough for every character, and the reference implementation accepts eight.
const MAX_DIGITS: usize = 8;

/// The value of the quoted string with this `content` between its quotes; None if an escape sequence is invalid.
pub(crate) fn quoted(content: &str) -> Option<String> {
    let mut value = String::with_capacity(content.len());
    let mut rest = content;
    while let Some((plain, escape)) = rest.split_once('\\') {
        let (character, behind) = unescape(escape)?;
        value.push_str(plain);
        value.push(character);
        rest = behind;
    }
    value.push_str(rest);
    Some(value)
}

/// The character that the escape sequence behind a backslash stands for, and the text behind the sequence.
fn unescape(text: &str) -> Option<(char, &str)> {
    let mut characters = text.chars();
    let character = match characters.next()? {
        sign @ ('"' | '\\' | '/') => sign,
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => return unicode(characters.as_str()),
        _ => return None,
    };
    Some((character, characters.as_str()))
}

/// The character that the digits behind `\u` stand for: a scalar value in curly brackets, or one or two UTF-16 code units.
fn unicode(text: &str) -> Option<(char, &str)> {
    if let Some(text) = text.strip_prefix('{') {
        let (digits, rest) = text.split_once('}')?;
        let scalar = (digits.len() <= MAX_DIGITS).then(|| hex(digits))??;
        return Some((char::from_u32(scalar)?, rest));
    }
    let (first, rest) = code_unit(text)?;
    if let Some(character) = char::from_u32(first.into()) {
        return Some((character, rest));
    }
    let (second, rest) = code_unit(rest.strip_prefix("\\u")?)?;
    Some((char::decode_utf16([first, second]).next()?.ok()?, rest))
}

fn code_unit(text: &str) -> Option<(u16, &str)> {
    let (digits, rest) = text.split_at_checked(4)?;
    Some((u16::try_from(hex(digits)?).ok()?, rest))
}

fn hex(digits: &str) -> Option<u32> {
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex { u32::from_str_radix(digits, 16).ok() } else { None }
}

/// The value of the block string with this `content` between its quotes (`BlockStringValue`): without common indentation,
/// and without blank lines at its start and end.
pub(crate) fn block(content: &str) -> String {
    let content = content.replace(r#"\""""#, r#"""""#).replace("\r\n", "\n");
    let mut lines: Vec<&str> = content.split(['\n', '\r']).collect();
    let indent = |line: &str| line.bytes().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let is_blank = |line: &str| indent(line) == line.len();
    let indents = lines.iter().skip(1).filter(|line| !is_blank(line)).map(|line| indent(line));
    let common = indents.min().unwrap_or_default();
    for line in lines.iter_mut().skip(1) {
        // Blank lines may be shorter.
        *line = line.get(common..).unwrap_or_default();
    }
    let start = lines.iter().position(|line| !is_blank(line)).unwrap_or(lines.len());
    let end = lines.iter().rposition(|line| !is_blank(line)).map_or(start, |last| last + 1);
    lines[start..end].join("\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escape_sequences_are_replaced() {
        for (content, expected) in [
            ("", ""),
            ("plain é 🦀", "plain é 🦀"),
            (r#"\"\\\/\b\f\n\r\t"#, "\"\\/\u{8}\u{c}\n\r\t"),
            (r"\u0041\u00e9\uFFFF\u0000", "Aé\u{ffff}\0"),
            (r"\uD83E\udd80!", "🦀!"),
            (r"\u{1F980}\u{41}\u{0}\u{00000041}\u{10FFFF}\u{10ffff}", "🦀A\0A\u{10ffff}\u{10ffff}"),
            (r"\\u0041\\u{41}", r"\u0041\u{41}"),
        ] {
            assert_eq!(quoted(content).as_deref(), Some(expected), "{content}");
        }
    }

    #[test]
    fn invalid_escape_sequences_are_rejected() {
        for content in [
            r"\",
            r"\a",
            r"\é",
            r"\'",
            r"\x41",
            r"\U0041",
            r"\u",
            r"\u004",
            r"\u004g",
            r"\u+041",
            r"\u00é",
            r"\u{}",
            r"\u{",
            r"\u{41",
            r"\u{g}",
            r"\u{+41}",
            r"\u{ 41}",
            r"\u{110000}",
            r"\u{D800}",
            r"\u{DFFF}",
            r"\u{000000041}",
            r"\u{FFFFFFFF}",
            r"\uD83E",
            r"\uD83Ex",
            r"\uD83E\n",
            r"\uD83E\u0041",
            r"\uDD80",
            r"\uDD80\uD83E",
            r"\uD83E\uD83E",
            r"\uD83E\u{DD80}",
            r"\u{D83E}\u{DD80}",
        ] {
            assert_eq!(quoted(content), None, "{content}");
        }
    }

    #[test]
    fn block_strings_lose_indentation_and_outer_blank_lines() {
        for (content, expected) in [
            ("", ""),
            ("\n \n\t\r\n", ""),
            ("  a", "  a"),
            ("a\n    b\n      c\r    d", "a\nb\n  c\nd"),
            ("\n    a\n  \n     \n    b\n", "a\n\n \nb"),
            ("\r\r\n  a\r\n\tb", " a\nb"),
            ("\n\u{a0}a\n  b", "\u{a0}a\n  b"),
            (r#" \""" \\""" \n \u0041 \ "#, r#" """ \""" \n \u0041 \ "#),
            ("\n  \\\"\"\"\n  a", "\"\"\"\na"),
        ] {
            assert_eq!(block(content), expected, "{content:?}");
        }
    }

    proptest! {
        #[test]
        fn every_character_can_be_written_in_each_form(character: char) {
            let units = character.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04X}")).collect::<String>();
            for content in [units, format!("\\u{{{:x}}}", u32::from(character))] {
                prop_assert_eq!(quoted(&content), Some(character.to_string()));
            }
        }

        #[test]
        fn no_content_panics(content in "[\\\\u{}0-9a-fA-F\"\n\r\t é🦀x]{0,40}") {
            let _ = quoted(&content);
            let _ = block(&content);
        }
    }
}
