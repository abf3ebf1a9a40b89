//! The checks of a JWT that need no cryptography: form, algorithm and claims.
//!
//! They are cheap and come first, so they need no budget: a token that fails them always gets the precise reason.

use std::time::{Duration, SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

use crate::credentials::rejection::Rejection;

/// A well-formed token. Its signature is not verified yet.
pub(crate) struct UnverifiedJwt<'t> {
    pub(crate) algorithm: Algorithm,
    pub(crate) key_id: Option<String>,
    pub(crate) claims: Claims,
    /// The signed part: header and payload in their encoded form.
    pub(crate) message: &'t [u8],
    pub(crate) signature: Vec<u8>,
}

/// The checked claims, with their types of RFC 7519, section 4.1.
#[derive(Deserialize)]
pub(crate) struct Claims {
    pub(crate) iss: String,
    pub(crate) sub: String,
    aud: Audience,
    exp: f64,
    /// Absent or a number. `null` is invalid.
    #[serde(default, deserialize_with = "present")]
    nbf: Option<f64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// The used members of the header (RFC 7515, section 4.1). Others may be of any type.
#[derive(Deserialize)]
struct Header {
    alg: String,
    /// Only a string is an id.
    kid: Option<Value>,
    crit: Option<Value>,
}

/// The registered names of algorithms, for the message. It repeats no other text of the token.
#[rustfmt::skip]
const REGISTERED: [&str; 41] = [
    "none", "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512",
    "ES256K", "EdDSA", "Ed25519", "Ed448", "ESP256", "ESP384", "ESP512", "ESB256", "ESB320", "ESB384", "ESB512",
    "ML-DSA-44", "ML-DSA-65", "ML-DSA-87", "RSA1_5", "RSA-OAEP", "RSA-OAEP-256", "A128KW", "A192KW", "A256KW",
    "A128GCMKW", "A192GCMKW", "A256GCMKW", "dir", "ECDH-ES", "ECDH-ES+A128KW", "ECDH-ES+A192KW", "ECDH-ES+A256KW",
];

/// The required values of the claims.
pub(crate) struct ExpectedClaims {
    pub(crate) issuers: Vec<String>,
    pub(crate) audience: String,
    pub(crate) leeway: Duration,
}

impl<'t> UnverifiedJwt<'t> {
    /// Parses a token with one of the accepted `algorithms`.
    ///
    /// # Errors
    /// A fault of its form, its algorithm or the types of its claims.
    pub(crate) fn read(token: &'t str, algorithms: &[Algorithm]) -> Result<Self, Rejection> {
        let (header, _) = token.split_once('.').ok_or(Rejection::Malformed)?;
        let header: Header = decoded_object(header).ok_or(Rejection::Malformed)?;
        // Checked before the number of parts: an encrypted JWT has five.
        let algorithm = accepted(&header.alg, algorithms)?;
        let (message, signature) = token.rsplit_once('.').ok_or(Rejection::Malformed)?;
        let (_, payload) = message.split_once('.').ok_or(Rejection::Malformed)?;
        // Critical extensions must be understood, and none is supported (RFC 7515, section 4.1.11).
        if header.crit.is_some() {
            return Err(Rejection::Malformed);
        }
        let key_id = header.kid.as_ref().and_then(Value::as_str).map(str::to_owned);
        let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| Rejection::Malformed)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Rejection::Signature)?;
        let claims = Claims::read(&payload).ok_or(Rejection::Claims)?;
        Ok(Self { algorithm, key_id, claims, message: message.as_bytes(), signature })
    }
}

impl Claims {
    fn read(json: &[u8]) -> Option<Self> {
        object(json).filter(|claims: &Self| !claims.sub.is_empty())
    }

    /// Checks the claims at the time `now`. Returns the time at which the token expires, including the leeway.
    ///
    /// # Errors
    /// The reason for the first claim that does not match.
    pub(crate) fn check(&self, expected: &ExpectedClaims, now: SystemTime) -> Result<SystemTime, Rejection> {
        let ExpectedClaims { issuers, audience, leeway } = expected;
        if !issuers.contains(&self.iss) {
            return Err(Rejection::Issuer);
        }
        let matches_audience = match &self.aud {
            Audience::One(one) => one == audience,
            Audience::Several(several) => several.contains(audience),
        };
        if !matches_audience {
            return Err(Rejection::Audience);
        }
        let expires = moment(self.exp).ok_or(Rejection::Claims)?;
        let expires = expires.checked_add(*leeway).unwrap_or(expires);
        if expires <= now {
            return Err(Rejection::Expired);
        }
        let begins = self.nbf.map(|nbf| moment(nbf).ok_or(Rejection::Claims)).transpose()?;
        match begins {
            Some(begins) if begins > now.checked_add(*leeway).unwrap_or(now) => Err(Rejection::NotYetValid),
            _ => Ok(expires),
        }
    }
}

/// The algorithm with this `name`, if it is among the accepted `algorithms`.
fn accepted(name: &str, algorithms: &[Algorithm]) -> Result<Algorithm, Rejection> {
    let accepted = name.parse().ok().filter(|algorithm| algorithms.contains(algorithm));
    accepted.ok_or_else(|| {
        let name = REGISTERED.into_iter().find(|registered| *registered == name);
        Rejection::Algorithm { name }
    })
}

fn decoded_object<T: DeserializeOwned>(part: &str) -> Option<T> {
    object(&URL_SAFE_NO_PAD.decode(part).ok()?)
}

/// Parses a JSON object. serde would also accept an array.
fn object<T: DeserializeOwned>(json: &[u8]) -> Option<T> {
    let is_object = json.trim_ascii_start().starts_with(b"{");
    is_object.then(|| serde_json::from_slice(json).ok()).flatten()
}

fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<f64>, D::Error> {
    f64::deserialize(value).map(Some)
}

/// Converts a `NumericDate`. Times before the epoch count as the epoch.
fn moment(seconds: f64) -> Option<SystemTime> {
    let since_epoch = Duration::try_from_secs_f64(seconds.max(0.0)).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(since_epoch)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const NOW: u64 = 1_000_000;

    fn check(claims: &Value) -> Result<SystemTime, Rejection> {
        let expected = ExpectedClaims {
            issuers: vec!["old-issuer".into(), "issuer".into()],
            audience: "us".into(),
            leeway: Duration::from_secs(5),
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
        Claims::read(claims.to_string().as_bytes()).ok_or(Rejection::Claims)?.check(&expected, now)
    }

    fn with(changes: Value) -> Value {
        let mut claims = json!({ "iss": "issuer", "aud": "us", "sub": "alice", "exp": NOW + 60 });
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    }

    #[test]
    fn matching_claims_are_accepted_until_they_expire() {
        for changes in [
            json!({}),
            json!({ "aud": ["them", "us"] }),
            json!({ "iss": "old-issuer" }),
            json!({ "exp": NOW as f64 + 0.5 }),
            json!({ "exp": NOW - 4, "nbf": NOW + 5 }),
            json!({ "nbf": -1, "iat": "whenever", "other": [1, { "nested": true }] }),
        ] {
            assert!(check(&with(changes.clone())).is_ok(), "{changes}");
        }
        let expires = check(&with(json!({}))).unwrap();
        assert_eq!(expires, SystemTime::UNIX_EPOCH + Duration::from_secs(NOW + 65));
    }

    #[test]
    fn claims_of_a_wrong_type_or_value_are_rejected() {
        for (changes, rejection) in [
            (json!({ "iss": "other" }), Rejection::Issuer),
            (json!({ "iss": "old-issuer,issuer" }), Rejection::Issuer),
            (json!({ "aud": "them" }), Rejection::Audience),
            (json!({ "aud": [] }), Rejection::Audience),
            (json!({ "exp": NOW - 5 }), Rejection::Expired),
            (json!({ "exp": -1e300 }), Rejection::Expired),
            (json!({ "nbf": NOW + 6 }), Rejection::NotYetValid),
            (json!({ "exp": 1e300 }), Rejection::Claims),
            (json!({ "nbf": 1e300 }), Rejection::Claims),
        ] {
            assert_eq!(check(&with(changes.clone())), Err(rejection), "{changes}");
        }
        let of_another_type = [
            ("iss", vec![json!(["issuer"]), json!(1), json!({ "issuer": 1 }), Value::Null]),
            ("sub", vec![json!(["alice"]), json!(1), json!(""), json!(true), Value::Null]),
            ("aud", vec![json!({ "us": 1 }), json!(1), json!(["us", 1]), json!([["us"]]), Value::Null]),
            ("exp", vec![json!("1000060"), json!([NOW + 60]), json!(true), Value::Null]),
            ("nbf", vec![json!("1"), json!([1]), json!(false), Value::Null]),
        ];
        for (name, values) in of_another_type {
            for value in values {
                assert_eq!(check(&with(json!({ name: value }))), Err(Rejection::Claims), "{name}: {value}");
            }
        }
        for text in [&br#"["issuer","alice","us",2e9,1]"#[..], b"", b"{", b"\xff", b"null"] {
            assert!(Claims::read(text).is_none());
        }
        let twice = br#"{"iss":"issuer","iss":"issuer","sub":"a","aud":"us","exp":2e9}"#;
        assert!(Claims::read(twice).is_none(), "a duplicate claim is ambiguous");
    }

    #[test]
    fn the_header_needs_only_an_accepted_algorithm() {
        let read = |header: &str| {
            let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
            let token = format!("{}.{}.", part(header), part(&with(json!({})).to_string()));
            UnverifiedJwt::read(&token, &[Algorithm::ES256]).map(|token| token.key_id)
        };
        for (header, key_id) in [
            (r#"{"alg":"ES256"}"#, None),
            (r#"{"alg":"ES256","kid":"a","typ":1,"x5c":"text","cty":[],"jwk":1e3,"crit":null}"#, Some("a")),
            (r#"{"alg":"ES256","kid":null}"#, None),
            (r#"{"alg":"ES256","kid":7}"#, None),
        ] {
            assert_eq!(read(header), Ok(key_id.map(str::to_owned)), "{header}");
        }
        for name in REGISTERED.into_iter().filter(|name| *name != "ES256") {
            let header = json!({ "alg": name, "enc": "A256GCM" }).to_string();
            assert_eq!(read(&header), Err(Rejection::Algorithm { name: Some(name) }));
        }
        for name in ["", "None", "es256", "ES256 ", "secret"] {
            let header = json!({ "alg": name }).to_string();
            assert_eq!(read(&header), Err(Rejection::Algorithm { name: None }), "{name}");
        }
        for header in [
            "{}",
            r#"{"alg":null}"#,
            r#"{"alg":["ES256"]}"#,
            r#"["ES256",null,null]"#,
            r#"{"alg":"ES256","alg":"none"}"#,
            r#"{"alg":"ES256","crit":[]}"#,
            r#""ES256""#,
            "",
        ] {
            assert_eq!(read(header), Err(Rejection::Malformed), "{header}");
        }
    }

    proptest! {
        #[test]
        fn any_token_is_parsed_without_a_panic(token: String, header: String, payload: String) {
            let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
            let _ = UnverifiedJwt::read(&token, &[Algorithm::ES256]);
            let _ = UnverifiedJwt::read(&format!("{}.{}.", part(&header), part(&payload)), &[Algorithm::ES256]);
            let _ = Claims::read(payload.as_bytes());
        }
    }
}
