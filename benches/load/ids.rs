//! The ids of the appointments that are asked for: a number in the first eight digits of a UUID, and the same rest.

/// The rest of each id.
const REST: &str = "-7c1e-4d52-9b36-5a0e8f24c1d7";

/// How many digits of an id are its number.
pub const DIGITS: usize = 8;

/// The upstream takes its time for the numbers from here on.
pub const SLOW: u32 = 0xf000_0000;

pub fn id(number: u32) -> String {
    format!("{number:08x}{REST}")
}

/// The number of an id; none where it is none of these.
pub fn number(id: &str) -> Option<u32> {
    u32::from_str_radix(id.strip_suffix(REST)?, 16).ok()
}

/// Writes the digits of `number` over the beginning of an id.
pub fn write(number: u32, id: &mut [u8]) {
    for (place, digit) in id[..DIGITS].iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (4 * place)) as usize & 0xf];
    }
}
