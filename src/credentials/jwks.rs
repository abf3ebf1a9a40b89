//! A JWK set (RFC 7517): the public keys of the issuer of the callers' tokens.

use std::{fmt, sync::Arc};

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;

use super::{rejection::Rejection, signature};

/// The maximum number of keys of a set that are used. Issuers have a handful.
const MAX_KEYS: usize = 100;

/// The public keys of a set for signature verification. Cheap to clone.
#[derive(Clone)]
pub struct KeySet(Arc<[PublicKey]>);

/// A public key.
pub(crate) struct PublicKey {
    id: Option<String>,
    /// The algorithms of its type, restricted to its `alg` if present.
    algorithms: Vec<Algorithm>,
    pub(crate) decoding: DecodingKey,
    /// A digest of the key material alone.
    fingerprint: blake3::Hash,
}

/// A reference to the key that verified a token, for a lookup in a later set.
pub(crate) struct KeyReference {
    id: Option<Box<str>>,
    algorithm: Algorithm,
    fingerprint: blake3::Hash,
}

/// The reason why a set has no key for a token.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum KeyLookupError {
    /// No such key. A newer set may have it.
    NotFound,
    /// The key does not support the algorithm, or several keys fit and the token names none.
    Unusable,
}

impl KeySet {
    /// Parses a file with a set.
    ///
    /// # Errors
    /// The reason why the file is not a set, and the expected form.
    pub fn from_file(text: &str) -> Result<Self, String> {
        Self::read(text.as_bytes()).map_err(|fault| format!("{fault}; write a JWK set: {{\"keys\": […]}}"))
    }

    /// Parses a set. Entries that are not keys for signature verification are skipped (RFC 7517, section 5).
    pub(crate) fn read(json: &[u8]) -> Result<Self, &'static str> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let Set { keys } = serde_json::from_slice(json).map_err(|_| "is not a JWK set")?;
        let keys: Arc<[PublicKey]> = keys.into_iter().take(MAX_KEYS).filter_map(PublicKey::read).collect();
        if keys.is_empty() {
            return Err("has no public key for signature verification");
        }
        Ok(Self(keys))
    }

    /// Finds the key with the `id` of a token, or the only key for its algorithm if the token names none.
    pub(crate) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Result<&PublicKey, KeyLookupError> {
        let mut named = self.0.iter().filter(|key| id.is_none() || key.id.as_deref() == id).peekable();
        if named.peek().is_none() {
            return Err(KeyLookupError::NotFound);
        }
        let mut fitting = named.filter(|key| key.algorithms.contains(&algorithm));
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(key),
            (None, _) if id.is_none() => Err(KeyLookupError::NotFound),
            _ => Err(KeyLookupError::Unusable),
        }
    }
}

impl KeySet {
    /// Checks without cryptography that a token verified with `key` would still be verified.
    ///
    /// # Errors
    /// The key was removed or replaced.
    pub(crate) fn confirm(&self, key: &KeyReference) -> Result<(), Rejection> {
        if key.id.is_none() {
            // A newer key makes new tokens without an id ambiguous, but does not affect verified ones.
            let is_same =
                |it: &PublicKey| it.fingerprint == key.fingerprint && it.algorithms.contains(&key.algorithm);
            return if self.0.iter().any(is_same) { Ok(()) } else { Err(Rejection::UnknownKey) };
        }
        match self.find(key.id.as_deref(), key.algorithm) {
            Ok(found) if found.fingerprint == key.fingerprint => Ok(()),
            Ok(_) => Err(Rejection::Signature),
            Err(_) => Err(Rejection::UnknownKey),
        }
    }
}

impl PublicKey {
    /// Returns a reference to this key, which verified a token that names `id`.
    pub(crate) fn reference(&self, id: Option<&str>, algorithm: Algorithm) -> KeyReference {
        KeyReference { id: id.map(Into::into), algorithm, fingerprint: self.fingerprint }
    }

    fn read(value: Value) -> Option<Self> {
        let named = value.get("alg").map(|name| name.as_str().and_then(|name| name.parse().ok()));
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let is_for_signatures = match (&jwk.common.public_key_use, &jwk.common.key_operations) {
            (Some(used), _) => *used == PublicKeyUse::Signature,
            (None, Some(operations)) => operations.contains(&KeyOperations::Verify),
            (None, None) => true,
        };
        if !is_for_signatures {
            return None;
        }
        use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        let of_its_type: &[Algorithm] = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => &[RS256, RS384, RS512, PS256, PS384, PS512],
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => &[ES256],
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => &[ES384],
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => &[EdDSA],
            // Shared secrets are rejected: a verifier could also sign with them.
            _ => &[],
        };
        let mut algorithms = of_its_type.to_vec();
        if let Some(named) = named {
            algorithms.retain(|algorithm| Some(*algorithm) == named);
        }
        let decoding = DecodingKey::from_jwk(&jwk).ok()?;
        let fingerprint = signature::fingerprint(&decoding);
        (!algorithms.is_empty()).then_some(Self { id: jwk.common.key_id, algorithms, decoding, fingerprint })
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySet({} keys)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// A point on P-256 (RFC 7517, appendix A.1).
    fn ec(members: Value) -> Value {
        let mut key = json!({
            "kty": "EC", "crv": "P-256",
            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
            "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
        });
        for (name, value) in members.as_object().unwrap() {
            key[name] = value.clone();
        }
        key
    }

