//! Authentication of the sandbox: bearer tokens, their visibility and rate limit, and the token endpoint.
//!
//! The middleware [`authorise`] passes a [`Visibility`] to the handlers, so no handler runs without a valid token.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::extract::rejection::StringRejection;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use super::refusal::{self, SandboxError};
use crate::config::sandbox::{CLIENT_ID, CLIENT_SECRET};

/// The token with access to all appointments.
pub const TOKEN_ALL: &str = "sandbox-all";
/// The token with access to the shared appointments only; all others give 403.
pub const TOKEN_SOME: &str = "sandbox-some";

/// The lifetime of an issued token in seconds, as in the real upstream.
const TOKEN_LIFETIME: i64 = 3600;
/// The maximum number of valid issued tokens; another one evicts the oldest.
const MAX_TOKENS: usize = 256;
/// The window of the rate limit, in seconds.
const WINDOW: i64 = 60;

/// The appointments that a token gives access to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Visibility {
    /// All appointments.
    All,
    /// Only the shared appointments.
    Shared,
}

/// A token with its visibility, its expiry and its rate limit window, which starts with the first request.
struct TokenRecord {
    token: String,
    visibility: Visibility,
    expires: Option<Timestamp>,
    window_opened: Timestamp,
    used: u32,
}

impl TokenRecord {
    fn new(token: String, visibility: Visibility, expires: Option<Timestamp>) -> Self {
        Self { token, visibility, expires, window_opened: Timestamp::MIN, used: 0 }
    }

    fn is_live(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }

    /// Counts a request against the rate limit. Returns the number of remaining requests.
    fn consume(&mut self, limit: u32, now: Timestamp) -> Result<u32, SandboxError> {
        let open_for = now.as_second().saturating_sub(self.window_opened.as_second());
        if open_for >= WINDOW {
            self.window_opened = now;
            self.used = 0;
        }
        if self.used >= limit {
            let retry_after = (WINDOW - open_for).clamp(1, WINDOW).unsigned_abs();
            return Err(SandboxError::RateLimited { limit, retry_after });
        }
        self.used += 1;
        Ok(limit - self.used)
    }
}

/// The accepted tokens: two fixed ones and at most [`MAX_TOKENS`] issued ones, few enough for a linear search.
pub(crate) struct TokenRegistry {
    rate_limit: u32,
    tokens: Mutex<Vec<TokenRecord>>,
}

impl TokenRegistry {
    pub(crate) fn new(rate_limit: u32) -> Self {
        let fixed = vec![
            TokenRecord::new(TOKEN_ALL.to_owned(), Visibility::All, None),
            TokenRecord::new(TOKEN_SOME.to_owned(), Visibility::Shared, None),
        ];
        Self { rate_limit, tokens: Mutex::new(fixed) }
    }

    /// Authenticates a request. Returns its visibility, and the number of remaining requests if there is a rate limit.
    fn authenticate(
        &self,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<(Visibility, Option<u32>), SandboxError> {
        let token = credential(headers, "Bearer").ok_or(SandboxError::Unauthenticated)?;
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let record = tokens
            .iter_mut()
            .find(|record| record.token == token && record.is_live(now))
            .ok_or(SandboxError::Unauthenticated)?;
        let left = match self.rate_limit {
            0 => None,
            limit => Some(record.consume(limit, now)?),
        };
        Ok((record.visibility, left))
    }

    /// Issues a token with access to all appointments.
    fn issue(&self, now: Timestamp) -> String {
        let issued = now.as_second();
        let expires = issued.saturating_add(TOKEN_LIFETIME);
        let claims = json!({
            "sub": CLIENT_ID, "token_use": "access", "iat": issued, "exp": expires, "jti": Uuid::new_v4().to_string(),
        });
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let signature = [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat();
        let token = [
            part(br#"{"alg":"HS256","typ":"JWT"}"#),
            part(claims.to_string().as_bytes()),
            // Never verified. Its randomness makes the token hard to guess.
            part(&signature),
        ]
        .join(".");

        let expires = Timestamp::from_second(expires).unwrap_or(Timestamp::MAX);
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|record| record.is_live(now));
        if tokens.iter().filter(|record| record.expires.is_some()).count() >= MAX_TOKENS
            && let Some(oldest) = tokens.iter().position(|record| record.expires.is_some())
        {
            tokens.remove(oldest);
        }
        tokens.push(TokenRecord::new(token.clone(), Visibility::All, Some(expires)));
        token
    }
}

/// Returns the credential after `scheme` in the `Authorization` header.
fn credential<'a>(headers: &'a HeaderMap, scheme: &str) -> Option<&'a str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (named, credential) = value.split_once(' ')?;
    named.eq_ignore_ascii_case(scheme).then(|| credential.trim())
}

