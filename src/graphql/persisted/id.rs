//! Ids of persisted documents, and SHA-256 hashes.

use std::fmt;

use ring::digest;

/// The id of a persisted document, as sent by a client.
#[derive(Clone, PartialEq, Eq)]
pub struct DocumentId(Box<str>);

/// The SHA-256 hash of a document text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Sha256([u8; 32]);

impl DocumentId {
    /// The SHA-256 hash, if the id is 64 hexadecimal digits.
    pub(crate) fn sha256(&self) -> Option<Sha256> {
        let digits = self.0.as_bytes().as_chunks::<2>();
        let (pairs, []) = digits else { return None };
        let mut hash = [0; 32];
        if pairs.len() != hash.len() {
            return None;
        }
        for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
            let digit = |digit: &u8| char::from(*digit).to_digit(16);
            *byte = (digit(high)? << 4 | digit(low)?) as u8;
        }
        Some(Sha256(hash))
    }
}

impl From<String> for DocumentId {
    fn from(id: String) -> Self {
        Self(id.into())
    }
}

impl Sha256 {
    /// The hash of `text`.
    pub(crate) fn of(text: &str) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
        Self(hash)
    }
}

impl fmt::Debug for DocumentId {
    /// Omits the id, which a client may have chosen freely.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DocumentId(…)")
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sha256(…)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// From FIPS 180-2, appendix B.1.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn hashes_are_hexadecimal_digits_in_either_case() {
        let hash = |id: &str| DocumentId::from(id.to_owned()).sha256();
        assert_eq!(hash(ABC), Some(Sha256::of("abc")));
        assert_eq!(hash(&ABC.to_uppercase()), Some(Sha256::of("abc")));
        assert_ne!(hash(ABC), Some(Sha256::of("abd")));
        for id in
            ["", "0", &ABC[1..], &ABC[2..], &format!("{ABC}0"), &format!("{ABC}00"), &ABC.replace('b', "g")]
        {
            assert_eq!(hash(id), None, "{id}");
        }
    }

    proptest! {
        #[test]
        fn any_id_is_read_without_a_panic(id in "\\PC{0,70}|[0-9a-fA-F]{60,66}") {
            let is_hash = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
            prop_assert_eq!(DocumentId::from(id).sha256().is_some(), is_hash);
        }
    }
}
