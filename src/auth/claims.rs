//! The checks of a JWT that need no cryptography: form, algorithm and claims.
//!
//! They are cheap and come first, so they need no budget: a token that fails them always gets the precise reason.

use std::time::{Duration, SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, Header, decode_header};
use serde::{Deserialize, Deserializer};

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
    iss: String,
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

/// The required values of the claims.
pub(crate) struct ExpectedClaims {
    pub(crate) issuer: String,
    pub(crate) audience: String,
    pub(crate) leeway: Duration,
}

impl<'t> UnverifiedJwt<'t> {
    /// Parses a token with one of the accepted `algorithms`.
    ///
    /// # Errors
    /// A fault of its form, its algorithm or the types of its claims.
    pub(crate) fn read(token: &'t str, algorithms: &[Algorithm]) -> Result<Self, Rejection> {
        let (message, signature) = token.rsplit_once('.').ok_or(Rejection::Malformed)?;
        let (_, payload) = message.split_once('.').ok_or(Rejection::Malformed)?;
        let Header { alg: algorithm, kid: key_id, crit, .. } =
            decode_header(token).map_err(|_| Rejection::Malformed)?;
        if !algorithms.contains(&algorithm) {
            return Err(Rejection::Algorithm);
        }
        // Critical extensions must be understood, and none is supported (RFC 7515, section 4.1.11).
        if crit.is_some() {
            return Err(Rejection::Malformed);
        }
        let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| Rejection::Malformed)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Rejection::Signature)?;
        let claims = Claims::read(&payload).ok_or(Rejection::Claims)?;
        Ok(Self { algorithm, key_id, claims, message: message.as_bytes(), signature })
    }
}

impl Claims {
    fn read(json: &[u8]) -> Option<Self> {
        // serde would also accept an array.
        let is_object = json.trim_ascii_start().starts_with(b"{");
        serde_json::from_slice(json).ok().filter(|claims: &Self| is_object && !claims.sub.is_empty())
    }

    /// Checks the claims at the time `now`. Returns the time at which the token expires, including the leeway.
    ///
    /// # Errors
    /// The reason for the first claim that does not match.
    pub(crate) fn check(&self, expected: &ExpectedClaims, now: SystemTime) -> Result<SystemTime, Rejection> {
        let ExpectedClaims { issuer, audience, leeway } = expected;
        if self.iss != *issuer {
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
        let expected =
            ExpectedClaims { issuer: "issuer".into(), audience: "us".into(), leeway: Duration::from_secs(5) };
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
