//! The appointment ids of the load: UUIDs with a number in the first eight digits and a constant suffix.

const SUFFIX: &str = "-7c1e-4d52-9b36-5a0e8f24c1d7";

/// The number of digits at the start of an id that hold its number.
pub const DIGITS: usize = 8;

/// The first number for which the upstream delays its response.
pub const SLOW: u32 = 0xf000_0000;

pub fn id(number: u32) -> String {
    format!("{number:08x}{SUFFIX}")
}

/// Returns the number of an id; none for a foreign id.
pub fn number(id: &str) -> Option<u32> {
    u32::from_str_radix(id.strip_suffix(SUFFIX)?, 16).ok()
}

/// Writes the digits of `number` over the start of an id.
pub fn write(number: u32, id: &mut [u8]) {
    for (position, digit) in id[..DIGITS].iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (4 * position)) as usize & 0xf];
    }
}
