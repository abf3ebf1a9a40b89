//! JSON encoding straight to bytes, with the same output as `serde_json`.

use serde::Serialize;

/// Bytes checked at once: the width of one SIMD comparison.
const STRIDE: usize = 16;

/// Appends `text` as a JSON string.
pub(crate) fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let (plain, from) = rest.split_at(plain(rest));
        out.extend_from_slice(plain);
        let [special, after @ ..] = from else { break };
        escape(*special, out);
        rest = after;
    }
    out.push(b'"');
}

/// Appends a value that always serializes.
pub(crate) fn value(value: &impl Serialize, out: &mut Vec<u8>) {
    // Writing to a vector cannot fail.
    let _ = serde_json::to_writer(out, value);
}

/// The length of the prefix of `bytes` that needs no escaping.
fn plain(bytes: &[u8]) -> usize {
    // Free of branches, so that the compiler vectorizes it.
    let is_plain = |stride: &&[u8]| !stride.iter().fold(false, |found, byte| found | is_special(*byte));
    let strides = bytes.chunks_exact(STRIDE).take_while(is_plain).count() * STRIDE;
    let rest = &bytes[strides..];
    strides + rest.iter().position(|byte| is_special(*byte)).unwrap_or(rest.len())
}

fn is_special(byte: u8) -> bool {
    (byte < b' ') | (byte == b'"') | (byte == b'\\')
}

fn escape(byte: u8, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let letter = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        b'\t' => b't',
        b'\n' => b'n',
        0x0C => b'f',
        b'\r' => b'r',
        _ => {
            let digit = |nibble: u8| DIGITS[usize::from(nibble & 0xF)];
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte)]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', letter]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn special_bytes_are_escaped_at_every_offset() {
        for special in (0..=0x7F).map(char::from) {
            for before in 0..=2 * STRIDE {
                let text = format!("{}{special}{special}é", "a".repeat(before));
                let mut out = Vec::new();
                string(&text, &mut out);
                assert_eq!(out, serde_json::to_vec(&text).unwrap());
            }
        }
    }

    proptest! {
        #[test]
        fn strings_match_serde_json(text in "(.|[\\x00-\\x40\\\\])*") {
            let mut out = Vec::new();
            string(&text, &mut out);
            prop_assert_eq!(out, serde_json::to_vec(&text).unwrap());
        }
    }
}
