//! The callers' JWTs (RFC 7519, and RFC 8725 on what to look out for): which are taken for what they say.
//!
//! A token is checked in three steps, the cheapest first: its form and its claims ([`unverified`](crate::auth::claims)),
//! whether its issuer has the key, and, within a budget ([`verifications`](crate::auth::verification_budget)), its signature. A token
//! that was verified is not verified again for as long as the key that did it is the one to verify it with.

use std::{fmt, sync::Arc, time::SystemTime};

use futures_util::future::BoxFuture;
use jsonwebtoken::Algorithm;
use moka::sync::Cache;

use super::rejected::counted;
use super::{
    claims::{Expected, Unverified},
    verification_budget::Verifications,
};
use crate::{
    caller::{IssuedCredential, Scope, ScopeKey, ScopeOf},
    config::auth::CallersConfig,
    credentials::{
        jwks::{KeySet, Miss, VerifiedWith},
        rejection::Rejection,
        signature,
    },
    refresh::{AutoRefresh, Current},
};

/// Where the keys come from. Cheap to clone.
#[derive(Clone)]
pub(crate) enum Keys {
    /// A file, read once.
    Fixed(KeySet),
    /// An address that is looked at again and again.
    Fetched(AutoRefresh<KeySet>),
}

/// Verifies tokens of one issuer for one audience.
pub(crate) struct Jwts {
    keys: Keys,
    algorithms: Vec<Algorithm>,
    expected: Expected,
    /// Verified tokens, by a keyed digest of the whole token.
    verified: Cache<[u8; 32], Verified>,
    verifications: Verifications,
    key: ScopeKey,
}

/// A verified token. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Verified {
    /// The issuer's subject.
    pub(crate) who: Scope,
    pub(crate) standing: Arc<Standing>,
}

/// What a verified token stands on: its time, and the key that has verified it.
pub(crate) struct Standing {
    /// `exp` and the leeway.
    pub(crate) expires: SystemTime,
    key: VerifiedWith,
    keys: Keys,
}

impl Jwts {
    /// None where `config` says nothing of an issuer.
    pub(crate) fn new(config: &CallersConfig, keys: Keys, key: ScopeKey) -> Option<Self> {
        let (issuer, audience) = (config.issuer.clone()?, config.audience.clone()?);
        Some(Self {
            keys,
            algorithms: config.algorithms.clone(),
            expected: Expected { issuer, audience, leeway: config.leeway },
            verified: Cache::new(config.max_verified as u64),
            verifications: Verifications::new(config),
            key,
        })
    }

    /// Who `token` says that its bearer is.
    pub(crate) async fn verify(&self, token: &str) -> Result<Verified, Rejection> {
        let digest = self.key.scope(ScopeOf::Token(token)).digest();
        if let Some(verified) = self.verified.get(&digest)
            && verified.standing.check().is_ok()
        {
            return Ok(verified);
        }
        let token = Unverified::read(token, &self.algorithms)?;
        let expires = token.claims.check(&self.expected, SystemTime::now())?;
        let (algorithm, id) = (token.algorithm, token.key_id.as_deref());
        let mut keys = self.keys.current().await?;
        if keys.set.find(id, algorithm).is_err_and(|miss| miss == Miss::Unknown) {
            keys = self.keys.newer_than(&keys).await?;
        }
        let key = keys.set.find(id, algorithm).map_err(|_| Rejection::UnknownKey)?;
        let who =
            self.key.scope(ScopeOf::Subject { issuer: &self.expected.issuer, subject: &token.claims.sub });
        if !self.verifications.take(who) {
            return Err(Rejection::OverBudget);
        }
        if !signature::is_valid(algorithm, &key.decoding, token.message, &token.signature) {
            return Err(Rejection::Signature);
        }
        self.verifications.verified(who);
        let standing = Standing { expires, key: key.verified(id, algorithm), keys: self.keys.clone() };
        let verified = Verified { who, standing: Arc::new(standing) };
        self.verified.insert(digest, verified.clone());
        Ok(verified)
    }
}

impl Standing {
    fn check(&self) -> Result<(), Rejection> {
        if self.expires <= SystemTime::now() {
            return Err(Rejection::Expired);
        }
        match &self.keys {
            // There is always the set that the token was verified with, or a newer one.
            Keys::Fetched(keys) => keys.latest().map_or(Ok(()), |keys| keys.value.confirm(&self.key)),
            Keys::Fixed(_) => Ok(()),
        }
    }
}

impl IssuedCredential for Standing {
    fn rejection(&self) -> Option<&'static str> {
        self.check().err().map(|rejection| counted(rejection).text())
    }

    fn withdrawn(&self) -> BoxFuture<'_, &'static str> {
        Box::pin(async {
            match &self.keys {
                Keys::Fetched(keys) => {
                    let rejection = keys.until(|set| set.confirm(&self.key).err()).await;
                    counted(rejection).text()
                }
                Keys::Fixed(_) => std::future::pending().await,
            }
        })
    }
}

/// The keys as they are now.
struct KeysNow {
    set: KeySet,
    fetched: Option<Arc<Current<KeySet>>>,
}

impl KeysNow {
    fn fetched(current: Arc<Current<KeySet>>) -> Self {
        Self { set: current.value.clone(), fetched: Some(current) }
    }
}

impl Keys {
    async fn current(&self) -> Result<KeysNow, Rejection> {
        match self {
            Self::Fixed(set) => Ok(KeysNow { set: set.clone(), fetched: None }),
            Self::Fetched(keys) => {
                keys.current().await.map(KeysNow::fetched).map_err(|_| Rejection::KeysUnavailable)
            }
        }
    }

    async fn newer_than(&self, known: &KeysNow) -> Result<KeysNow, Rejection> {
        let (Self::Fetched(keys), Some(known)) = (self, &known.fetched) else {
            return Err(Rejection::UnknownKey);
        };
        match keys.newer_than(known).await {
            Some(newer) => Ok(KeysNow::fetched(newer)),
            // The issuer may have it: its bearer is not to be sent for another token.
            None if keys.is_failing() => Err(Rejection::KeysUnavailable),
            None => Err(Rejection::UnknownKey),
        }
    }
}

impl fmt::Debug for Jwts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwts").finish_non_exhaustive()
    }
}
