//! The gateway's own access token: OAuth 2.0 client credentials (RFC 6749, section 4.4). One token serves all calls and
//! is renewed before it expires.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use oauth2::{
    AuthType, Client, ClientId, ClientSecret, HttpResponse, RequestTokenError, Scope, StandardRevocableToken,
    TokenResponse as _, TokenUrl,
    basic::{
        BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse, BasicTokenType,
    },
};
use reqwest::{
    StatusCode,
    header::{CONTENT_TYPE, HeaderValue},
};
use serde::Deserialize;

use super::token_response::AccessTokenResponse;
use crate::{
    caller::jwt_expiry,
    config::auth::{AuthMethod, ClientCredentials},
    http_client::{HttpClient, unexpected_status},
    metrics::{fetch_outcome, metrics},
    refresh::{AutoRefresh, Current, Failure, Fetched, RefreshIntervals},
};

/// The lifetime of a token if neither the token response nor the token states one.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(5 * 60);

/// The error codes that token endpoints define (RFC 6749, section 5.2; RFC 8707; OpenID Connect and common practice).
/// The log names no others: any other text of a response may hold a secret.
const ERROR_CODES: [&str; 11] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "invalid_target",
    "invalid_resource",
    "access_denied",
    "server_error",
    "temporarily_unavailable",
];

/// The OAuth client. Of its type parameters, only the token response is not the library's own.
type OAuthClient = Client<
    BasicErrorResponse,
    AccessTokenResponse,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
>;

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
    let client = OAuthClient::new(ClientId::new(credentials.client_id.clone()))
        .set_client_secret(ClientSecret::new(credentials.client_secret.expose().to_owned()))
        .set_auth_type(match credentials.auth_method {
            AuthMethod::Basic => AuthType::BasicAuth,
            AuthMethod::Post => AuthType::RequestBody,
        })
        .set_token_uri(TokenUrl::from_url(credentials.token_url.clone()));
    let scopes = credentials.scope.iter().flat_map(|scopes| scopes.split_whitespace());
    let request =
        client.exchange_client_credentials().add_scopes(scopes.map(|scope| Scope::new(scope.to_owned())));
    let request = credentials
        .parameters
        .iter()
        .fold(request, |request, (name, value)| request.add_extra_param(name.as_str(), value.as_str()));
    let send = |request| {
        let http = http.clone();
        async move {
            let response = http.post(request).await.map_err(TokenRequestError)?;
            match response.status().as_u16() {
                200..=299 => Ok(decodable(response)),
                400 | 401 | 403 => Err(TokenRequestError(refusal(&response))),
                _ => Err(TokenRequestError(unexpected_status(&response))),
            }
        }
    };
    let response = request.request_async(&send).await.map_err(|error| match error {
        RequestTokenError::Request(TokenRequestError(failure)) => failure,
        // The texts of `AccessTokenResponse` quote nothing. Other texts quote the body, which may hold a token.
        RequestTokenError::Parse(error, _) if error.inner().is_data() => {
            malformed(&error.inner().to_string())
        }
        _ => malformed("it is not JSON"),
    })?;
    if !response.ignored().is_empty() {
        let members = response.ignored().join(", ");
        tracing::warn!(%members, "members of an unexpected type in the token response were ignored");
    }
    bearer(&response, credentials.retry_interval)
}

/// Leaves it to the body whether `response` holds a token: some servers label their JSON as text, or respond with 201.
fn decodable(mut response: HttpResponse) -> HttpResponse {
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().remove(CONTENT_TYPE);
    response
}

/// The failure of a request that the token endpoint has refused.
fn refusal(response: &HttpResponse) -> Failure {
    #[derive(Deserialize)]
    struct ErrorResponse {
        error: String,
    }
    let error =
        serde_json::from_slice(response.body()).map_or_else(|_| String::new(), |it: ErrorResponse| it.error);
    let known = ERROR_CODES.into_iter().find(|code| *code == error);
    let code = known.map(|code| format!(", {code}")).unwrap_or_default();
    let status = response.status().as_u16();
    Failure::new(&format!(
        "it does not accept identity.client_id, identity.client_secret, identity.auth_method, identity.scope or \
         identity.parameters ({status}{code})"
    ))
}

fn malformed(fault: &str) -> Failure {
    Failure::new(&format!("its response is not an access token response (RFC 6749, section 5.1): {fault}"))
}

fn bearer(response: &AccessTokenResponse, min_lifetime: Duration) -> Result<Fetched<Bearer>, Failure> {
    if *response.token_type() != BasicTokenType::Bearer {
        return Err(Failure::new("token_type in its response is not Bearer"));
    }
    let token = response.access_token().secret();
    let mut header = HeaderValue::try_from(format!("Bearer {token}"))
        .map_err(|_| Failure::new("access_token in its response has characters that a header cannot hold"))?;
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
