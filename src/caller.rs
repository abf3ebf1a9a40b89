//! The caller of a request: the scope that isolates its data, and the credential for the upstream.
//!
//! A leaf module without knowledge of HTTP or GraphQL.

use std::{
    borrow::Cow,
    collections::HashMap,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::Engine as _;
use futures_util::future::{BoxFuture, pending};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::sleep;

use crate::credentials::key_ring::KeyRing;

/// The keys for the digests of [`Scope`]s: those of the fleet, or a random one of this process. Cheap to clone.
///
/// They never leave the gateway. A scope therefore reveals nothing about its credential, and collisions cannot be
/// searched for from outside.
#[derive(Clone)]
pub struct ScopeKey(KeyRing);

impl ScopeKey {
    /// A random key of this process.
    pub fn random() -> Self {
        Self::of(&KeyRing::random())
    }

    /// The keys for scopes of `keys`.
    pub fn of(keys: &KeyRing) -> Self {
        Self(keys.clone())
    }

    /// Derives the scope of `source` under the key in use.
    pub fn scope(&self, source: ScopeSource<'_>) -> Scope {
        scope(&self.0.first().scopes, source)
    }

    /// Derives the scope of `source` under each key.
    pub(crate) fn scopes(&self, source: ScopeSource<'_>) -> Scopes {
        let others = match self.0.all() {
            [_] => None,
            keys => Some(keys[1..].iter().map(|key| scope(&key.scopes, source)).collect()),
        };
        Scopes { first: self.scope(source), others }
    }
}

fn scope(key: &[u8; 32], source: ScopeSource<'_>) -> Scope {
    let (kind, parts) = match source {
        ScopeSource::Token(token) => (0, [token, ""]),
        ScopeSource::Subject { issuer, subject } => (1, [issuer, subject]),
        ScopeSource::ApiKey { name } => (2, [name, ""]),
        ScopeSource::AllCallers => (3, ["", ""]),
    };
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&[kind]);
    for part in parts {
        // The length prefix makes the encoding of the parts unambiguous.
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    Scope(*hasher.finalize().as_bytes())
}

/// The identity from which a scope is derived. Callers with the same scope share cache entries and coalesced calls.
#[derive(Clone, Copy)]
pub enum ScopeSource<'a> {
    /// A bearer token that is passed through to the upstream.
    Token(&'a str),
    /// The verified subject of a JWT.
    Subject {
        /// The claim `iss`.
        issuer: &'a str,
        /// The claim `sub`.
        subject: &'a str,
    },
    /// The name of an API key.
    ApiKey {
        /// The name in the file of API keys.
        name: &'a str,
    },
    /// All authenticated callers in service mode (`callers.share_cache`).
    AllCallers,
}

impl fmt::Debug for ScopeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScopeKey(…)")
    }
}

/// The isolation boundary of a caller's data: a keyed 256-bit digest of the caller's identity. In pass-through mode the
/// identity is the whole token.
///
/// The scope is part of every cache key and of every key for request coalescing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Scope([u8; 32]);

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scope(…)")
    }
}

impl Scope {
    /// The digest, for use as a key within the process.
    pub fn digest(self) -> [u8; 32] {
        self.0
    }
}

/// The scope of one identity under each key of the fleet. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Scopes {
    /// Under the key in use.
    pub(crate) first: Scope,
    /// Under the other keys of the fleet, while its keys are rotated.
    others: Option<Arc<[Scope]>>,
}

impl Scopes {
    /// All scopes, the one under the key in use first.
    fn all(&self) -> Vec<Scope> {
        let others = self.others.iter().flat_map(|others| others.iter());
        std::iter::once(&self.first).chain(others).copied().collect()
    }
}

/// The credential for calls to the upstream.
#[derive(Clone)]
pub enum Credential {
    /// The caller's own bearer token.
    Token(Arc<str>),
    /// The gateway's own token.
    Service,
}

/// The reason for which the gateway ends a subscription whose token is passed through and past its `exp`.
const PAST_EXPIRY: &str = "The gateway has ended the subscription: by its clock, the token has expired (exp). Subscribe \
    again with a new token.";

/// A verified credential that its issuer can revoke before it expires.
pub trait RevocableCredential: Send + Sync {
    /// The reason why the credential is no longer accepted; `None` while it is.
    fn rejection(&self) -> Option<Cow<'static, str>>;

