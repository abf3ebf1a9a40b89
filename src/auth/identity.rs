//! Identifies callers.

use std::{fmt, time::Duration};

use url::Url;

use super::jwt::{Jwts, Keys, Verified};
use super::rejected::counted;
use crate::{
    caller::{Caller, ScopeKey, ScopeOf},
    config::auth::{CallersConfig, IdentityMode},
    credentials::{api_keys::ApiKeys, jwks::KeySet, rejection::Rejection},
    http_client::HttpClient,
    metrics::{fetch_outcome, metrics},
    refresh::{AutoRefresh, Failure, Fetched, Pauses},
};

/// Tells who asks.
pub struct Identity {
    key: ScopeKey,
    /// None where each caller's own token goes to the upstream.
    known: Option<KnownCallers>,
}

/// Those who may ask where the upstream is asked with the gateway's own token.
struct KnownCallers {
    api_keys: Option<ApiKeys>,
    jwts: Option<Jwts>,
    share_cache: bool,
}

impl Identity {
    /// As `mode` and `config` say. Keys that are to be fetched are fetched from now on, by way of `outside`.
    pub fn new(mode: IdentityMode, config: &CallersConfig, outside: &HttpClient) -> Self {
        let key = ScopeKey::random();
        let known = (mode == IdentityMode::Service).then(|| {
            let fetched =
                config.jwks_url.as_ref().map(|url| fetched_keys(config, url.clone(), outside.clone()));
            let keys = config.jwks_file.clone().map(Keys::Fixed).or(fetched.map(Keys::Fetched));
            KnownCallers {
                api_keys: config.api_keys_file.clone(),
                jwts: keys.and_then(|keys| Jwts::new(config, keys, key.clone())),
                share_cache: config.share_cache,
            }
        });
        Self { key, known }
    }

    /// The caller that `token` stands for.
    ///
    /// # Errors
    /// Why it stands for nobody.
    pub async fn caller(&self, token: &str) -> Result<Caller, Rejection> {
        let Some(known) = &self.known else { return Ok(Caller::with_token(token, &self.key)) };
        known.caller(token, &self.key).await.map_err(counted)
    }
}

impl KnownCallers {
    async fn caller(&self, token: &str, key: &ScopeKey) -> Result<Caller, Rejection> {
        let caller = |who, expires| {
            let scope = if self.share_cache { key.scope(ScopeOf::KnownCallers) } else { who };
            Caller::of_service(who, scope, expires)
        };
        if let Some(name) = self.api_keys.as_ref().and_then(|keys| keys.name(token)) {
            return Ok(caller(key.scope(ScopeOf::ApiKey { name }), None));
        }
        // Where there are both, what has two dots was meant to be a JWT.
        let jwts = self.jwts.as_ref().filter(|_| self.api_keys.is_none() || token.split('.').count() == 3);
        let jwts = jwts.ok_or(Rejection::UnknownApiKey)?;
        let Verified { who, standing } = jwts.verify(token).await?;
        Ok(caller(who, Some(standing.expires)).with_issued(standing))
    }
}

/// Keeps the keys at `url`, and those that were there last while they cannot be fetched.
pub fn fetched_keys(config: &CallersConfig, url: Url, outside: HttpClient) -> AutoRefresh<KeySet> {
    let pauses =
        Pauses { after_failure: config.jwks_refresh_interval, between_early: config.jwks_refresh_interval };
    let max_age = config.jwks_max_age;
    AutoRefresh::start(pauses, move || {
        let (url, outside) = (url.clone(), outside.clone());
        async move {
            let keys = fetch_keys(&outside, url).await;
            metrics().caller_key_fetches.count(fetch_outcome(&keys));
            match &keys {
                Ok(keys) => tracing::debug!(?keys, "the callers' keys are there"),
                Err(Failure { why, .. }) => {
                    tracing::warn!(%why, "the callers' keys could not be fetched from callers.jwks_url")
                }
            }
            // A tenth more or less, so that gateways that began together do not stay together.
            let renew_in = max_age.mul_f64(0.9 + 0.2 * fastrand::f64()).max(Duration::from_millis(1));
            keys.map(|value| Fetched { value, renew_in, lasts: None })
        }
    })
}

async fn fetch_keys(outside: &HttpClient, url: Url) -> Result<KeySet, Failure> {
    let json = outside.get(url).await?;
    KeySet::read(&json).map_err(|fault| Failure::new(&format!("what is there {fault}")))
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}
