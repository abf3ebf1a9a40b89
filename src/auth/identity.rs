//! The authenticator: from a token to a [`Caller`], according to `identity.mode`.

use std::{fmt, time::Duration};

use url::Url;

use super::{
    jwt::{JwtVerifier, KeySource, VerifiedJwt},
    rejected::report,
};
use crate::{
    caller::{Caller, ScopeKey, ScopeSource, Scopes},
    config::auth::{CallersConfig, IdentityMode},
    credentials::{api_keys::ApiKeys, jwks::KeySet, rejection::Rejection},
    http_client::HttpClient,
    metrics::{fetch_outcome, metrics},
    refresh::{AutoRefresh, Failure, Fetched, RefreshIntervals},
};

/// Authenticates callers.
pub struct Authenticator {
    key: ScopeKey,
    /// `callers.leeway`
    leeway: Duration,
    /// `None` in pass-through mode.
    service_mode: Option<ServiceMode>,
}

/// The credentials that are accepted in service mode.
struct ServiceMode {
    api_keys: Option<ApiKeys>,
    jwts: Option<JwtVerifier>,
    share_cache: bool,
}

impl Authenticator {
    /// Creates an authenticator. In service mode with `callers.jwks_url` it starts the background refresh of the keys.
    /// The scopes of callers are digests under `key`.
    pub fn new(mode: IdentityMode, config: &CallersConfig, http: &HttpClient, key: ScopeKey) -> Self {
        let service_mode = (mode == IdentityMode::Service).then(|| {
            let fetched = config.jwks_url.as_ref().map(|url| fetched_keys(config, url.clone(), http.clone()));
            let keys = config.jwks_file.clone().map(KeySource::Fixed).or(fetched.map(KeySource::Fetched));
            ServiceMode {
                api_keys: config.api_keys_file.clone(),
                jwts: keys.and_then(|keys| JwtVerifier::new(config, keys, key.clone())),
                share_cache: config.share_cache,
            }
        });
        Self { key, leeway: config.leeway, service_mode }
    }

    /// Returns the caller with this token.
    ///
    /// # Errors
    /// The reason why the token is rejected.
    pub async fn caller(&self, token: &str) -> Result<Caller, Rejection> {
        match &self.service_mode {
            Some(service_mode) => service_mode.caller(token, &self.key).await.map_err(report),
            None => Ok(Caller::with_token(token, &self.key).with_grace(self.leeway)),
        }
    }
}

impl ServiceMode {
    async fn caller(&self, token: &str, key: &ScopeKey) -> Result<Caller, Rejection> {
        let caller = |identity: Scopes, expires| {
            let scope = if self.share_cache { key.scopes(ScopeSource::AllCallers) } else { identity.clone() };
            Caller::with_service_token(identity, scope, expires)
        };
        if let Some(name) = self.api_keys.as_ref().and_then(|keys| keys.name(token)) {
            return Ok(caller(key.scopes(ScopeSource::ApiKey { name }), None));
        }
        // If both kinds are accepted, only a token of three parts counts as a JWT, or of five if it is encrypted.
        let is_jwt = matches!(token.split('.').count(), 3 | 5);
        let jwts = self.jwts.as_ref().filter(|_| self.api_keys.is_none() || is_jwt);
        let jwts = jwts.ok_or(Rejection::UnknownApiKey)?;
        let VerifiedJwt { identity, credential } = jwts.verify(token).await?;
        Ok(caller(identity, Some(credential.expires)).with_revocable(credential))
    }
}

/// Starts the background refresh of the JWK set at `url`. While it cannot be fetched, the last set stays in use.
pub fn fetched_keys(config: &CallersConfig, url: Url, http: HttpClient) -> AutoRefresh<KeySet> {
    let intervals = RefreshIntervals {
        after_failure: config.jwks_refresh_interval,
        between_early: config.jwks_refresh_interval,
    };
    let max_age = config.jwks_max_age;
    AutoRefresh::start(intervals, move || {
        let (url, http) = (url.clone(), http.clone());
        async move {
            let keys = fetch_keys(&http, url).await;
            metrics().caller_key_fetches.count(fetch_outcome(&keys));
            match &keys {
                Ok(keys) => tracing::debug!(?keys, "JWKS refreshed"),
                Err(Failure { why, .. }) => {
                    tracing::warn!(%why, "JWKS could not be fetched from callers.jwks_url")
                }
            }
            // Jitter of a tenth, so that several gateways do not fetch in step.
            let renew_in = max_age.mul_f64(0.9 + 0.2 * fastrand::f64()).max(Duration::from_millis(1));
            keys.map(|value| Fetched { value, renew_in, lifetime: None })
        }
    })
}

async fn fetch_keys(http: &HttpClient, url: Url) -> Result<KeySet, Failure> {
    let json = http.get(url).await?;
    KeySet::read(&json).map_err(|fault| Failure::new(&format!("its response {fault}")))
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator").finish_non_exhaustive()
    }
}