    /// Completes with the reason once the credential is revoked.
    fn revoked(&self) -> BoxFuture<'_, Cow<'static, str>>;

    /// The reason for an end at the time of its expiry.
    fn expired(&self) -> Cow<'static, str>;
}

/// An authenticated caller. Cheap to clone.
#[derive(Clone)]
pub struct Caller {
    identity: Scopes,
    scope: Scopes,
    credential: Credential,
    expires: Option<SystemTime>,
    /// How long a subscription may continue past `expires`.
    grace: Duration,
    /// `None` if the credential cannot be revoked before it expires.
    revocable: Option<Arc<dyn RevocableCredential>>,
    /// The id of the request that the caller has sent, for the logs of the upstream.
    request_id: Option<Arc<str>>,
}

impl Caller {
    /// A caller in pass-through mode. `token` is a bearer token (RFC 6750) without its scheme.
    pub fn with_token(token: &str, key: &ScopeKey) -> Self {
        let scope = key.scopes(ScopeSource::Token(token));
        let credential = Credential::Token(token.into());
        let expires = jwt_expiry(token);
        Self {
            identity: scope.clone(),
            scope,
            credential,
            expires,
            grace: Duration::ZERO,
            revocable: None,
            request_id: None,
        }
    }

    /// Lets subscriptions continue for `grace` past the expiry of the token: the clocks of issuer and gateway may differ.
    pub fn with_grace(self, grace: Duration) -> Self {
        Self { grace, ..self }
    }

    /// A caller in service mode, for calls with the gateway's own token. `identity` tells callers apart, `scope`
    /// isolates their data; the two differ with `callers.share_cache`.
    pub(crate) fn with_service_token(identity: Scopes, scope: Scopes, expires: Option<SystemTime>) -> Self {
        let credential = Credential::Service;
        Self {
            identity,
            scope,
            credential,
            expires,
            grace: Duration::ZERO,
            revocable: None,
            request_id: None,
        }
    }

    /// Adds the revocable credential of the caller.
    pub fn with_revocable(self, credential: Arc<dyn RevocableCredential>) -> Self {
        Self { revocable: Some(credential), ..self }
    }

    /// Adds the id of the caller's request.
    pub fn with_request_id(self, id: &str) -> Self {
        Self { request_id: Some(id.into()), ..self }
    }

    /// The id of the caller's request.
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// The reason why the caller's credential is no longer accepted; `None` while it is, or if only the upstream
    /// decides.
    pub fn rejection(&self) -> Option<Cow<'static, str>> {
        self.revocable.as_ref().and_then(|credential| credential.rejection())
    }

    /// Whether the token is passed through and past its `exp`. Only the upstream can say whether it still accepts it.
    pub fn is_past_expiry(&self) -> bool {
        self.time_left().is_some_and(|left| left.is_zero())
    }

    /// Completes with the reason once a subscription of the caller has to end: its credential is revoked or has expired. A
    /// grace past the expiry begins no earlier than now.
    pub async fn until_rejected(&self) -> Cow<'static, str> {
        let revoked = async {
            match &self.revocable {
                Some(credential) => credential.revoked().await,
                None => pending().await,
            }
        };
        let expired = async {
            match self.valid_for() {
                Some(left) => sleep(left.saturating_add(self.grace)).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            reason = revoked => reason,
            () = expired => self.revocable.as_ref().map_or(PAST_EXPIRY.into(), |credential| credential.expired()),
        }
    }

    /// The identity of the caller, for limits and fair queuing. It differs from other callers' identities even if they
    /// share a scope.
    pub fn identity(&self) -> Scope {
        self.identity.first
    }

    /// The identity under each key of the fleet, the one in use first.
    pub(crate) fn identities(&self) -> Vec<Scope> {
        self.identity.all()
    }

    /// The scope of the caller's data.
    pub fn scope(&self) -> Scope {
        self.scope.first
    }

    /// The scope under each key of the fleet, the one in use first.
    pub(crate) fn scopes(&self) -> Vec<Scope> {
        self.scope.all()
    }

    /// The credential for calls to the upstream on behalf of this caller.
    pub fn credential(&self) -> &Credential {
        &self.credential
    }

    /// The client that the upstream sees: the caller, or the gateway itself with its own token (`None`).
    pub fn upstream_identity(&self) -> Option<Scope> {
        match self.credential {
            Credential::Token(_) => Some(self.scope()),
            Credential::Service => None,
        }
    }

    /// The remaining lifetime of a token that is passed through, from its `exp`; zero once it has expired. The
    /// gateway's own token is renewed, so it does not limit the freshness of responses.
    pub fn time_left(&self) -> Option<Duration> {
        match self.credential {
            Credential::Token(_) => self.valid_for(),
            Credential::Service => None,
        }
    }

    /// The remaining lifetime of the caller's own credential; zero once it has expired.
    pub fn valid_for(&self) -> Option<Duration> {
        self.expires.map(|at| at.duration_since(SystemTime::now()).unwrap_or_default())
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(…)")
    }
}