/// Middleware of the API routes that rejects requests without a valid token.
pub(crate) async fn authorise(
    State(registry): State<Arc<TokenRegistry>>,
    mut request: Request,
    next: Next,
) -> Response {
    let (visibility, left) = match registry.authenticate(request.headers(), Timestamp::now()) {
        Ok(authenticated) => authenticated,
        Err(error) => return error.into_response(),
    };
    request.extensions_mut().insert(visibility);
    let mut response = next.run(request).await;
    if let Some(left) = left {
        refusal::set_rate_limit_headers(&mut response, registry.rate_limit, left);
    }
    response
}

/// `POST /oauth2/token`: the client credentials grant, with the errors of RFC 6749, section 5.2.
pub(crate) async fn token(
    State(registry): State<Arc<TokenRegistry>>,
    headers: HeaderMap,
    form: Result<String, StringRejection>,
) -> Response {
    let reject = |status, error| (status, Json(json!({ "error": error }))).into_response();
    let client = credential(&headers, "Basic").and_then(|encoded| STANDARD.decode(encoded).ok());
    if client.as_deref() != Some(format!("{CLIENT_ID}:{CLIENT_SECRET}").as_bytes()) {
        let mut response = reject(StatusCode::UNAUTHORIZED, "invalid_client");
        let challenge = header::HeaderValue::from_static("Basic realm=\"sandbox\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        return response;
    }
    let Ok(form) = form else { return reject(StatusCode::BAD_REQUEST, "invalid_request") };
    // The only relevant value has no escaped characters, so the form is not decoded.
    match form.split('&').find_map(|pair| pair.strip_prefix("grant_type=")) {
        Some("client_credentials") => {}
        Some(_) => return reject(StatusCode::BAD_REQUEST, "unsupported_grant_type"),
        None => return reject(StatusCode::BAD_REQUEST, "invalid_request"),
    }
    let token = registry.issue(Timestamp::now());
    let body = json!({ "access_token": token, "expires_in": TOKEN_LIFETIME, "token_type": "Bearer" });
    ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn bearer(token: &str) -> HeaderMap {
        let value = format!("Bearer {token}").parse().unwrap();
        HeaderMap::from_iter([(header::AUTHORIZATION, value)])
    }

    #[test]
    fn issued_tokens_expire_after_an_hour() {
        let access = TokenRegistry::new(0);
        let token = access.issue(at(1_000));
        assert!(matches!(access.authenticate(&bearer(&token), at(4_599)), Ok((Visibility::All, None))));
        assert!(matches!(
            access.authenticate(&bearer(&token), at(4_600)),
            Err(SandboxError::Unauthenticated)
        ));
    }

    #[test]
    fn issued_tokens_are_bounded_and_fixed_ones_stay() {
        let access = TokenRegistry::new(0);
        let tokens: Vec<_> = (0..=MAX_TOKENS).map(|_| access.issue(at(1_000))).collect();
        assert_eq!(access.tokens.lock().unwrap().len(), MAX_TOKENS + 2);
        assert!(access.authenticate(&bearer(&tokens[0]), at(1_001)).is_err());
        assert!(access.authenticate(&bearer(&tokens[1]), at(1_001)).is_ok());
        assert!(access.authenticate(&bearer(TOKEN_SOME), at(1_001)).is_ok());
    }

    #[test]
    fn rate_limit_is_per_token_and_minute() {
        let access = TokenRegistry::new(2);
        let ask = |token, second| access.authenticate(&bearer(token), at(second));
        assert!(matches!(ask(TOKEN_ALL, 100), Ok((_, Some(1)))));
        assert!(matches!(ask(TOKEN_ALL, 110), Ok((_, Some(0)))));
        assert!(matches!(ask(TOKEN_ALL, 130), Err(SandboxError::RateLimited { limit: 2, retry_after: 30 })));
        assert!(ask(TOKEN_SOME, 130).is_ok());
        assert!(ask(TOKEN_ALL, 160).is_ok());
    }
}
