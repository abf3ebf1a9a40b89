//! A JWK set (RFC 7517): the public keys of the issuer of the callers' tokens.

use std::{collections::HashMap, fmt, sync::Arc};

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

use super::{rejection::Rejection, signature};

/// The members of a key that are used (RFC 7517, section 4; RFC 7518, section 6; RFC 8037, section 2).
const MEMBERS: [&str; 10] = ["kty", "use", "key_ops", "alg", "kid", "n", "e", "crv", "x", "y"];

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
            keys: Vec<Box<RawValue>>,
        }
        let Set { keys } = serde_json::from_slice(json).map_err(|_| "is not a JWK set")?;
        let keys: Arc<[PublicKey]> =
            keys.iter().take(MAX_KEYS).filter_map(|key| PublicKey::read(key.get())).collect();
        if keys.is_empty() {
            return Err("has no public key for signature verification");
        }
        Ok(Self(keys))
    }

    /// Whether the set has a key with this `id`.
    pub(crate) fn has(&self, id: Option<&str>) -> bool {
        id.is_some() && self.0.iter().any(|key| key.id.as_deref() == id)
    }

    /// The keys that may have signed a token with `algorithm`: those with the `id` that it names, or those without an id if
    /// there are none. For a token that names none, all keys.
    pub(crate) fn fitting<'s>(
        &'s self,
        id: Option<&'s str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &'s PublicKey> {
        let named = id.filter(|_| self.has(id));
        let is_named = move |key: &&PublicKey| id.is_none() || key.id.as_deref() == named;
        self.0.iter().filter(is_named).filter(move |key| key.algorithms.contains(&algorithm))
    }

    /// Checks without cryptography that a token verified with `key` would still be verified.
    ///
    /// # Errors
    /// The key was removed or replaced.
    pub(crate) fn confirm(&self, key: &KeyReference) -> Result<(), Rejection> {
        let fitting = || self.fitting(key.id.as_deref(), key.algorithm);
        if fitting().any(|it| it.fingerprint == key.fingerprint) {
            Ok(())
        } else if key.id.is_some() && fitting().next().is_some() {
            Err(Rejection::Signature)
        } else {
            Err(Rejection::UnknownKey)
        }
    }
}

impl PublicKey {
    /// Returns a reference to this key, which verified a token that names `id`.
    pub(crate) fn reference(&self, id: Option<&str>, algorithm: Algorithm) -> KeyReference {
        KeyReference { id: id.map(Into::into), algorithm, fingerprint: self.fingerprint }
    }