    fn set(keys: &[Value]) -> Result<KeySet, &'static str> {
        KeySet::read(json!({ "keys": keys }).to_string().as_bytes())
    }

    fn find(set: &KeySet, id: Option<&str>, algorithm: Algorithm) -> Result<Option<String>, KeyLookupError> {
        set.find(id, algorithm).map(|key| key.id.clone())
    }

    #[test]
    fn a_token_gets_only_the_key_that_it_names() {
        let set = set(&[ec(json!({ "kid": "a" })), ec(json!({ "kid": "b", "alg": "ES256", "use": "sig" }))])
            .unwrap();
        assert_eq!(find(&set, Some("a"), Algorithm::ES256), Ok(Some("a".to_owned())));
        assert_eq!(find(&set, Some("b"), Algorithm::ES256), Ok(Some("b".to_owned())));
        assert_eq!(find(&set, Some("c"), Algorithm::ES256), Err(KeyLookupError::NotFound));
        for algorithm in [Algorithm::RS256, Algorithm::HS256, Algorithm::ES384, Algorithm::EdDSA] {
            assert_eq!(find(&set, Some("a"), algorithm), Err(KeyLookupError::Unusable), "{algorithm:?}");
        }
        assert_eq!(find(&set, None, Algorithm::ES256), Err(KeyLookupError::Unusable), "two keys fit");
    }

    #[test]
    fn a_token_without_a_key_id_gets_the_only_key() {
        for key in [ec(json!({})), ec(json!({ "kid": "a" }))] {
            let set = set(&[key, json!({ "kty": "oct", "k": "c2VjcmV0" })]).unwrap();
            assert!(find(&set, None, Algorithm::ES256).is_ok());
            assert_eq!(find(&set, None, Algorithm::RS256), Err(KeyLookupError::NotFound));
        }
    }

    #[test]
    fn a_key_is_confirmed_by_its_material_not_by_its_id() {
        let confirmed = |set: &KeySet, key: &KeyReference| set.confirm(key);
        let before = set(&[ec(json!({ "kid": "a" }))]).unwrap();
        let key = before.find(Some("a"), Algorithm::ES256).unwrap().reference(Some("a"), Algorithm::ES256);
        let replaced = ec(json!({ "kid": "a", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU" }));
        for (keys, expected) in [
            (vec![ec(json!({ "kid": "a" }))], Ok(())),
            (
                vec![ec(json!({ "kid": "b" })), ec(json!({ "kid": "a", "alg": "ES256", "use": "sig" }))],
                Ok(()),
            ),
            (vec![ec(json!({ "kid": "b" }))], Err(Rejection::UnknownKey)),
            (vec![replaced], Err(Rejection::Signature)),
        ] {
            assert_eq!(confirmed(&set(&keys).unwrap(), &key), expected);
        }
    }

    #[test]
    fn entries_that_cannot_verify_signatures_are_skipped() {
        let useless = [
            json!({ "kty": "oct", "k": "c2VjcmV0", "alg": "HS256", "kid": "a" }),
            json!({ "kty": "new", "kid": "b" }),
            json!("no key"),
            ec(json!({ "use": "enc" })),
            ec(json!({ "key_ops": ["encrypt"] })),
            ec(json!({ "alg": "RS256" })),
            ec(json!({ "alg": "HS256" })),
            ec(json!({ "alg": "none" })),
            ec(json!({ "alg": 1 })),
        ];
        assert!(set(&useless).is_err());
        let with_one = [useless.as_slice(), &[ec(json!({ "kid": "c" }))]].concat();
        assert!(find(&set(&with_one).unwrap(), Some("c"), Algorithm::ES256).is_ok());
        for no_set in [&b""[..], b"{}", b"[]", b"{\"keys\":1}", b"{\"keys\":[]}", b"\xff"] {
            assert!(KeySet::read(no_set).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_a_panic(bytes: Vec<u8>, alg: String, kid: String, x: String) {
            let _ = KeySet::read(&bytes);
            let _ = set(&[ec(json!({ "alg": alg, "kid": kid, "x": x }))]);
        }
    }
}
