//! Entry points for fuzzing the bytes that come from Redis, with the properties that hold for any input. The targets are
//! under `fuzz`.

use super::{
    connection::ServerInfo,
    message::{Acknowledgement, Message, decode, encode},
    seal::Sealer,
    session::numbered,
};
use crate::credentials::key_ring::KeyRing;

/// A payload of a channel, the text of `INFO`, a key file, and a value that a replica with the key has encrypted.
pub fn foreign_bytes(data: &[u8]) {
    let keys = KeyRing::parse(&"7".repeat(64)).expect("a valid key");
    let sealer = Sealer::new(keys);
    if let Some((_, sealed)) = numbered(data) {
        assert!(sealed.len() < data.len());
        assert_eq!(sealer.open(b"message", sealed), None, "nobody can forge a message");
    }
    if let Some(message) = decode::<Message>(data) {
        assert_eq!(decode(&encode(&message)), Some(message));
    }
    if let Some(acknowledgement) = decode::<Acknowledgement>(data) {
        assert_eq!(decode(&encode(&acknowledgement)), Some(acknowledgement));
    }
    let text = String::from_utf8_lossy(data);
    ServerInfo::parse(&text);
    if let Err(fault) = KeyRing::parse(&text) {
        assert!(!fault.is_empty());
    }
    let sealed = sealer.seal(b"value", data);
    assert_eq!(sealer.open(b"value", &sealed).as_deref(), Some(data));
}
