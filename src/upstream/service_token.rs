//! The gateway's own token: OAuth 2.0 client credentials (RFC 6749, section 4.4), one token for all calls, fetched anew
//! before its time is over.

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
    refresh::{AutoRefresh, Current, Failure, Fetched, Pauses},
};

/// How long a token is taken to live that says nothing of it.
const UNSAID_LIFE: Duration = Duration::from_secs(5 * 60);

/// `Bearer …`, as it is sent.
pub(crate) struct Bearer(pub(crate) HeaderValue);

/// The gateway's own token, kept fresh. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ServiceToken(AutoRefresh<Bearer>);

impl ServiceToken {
    /// Gets tokens with `credentials` from now on.
    pub fn start(credentials: ClientCredentials, outside: HttpClient) -> Self {
        let pauses =
            Pauses { after_failure: credentials.retry_interval, between_early: credentials.refresh_interval };
        let credentials = Arc::new(credentials);
        Self(AutoRefresh::start(pauses, move || {
            let (credentials, outside) = (credentials.clone(), outside.clone());
            async move {
                let token = fetch(&credentials, &outside).await;
                metrics().service_token_fetches.count(fetch_outcome(&token));
                match &token {
                    Ok(Fetched { lasts, .. }) => {
                        let lasts_s = lasts.unwrap_or_default().as_secs();
                        tracing::info!(lasts_s, "the gateway has a token of its own");
                    }
                    Err(Failure { why, .. }) => {
                        tracing::warn!(%why, "the gateway got no token of its own from identity.token_url")
                    }
                }
                token
            }
        }))
    }

    /// The token to send now.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn current(&self) -> Result<Arc<Current<Bearer>>, Arc<str>> {
        self.0.current().await
    }

    /// One that came after `refused`, if there is one or may be one.
    pub(crate) async fn newer_than(&self, refused: &Current<Bearer>) -> Option<Arc<Current<Bearer>>> {
        self.0.newer_than(refused).await
    }

    /// Whether there is a token, once it is known.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn check(&self) -> Result<(), Arc<str>> {
        self.current().await.map(drop)
    }
}

async fn fetch(credentials: &ClientCredentials, outside: &HttpClient) -> Result<Fetched<Bearer>, Failure> {
    let client = BasicClient::new(ClientId::new(credentials.client_id.clone()))
        .set_client_secret(ClientSecret::new(credentials.client_secret.expose().to_owned()))
        .set_token_uri(TokenUrl::from_url(credentials.token_url.clone()));
    let scopes = credentials.scope.iter().flat_map(|scopes| scopes.split_whitespace());
    let request =
        client.exchange_client_credentials().add_scopes(scopes.map(|scope| Scope::new(scope.to_owned())));
    let ask = |request| {
        let outside = outside.clone();
        async move {
            let response = outside.post(request).await.map_err(Failed)?;
            match response.status().as_u16() {
                200 => Ok(response),
                status @ (400 | 401 | 403) => Err(Failed(Failure::new(&format!(
                    "it does not accept identity.client_id, identity.client_secret or identity.scope ({status})"
                )))),
                _ => Err(Failed(unexpected_status(&response))),
            }
        }
    };
    let response = request.request_async(&ask).await.map_err(|error| match error {
        RequestTokenError::Request(Failed(failure)) => failure,
        // The texts of the others repeat what was answered.
        _ => Failure::new("its answer is no token (RFC 6749, section 5.1)"),
    })?;
    bearer(&response, credentials.retry_interval)
}

fn bearer(response: &BasicTokenResponse, least: Duration) -> Result<Fetched<Bearer>, Failure> {
    if *response.token_type() != BasicTokenType::Bearer {
        return Err(Failure::new("its answer is a token of another type than Bearer"));
    }
    let token = response.access_token().secret();
    let mut header = HeaderValue::try_from(format!("Bearer {token}"))
        .ok()
        .filter(|_| !token.is_empty())
        .ok_or_else(|| Failure::new("its answer is a token that no header can hold"))?;
    header.set_sensitive(true);
    // What counts from now is right whatever the clocks say.
    let by_itself = || jwt_expiry(token).map(|at| at.duration_since(SystemTime::now()).unwrap_or_default());
    let lasts = response.expires_in().or_else(by_itself).unwrap_or(UNSAID_LIFE);
    // However short it lives, another is not asked for at once.
    let lasts = lasts.max(least);
    // In the last quarter, and not all gateways at once.
    let renew_in = lasts.mul_f64(0.75 + 0.15 * fastrand::f64()).max(least);
    Ok(Fetched { value: Bearer(header), renew_in, lasts: Some(lasts) })
}

/// A [`Failure`] on its way through the OAuth library.
#[derive(Debug)]
struct Failed(Failure);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.why)
    }
}

impl std::error::Error for Failed {}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer(…)")
    }
}
