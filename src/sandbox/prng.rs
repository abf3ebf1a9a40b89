//! Numbers that look random and are the same in each run, so that names, shapes and faults can be told in advance.
//!
//! Stands below everything else of the sandbox and knows none of it.

/// A well-mixed number for `n` (the finaliser of SplitMix64).
pub(crate) fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// The number of the `index`th appointment for one purpose. Two purposes share nothing, so the look of one detail says
/// nothing of the next.
pub(crate) fn roll(index: u32, purpose: &str) -> u64 {
    purpose.bytes().fold(mix(u64::from(index)), |seed, byte| mix(seed ^ u64::from(byte)))
}

/// Below `sides`, as [`roll`].
pub(crate) fn below(sides: u32, index: u32, purpose: &str) -> u32 {
    // The remainder is below a u32, so nothing is cut off.
    (roll(index, purpose) % u64::from(sides.max(1))) as u32
}

/// One of the faces, as [`roll`].
pub(crate) fn pick<T, const N: usize>(faces: &[T; N], index: u32, purpose: &str) -> T
where
    T: Copy,
{
    const { assert!(N > 0, "a die has faces") };
    faces[(roll(index, purpose) % N as u64) as usize]
}

/// Fifteen letters and digits, as the upstream's references are.
pub(crate) fn letters(index: u32, purpose: &str) -> String {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let seed = roll(index, purpose);
    (0..15).map(|place| char::from(ALPHABET[(mix(seed ^ place) % 62) as usize])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rolls_repeat_and_differ_by_purpose() {
        assert_eq!(roll(7, "name"), roll(7, "name"));
        assert_ne!(roll(7, "name"), roll(7, "phone"));
        assert_ne!(roll(7, "name"), roll(8, "name"));
        assert_eq!(letters(3, "reference").len(), 15);
    }
}
