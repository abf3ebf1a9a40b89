//! Who asks: a scope to key by and a credential to pass on. A leaf: it knows neither HTTP nor GraphQL.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::Engine as _;
use serde::Deserialize;

/// The random key of this process under which credentials are digested into [`Scope`]s.
///
/// It never leaves the process, so that a scope tells nothing of the credential it was made from, and nobody outside
/// can look for two credentials with one scope.
#[derive(Clone)]
pub struct ScopeKey([u8; 32]);

impl ScopeKey {
    /// A key from the operating system's randomness.
    pub fn random() -> Self {
        let mut key = [0; 32];
        key[..16].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        key[16..].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        Self(key)
    }
}

impl fmt::Debug for ScopeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScopeKey(…)")
    }
}

/// What separates one caller's data from another's: a keyed 256-bit digest of the whole credential.
///
/// It is a part of every key under which something is kept or shared, and compared whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope([u8; 32]);

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scope(…)")
    }
}

/// Somebody with a credential. Cheap to clone.
#[derive(Clone)]
pub struct Caller {
    scope: Scope,
    token: Arc<str>,
    expires: Option<SystemTime>,
}

impl Caller {
    /// Whoever holds `token`, a bearer token (RFC 6750) without its scheme.
    pub fn new(token: &str, key: &ScopeKey) -> Self {
        Self {
            scope: Scope(*blake3::keyed_hash(&key.0, token.as_bytes()).as_bytes()),
            token: token.into(),
            expires: jwt_expiry(token),
        }
    }

    /// What the caller's data is kept under.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// The credential, to be passed on to the upstream and nowhere else.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// How long from now the credential is still good for, where it says so itself; zero once it has expired.
    pub fn time_left(&self) -> Option<Duration> {
        self.expires.map(|at| at.duration_since(SystemTime::now()).unwrap_or_default())
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Caller(…)")
    }
}

/// The `exp` of a token that looks like a JWT (RFC 7519 section 4.1.4); none for any other token.
///
/// The signature is the upstream's to verify: here the claim can only shorten how long something is kept. So a token
/// with a payload that cannot be read is taken like one that is no JWT.
fn jwt_expiry(token: &str) -> Option<SystemTime> {
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
    }
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let payload =
        base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    let Claims { exp } = serde_json::from_slice(&payload).ok()?;
    let since_epoch = Duration::try_from_secs_f64(exp.max(0.0)).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(since_epoch)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn jwt(claims: &str) -> String {
        let part = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.c2ln", part(r#"{"alg":"RS256"}"#), part(claims))
    }

    fn at(seconds: u64) -> Option<SystemTime> {
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }

    #[test]
    fn scopes_differ_by_credential_and_by_key() {
        let (key, other) = (ScopeKey::random(), ScopeKey::random());
        assert_eq!(Caller::new("a", &key).scope(), Caller::new("a", &key).scope());
        assert_ne!(Caller::new("a", &key).scope(), Caller::new("b", &key).scope());
        assert_ne!(Caller::new("a", &key).scope(), Caller::new("a", &other).scope());
    }

    #[test]
    fn the_expiry_of_a_jwt_is_read_and_of_nothing_else() {
        assert_eq!(jwt_expiry(&jwt(r#"{"sub":"x","exp":1700000000}"#)), at(1_700_000_000));
        assert_eq!(
            jwt_expiry(&jwt(r#"{"exp":1700000000.5}"#)).map(|it| it > at(1_700_000_000).unwrap()),
            Some(true)
        );
        assert_eq!(jwt_expiry(&jwt(r#"{"exp":-5}"#)), at(0));
        for token in [
            "opaque",
            "a.b",
            "a.b.c",
            "a.b.c.d",
            "..",
            &jwt("{}"),
            &jwt(r#"{"exp":"soon"}"#),
            &jwt(r#"{"exp":1e300}"#),
        ] {
            assert_eq!(jwt_expiry(token), None, "{token}");
        }
    }

    #[test]
    fn nothing_prints_a_token() {
        let caller = Caller::new("very-secret", &ScopeKey::random());
        assert_eq!(format!("{caller:?} {:?}", caller.scope()), "Caller(…) Scope(…)");
    }

    proptest! {
        #[test]
        fn any_token_is_read_without_a_panic(token: String, claims: String) {
            jwt_expiry(&token);
            jwt_expiry(&jwt(&claims));
        }
    }
}
