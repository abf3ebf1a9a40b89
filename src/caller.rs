//! Who asks: a scope to key by and a credential to pass on. A leaf: it knows neither HTTP nor GraphQL.

use std::{
    collections::HashMap,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::Engine as _;
use futures_util::future::{BoxFuture, pending};
use serde_json::value::RawValue;
use tokio::time::sleep;

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

    /// What the data of `whose` is kept under.
    pub fn scope(&self, whose: ScopeOf<'_>) -> Scope {
        let (kind, parts) = match whose {
            ScopeOf::Token(token) => (0, [token, ""]),
            ScopeOf::Subject { issuer, subject } => (1, [issuer, subject]),
            ScopeOf::ApiKey { name } => (2, [name, ""]),
            ScopeOf::KnownCallers => (3, ["", ""]),
        };
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&[kind]);
        for part in parts {
            // With the lengths, no two ways to divide one text into two are the same.
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        Scope(*hasher.finalize().as_bytes())
    }
}

/// Who shares what is kept and what is under way.
#[derive(Clone, Copy)]
pub enum ScopeOf<'a> {
    /// Whoever brings this token, which goes to the upstream.
    Token(&'a str),
    /// Whoever the issuer says is this subject.
    Subject {
        /// `iss`
        issuer: &'a str,
        /// `sub`
        subject: &'a str,
    },
    /// Whoever has an API key by this name.
    ApiKey {
        /// As in the file of keys.
        name: &'a str,
    },
    /// All who are known, for whom the upstream is asked with the gateway's own token.
    KnownCallers,
}

impl fmt::Debug for ScopeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScopeKey(…)")
    }
}

/// What separates one caller's data from another's: a keyed 256-bit digest of who asks, which is the whole credential
/// where that is what the upstream goes by.
///
/// It is a part of every key under which something is kept or shared, and compared whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope([u8; 32]);

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scope(…)")
    }
}

impl Scope {
    /// The digest: to key by within the process, and for nothing else.
    pub fn digest(self) -> [u8; 32] {
        self.0
    }
}

/// What the upstream is asked with.
#[derive(Clone)]
pub enum Credential {
    /// The caller's own bearer token.
    Token(Arc<str>),
    /// The gateway's own.
    Service,
}

/// A verified credential, which its issuer can withdraw before it expires.
pub trait IssuedCredential: Send + Sync {
    /// Why the credential is no longer accepted; none while it is.
    fn rejection(&self) -> Option<&'static str>;

    /// Completes once the credential has been withdrawn, with the reason.
    fn withdrawn(&self) -> BoxFuture<'_, &'static str>;
}

/// Somebody who may ask. Cheap to clone.
#[derive(Clone)]
pub struct Caller {
    who: Scope,
    scope: Scope,
    credential: Credential,
    expires: Option<SystemTime>,
    /// None where nothing but time ends the credential.
    issued: Option<Arc<dyn IssuedCredential>>,
}

impl Caller {
    /// Whoever holds `token`, a bearer token (RFC 6750) without its scheme, which goes to the upstream.
    pub fn with_token(token: &str, key: &ScopeKey) -> Self {
        let scope = key.scope(ScopeOf::Token(token));
        let credential = Credential::Token(token.into());
        Self { who: scope, scope, credential, expires: jwt_expiry(token), issued: None }
    }

    /// Somebody who is known as `who`, until `expires`, whose data is kept under `scope`, and for whom the upstream is asked
    /// with the gateway's own token.
    pub fn of_service(who: Scope, scope: Scope, expires: Option<SystemTime>) -> Self {
        Self { who, scope, credential: Credential::Service, expires, issued: None }
    }

    /// The same caller, for as long as its credential is not withdrawn.
    pub fn with_issued(self, issued: Arc<dyn IssuedCredential>) -> Self {
        Self { issued: Some(issued), ..self }
    }

