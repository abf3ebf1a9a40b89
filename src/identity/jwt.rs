//! The callers' JWTs (RFC 7519, and RFC 8725 on what to look out for): which are taken for what they say.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use jsonwebtoken::{
    Algorithm, Validation, decode, decode_header,
    errors::{Error, ErrorKind},
};
use moka::sync::Cache;
use serde::Deserialize;

use super::{
    Rejection,
    key_set::{KeySet, Miss},
    signature,
};
use crate::{
    caller::{ScopeKey, ScopeOf, jwt_expiry},
    config::CallersConfig,
    renewed::{Current, Renewed},
};

/// Where the keys come from.
pub(super) enum Keys {
    /// A file, read once.
    Fixed(KeySet),
    /// An address that is looked at again and again.
    Fetched(Renewed<KeySet>),
}

/// Verifies tokens of one issuer for one audience.
pub(super) struct Jwts {
    keys: Keys,
    issuer: String,
    audience: String,
    algorithms: Vec<Algorithm>,
    leeway: Duration,
    /// What was verified, by a keyed digest of the whole token.
    verified: Cache<[u8; 32], Verified>,
    key: ScopeKey,
}

/// What a token says, once it is verified.
#[derive(Clone)]
pub(super) struct Verified {
    pub(super) subject: Arc<str>,
    /// `exp` and the leeway.
    pub(super) expires: SystemTime,
    /// Of the keys that it was verified with: with others it is verified anew.
    generation: u64,
}

impl Jwts {
    /// None where `config` says nothing of an issuer.
    pub(super) fn new(config: &CallersConfig, keys: Keys, key: ScopeKey) -> Option<Self> {
        signature::install();
        Some(Self {
            keys,
            issuer: config.issuer.clone()?,
            audience: config.audience.clone()?,
            algorithms: config.algorithms.clone(),
            leeway: config.leeway,
            verified: Cache::new(config.max_verified as u64),
            key,
        })
    }

    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Who `token` says that its bearer is.
    pub(super) async fn verify(&self, token: &str) -> Result<Verified, Rejection> {
        let digest = self.key.scope(ScopeOf::Token(token)).digest();
        let mut keys = self.keys.current().await?;
        if let Some(verified) = self.verified.get(&digest)
            && verified.generation == keys.generation
            && verified.expires > SystemTime::now()
        {
            return Ok(verified);
        }
        let header = decode_header(token).map_err(|_| Rejection::Malformed)?;
        if !self.algorithms.contains(&header.alg) {
            return Err(Rejection::Algorithm);
        }
        // What it lists must be understood, and none of it is (RFC 7515, section 4.1.11).
        if header.crit.is_some() {
            return Err(Rejection::Malformed);
        }
        if keys.set.find(header.kid.as_deref(), header.alg).is_err_and(|miss| miss == Miss::Unknown) {
            keys = self.keys.newer_than(&keys).await?;
        }
        let key = keys.set.find(header.kid.as_deref(), header.alg).map_err(|_| Rejection::UnknownKey)?;
        let claims = decode::<Claims>(token, &key.decoding, &self.validation(header.alg));
        let Claims { sub } = claims.map_err(|error| rejection(&error))?.claims;
        let expires = jwt_expiry(token).filter(|_| !sub.is_empty()).ok_or(Rejection::Claims)?;
        let expires = expires.checked_add(self.leeway).unwrap_or(expires);
        let verified = Verified { subject: sub.into(), expires, generation: keys.generation };
        self.verified.insert(digest, verified.clone());
        Ok(verified)
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        validation.validate_nbf = true;
        validation.leeway = self.leeway.as_secs();
        validation
    }
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
}

fn rejection(error: &Error) -> Rejection {
    match error.kind() {
        ErrorKind::ExpiredSignature => Rejection::Expired,
        ErrorKind::ImmatureSignature => Rejection::NotYetValid,
        ErrorKind::InvalidIssuer => Rejection::Issuer,
        ErrorKind::InvalidAudience => Rejection::Audience,
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => Rejection::Algorithm,
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) | ErrorKind::Json(_) => {
            Rejection::Claims
        }
        // Any other comes before the claims are looked at.
        _ => Rejection::Signature,
    }
}

/// The keys as they are now.
struct KeysNow {
    set: KeySet,
    generation: u64,
    fetched: Option<Arc<Current<KeySet>>>,
}

impl KeysNow {
    fn fetched(current: Arc<Current<KeySet>>) -> Self {
        Self { set: current.value.clone(), generation: current.generation, fetched: Some(current) }
    }
}

impl Keys {
    async fn current(&self) -> Result<KeysNow, Rejection> {
        match self {
            Self::Fixed(set) => Ok(KeysNow { set: set.clone(), generation: 0, fetched: None }),
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
