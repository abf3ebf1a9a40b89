//! From headers to [`Caller`], once. Below `http` nobody reads a header.

use std::sync::Arc;

use axum::http::{HeaderMap, header};
use tokio::time::{Instant, timeout_at};

use super::identity::Identity;
use crate::{
    caller::Caller,
    config::limits::Limits,
    credentials::rejection::Rejection,
    error::{
        ApiError,
        limit::{Limit, LimitExceeded},
    },
};

/// What somebody came with who asks. It does not print.
#[derive(Clone)]
pub(crate) struct Token(Arc<str>);

/// The caller that a token stands for, if that is known by `deadline`.
///
/// # Errors
/// What was wrong with the token, or `UNAUTHENTICATED` where it stands for nobody: it says what to do, and nothing of
/// what was sent. `UPSTREAM_UNAVAILABLE` or `UPSTREAM_TIMEOUT` where it cannot be told now; `OVERLOADED` where too many
/// tokens are to be verified.
pub(crate) async fn identify(
    token: &Result<Option<Token>, ApiError>,
    identity: &Identity,
    deadline: Instant,
) -> Result<Caller, ApiError> {
    let Some(Token(token)) = token.as_ref().map_err(Clone::clone)? else {
        let text = "There is no token. Send the header \"Authorization: Bearer <token>\".";
        return Err(ApiError::Unauthenticated(text.into()));
    };
    match timeout_at(deadline, identity.caller(token)).await {
        Ok(Ok(caller)) => Ok(caller),
        Ok(Err(rejection @ Rejection::KeysUnavailable)) => {
            Err(ApiError::IdentityUnavailable(rejection.text()))
        }
        Ok(Err(Rejection::OverBudget)) => Err(LimitExceeded::at_capacity(Limit::TokenVerifications)),
        Ok(Err(rejection)) => Err(ApiError::Unauthenticated(rejection.text().into())),
        Err(_) => Err(ApiError::UpstreamTimeout),
    }
}

/// The token in the `Authorization` header, if there is one: `Bearer`, a space, and a token (RFC 6750, section 2.1).
///
/// A token may be any visible ASCII without a comma, which is more than the RFC's alphabet: who goes by it decides what
/// is a token, this only makes sure that it is one piece and cannot break a header.
///
/// # Errors
/// `UNAUTHENTICATED`, with what to send instead. It says nothing of what was sent.
pub(crate) fn token(headers: &HeaderMap, limits: &Limits) -> Result<Option<Token>, ApiError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        let text = "There are several Authorization headers. Send one: \"Authorization: Bearer <token>\".";
        return Err(ApiError::Unauthenticated(text.into()));
    }
    bearer(value.as_bytes(), limits).map(Some)
}

/// The token in the value of an `Authorization` header, wherever it came from.
///
/// # Errors
/// As [`token`].
pub(crate) fn bearer(value: &[u8], limits: &Limits) -> Result<Token, ApiError> {
    let refuse = |text: &'static str| ApiError::Unauthenticated(text.into());
    let (scheme, token) = match value.iter().position(|byte| *byte == b' ') {
        Some(space) => value.split_at(space),
        None => (value, &b""[..]),
    };
    let token = token.trim_ascii();
    if !scheme.eq_ignore_ascii_case(b"Bearer") || token.is_empty() {
        return Err(refuse("The Authorization header is not of the form \"Bearer <token>\"."));
    }
    if token.len() as u64 > limits.token.as_u64() {
        return Err(LimitExceeded::token_too_long(limits.token.as_u64(), token.len() as u64));
    }
    match std::str::from_utf8(token) {
        Ok(token) if token.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',') => {
            Ok(Token(token.into()))
        }
        _ => {
            Err(refuse("The token has characters that no token has. Send \"Authorization: Bearer <token>\"."))
        }
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
            .map(|token| token.map(|Token(token)| token.as_ref().to_owned()))
            .map_err(|error| error.message().into_owned())
    }

    #[test]
    fn a_bearer_token_is_taken_whole() {
        for value in ["Bearer a.b-c_~+/=", "bearer a.b-c_~+/=", "BEARER   a.b-c_~+/=  "] {
            assert_eq!(read(&[value.as_bytes()]), Ok(Some("a.b-c_~+/=".to_owned())));
        }
        assert_eq!(read(&[b"Bearer 17|abc"]), Ok(Some("17|abc".to_owned())));
        assert_eq!(read(&[]), Ok(None));
    }

    #[test]
    fn anything_else_is_refused_with_what_to_send() {
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
        fn any_header_is_read_without_a_panic(bytes: Vec<u8>) {
            if HeaderValue::from_bytes(&bytes).is_ok() {
                let _ = read(&[&bytes]);
            }
        }
    }
}
