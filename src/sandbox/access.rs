//! Who may ask, what they may see, and how often.
//!
//! Stands between the routes and everything behind them: the API's handlers are reached only with a [`Sight`] in hand,
//! and the token endpoint hands out the tokens that give one.

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

use super::{
    refusal::{self, Refusal},
    state::Sandbox,
};

/// The token that sees every appointment.
pub const TOKEN_ALL: &str = "sandbox-all";
/// The token that sees some of the appointments; the others are answered 403.
pub const TOKEN_SOME: &str = "sandbox-some";
/// The client that `POST /oauth2/token` knows.
pub const CLIENT_ID: &str = "sandbox-client";
/// The secret of [`CLIENT_ID`], no more secret than the data.
pub const CLIENT_SECRET: &str = "sandbox-secret";

/// How long an issued token lives, in seconds, as the upstream's do.
const TOKEN_LIFE: i64 = 3600;
/// How many issued tokens live at a time; one more ends the oldest.
const MAX_TOKENS: usize = 256;
/// The window of the rate limit, in seconds.
const WINDOW: i64 = 60;

/// Which appointments a caller sees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Sight {
    /// Every one.
    Everything,
    /// The shared ones alone.
    Shared,
}

/// A token and what comes with it. The window of the rate limit opens with the first request in it.
struct Pass {
    token: String,
    sight: Sight,
    expires: Option<Timestamp>,
    window_opened: Timestamp,
    used: u32,
}

impl Pass {
    fn new(token: String, sight: Sight, expires: Option<Timestamp>) -> Self {
        Self { token, sight, expires, window_opened: Timestamp::MIN, used: 0 }
    }

    fn is_live(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }

    /// Counts one request; how many are left, or the refusal of this one.
    fn spend(&mut self, limit: u32, now: Timestamp) -> Result<u32, Refusal> {
        let open_for = now.as_second().saturating_sub(self.window_opened.as_second());
        if open_for >= WINDOW {
            self.window_opened = now;
            self.used = 0;
        }
        if self.used >= limit {
            let retry_after = (WINDOW - open_for).clamp(1, WINDOW).unsigned_abs();
            return Err(Refusal::TooMany { limit, retry_after });
        }
        self.used += 1;
        Ok(limit - self.used)
    }
}

/// The tokens that are accepted. There are at most [`MAX_TOKENS`] and the two fixed ones, so a walk finds one.
pub(crate) struct Access {
    rate_limit: u32,
    passes: Mutex<Vec<Pass>>,
}

impl Access {
    pub(crate) fn new(rate_limit: u32) -> Self {
        let fixed = vec![
            Pass::new(TOKEN_ALL.to_owned(), Sight::Everything, None),
            Pass::new(TOKEN_SOME.to_owned(), Sight::Shared, None),
        ];
        Self { rate_limit, passes: Mutex::new(fixed) }
    }

    /// What the bearer of this header sees, and how many requests are left where there is a limit.
    fn admit(&self, headers: &HeaderMap, now: Timestamp) -> Result<(Sight, Option<u32>), Refusal> {
        let token = credential(headers, "Bearer").ok_or(Refusal::Unauthenticated)?;
        let mut passes = self.passes.lock().unwrap_or_else(PoisonError::into_inner);
        let pass = passes
            .iter_mut()
            .find(|pass| pass.token == token && pass.is_live(now))
            .ok_or(Refusal::Unauthenticated)?;
        let left = match self.rate_limit {
            0 => None,
            limit => Some(pass.spend(limit, now)?),
        };
        Ok((pass.sight, left))
    }

    /// A new token with every right.
    fn issue(&self, now: Timestamp) -> String {
        let issued = now.as_second();
        let expires = issued.saturating_add(TOKEN_LIFE);
        let claims = json!({
            "sub": CLIENT_ID, "token_use": "access", "iat": issued, "exp": expires, "jti": Uuid::new_v4().to_string(),
        });
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let signature = [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat();
        let token = [
            part(br#"{"alg":"HS256","typ":"JWT"}"#),
            part(claims.to_string().as_bytes()),
            // Nobody verifies it: what makes the token hard to guess is that it is random.
            part(&signature),
        ]
        .join(".");

        let expires = Timestamp::from_second(expires).unwrap_or(Timestamp::MAX);
        let mut passes = self.passes.lock().unwrap_or_else(PoisonError::into_inner);
        passes.retain(|pass| pass.is_live(now));
        if passes.iter().filter(|pass| pass.expires.is_some()).count() >= MAX_TOKENS
            && let Some(oldest) = passes.iter().position(|pass| pass.expires.is_some())
        {
            passes.remove(oldest);
        }
        passes.push(Pass::new(token.clone(), Sight::Everything, Some(expires)));
        token
    }
}

/// What follows the scheme in the `Authorization` header.
fn credential<'a>(headers: &'a HeaderMap, scheme: &str) -> Option<&'a str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (named, credential) = value.split_once(' ')?;
    named.eq_ignore_ascii_case(scheme).then(|| credential.trim())
}

