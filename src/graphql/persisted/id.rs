//! Ids of persisted documents, and SHA-256 hashes.

use std::fmt;

use ring::digest;

/// The maximum length of the id of a trusted document, in bytes.
pub(crate) const MAX_ID: usize = 256;

/// The prefix of an id that is a hash.
const SHA256_PREFIX: &str = "sha256:";

/// The id of a persisted document, as a request or a manifest gives it. A hash is in lower case.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct DocumentId(Box<str>);

/// The SHA-256 hash of a document text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Sha256([u8; 32]);

impl DocumentId {
    /// The id in a manifest, a parameter or a path: any text, or a hash with or without the prefix `sha256:`.
    pub(crate) fn new(id: &str) -> Self {
        match id.strip_prefix(SHA256_PREFIX).map(Self::of_hash) {
            Some(hash) if hash.sha256().is_some() => hash,
            _ => Self::of_hash(id),
        }
    }

    /// The id in `sha256Hash`, which has no prefix.
    pub(crate) fn of_hash(hash: &str) -> Self {
        let id = Self(hash.into());
        if id.sha256().is_some() { Self(hash.to_ascii_lowercase().into()) } else { id }
    }

    /// The id of a text that has no other: its hash.
    pub(crate) fn of_text(text: &str) -> Self {
        let digits = Sha256::of(text).0.into_iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let digit = |digit: u8| char::from_digit(digit.into(), 16).unwrap_or_default();
        Self(digits.map(digit).collect::<String>().into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The hash that the id spells in hexadecimal digits, if it does.
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

impl Sha256 {
    /// The hash of `text`.
    pub(crate) fn of(text: &str) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
        Self(hash)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
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
    fn ids_spell_hashes_in_either_case() {
        let hash = |id: &str| DocumentId::of_hash(id).sha256();
        assert_eq!(hash(ABC), Some(Sha256::of("abc")));
        assert_eq!(hash(&ABC.to_uppercase()), Some(Sha256::of("abc")));
        assert_ne!(hash(ABC), Some(Sha256::of("abd")));
        for id in
            ["", "0", &ABC[1..], &ABC[2..], &format!("{ABC}0"), &format!("{ABC}00"), &ABC.replace('b', "g")]
        {
            assert_eq!(hash(id), None, "{id}");
        }
    }

    #[test]
    fn spellings_of_one_hash_are_one_id() {
        let id = DocumentId::of_text("abc");
        assert_eq!(id.as_str(), ABC);
        for spelling in [ABC.to_owned(), ABC.to_uppercase(), format!("sha256:{ABC}")] {
            assert_eq!(DocumentId::new(&spelling), id, "{spelling}");
        }
        for other in [format!("SHA256:{ABC}"), format!("sha256: {ABC}"), format!("sha256:sha256:{ABC}")] {
            assert_ne!(DocumentId::new(&other), id, "{other}");
        }
        assert_ne!(DocumentId::of_hash(&format!("sha256:{ABC}")), id);
        // Other ids are compared byte for byte.
        assert_ne!(DocumentId::new("A"), DocumentId::new("a"));
        assert_ne!(DocumentId::new("sha256:a"), DocumentId::new("a"));
    }

    proptest! {
        #[test]
        fn any_id_is_read_without_a_panic(id in "\\PC{0,70}|[0-9a-fA-F]{60,66}") {
            let is_hash = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
            prop_assert_eq!(DocumentId::of_hash(&id).sha256().is_some(), is_hash);
            prop_assert_eq!(DocumentId::new(&id).sha256().is_some(), is_hash);
            prop_assert_eq!(DocumentId::new(&format!("sha256:{id}")).sha256().is_some(), is_hash);
        }
    }
}