    /// Why the caller's credential, which was accepted, no longer is; none while it is, or where only the upstream knows.
    pub fn rejection(&self) -> Option<&'static str> {
        self.issued.as_ref().and_then(|issued| issued.rejection())
    }

    /// Completes once the caller's credential has expired or was withdrawn, with the reason where the gateway knows more
    /// than the time.
    pub async fn rejected(&self) -> Option<&'static str> {
        let withdrawn = async {
            match &self.issued {
                Some(issued) => issued.withdrawn().await,
                None => pending().await,
            }
        };
        let expired = async {
            match self.known_for() {
                Some(left) => sleep(left).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            reason = withdrawn => Some(reason),
            () = expired => self.rejection(),
        }
    }

    /// Who it is: what its operations are counted under, whoever its data is shared with.
    pub fn who(&self) -> Scope {
        self.who
    }

    /// What the caller's data is kept under.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// What the upstream is asked with: for it and nobody else.
    pub fn credential(&self) -> &Credential {
        &self.credential
    }

    /// Whom the upstream sees asking: the gateway itself, where it is asked with the gateway's own token (none), or the
    /// caller.
    pub fn seen_as(&self) -> Option<Scope> {
        match self.credential {
            Credential::Token(_) => Some(self.scope),
            Credential::Service => None,
        }
    }

    /// How long from now the token that the upstream is asked with is still good for, where it says so itself; zero once
    /// it has expired. The gateway's own is renewed, and says nothing of how long an answer is good for.
    pub fn time_left(&self) -> Option<Duration> {
        match self.credential {
            Credential::Token(_) => self.known_for(),
            Credential::Service => None,
        }
    }

    /// How long from now the caller is known by what it came with; zero once that has expired.
    pub fn known_for(&self) -> Option<Duration> {
        self.expires.map(|at| at.duration_since(SystemTime::now()).unwrap_or_default())
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(…)")
    }
}

impl fmt::Debug for ScopeOf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScopeOf(…)")
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Caller(…)")
    }
}

/// The `exp` of a token that looks like a JWT (RFC 7519 section 4.1.4); none for any other token.
///
/// The signature is not looked at: here the claim can only shorten how long something is kept. So a token with a payload
/// that cannot be read is taken like one that is no JWT.
pub(crate) fn jwt_expiry(token: &str) -> Option<SystemTime> {
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let payload =
        base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    // A map, of which a name that comes twice has its last value, as the RFC has it. What the other claims are does not
    // matter, so none of them is read.
    let claims: HashMap<String, &RawValue> = serde_json::from_slice(&payload).ok()?;
    let exp: f64 = claims.get("exp")?.get().parse().ok()?;
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
        let scope = |token, key| Caller::with_token(token, key).scope();
        assert_eq!(scope("a", &key), scope("a", &key));
        assert_ne!(scope("a", &key), scope("b", &key));
        assert_ne!(scope("a", &key), scope("a", &other));
    }

    #[test]
    fn one_text_stands_for_another_scope_in_each_role() {
        let key = ScopeKey::random();
        let roles = [
            ScopeOf::Token("ab"),
            ScopeOf::ApiKey { name: "ab" },
            ScopeOf::Subject { issuer: "ab", subject: "" },
            ScopeOf::Subject { issuer: "a", subject: "b" },
            ScopeOf::Subject { issuer: "", subject: "ab" },
            ScopeOf::KnownCallers,
            ScopeOf::Token(""),
        ];
        let scopes: std::collections::HashSet<_> = roles.iter().map(|whose| key.scope(*whose)).collect();
        assert_eq!(scopes.len(), roles.len());
    }

    #[test]
    fn the_expiry_of_a_jwt_is_read_and_of_nothing_else() {
        assert_eq!(jwt_expiry(&jwt(r#"{"sub":"x","exp":1700000000}"#)), at(1_700_000_000));
        assert_eq!(
            jwt_expiry(&jwt(r#"{"exp":1700000000.5}"#)).map(|it| it > at(1_700_000_000).unwrap()),
            Some(true)
        );
        assert_eq!(jwt_expiry(&jwt(r#"{"exp":-5}"#)), at(0));
        assert_eq!(jwt_expiry(&jwt(r#"{"exp":9, "other":1e999, "exp":7}"#)), at(7));
        for token in [
            "opaque",
            "a.b",
            "a.b.c",
            "a.b.c.d",
            "..",
            &jwt("{}"),
            &jwt("[7]"),
            &jwt(r#"{"exp":"soon"}"#),
            &jwt(r#"{"exp":1e300}"#),
        ] {
            assert_eq!(jwt_expiry(token), None, "{token}");
        }
    }

    #[test]
    fn nothing_prints_a_token() {
        let caller = Caller::with_token("very-secret", &ScopeKey::random());
        let printed = format!("{caller:?} {:?} {:?}", caller.scope(), caller.credential());
        assert_eq!(printed, "Caller(…) Scope(…) Credential(…)");
    }

    proptest! {
        #[test]
        fn any_token_is_read_without_a_panic(token: String, claims: String) {
            jwt_expiry(&token);
            jwt_expiry(&jwt(&claims));
        }
    }
}
