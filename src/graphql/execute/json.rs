//! JSON, written straight to bytes: the same bytes as `serde_json` writes.

use serde::Serialize;

/// How many bytes are looked at at once: as many as a processor compares in one step.
const STRIDE: usize = 16;

/// Adds `text` as a string.
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

/// Adds any value that is JSON whatever it holds.
pub(crate) fn value(value: &impl Serialize, out: &mut Vec<u8>) {
    // A vector takes whatever is written to it.
    let _ = serde_json::to_writer(out, value);
}

/// How many of the first of `bytes` stand for themselves.
fn plain(bytes: &[u8]) -> usize {
    // Without a branch within it, this is done for all of a stride at once.
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
    fn every_byte_that_has_to_be_escaped_is_so_wherever_it_stands() {
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
        fn any_text_is_written_as_serde_json_writes_it(text in "(.|[\\x00-\\x40\\\\])*") {
            let mut out = Vec::new();
            string(&text, &mut out);
            prop_assert_eq!(out, serde_json::to_vec(&text).unwrap());
        }
    }
}
