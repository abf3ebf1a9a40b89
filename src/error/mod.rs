//! Client-visible errors: a closed set of codes and messages. [`crate::upstream::error_mapping`] translates upstream errors.

pub mod code;
pub mod echo;
pub mod limit;
pub mod limit_errors;

use std::{borrow::Cow, time::Duration};

use async_graphql::{ErrorExtensionValues, Pos, ServerError, Value};

use self::{
    code::ErrorCode,
    limit::{Limit, LimitExceeded},
};

/// The `Retry-After` of load shedding.
pub(crate) const OVERLOADED_RETRY_AFTER: Duration = Duration::from_secs(1);

/// A client-visible error. Messages never contain the upstream's response, its address or a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiError {
    /// The request has no token.
    CredentialMissing,
    /// The token is malformed or rejected.
    Unauthenticated(Cow<'static, str>),
    /// The upstream denies the caller access.
    Forbidden,
    /// The appointment to change or to watch does not exist.
    NotFound,
    /// The appointment's state does not allow the change.
    Conflict,
    /// The change may or may not have been applied.
    OutcomeUnknown,
    /// An argument or a variable is invalid.
    BadUserInput(String),
    /// The upstream answered 429.
    RateLimited {
        /// When to retry, if known.
        retry_after: Option<Duration>,
    },
    /// The upstream did not respond in time.
    UpstreamTimeout,
    /// The upstream is unreachable or failed.
    UpstreamUnavailable {
        /// When to retry, if known.
        retry_after: Option<Duration>,
    },
    /// The caller's identity cannot be verified at the moment, or the gateway has no accepted token of its own.
    IdentityUnavailable(Cow<'static, str>),
    /// The caller's identity could not be verified in time.
    IdentityTimeout,
    /// The upstream failed while it processed a change.
    ChangeFailed,
    /// The upstream's response violates its API.
    UpstreamInvalidResponse(&'static str),
    /// The HTTP request is invalid: method, media type, body or headers.
    BadRequest(Cow<'static, str>),
    /// The document has a syntax error.
    ParseFailed(String),
    /// The document does not match the schema.
    ValidationFailed(String),
    /// A limit is exceeded. The limit determines the code.
    LimitExceeded(Box<LimitExceeded>),
    /// The request names a persisted query that is unknown to the caller.
    PersistedQueryNotFound,
    /// The hash of a persisted query does not match the text.
    PersistedQueryHashMismatch,
    /// The text in the request is not that of the trusted document which it names.
    PersistedQueryTextMismatch,
    /// The request has a text, and only trusted documents run.
    PersistedQueryIdRequired,
    /// The request names a persisted query, but these are disabled (`graphql.documents_size` is 0).
    PersistedQueryNotSupported,
    /// A change was skipped because an earlier one in the operation failed. An internal marker, which is removed from every
    /// response.
    ChangeSkipped,
    /// A fault of the gateway.
    Internal,
}

impl ApiError {
    /// The `extensions.code`.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::CredentialMissing | Self::Unauthenticated(_) => ErrorCode::Unauthenticated,
            Self::Forbidden => ErrorCode::Forbidden,
            Self::NotFound => ErrorCode::NotFound,
            Self::Conflict => ErrorCode::Conflict,
            Self::OutcomeUnknown => ErrorCode::OutcomeUnknown,
            Self::BadUserInput(_) => ErrorCode::BadUserInput,
            Self::RateLimited { .. } => ErrorCode::RateLimited,
            Self::UpstreamTimeout | Self::IdentityTimeout => ErrorCode::UpstreamTimeout,
            Self::UpstreamUnavailable { .. } | Self::IdentityUnavailable(_) | Self::ChangeFailed => {
                ErrorCode::UpstreamUnavailable
            }
            Self::UpstreamInvalidResponse(_) => ErrorCode::UpstreamInvalidResponse,
            Self::BadRequest(_) => ErrorCode::BadRequest,
            Self::ParseFailed(_) => ErrorCode::ParseFailed,
            Self::ValidationFailed(_) => ErrorCode::ValidationFailed,
            Self::LimitExceeded(exceeded) => exceeded.code,
            Self::PersistedQueryNotFound => ErrorCode::PersistedQueryNotFound,
            Self::PersistedQueryHashMismatch | Self::PersistedQueryTextMismatch => {
                ErrorCode::PersistedQueryHashMismatch
            }
            Self::PersistedQueryIdRequired => ErrorCode::PersistedQueryIdRequired,
            Self::PersistedQueryNotSupported => ErrorCode::PersistedQueryNotSupported,
            Self::ChangeSkipped => ErrorCode::ChangeSkipped,
            Self::Internal => ErrorCode::Internal,
        }
    }

    /// The problem and its remedy.
    pub fn message(&self) -> Cow<'static, str> {
        match self {
            Self::CredentialMissing => {
                "The bearer token is missing. Send the header \"Authorization: Bearer <token>\".".into()
            }
            Self::Unauthenticated(text) | Self::IdentityUnavailable(text) | Self::BadRequest(text) => text.clone(),
            Self::Forbidden => {
                "The appointments service denied access. The token does not permit this operation.".into()
            }
            Self::NotFound => "Appointment not found. Check the id.".into(),
            Self::Conflict => "The appointment's current state does not allow this change. Read the appointment before you retry.".into(),
            Self::OutcomeUnknown => {
                "The change was sent but its response was lost, so it may have been applied. Read the appointment before you retry.".into()
            }
            Self::BadUserInput(text) | Self::ParseFailed(text) | Self::ValidationFailed(text) => {
                echo::truncate_names(text).into_owned().into()
            }
            Self::RateLimited { retry_after: Some(wait) } => {
                format!("The appointments service limits the rate. Retry in {} s.", whole_seconds(*wait)).into()
            }
            Self::RateLimited { retry_after: None } => {
                "The appointments service limits the rate. Retry later.".into()
            }
            Self::UpstreamTimeout => "The appointments service did not respond in time. Retry.".into(),
            Self::IdentityTimeout => {
                "The gateway could not verify the token in time: the keys of its issuer did not arrive. Retry.".into()
            }
            Self::UpstreamUnavailable { .. } => {
                "The appointments service is unavailable. Retry later.".into()
            }
            Self::ChangeFailed => {
                "The appointments service failed while processing this change, so it may have been applied. Read the \
                 appointment before you retry."
                    .into()
            }
            Self::UpstreamInvalidResponse(text) => (*text).into(),
            Self::LimitExceeded(exceeded) => exceeded.message.clone(),
            // Clients compare these two messages byte by byte.
            Self::PersistedQueryNotFound => "PersistedQueryNotFound".into(),
            Self::PersistedQueryNotSupported => "PersistedQueryNotSupported".into(),
            Self::PersistedQueryHashMismatch => {
                "The sha256Hash in extensions.persistedQuery is not the hash of this query. Send the SHA-256 hash, in \
                 hexadecimal digits, of exactly the text in the parameter \"query\"."
                    .into()
            }
            Self::PersistedQueryTextMismatch => {
                "The text in \"query\" is not that of the trusted document with this id. Send the id without a text."
                    .into()
            }
            Self::PersistedQueryIdRequired => {
                "This gateway runs trusted documents only. Send the id of one, in \"documentId\" or \
                 \"extensions.persistedQuery\", without a text."
                    .into()
            }
            Self::ChangeSkipped => "This change was skipped because an earlier change failed.".into(),
            Self::Internal => {
                "Internal gateway error. Report the x-request-id of this response to the operator.".into()
            }
        }
    }

    /// The `extensions` of the error: its code and the details that a program can act on.
    pub fn extensions(&self) -> ErrorExtensionValues {
        let mut extensions = ErrorExtensionValues::default();
        extensions.set("code", self.code().as_str());
        if let Some(wait) = self.retry_after() {
            extensions.set("retryAfterSeconds", whole_seconds(wait));
        }
        if let Self::LimitExceeded(exceeded) = self {
            extensions.set("limit", exceeded.limit.as_str());
            for (name, number) in [("maximum", exceeded.maximum), ("value", exceeded.value)] {
                if let Some(number) = number {
                    extensions.set(name, number);
                }
            }
        }
        extensions
    }

    /// A request with the idempotency key of another one.
    pub(crate) fn key_of_other_request() -> Self {
        let message = "Idempotency-Key belongs to an earlier request with another document, operationName or \
                       variables. Send a new key with each new request.";
        Self::BadUserInput(message.to_owned())
    }

    /// The error with its locations in the document.
    pub(crate) fn at(self, locations: impl Into<Vec<Pos>>) -> ServerError {
        ServerError { locations: locations.into(), ..self.into() }
    }

    /// When to retry, if that is known and can help.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } | Self::UpstreamUnavailable { retry_after } => *retry_after,
            Self::LimitExceeded(exceeded) => exceeded.retry_after,
            _ => None,
        }
    }
}