    fn read(json: &str) -> Option<Self> {
        let members: HashMap<String, &RawValue> = serde_json::from_str(json).ok()?;
        // Other members may be of any type, and null counts as absent.
        let value: Map<_, _> = MEMBERS
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), serde_json::from_str(members.get(name)?.get()).ok()?)))
            .filter(|(_, value): &(String, Value)| !value.is_null())
            .collect();
        let named = value.get("alg").map(|name| name.as_str().and_then(|name| name.parse().ok()));
        let jwk: Jwk = serde_json::from_value(value.into()).ok()?;
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

    /// The `x` coordinate of another point on P-256.
    const OTHER: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";

    fn fitting(set: &KeySet, id: Option<&str>, algorithm: Algorithm) -> Vec<Option<String>> {
        set.fitting(id, algorithm).map(|key| key.id.clone()).collect()
    }

    #[test]
    fn a_token_gets_only_keys_that_it_names() {
        let set = set(&[
            ec(json!({ "kid": "a" })),
            ec(json!({ "kid": "b", "alg": "ES256", "use": "sig" })),
            ec(json!({ "kid": "b", "x": OTHER })),
        ])
        .unwrap();
        let named = |id: &str| Some(id.to_owned());
        assert_eq!(fitting(&set, Some("a"), Algorithm::ES256), [named("a")]);
        assert_eq!(fitting(&set, Some("b"), Algorithm::ES256), [named("b"), named("b")]);
        assert_eq!(fitting(&set, Some("c"), Algorithm::ES256), []);
        assert_eq!(fitting(&set, None, Algorithm::ES256), [named("a"), named("b"), named("b")]);
        for algorithm in [Algorithm::RS256, Algorithm::HS256, Algorithm::ES384, Algorithm::EdDSA] {
            assert_eq!(fitting(&set, Some("a"), algorithm), [], "{algorithm:?}");
            assert_eq!(fitting(&set, None, algorithm), [], "{algorithm:?}");
        }
        assert_eq!(["a", "b", "c"].map(|id| set.has(Some(id))), [true, true, false]);
        assert!(!set.has(None));
    }

    #[test]
    fn keys_without_an_id_fit_tokens_that_name_no_key_of_the_set() {
        let keys = [ec(json!({})), ec(json!({ "kid": "a" })), json!({ "kty": "oct", "k": "c2VjcmV0" })];
        let set = set(&keys).unwrap();
        assert_eq!(fitting(&set, Some("a"), Algorithm::ES256), [Some("a".to_owned())]);
        assert_eq!(fitting(&set, Some("b"), Algorithm::ES256), [None]);
        assert_eq!(fitting(&set, None, Algorithm::ES256), [None, Some("a".to_owned())]);
    }

    #[test]
    fn a_key_is_confirmed_by_its_material_not_by_its_id() {
        let confirmed = |set: &KeySet, key: &KeyReference| set.confirm(key);
        let before = set(&[ec(json!({ "kid": "a" }))]).unwrap();
        let verified_by =
            |id| before.fitting(id, Algorithm::ES256).next().unwrap().reference(id, Algorithm::ES256);
        let (key, nameless) = (verified_by(Some("a")), verified_by(None));
        let replaced = ec(json!({ "kid": "a", "x": OTHER }));
        for (keys, expected) in [
            (vec![ec(json!({ "kid": "a" }))], Ok(())),
            (
                vec![ec(json!({ "kid": "b" })), ec(json!({ "kid": "a", "alg": "ES256", "use": "sig" }))],
                Ok(()),
            ),
            (vec![replaced.clone(), ec(json!({ "kid": "a" }))], Ok(())),
            (vec![ec(json!({}))], Ok(())),
            (vec![ec(json!({ "kid": "b" }))], Err(Rejection::UnknownKey)),
            (vec![replaced.clone()], Err(Rejection::Signature)),
            (vec![ec(json!({})), replaced.clone()], Err(Rejection::Signature)),
        ] {
            assert_eq!(confirmed(&set(&keys).unwrap(), &key), expected);
        }
        for (keys, expected) in [
            (vec![replaced.clone(), ec(json!({ "kid": "b" }))], Ok(())),
            (vec![replaced], Err(Rejection::UnknownKey)),
        ] {
            assert_eq!(confirmed(&set(&keys).unwrap(), &nameless), expected);
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
        assert_eq!(fitting(&set(&with_one).unwrap(), Some("c"), Algorithm::ES256), [Some("c".to_owned())]);
        for no_set in [&b""[..], b"{}", b"[]", b"{\"keys\":1}", b"{\"keys\":[]}", b"\xff"] {
            assert!(KeySet::read(no_set).is_err());
        }
    }

    #[test]
    fn members_that_are_not_used_may_be_anything() {
        let key = r#"{"x5c":"text","x5t":7,"x5u":[],"exp":1e999,"\u006bid":"a","use":null,"alg":null,"key_ops":null,"kty":"EC","#;
        let key = key.to_owned() + &ec(json!({})).to_string()[1..];
        let json = format!("{{\"keys\":[1e999,{key}]}}");
        let set = KeySet::read(json.as_bytes()).unwrap();
        assert_eq!(fitting(&set, Some("a"), Algorithm::ES256), [Some("a".to_owned())]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_a_panic(bytes: Vec<u8>, alg: String, kid: String, x: String) {
            let _ = KeySet::read(&bytes);
            let _ = set(&[ec(json!({ "alg": alg, "kid": kid, "x": x }))]);
        }
    }
}
