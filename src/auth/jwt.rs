//! Verification of the callers' JWTs (RFC 7519, with the practices of RFC 8725).
//!
//! A token is checked in three steps, the cheapest first: form and claims ([`claims`](super::claims)), the existence of
//! the key, and the signature, within a budget ([`verification_budget`](super::verification_budget)). A verified token
//! is cached until it expires or its key is replaced.

use std::{borrow::Cow, fmt, sync::Arc, time::SystemTime};

use futures_util::future::BoxFuture;
use jsonwebtoken::Algorithm;
use moka::sync::Cache;

use super::{
    claims::{ExpectedClaims, UnverifiedJwt},
    rejected::report,
    verification_budget::VerificationBudget,
};
use crate::{
    caller::{RevocableCredential, Scope, ScopeKey, ScopeSource, Scopes},
    config::auth::CallersConfig,
    credentials::{
        jwks::{KeyReference, KeySet},
        rejection::Rejection,
        signature,
    },
    refresh::{AutoRefresh, Current},
};

/// The source of the issuer's keys. Cheap to clone.
#[derive(Clone)]
pub(crate) enum KeySource {
    /// A file, read once.
    Fixed(KeySet),
    /// A URL, refreshed in the background.
    Fetched(AutoRefresh<KeySet>),
}

/// Verifies tokens for one audience, of issuers that share a key set.
pub(crate) struct JwtVerifier {
    keys: KeySource,
    algorithms: Vec<Algorithm>,
    expected: ExpectedClaims,
    /// Verified tokens, by a keyed digest of the whole token.
    verified: Cache<[u8; 32], VerifiedJwt>,
    budget: VerificationBudget,
    key: ScopeKey,
}

/// A verified token. Cheap to clone.
#[derive(Clone)]
pub(crate) struct VerifiedJwt {
    /// The issuer's subject.
    pub(crate) identity: Scopes,
    pub(crate) credential: Arc<JwtCredential>,
}

/// The conditions under which a verified token stays valid: its expiry, and the key that verified it.
pub(crate) struct JwtCredential {
    /// `exp` plus the leeway.
    pub(crate) expires: SystemTime,
    key: KeyReference,
    keys: KeySource,
}

impl JwtVerifier {
    /// Creates a verifier. Returns `None` if `config` has no issuer or no audience.
    pub(crate) fn new(config: &CallersConfig, keys: KeySource, key: ScopeKey) -> Option<Self> {
        let issuers = Some(config.issuers.clone()).filter(|issuers| !issuers.is_empty())?;
        let audience = config.audience.clone()?;
        Some(Self {
            keys,
            algorithms: config.algorithms.clone(),
            expected: ExpectedClaims { issuers, audience, leeway: config.leeway },
            verified: Cache::new(config.max_verified as u64),
            budget: VerificationBudget::new(config),
            key,
        })
    }

    /// Verifies `token`. Fetches the keys early if the token's key may be a newer one.
    pub(crate) async fn verify(&self, token: &str) -> Result<VerifiedJwt, Rejection> {
        let digest = self.key.scope(ScopeSource::Token(token)).digest();
        if let Some(verified) = self.verified.get(&digest)
            && verified.credential.check().is_ok()
        {
            return Ok(verified);
        }
        let token = UnverifiedJwt::read(token, &self.algorithms)?;
        let expires = token.claims.check(&self.expected, SystemTime::now())?;
        let subject = ScopeSource::Subject { issuer: &token.claims.iss, subject: &token.claims.sub };
        let identities = self.key.scopes(subject);
        let identity = identities.first;
        let keys = self.keys.current().await?;
        let key = match self.signer(&keys.set, &token, identity) {
            Err(rejection @ (Rejection::UnknownKey | Rejection::Signature))
                if !keys.set.has(token.key_id.as_deref()) =>
            {
                let newer = self.keys.newer_than(&keys).await?.ok_or(rejection)?;
                self.signer(&newer.set, &token, identity)?
            }
            found => found?,
        };
        self.budget.add_subject(identity);
        let credential = JwtCredential { expires, key, keys: self.keys.clone() };
        let verified = VerifiedJwt { identity: identities, credential: Arc::new(credential) };
        self.verified.insert(digest, verified.clone());
        Ok(verified)
    }

    /// Finds the key that has signed `token`: each one of `keys` that fits is tried, and every try takes from the budget.
    fn signer(
        &self,
        keys: &KeySet,
        token: &UnverifiedJwt<'_>,
        identity: Scope,
    ) -> Result<KeyReference, Rejection> {
        let (algorithm, id) = (token.algorithm, token.key_id.as_deref());
        let mut rejection = Rejection::UnknownKey;
        for (nth, key) in keys.fitting(id, algorithm).enumerate() {
            let is_allowed =
                if nth == 0 { self.budget.take(identity) } else { self.budget.take_another(identity) };
            if !is_allowed {
                return Err(Rejection::OverBudget);
            }
            if signature::is_valid(algorithm, &key.decoding, token.message, &token.signature) {
                return Ok(key.reference(id, algorithm));
            }
            rejection = Rejection::Signature;
        }
        Err(rejection)
    }
}

impl JwtCredential {
    fn check(&self) -> Result<(), Rejection> {
        if self.expires <= SystemTime::now() {
            return Err(Rejection::Expired);
        }
        match &self.keys {
            // The verification needed a key set, so there is that set or a newer one.
            KeySource::Fetched(keys) => keys.latest().map_or(Ok(()), |keys| keys.value.confirm(&self.key)),
            KeySource::Fixed(_) => Ok(()),
        }
    }
}

impl RevocableCredential for JwtCredential {
    fn rejection(&self) -> Option<Cow<'static, str>> {
        self.check().err().map(|rejection| report(rejection).text())
    }

    fn expired(&self) -> Cow<'static, str> {
        report(Rejection::Expired).text()
    }

    fn revoked(&self) -> BoxFuture<'_, Cow<'static, str>> {
        Box::pin(async {
            match &self.keys {
                KeySource::Fetched(keys) => {
                    let rejection = keys.wait_for(|set| set.confirm(&self.key).err()).await;
                    report(rejection).text()
                }
                KeySource::Fixed(_) => std::future::pending().await,
            }
        })
    }
}

/// The keys at one moment.
struct KeySnapshot {
    set: KeySet,
    fetched: Option<Arc<Current<KeySet>>>,
}

impl KeySnapshot {
    fn fetched(current: Arc<Current<KeySet>>) -> Self {
        Self { set: current.value.clone(), fetched: Some(current) }
    }
}

impl KeySource {
    async fn current(&self) -> Result<KeySnapshot, Rejection> {
        match self {
            Self::Fixed(set) => Ok(KeySnapshot { set: set.clone(), fetched: None }),
            Self::Fetched(keys) => {
                keys.current().await.map(KeySnapshot::fetched).map_err(|_| Rejection::KeysUnavailable)
            }
        }
    }

    /// A newer set, if there is one.
    async fn newer_than(&self, known: &KeySnapshot) -> Result<Option<KeySnapshot>, Rejection> {
        let (Self::Fetched(keys), Some(known)) = (self, &known.fetched) else { return Ok(None) };
        match keys.newer_than(known).await {
            Some(newer) => Ok(Some(KeySnapshot::fetched(newer))),
            // The issuer may have the key, so the client must not be told to get a new token.
            None if keys.is_failing() => Err(Rejection::KeysUnavailable),
            None => Ok(None),
        }
    }
}

impl fmt::Debug for JwtVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtVerifier").finish_non_exhaustive()
    }
}