impl fmt::Debug for ScopeSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScopeSource(…)")
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Caller(…)")
    }
}

/// Returns the `exp` of a token that looks like a JWT (RFC 7519, section 4.1.4); `None` for any other token.
///
/// The signature is not verified: here the claim can only shorten the freshness of cache entries. A token with a
/// malformed payload therefore counts as opaque.
pub(crate) fn jwt_expiry(token: &str) -> Option<SystemTime> {
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let payload =
        base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    // In a map, the last of duplicate claims wins, as the RFC permits. The other claims are not decoded.
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
    fn scopes_differ_by_the_kind_of_identity() {
        let key = ScopeKey::random();
        let sources = [
            ScopeSource::Token("ab"),
            ScopeSource::ApiKey { name: "ab" },
            ScopeSource::Subject { issuer: "ab", subject: "" },
            ScopeSource::Subject { issuer: "a", subject: "b" },
            ScopeSource::Subject { issuer: "", subject: "ab" },
            ScopeSource::AllCallers,
            ScopeSource::Token(""),
        ];
        let scopes: std::collections::HashSet<_> = sources.iter().map(|source| key.scope(*source)).collect();
        assert_eq!(scopes.len(), sources.len());
    }

    #[test]
    fn scopes_of_a_rotation_agree_between_replicas() {
        let [old, new] = [0, 1].map(|_| KeyRing::generate_line());
        let key = |lines: &[&str]| ScopeKey::of(&KeyRing::parse(&lines.join("\n")).unwrap());
        let keys = [key(&[&old]), key(&[&old, &new]), key(&[&new, &old]), key(&[&new])];
        let callers = |key: &ScopeKey| {
            let [own, all] =
                [ScopeSource::ApiKey { name: "a" }, ScopeSource::AllCallers].map(|source| key.scopes(source));
            [Caller::with_token("a", key), Caller::with_service_token(own, all, None)]
        };
        for nth in 0..2 {
            let [alone, appended, moved, removed] = keys.each_ref().map(|key| callers(key)[nth].clone());
            assert_eq!((alone.scopes().len(), appended.scopes().len()), (1, 2));
            assert_eq!((alone.identities().len(), appended.identities().len()), (1, 2));
            // During each rolling restart, replicas before and after it name the scopes that the others use.
            for (before, after) in [(&alone, &appended), (&appended, &moved), (&moved, &removed)] {
                for (here, there) in [(before, after), (after, before)] {
                    assert!(here.scopes().contains(&there.scope()));
                    assert!(here.identities().contains(&there.identity()));
                }
            }
            assert_eq!(alone.scope(), appended.scope());
            assert_eq!(moved.scope(), removed.scope());
            assert_ne!(alone.scope(), removed.scope());
            assert_eq!(appended.scopes()[0], appended.scope());
            assert_eq!(moved.identities()[0], moved.identity());
        }
        let shared = callers(&keys[1])[1].clone();
        assert!(shared.identities().iter().all(|identity| !shared.scopes().contains(identity)));
    }

    #[test]
    fn only_a_jwt_has_an_expiry() {
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
    fn debug_output_redacts_the_token() {
        let caller = Caller::with_token("very-secret", &ScopeKey::random());
        let printed = format!("{caller:?} {:?} {:?}", caller.scope(), caller.credential());
        assert_eq!(printed, "Caller(…) Scope(…) Credential(…)");
    }

    proptest! {
        #[test]
        fn any_token_is_parsed_without_a_panic(token: String, claims: String) {
            jwt_expiry(&token);
            jwt_expiry(&jwt(&claims));
        }
    }
}
