//! A token issuer: JWTs signed with keys of every kind, and its JWK set.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
        KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
    },
};
use serde_json::{Value, json};

/// The default `iss` of tokens.
pub const ISSUER: &str = "https://issuer.example";
/// The default `aud` of tokens.
pub const AUDIENCE: &str = "appointments";

/// Generating an RSA key is slow, so all tests share one. It is used nowhere else.
const RSA_KEY: &str = include_str!("../../fixtures/rsa-key-for-tests.pem");

/// A key pair with a key id.
pub struct Issuer {
    kid: String,
    alg: &'static str,
    pair: Pair,
}

enum Pair {
    Ecdsa(EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
    Ed(Ed25519KeyPair),
}

impl Issuer {
    /// An issuer that signs with ES256.
    pub fn new(kid: &str) -> Self {
        Self::signing_with("ES256", kid)
    }

    /// An issuer that signs with `alg`.
    pub fn signing_with(alg: &'static str, kid: &str) -> Self {
        let random = SystemRandom::new();
        let ecdsa = |algorithm| {
            let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
            Pair::Ecdsa(EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap())
        };
        let pair = match alg {
            "ES256" => ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING),
            "ES384" => ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING),
            "EdDSA" => {
                let document = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
                Pair::Ed(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap())
            }
            _ => {
                let lines = RSA_KEY.lines().filter(|line| !line.starts_with('-'));
                let document = STANDARD.decode(lines.collect::<String>()).unwrap();
                Pair::Rsa(Box::new(RsaKeyPair::from_pkcs8(&document).unwrap()))
            }
        };
        Self { kid: kid.to_owned(), alg, pair }
    }

    /// The public key (RFC 7517).
    pub fn jwk(&self) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut key = match &self.pair {
            Pair::Ecdsa(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(pair.public_key().as_ref().len() / 2);
                let curve = if self.alg == "ES256" { "P-256" } else { "P-384" };
                json!({ "kty": "EC", "crv": curve, "x": encode(x), "y": encode(y) })
            }
            Pair::Rsa(pair) => {
                let public = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(pair.public());
                json!({ "kty": "RSA", "n": encode(&public.n), "e": encode(&public.e) })
            }
            Pair::Ed(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key().as_ref()) })
            }
        };
        key["kid"] = self.kid.as_str().into();
        key["alg"] = self.alg.into();
        key["use"] = "sig".into();
        key
    }

    /// The JWK set of `issuers`.
    pub fn key_set(issuers: &[&Self]) -> Value {
        json!({ "keys": issuers.iter().map(|issuer| issuer.jwk()).collect::<Vec<_>>() })
    }

    /// A valid token of `subject` that expires in ten minutes.
    pub fn token(&self, subject: &str) -> String {
        self.token_with(subject, json!({}))
    }

    /// The same with `claims` replaced; null removes a claim.
    pub fn token_with(&self, subject: &str, claims: Value) -> String {
        self.sign(&json!({ "alg": self.alg, "kid": self.kid, "typ": "JWT" }), &claims_of(subject, claims))
    }

    /// Signs any header and claims.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = unsigned(header, claims);
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::Ecdsa(pair) => pair.sign(&random, message.as_bytes()).unwrap().as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(message.as_bytes()).as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                let encoding: &'static dyn ring::signature::RsaEncoding =
                    if self.alg == "PS256" { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                pair.sign(encoding, &random, message.as_bytes(), &mut signature).unwrap();
                signature
            }
        };
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// The claims of a valid token of `subject`, with `claims` replaced.
pub fn claims_of(subject: &str, claims: Value) -> Value {
    let mut all = json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "exp": now() + 600, "jti": uuid::Uuid::new_v4() });
    for (name, value) in claims.as_object().unwrap() {
        all[name] = value.clone();
    }
    all.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    all
}

/// Header and claims without a signature.
pub fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()))
}

/// A JWT that expires in `seconds`, with a meaningless signature: in pass-through mode nobody verifies it.
pub fn jwt(seconds: i64) -> String {
    let message = unsigned(&json!({ "alg": "RS256" }), &json!({ "exp": now() + seconds }));
    format!("{message}.c2lnbmF0dXJl")
}

/// A token of `subject` that is valid except for its signature, made with another key of the same name.
pub fn forged(subject: &str) -> String {
    Issuer::new("key-1").token(subject)
}

/// The current time in seconds since the epoch.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}
