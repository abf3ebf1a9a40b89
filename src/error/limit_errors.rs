//! Constructors of the errors of exceeded limits.

use std::{borrow::Cow, time::Duration};

use async_graphql::ServerError;

use super::{
    ApiError, OVERLOADED_RETRY_AFTER,
    code::ErrorCode,
    limit::{Limit, LimitExceeded},
};

/// The message of load shedding, when the request itself is not at fault.
pub const SERVER_OVERLOADED: &str = "Server overloaded. Retry after the given time.";

impl LimitExceeded {
    fn error(
        code: ErrorCode,
        limit: Limit,
        maximum: Option<u64>,
        value: Option<u64>,
        message: impl Into<Cow<'static, str>>,
        retry_after: Option<Duration>,
    ) -> ApiError {
        ApiError::LimitExceeded(Box::new(Self {
            limit,
            maximum,
            value,
            code,
            message: message.into(),
            retry_after,
        }))
    }

    /// The document or the operation has `value` of `unit`, more than a limit of the section `limits` allows.
    pub(crate) fn too_complex(limit: Limit, unit: &str, maximum: usize, value: u64) -> ApiError {
        let message = format!(
            "Query has {value} {unit}, which exceeds the limit of {maximum} (limits.{limit}). Request less per operation."
        );
        Self::error(ErrorCode::QueryTooComplex, limit, Some(maximum as u64), Some(value), message, None)
    }

    /// The operations of an array have `value` of `unit` in total, more than a limit of the section `limits` allows.
    pub(crate) fn array_too_complex(limit: Limit, unit: &str, maximum: usize, value: u64) -> ApiError {
        let message = format!(
            "The operations of the array have {value} {unit} in total, which exceeds the limit of {maximum} \
             (limits.{limit}). Send fewer operations per request."
        );
        Self::error(ErrorCode::QueryTooComplex, limit, Some(maximum as u64), Some(value), message, None)
    }

    /// An argument has the invalid `value`.
    pub(crate) fn bad_input(
        limit: Limit,
        maximum: u64,
        value: u64,
        message: impl Into<Cow<'static, str>>,
    ) -> ApiError {
        Self::error(ErrorCode::BadUserInput, limit, Some(maximum), Some(value), message, None)
    }

    /// A request that is not executed has more errors of one `code` than can be listed.
    fn more_errors(code: ErrorCode, maximum: usize) -> ApiError {
        let message =
            format!("Further errors are omitted. The response lists at most {maximum} (limits.errors).");
        Self::error(code, Limit::Errors, Some(maximum as u64), None, message, None)
    }

    /// The HTTP request is too large or too slow.
    pub fn bad_request(
        limit: Limit,
        maximum: Option<u64>,
        value: Option<u64>,
        message: impl Into<Cow<'static, str>>,
    ) -> ApiError {
        Self::error(ErrorCode::BadRequest, limit, maximum, value, message, None)
    }

    /// A concurrency limit with this `maximum` is reached.
    pub fn overloaded(limit: Limit, maximum: usize, message: impl Into<Cow<'static, str>>) -> ApiError {
        let retry_after = Some(OVERLOADED_RETRY_AFTER);
        Self::error(ErrorCode::Overloaded, limit, Some(maximum as u64), None, message, retry_after)
    }

    /// The response exceeds `limits.answer`.
    pub(crate) fn response_too_large(maximum: usize) -> ApiError {
        let message = format!(
            "Response exceeds the {maximum}-byte limit (limits.answer). Request fewer appointments or fewer fields."
        );
        let maximum = Some(maximum as u64);
        Self::error(ErrorCode::QueryTooComplex, Limit::ResponseSize, maximum, None, message, None)
    }

    /// The memory for responses is exhausted (`http.max_response_memory`).
    pub(crate) fn response_memory_exhausted(maximum: usize) -> ApiError {
        let message =
            "Memory for responses is exhausted (http.max_response_memory). Retry after the given time.";
        Self::overloaded(Limit::ResponseMemory, maximum, message)
    }

    /// The memory for records of idempotency keys is exhausted, in total or for this caller.
    pub(crate) fn idempotency_memory_exhausted(maximum: u64, retry_after: Duration) -> ApiError {
        let message = "Memory for idempotency keys is exhausted, in total or for this caller \
                       (changes.idempotency_size). Nothing was changed. Retry after the given time.";
        let retry_after = Some(retry_after.max(OVERLOADED_RETRY_AFTER));
        Self::error(
            ErrorCode::Overloaded,
            Limit::IdempotencyRecords,
            Some(maximum),
            None,
            message,
            retry_after,
        )
    }

    /// A resource is exhausted, in total or for this caller.
    pub fn at_capacity(limit: Limit) -> ApiError {
        Self::error(ErrorCode::Overloaded, limit, None, None, SERVER_OVERLOADED, Some(OVERLOADED_RETRY_AFTER))
    }

    /// The token has `value` bytes, more than `limits.token`.
    pub fn token_too_long(maximum: u64, value: u64) -> ApiError {
        let message = format!("Token exceeds the {maximum}-byte limit (limits.token).");
        Self::error(ErrorCode::Unauthenticated, Limit::Token, Some(maximum), Some(value), message, None)
    }

    /// The caller's token bucket is empty.
    pub fn rate_limited(limit: Limit, maximum: u64, retry_after: Duration) -> ApiError {
        let message = format!("Rate limit exceeded ({limit}). Retry after the given time.");
        Self::error(ErrorCode::RateLimited, limit, Some(maximum), None, message, Some(retry_after))
    }
}

/// Truncates the errors of a request that is not executed to `maximum`, and appends one that names the limit. Field errors
/// are never truncated: null without an error means absence.
pub(crate) fn truncate_errors(
    mut errors: Vec<ServerError>,
    code: ErrorCode,
    maximum: usize,
) -> Vec<ServerError> {
    if errors.len() > maximum {
        errors.truncate(maximum);
        errors.push(LimitExceeded::more_errors(code, maximum).into());
    }
    errors
}