/// The `extensions.code` of an error.
pub fn code(error: &ServerError) -> Option<ErrorCode> {
    ErrorCode::parse(text_extension(error, "code")?)
}

/// The `extensions.limit` of an error.
pub fn limit(error: &ServerError) -> Option<Limit> {
    Limit::parse(text_extension(error, "limit")?)
}

/// Converts an `error` without a code, given its text.
pub(crate) fn ensure_code(error: &mut ServerError, convert: impl FnOnce(String) -> ApiError) {
    if code(error).is_none() {
        let api_error = convert(std::mem::take(&mut error.message));
        error.message = api_error.message().into_owned();
        error.extensions = Some(api_error.extensions());
    }
}

fn text_extension<'e>(error: &'e ServerError, name: &str) -> Option<&'e str> {
    match error.extensions.as_ref()?.get(name)? {
        Value::String(text) => Some(text),
        _ => None,
    }
}

/// `wait` in seconds, rounded up.
pub fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

impl From<ApiError> for async_graphql::Error {
    fn from(error: ApiError) -> Self {
        Self { message: error.message().into_owned(), source: None, extensions: Some(error.extensions()) }
    }
}

impl From<ApiError> for ServerError {
    /// An error without location and path.
    fn from(error: ApiError) -> Self {
        let mut server_error = Self::new(error.message(), None);
        server_error.extensions = Some(error.extensions());
        server_error
    }
}
