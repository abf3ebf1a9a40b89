//! The errors of requests that exceed a limit.

use std::{borrow::Cow, time::Duration};

use async_graphql::ServerError;

use super::{ApiError, OVERLOADED_RETRY_AFTER, limit::OverLimit};

/// What is said where nothing that is asked for would help.
pub const TOO_MUCH: &str = "The gateway has too much to do. Try again shortly.";

impl OverLimit {
    fn error(
        code: &'static str,
        limit: &'static str,
        maximum: Option<u64>,
        value: Option<u64>,
        message: impl Into<Cow<'static, str>>,
        retry_after: Option<Duration>,
    ) -> ApiError {
        ApiError::OverLimit(Box::new(Self {
            limit,
            maximum,
            value,
            code,
            message: message.into(),
            retry_after,
        }))
    }

    /// The query has `value` of `what`.
    pub(crate) fn too_complex(limit: &'static str, what: &str, maximum: usize, value: u64) -> ApiError {
        let message = format!("The query has {value} {what}; {maximum} are allowed. Ask for less at once.");
        Self::error("QUERY_TOO_COMPLEX", limit, Some(maximum as u64), Some(value), message, None)
    }

    /// An argument has `value`.
    pub(crate) fn bad_input(
        limit: &'static str,
        maximum: u64,
        value: u64,
        message: impl Into<Cow<'static, str>>,
    ) -> ApiError {
        Self::error("BAD_USER_INPUT", limit, Some(maximum), Some(value), message, None)
    }

    /// A request that is not run has more errors of that `code` than are listed.
    fn more_errors(code: &'static str, maximum: usize) -> ApiError {
        let message = format!("Further errors are not listed: limits.errors allows {maximum}.");
        Self::error(code, "errors", Some(maximum as u64), None, message, None)
    }

    /// Something before GraphQL is too large, or takes too long.
    pub fn bad_request(
        limit: &'static str,
        maximum: Option<u64>,
        value: Option<u64>,
        message: impl Into<Cow<'static, str>>,
    ) -> ApiError {
        Self::error("BAD_REQUEST", limit, maximum, value, message, None)
    }

    /// There are as many as there may be.
    pub fn overloaded(
        limit: &'static str,
        maximum: usize,
        message: impl Into<Cow<'static, str>>,
    ) -> ApiError {
        Self::error("OVERLOADED", limit, Some(maximum as u64), None, message, Some(OVERLOADED_RETRY_AFTER))
    }

    /// The answer is larger than `limits.answer`.
    pub(crate) fn answer(maximum: usize) -> ApiError {
        let message = format!(
            "The answer exceeds the {maximum}-byte limit (limits.answer). Ask for fewer appointments or fewer fields."
        );
        Self::error("QUERY_TOO_COMPLEX", "answer", Some(maximum as u64), None, message, None)
    }

    /// The answers in memory take as much as they may (`http.max_response_memory`).
    pub(crate) fn response_memory(maximum: usize) -> ApiError {
        let message =
            "Too many large answers wait for their clients (http.max_response_memory). Try again shortly.";
        Self::overloaded("http.max_response_memory", maximum, message)
    }

    /// There is no room for more, all told or for this caller.
    pub fn no_room(limit: &'static str) -> ApiError {
        Self::error("OVERLOADED", limit, None, None, TOO_MUCH, Some(OVERLOADED_RETRY_AFTER))
    }

    /// The token has `value` bytes.
    pub fn bad_token(maximum: u64, value: u64) -> ApiError {
        let message = "The token is longer than limits.token allows.";
        Self::error("UNAUTHENTICATED", "token", Some(maximum), Some(value), message, None)
    }

    /// The caller asks too often.
    pub fn too_often(limit: &'static str, maximum: u64, retry_after: Duration) -> ApiError {
        let message = "You ask more often than this gateway allows. Try again later.";
        Self::error("RATE_LIMITED", limit, Some(maximum), None, message, Some(retry_after))
    }
}

/// The errors of a request that is not run, all of one `code`: the first `maximum`, and one that names the limit if there are
/// more. Errors of fields are never left out: null without an error means absence.
pub(crate) fn listed(mut errors: Vec<ServerError>, code: &'static str, maximum: usize) -> Vec<ServerError> {
    if errors.len() > maximum {
        errors.truncate(maximum);
        errors.push(OverLimit::more_errors(code, maximum).into());
    }
    errors
}
