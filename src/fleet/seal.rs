//! Authenticated encryption of everything that leaves the process for Redis (AES-256-GCM).
//!
//! A sealed value is: the format version (1 byte), the id of the key (4), the sender's salt (16), the sender's counter (8),
//! the ciphertext and the tag (16). A sender draws its salt at its start and derives a key from it, so a pair of key and
//! nonce occurs once, however many senders there are and however long they run.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use uuid::Uuid;

use crate::credentials::key_ring::{FleetKey, KeyRing};

const VERSION: u8 = 1;
const KEY_ID: usize = 4;
const SALT: usize = 16;
const COUNTER: usize = 8;
const HEADER: usize = 1 + KEY_ID + SALT + COUNTER;

/// How many keys of other senders are kept. Beyond it, they are derived again.
const MAX_SENDERS: usize = 1024;

/// Encrypts and decrypts. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sealer(Arc<Inner>);

struct Inner {
    keys: KeyRing,
    salt: [u8; SALT],
    own: LessSafeKey,
    counter: AtomicU64,
    senders: Mutex<HashMap<SenderId, Arc<LessSafeKey>>>,
}

type SenderId = ([u8; KEY_ID], [u8; SALT]);

impl Sealer {
    pub(crate) fn new(keys: KeyRing) -> Self {
        let salt = Uuid::new_v4().into_bytes();
        let own = key_of_sender(keys.first(), &salt);
        Self(Arc::new(Inner { salt, own, counter: AtomicU64::new(0), senders: Mutex::default(), keys }))
    }

    /// Encrypts `plain`, which only [`open`](Self::open) with the same `context` decrypts.
    pub(crate) fn seal(&self, context: &[u8], plain: &[u8]) -> Vec<u8> {
        let Inner { keys, salt, own, counter, .. } = &*self.0;
        let counter = counter.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mut sealed = Vec::with_capacity(HEADER + plain.len() + AES_256_GCM.tag_len());
        sealed.push(VERSION);
        sealed.extend(keys.first().id);
        sealed.extend(salt);
        sealed.extend(counter);
        let mut text = plain.to_vec();
        // Fails only for more than 64 GiB.
        if own.seal_in_place_append_tag(nonce(counter), Aad::from(context), &mut text).is_ok() {
            sealed.append(&mut text);
        }
        sealed
    }

    /// Decrypts a value that any replica has sealed in the same `context`. None if it was not, or under an unknown key.
    pub(crate) fn open(&self, context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (header, text) = sealed.split_at_checked(HEADER)?;
        let (version, header) = header.split_first()?;
        let (key_id, header) = header.split_first_chunk::<KEY_ID>()?;
        let (salt, header) = header.split_first_chunk::<SALT>()?;
        let counter: [u8; COUNTER] = header.try_into().ok()?;
        if *version != VERSION {
            return None;
        }
        let key = self.key(*key_id, *salt)?;
        let mut text = text.to_vec();
        let length = key.open_in_place(nonce(counter), Aad::from(context), &mut text).ok()?.len();
        text.truncate(length);
        Some(text)
    }

    fn key(&self, key_id: [u8; KEY_ID], salt: [u8; SALT]) -> Option<Arc<LessSafeKey>> {
        let line = self.0.keys.all().iter().find(|key| key.id == key_id)?;
        // Nothing that runs under the lock leaves the map half changed.
        let mut senders = self.0.senders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = senders.get(&(key_id, salt)) {
            return Some(key.clone());
        }
        if senders.len() >= MAX_SENDERS {
            senders.clear();
        }
        let key = Arc::new(key_of_sender(line, &salt));
        senders.insert((key_id, salt), key.clone());
        Some(key)
    }
}

fn key_of_sender(line: &FleetKey, salt: &[u8; SALT]) -> LessSafeKey {
    let key = blake3::keyed_hash(&line.sealing, salt);
    // The length is right, so this cannot fail.
    #[allow(clippy::expect_used, reason = "the key has the length that the algorithm requires")]
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_bytes()).expect("32 bytes"))
}

fn nonce(counter: [u8; COUNTER]) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - COUNTER..].copy_from_slice(&counter);
    Nonce::assume_unique_for_key(nonce)
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(…)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ring(lines: &[&str]) -> KeyRing {
        KeyRing::parse(&lines.iter().map(|digit| digit.repeat(64)).collect::<Vec<_>>().join("\n")).unwrap()
    }

    #[test]
    fn replicas_read_each_other_during_a_rotation() {
        let [old, both, new] = [ring(&["a"]), ring(&["b", "a"]), ring(&["b"])].map(Sealer::new);
        let sealed = old.seal(b"bus", b"text");
        assert_eq!(both.open(b"bus", &sealed).as_deref(), Some(&b"text"[..]));
        assert_eq!(new.open(b"bus", &sealed), None);
        assert_eq!(new.open(b"bus", &both.seal(b"bus", b"")).as_deref(), Some(&b""[..]));
    }

    #[test]
    fn a_value_is_bound_to_its_context_and_never_repeats() {
        let sealer = Sealer::new(ring(&["a"]));
        let sealed = sealer.seal(b"one", b"Philomena");
        assert_eq!(sealer.open(b"two", &sealed), None);
        assert_ne!(sealed, sealer.seal(b"one", b"Philomena"));
        assert!(!sealed.windows(9).any(|window| window == b"Philomena"));
    }

    #[test]
    fn the_keys_of_senders_are_bounded() {
        let keys = ring(&["a"]);
        let receiver = Sealer::new(keys.clone());
        for _ in 0..MAX_SENDERS + 10 {
            assert!(receiver.open(b"", &Sealer::new(keys.clone()).seal(b"", b"x")).is_some());
        }
        assert!(receiver.0.senders.lock().unwrap().len() <= MAX_SENDERS);
    }

    proptest! {
        #[test]
        fn changed_or_foreign_bytes_are_refused(plain: Vec<u8>, at: usize, bit in 0..8_u8, foreign: Vec<u8>) {
            let sealer = Sealer::new(ring(&["a"]));
            let mut sealed = sealer.seal(b"bus", &plain);
            prop_assert_eq!(sealer.open(b"bus", &sealed), Some(plain));
            let at = at % sealed.len();
            sealed[at] ^= 1 << bit;
            prop_assert_eq!(sealer.open(b"bus", &sealed), None);
            prop_assert_eq!(sealer.open(b"bus", &foreign), None);
        }
    }
}
