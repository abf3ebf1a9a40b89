//! The gateway's own access token: OAuth 2.0 client credentials (RFC 6749, section 4.4). One token serves all calls and
//! is renewed before it expires.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use oauth2::{
    ClientId, ClientSecret, RequestTokenError, Scope, TokenResponse as _, TokenUrl,
    basic::{BasicClient, BasicTokenResponse, BasicTokenType},
};
use reqwest::header::HeaderValue;

use crate::{
    caller::jwt_expiry,
    config::auth::ClientCredentials,
    http_client::{HttpClient, unexpected_status},
    metrics::{fetch_outcome, metrics},
    refresh::{AutoRefresh, Current, Failure, Fetched, RefreshIntervals},
};

/// The lifetime of a token if neither the token response nor the token states one.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(5 * 60);

/// The value of an `Authorization` header, `Bearer …`.
pub(crate) struct Bearer(pub(crate) HeaderValue);

/// The gateway's own access token, refreshed in the background. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ServiceToken(AutoRefresh<Bearer>);

impl ServiceToken {
    /// Starts the background refresh of a token for `credentials`.
    pub fn start(credentials: ClientCredentials, http: HttpClient) -> Self {
        let intervals = RefreshIntervals {
            after_failure: credentials.retry_interval,
            between_early: credentials.refresh_interval,
        };
        let credentials = Arc::new(credentials);
        Self(AutoRefresh::start(intervals, move || {
            let (credentials, http) = (credentials.clone(), http.clone());
            async move {
                let token = fetch(&credentials, &http).await;
                metrics().service_token_fetches.count(fetch_outcome(&token));
                match &token {
                    Ok(Fetched { lifetime, .. }) => {
                        let lifetime_s = lifetime.unwrap_or_default().as_secs();
                        tracing::info!(lifetime_s, "service token fetched");
                    }
                    Err(Failure { why, .. }) => {
                        tracing::warn!(%why, "service token could not be fetched from identity.token_url")
                    }
                }
                token
            }
        }))
    }

    /// Returns the current token. Waits for the first one.
    ///
    /// # Errors
    /// The reason of the last failed fetch, if there is no valid token.
    pub(crate) async fn current(&self) -> Result<Arc<Current<Bearer>>, Arc<str>> {
        self.0.current().await
    }

    /// Returns a token newer than `rejected`, fetched early if `identity.refresh_interval` permits.
    pub(crate) async fn newer_than(&self, rejected: &Current<Bearer>) -> Option<Arc<Current<Bearer>>> {
        self.0.newer_than(rejected).await
    }

    /// Checks that a token can be fetched.
    ///
    /// # Errors
    /// The reason of the last failed fetch.
    pub async fn check(&self) -> Result<(), Arc<str>> {
        self.current().await.map(drop)
    }
}

async fn fetch(credentials: &ClientCredentials, http: &HttpClient) -> Result<Fetched<Bearer>, Failure> {
    let client = BasicClient::new(ClientId::new(credentials.client_id.clone()))
        .set_client_secret(ClientSecret::new(credentials.client_secret.expose().to_owned()))
        .set_token_uri(TokenUrl::from_url(credentials.token_url.clone()));
    let scopes = credentials.scope.iter().flat_map(|scopes| scopes.split_whitespace());
    let request =
        client.exchange_client_credentials().add_scopes(scopes.map(|scope| Scope::new(scope.to_owned())));
    let send = |request| {
        let http = http.clone();
        async move {
            let response = http.post(request).await.map_err(TokenRequestError)?;
            match response.status().as_u16() {
                200 => Ok(response),
                status @ (400 | 401 | 403) => Err(TokenRequestError(Failure::new(&format!(
                    "it does not accept identity.client_id, identity.client_secret or identity.scope ({status})"
                )))),
                _ => Err(TokenRequestError(unexpected_status(&response))),
            }
        }
    };
    let response = request.request_async(&send).await.map_err(|error| match error {
        RequestTokenError::Request(TokenRequestError(failure)) => failure,
        // Other error texts quote the response body, which may hold a token.
        _ => Failure::new("its response is not an access token response (RFC 6749, section 5.1)"),
    })?;
    bearer(&response, credentials.retry_interval)
}

fn bearer(response: &BasicTokenResponse, min_lifetime: Duration) -> Result<Fetched<Bearer>, Failure> {
    if *response.token_type() != BasicTokenType::Bearer {
        return Err(Failure::new("the token type in its response is not Bearer"));
    }
    let token = response.access_token().secret();
    if token.is_empty() {
        return Err(Failure::new("its response has no access token"));
    }
    let mut header = HeaderValue::try_from(format!("Bearer {token}"))
        .map_err(|_| Failure::new("the token in its response has characters that a header cannot hold"))?;
    header.set_sensitive(true);
    // `expires_in` is relative, so it holds even if the two clocks differ; `exp` is the fallback.
    let jwt_lifetime =
        || jwt_expiry(token).map(|at| at.duration_since(SystemTime::now()).unwrap_or_default());
    let lifetime = response.expires_in().or_else(jwt_lifetime).unwrap_or(DEFAULT_LIFETIME);
    // The minimum prevents a fetch loop for tokens with a very short lifetime.
    let lifetime = lifetime.max(min_lifetime);
    // In the last quarter, with jitter, so that several gateways do not renew at once.
    let renew_in = lifetime.mul_f64(0.75 + 0.15 * fastrand::f64()).max(min_lifetime);
    Ok(Fetched { value: Bearer(header), renew_in, lifetime: Some(lifetime) })
}

/// A [`Failure`] as an error type for the OAuth library.
#[derive(Debug)]
struct TokenRequestError(Failure);

impl fmt::Display for TokenRequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.why)
    }
}

impl std::error::Error for TokenRequestError {}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer(…)")
    }
}
