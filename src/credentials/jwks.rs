//! A JWK set (RFC 7517): the public keys of who issues the callers' tokens.

use std::{fmt, sync::Arc};

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;

use super::{rejection::Rejection, signature};

/// How many keys of a set are looked at. Issuers have a handful.
const MOST_KEYS: usize = 100;

/// Public keys that signatures can be verified with. Cheap to clone.
#[derive(Clone)]
pub struct KeySet(Arc<[Key]>);

/// One of them.
pub(crate) struct Key {
    id: Option<String>,
    /// Those that it may be used with: of its type, and the one that it names, if it does.
    algorithms: Vec<Algorithm>,
    pub(crate) decoding: DecodingKey,
    /// A digest of the key itself, whatever else its entry in the set says.
    fingerprint: blake3::Hash,
}

/// The key that a token was verified with, to be found again in a later set.
pub(crate) struct VerifiedWith {
    id: Option<Box<str>>,
    algorithm: Algorithm,
    fingerprint: blake3::Hash,
}

/// Why a set has no key for a token.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Miss {
    /// It may be one that has come since.
    Unknown,
    /// It is there and is for something else, or several would do and the token does not say which.
    Unfit,
}

impl KeySet {
    /// Reads a file that holds a set.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_file(text: &str) -> Result<Self, String> {
        Self::read(text.as_bytes()).map_err(|fault| format!("{fault}; write a JWK set: {{\"keys\": […]}}"))
    }

    /// Reads a set. What is no key, or none that signatures can be verified with, is passed over (RFC 7517, section 5).
    pub(crate) fn read(json: &[u8]) -> Result<Self, &'static str> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let Set { keys } = serde_json::from_slice(json).map_err(|_| "is no JWK set")?;
        let keys: Arc<[Key]> = keys.into_iter().take(MOST_KEYS).filter_map(Key::read).collect();
        if keys.is_empty() {
            return Err("holds no public key that signatures can be verified with");
        }
        Ok(Self(keys))
    }

    /// The key that a token names, or the only one that its algorithm can be verified with where it names none.
    pub(crate) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Result<&Key, Miss> {
        let mut named = self.0.iter().filter(|key| id.is_none() || key.id.as_deref() == id).peekable();
        if named.peek().is_none() {
            return Err(Miss::Unknown);
        }
        let mut fitting = named.filter(|key| key.algorithms.contains(&algorithm));
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(key),
            (None, _) if id.is_none() => Err(Miss::Unknown),
            _ => Err(Miss::Unfit),
        }
    }
}

impl KeySet {
    /// Whether a token that was verified with `key` would be verified with it again. That takes no cryptography.
    ///
    /// # Errors
    /// Why it would not: the key is gone, or was replaced.
    pub(crate) fn confirm(&self, key: &VerifiedWith) -> Result<(), Rejection> {
        if key.id.is_none() {
            // A key that has come since makes new tokens without an id ambiguous, and says nothing about this one.
            let is_same =
                |it: &Key| it.fingerprint == key.fingerprint && it.algorithms.contains(&key.algorithm);
            return if self.0.iter().any(is_same) { Ok(()) } else { Err(Rejection::UnknownKey) };
        }
        match self.find(key.id.as_deref(), key.algorithm) {
            Ok(found) if found.fingerprint == key.fingerprint => Ok(()),
            Ok(_) => Err(Rejection::Signature),
            Err(_) => Err(Rejection::UnknownKey),
        }
    }
}

impl Key {
    /// What to remember of this key, which has verified a token that names `id`.
    pub(crate) fn verified(&self, id: Option<&str>, algorithm: Algorithm) -> VerifiedWith {
        VerifiedWith { id: id.map(Into::into), algorithm, fingerprint: self.fingerprint }
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
            // A shared secret among them: whoever can verify with it could sign with it, too.
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

    fn find(set: &KeySet, id: Option<&str>, algorithm: Algorithm) -> Result<Option<String>, Miss> {
        set.find(id, algorithm).map(|key| key.id.clone())
    }

    #[test]
    fn a_token_gets_the_key_that_it_names_and_no_other() {
        let set = set(&[ec(json!({ "kid": "a" })), ec(json!({ "kid": "b", "alg": "ES256", "use": "sig" }))])
            .unwrap();
        assert_eq!(find(&set, Some("a"), Algorithm::ES256), Ok(Some("a".to_owned())));
        assert_eq!(find(&set, Some("b"), Algorithm::ES256), Ok(Some("b".to_owned())));
        assert_eq!(find(&set, Some("c"), Algorithm::ES256), Err(Miss::Unknown));
        for algorithm in [Algorithm::RS256, Algorithm::HS256, Algorithm::ES384, Algorithm::EdDSA] {
            assert_eq!(find(&set, Some("a"), algorithm), Err(Miss::Unfit), "{algorithm:?}");
        }
        assert_eq!(find(&set, None, Algorithm::ES256), Err(Miss::Unfit), "two would do");
    }

    #[test]
    fn a_token_that_names_no_key_gets_the_only_one_there_is() {
        for key in [ec(json!({})), ec(json!({ "kid": "a" }))] {
            let set = set(&[key, json!({ "kty": "oct", "k": "c2VjcmV0" })]).unwrap();
            assert!(find(&set, None, Algorithm::ES256).is_ok());
            assert_eq!(find(&set, None, Algorithm::RS256), Err(Miss::Unknown));
        }
    }

    #[test]
    fn a_key_is_confirmed_by_itself_and_not_by_its_name() {
        let confirmed = |set: &KeySet, key: &VerifiedWith| set.confirm(key);
        let before = set(&[ec(json!({ "kid": "a" }))]).unwrap();
        let key = before.find(Some("a"), Algorithm::ES256).unwrap().verified(Some("a"), Algorithm::ES256);
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
    fn what_signatures_cannot_be_verified_with_is_passed_over() {
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
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>, alg: String, kid: String, x: String) {
            let _ = KeySet::read(&bytes);
            let _ = set(&[ec(json!({ "alg": alg, "kid": kid, "x": x }))]);
        }
    }
}
