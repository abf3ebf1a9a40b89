//! Bearer tokens: parsing of the `Authorization` header, and the errors of authentication.
//!
//! The only place that reads the header. Code below `http` receives a [`Caller`].

use std::sync::Arc;

use axum::http::{HeaderMap, header};
use tokio::time::{Instant, timeout_at};

use super::identity::Authenticator;
use crate::{
    caller::Caller,
    config::limits::Limits,
    credentials::rejection::Rejection,
    error::{
        ApiError,
        limit::{Limit, LimitExceeded},
    },
};

/// A bearer token. It has no `Debug`, so that it is never logged.
#[derive(Clone)]
pub(crate) struct BearerToken(Arc<str>);

/// Authenticates the caller by its token, until `deadline`.
///
/// # Errors
/// The error of a malformed token; `UNAUTHENTICATED` for a missing or rejected one; `UPSTREAM_UNAVAILABLE` or
/// `UPSTREAM_TIMEOUT` if the issuer's keys are not available; `OVERLOADED` if the budget of signature checks is used up.
/// The messages never quote the token.
pub(crate) async fn identify(
    token: &Result<Option<BearerToken>, ApiError>,
    authenticator: &Authenticator,
    deadline: Instant,
) -> Result<Caller, ApiError> {
    let Some(BearerToken(token)) = token.as_ref().map_err(Clone::clone)? else {
        return Err(ApiError::CredentialMissing);
    };
    match timeout_at(deadline, authenticator.caller(token)).await {
        Ok(Ok(caller)) => Ok(caller),
        Ok(Err(rejection @ Rejection::KeysUnavailable)) => {
            Err(ApiError::IdentityUnavailable(rejection.text()))
        }
        Ok(Err(Rejection::OverBudget)) => Err(LimitExceeded::at_capacity(Limit::TokenVerifications)),
        Ok(Err(rejection)) => Err(ApiError::Unauthenticated(rejection.text())),
        Err(_) => Err(ApiError::IdentityTimeout),
    }
}

/// Parses the `Authorization` header, if present: `Bearer`, a space, and a token (RFC 6750, section 2.1).
///
/// A token is visible ASCII without a comma. That is more than the RFC's alphabet: whether a token is valid is decided
/// elsewhere, this check only ensures a single token that is safe in a header.
///
/// # Errors
/// `UNAUTHENTICATED`, with the expected form. The message does not quote the header.
pub(crate) fn token(headers: &HeaderMap, limits: &Limits) -> Result<Option<BearerToken>, ApiError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        let text =
            "The request has several Authorization headers. Send one: \"Authorization: Bearer <token>\".";
        return Err(ApiError::Unauthenticated(text.into()));
    }
    bearer(value.as_bytes(), limits).map(Some)
}

/// Parses the value of an `Authorization` header. WebSocket clients send it in the payload of `connection_init`.
///
/// # Errors
/// The same as of [`token`].
pub(crate) fn bearer(value: &[u8], limits: &Limits) -> Result<BearerToken, ApiError> {
    let reject = |text: &'static str| ApiError::Unauthenticated(text.into());
    let (scheme, token) = match value.iter().position(|byte| *byte == b' ') {
        Some(space) => value.split_at(space),
        None => (value, &b""[..]),
    };
    let token = token.trim_ascii();
    if !scheme.eq_ignore_ascii_case(b"Bearer") || token.is_empty() {
        return Err(reject("The Authorization header must have the form \"Bearer <token>\"."));
    }
    if token.len() as u64 > limits.token.as_u64() {
        return Err(LimitExceeded::token_too_long(limits.token.as_u64(), token.len() as u64));
    }
    match std::str::from_utf8(token) {
        Ok(token) if token.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',') => {
            Ok(BearerToken(token.into()))
        }
        _ => Err(reject(
            "The token has invalid characters. Send the header \"Authorization: Bearer <token>\".",
        )),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::config::Config;

    fn read(values: &[&[u8]]) -> Result<Option<String>, String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        token(&headers, &Config::default().limits)
            .map(|token| token.map(|BearerToken(token)| token.as_ref().to_owned()))
            .map_err(|error| error.message().into_owned())
    }

    #[test]
    fn a_bearer_token_is_returned_unchanged() {
        for value in ["Bearer a.b-c_~+/=", "bearer a.b-c_~+/=", "BEARER   a.b-c_~+/=  "] {
            assert_eq!(read(&[value.as_bytes()]), Ok(Some("a.b-c_~+/=".to_owned())));
        }
        assert_eq!(read(&[b"Bearer 17|abc"]), Ok(Some("17|abc".to_owned())));
        assert_eq!(read(&[]), Ok(None));
    }

    #[test]
    fn other_forms_are_rejected_with_the_expected_form() {
        let long = [b"Bearer ".as_slice(), &[b'a'; 9000]].concat();
        let cases: [&[&[u8]]; 12] = [
            &[b"Bearer a", b"Bearer a"],
            &[b""],
            &[b"Bearer"],
            &[b"Bearer "],
            &[b"Basic dTpw"],
            &[b"Bearera"],
            &[b"Bearer a b"],
            &[b"Bearer a\tb"],
            &[b"Bearer a,Bearer b"],
            &[b"Bearer \xc3\xa9"],
            &[b"Bearer \xff"],
            &[&long],
        ];
        for values in cases {
            assert!(read(values).is_err_and(|text| text.contains("token")), "{values:?}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_parsed_without_a_panic(bytes: Vec<u8>) {
            if HeaderValue::from_bytes(&bytes).is_ok() {
                let _ = read(&[&bytes]);
            }
        }
    }
}