/// The middleware of the API's routes: no handler runs without a token.
pub(crate) async fn authorise(
    State(sandbox): State<Arc<Sandbox>>,
    mut request: Request,
    next: Next,
) -> Response {
    let (sight, left) = match sandbox.access.admit(request.headers(), Timestamp::now()) {
        Ok(admitted) => admitted,
        Err(refusal) => return refusal.into_response(),
    };
    request.extensions_mut().insert(sight);
    let mut response = next.run(request).await;
    if let Some(left) = left {
        refusal::remaining(&mut response, sandbox.access.rate_limit, left);
    }
    response
}

/// `POST /oauth2/token`: client credentials for an hour's access. The errors are those of RFC 6749, section 5.2.
pub(crate) async fn token(
    State(sandbox): State<Arc<Sandbox>>,
    headers: HeaderMap,
    form: Result<String, StringRejection>,
) -> Response {
    let refuse = |status, error| (status, Json(json!({ "error": error }))).into_response();
    let client = credential(&headers, "Basic").and_then(|encoded| STANDARD.decode(encoded).ok());
    if client.as_deref() != Some(format!("{CLIENT_ID}:{CLIENT_SECRET}").as_bytes()) {
        let mut response = refuse(StatusCode::UNAUTHORIZED, "invalid_client");
        let challenge = header::HeaderValue::from_static("Basic realm=\"sandbox\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        return response;
    }
    let Ok(form) = form else { return refuse(StatusCode::BAD_REQUEST, "invalid_request") };
    // The one value that counts needs no escapes in a form, so the form needs no decoder.
    match form.split('&').find_map(|pair| pair.strip_prefix("grant_type=")) {
        Some("client_credentials") => {}
        Some(_) => return refuse(StatusCode::BAD_REQUEST, "unsupported_grant_type"),
        None => return refuse(StatusCode::BAD_REQUEST, "invalid_request"),
    }
    let token = sandbox.access.issue(Timestamp::now());
    let body = json!({ "access_token": token, "expires_in": TOKEN_LIFE, "token_type": "Bearer" });
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
    fn an_issued_token_ends_after_an_hour() {
        let access = Access::new(0);
        let token = access.issue(at(1_000));
        assert!(matches!(access.admit(&bearer(&token), at(4_599)), Ok((Sight::Everything, None))));
        assert!(matches!(access.admit(&bearer(&token), at(4_600)), Err(Refusal::Unauthenticated)));
    }

    #[test]
    fn the_number_of_live_tokens_is_bounded_and_the_fixed_ones_stay() {
        let access = Access::new(0);
        let tokens: Vec<_> = (0..=MAX_TOKENS).map(|_| access.issue(at(1_000))).collect();
        assert_eq!(access.passes.lock().unwrap().len(), MAX_TOKENS + 2);
        assert!(access.admit(&bearer(&tokens[0]), at(1_001)).is_err());
        assert!(access.admit(&bearer(&tokens[1]), at(1_001)).is_ok());
        assert!(access.admit(&bearer(TOKEN_SOME), at(1_001)).is_ok());
    }

    #[test]
    fn the_limit_is_per_token_and_minute() {
        let access = Access::new(2);
        let ask = |token, second| access.admit(&bearer(token), at(second));
        assert!(matches!(ask(TOKEN_ALL, 100), Ok((_, Some(1)))));
        assert!(matches!(ask(TOKEN_ALL, 110), Ok((_, Some(0)))));
        assert!(matches!(ask(TOKEN_ALL, 130), Err(Refusal::TooMany { limit: 2, retry_after: 30 })));
        assert!(ask(TOKEN_SOME, 130).is_ok());
        assert!(ask(TOKEN_ALL, 160).is_ok());
    }
}
