//! Deterministic pseudo-random numbers, so that names, variants and faults are the same in each run.

/// Hashes `n` with the finaliser of SplitMix64.
pub(crate) fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// Returns the random number of the `index`th appointment for `purpose`. Numbers for different purposes are independent.
pub(crate) fn random(index: u32, purpose: &str) -> u64 {
    purpose.bytes().fold(mix(u64::from(index)), |seed, byte| mix(seed ^ u64::from(byte)))
}

/// Returns a random number below `bound`, as [`random`].
pub(crate) fn below(bound: u32, index: u32, purpose: &str) -> u32 {
    // The remainder is less than a u32, so the cast is lossless.
    (random(index, purpose) % u64::from(bound.max(1))) as u32
}

/// Returns one of `choices`, as [`random`].
pub(crate) fn pick<T, const N: usize>(choices: &[T; N], index: u32, purpose: &str) -> T
where
    T: Copy,
{
    const { assert!(N > 0, "there is nothing to choose from") };
    choices[(random(index, purpose) % N as u64) as usize]
}

/// Returns fifteen random letters and digits, the format of the upstream's references.
pub(crate) fn letters(index: u32, purpose: &str) -> String {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let seed = random(index, purpose);
    (0..15).map(|place| char::from(ALPHABET[(mix(seed ^ place) % 62) as usize])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_repeat_and_differ_by_purpose() {
        assert_eq!(random(7, "name"), random(7, "name"));
        assert_ne!(random(7, "name"), random(7, "phone"));
        assert_ne!(random(7, "name"), random(8, "name"));
        assert_eq!(letters(3, "reference").len(), 15);
    }
}
