//! The words that clients get: a closed set of codes with fixed texts, and the one place where faults of the upstream
//! are translated into them.

pub mod echo;
pub mod limit;
pub mod limit_errors;

use std::{borrow::Cow, time::Duration};

use async_graphql::{ErrorExtensionValues, ServerError, Value};

use self::limit::OverLimit;

/// How long a client is asked to wait when the gateway itself has too much to do.
pub(crate) const OVERLOADED_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Everything that a client can be told went wrong. The texts never repeat the upstream's body, its address or a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiError {
    /// No token, a malformed one, or one that the upstream did not accept.
    Unauthenticated(Cow<'static, str>),
    /// The upstream says that the caller may not see this.
    Forbidden,
    /// There is no appointment by the id that is to be changed or watched.
    NotFound,
    /// The appointment is not in a state that allows the change.
    Conflict,
    /// A change may or may not have happened.
    OutcomeUnknown,
    /// A bad argument or variable.
    BadUserInput(String),
    /// Too many requests.
    RateLimited {
        /// When to come back, where it is known.
        retry_after: Option<Duration>,
    },
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// The upstream cannot be reached or failed.
    UpstreamUnavailable {
        /// When to come back, where it is known.
        retry_after: Option<Duration>,
    },
    /// Who asks cannot be told now.
    CannotIdentify(&'static str),
    /// The upstream failed while it was asked for a change.
    ChangeFailed,
    /// The upstream's answer is not what its API promises.
    UpstreamInvalidResponse(&'static str),
    /// Refused before GraphQL: method, media type, body, headers.
    BadRequest(Cow<'static, str>),
    /// The query text is no GraphQL.
    ParseFailed(String),
    /// The query does not fit the schema.
    ValidationFailed(String),
    /// A limit refuses: what code it has is the limit's to say.
    OverLimit(Box<OverLimit>),
    /// The request names a persisted query and brings no text.
    PersistedQueryNotSupported,
    /// A change that was not sent, because one before it in the same operation failed. No client sees it: the failure
    /// leaves no data to put it in.
    NotRun,
    /// A fault of the gateway.
    Internal,
}

/// Every code that a client can be told.
pub const CODES: &[&str] = &[
    "UNAUTHENTICATED",
    "FORBIDDEN",
    "NOT_FOUND",
    "CONFLICT",
    "OUTCOME_UNKNOWN",
    "BAD_USER_INPUT",
    "RATE_LIMITED",
    "UPSTREAM_TIMEOUT",
    "UPSTREAM_UNAVAILABLE",
    "UPSTREAM_INVALID_RESPONSE",
    "OVERLOADED",
    "BAD_REQUEST",
    "GRAPHQL_PARSE_FAILED",
    "GRAPHQL_VALIDATION_FAILED",
    "QUERY_TOO_COMPLEX",
    "PERSISTED_QUERY_NOT_SUPPORTED",
    "INTERNAL",
];

impl ApiError {
    /// The stable `extensions.code`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unauthenticated(_) => "UNAUTHENTICATED",
            Self::Forbidden => "FORBIDDEN",
            Self::NotFound => "NOT_FOUND",
            Self::Conflict => "CONFLICT",
            Self::OutcomeUnknown => "OUTCOME_UNKNOWN",
            Self::BadUserInput(_) => "BAD_USER_INPUT",
            Self::RateLimited { .. } => "RATE_LIMITED",
            Self::UpstreamTimeout => "UPSTREAM_TIMEOUT",
            Self::UpstreamUnavailable { .. } | Self::CannotIdentify(_) | Self::ChangeFailed => {
                "UPSTREAM_UNAVAILABLE"
            }
            Self::UpstreamInvalidResponse(_) => "UPSTREAM_INVALID_RESPONSE",
            Self::BadRequest(_) => "BAD_REQUEST",
            Self::ParseFailed(_) => "GRAPHQL_PARSE_FAILED",
            Self::ValidationFailed(_) => "GRAPHQL_VALIDATION_FAILED",
            Self::OverLimit(limited) => limited.code,
            Self::PersistedQueryNotSupported => "PERSISTED_QUERY_NOT_SUPPORTED",
            Self::NotRun => "NOT_RUN",
            Self::Internal => "INTERNAL",
        }
    }

    /// What happened and what to do about it.
    pub fn message(&self) -> Cow<'static, str> {
        match self {
            Self::Unauthenticated(text) | Self::BadRequest(text) => text.clone(),
            Self::Forbidden => "You may not do this with what your token allows.".into(),
            Self::NotFound => "There is no appointment by this id.".into(),
            Self::Conflict => "The appointment is not in a state that allows this change. Read it and decide anew.".into(),
            Self::OutcomeUnknown => {
                "The change was sent, but its answer was lost: it may have happened. Read before you send it again.".into()
            }
            Self::BadUserInput(text) | Self::ParseFailed(text) | Self::ValidationFailed(text) => {
                echo::concise(text).into_owned().into()
            }
            Self::RateLimited { retry_after: Some(wait) } => {
                format!("Too many requests. Try again in {} s.", whole_seconds(*wait)).into()
            }
            Self::RateLimited { retry_after: None } => "Too many requests. Try again later.".into(),
            Self::UpstreamTimeout => "The appointments service did not answer in time. Try again.".into(),
            Self::UpstreamUnavailable { .. } => {
                "The appointments service cannot be reached or failed. Try again later.".into()
            }
            Self::ChangeFailed => {
                "The appointments service failed when it was asked for this change: it may have happened. Read before \
                 you send it again."
                    .into()
            }
            Self::UpstreamInvalidResponse(text) | Self::CannotIdentify(text) => (*text).into(),
            Self::OverLimit(limited) => limited.message.clone(),
            Self::PersistedQueryNotSupported => "PersistedQueryNotSupported".into(),
            Self::NotRun => "This change was not sent, since one before it failed.".into(),
            Self::Internal => {
                "The gateway failed. Quote the x-request-id of this answer to its operator.".into()
            }
        }
    }

    /// `code`, and what else a program can act on.
    pub fn extensions(&self) -> ErrorExtensionValues {
        let mut extensions = ErrorExtensionValues::default();
        extensions.set("code", self.code());
        if let Some(wait) = self.retry_after() {
            extensions.set("retryAfterSeconds", whole_seconds(wait));
        }
        if let Self::OverLimit(limited) = self {
            extensions.set("limit", limited.limit);
            for (name, number) in [("maximum", limited.maximum), ("value", limited.value)] {
                if let Some(number) = number {
                    extensions.set(name, number);
                }
            }
        }
        extensions
    }

    /// When to come back, where that is known and helps.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } | Self::UpstreamUnavailable { retry_after } => *retry_after,
            Self::OverLimit(limited) => limited.retry_after,
            _ => None,
        }
    }
}

/// The `extensions.code` of an error.
pub fn code(error: &ServerError) -> Option<&str> {
    word(error, "code")
}

/// Gives `error` a code, if it has none: with its text, as `otherwise` says.
pub(crate) fn ensure_code(error: &mut ServerError, otherwise: impl FnOnce(String) -> ApiError) {
    if code(error).is_none() {
        let api_error = otherwise(std::mem::take(&mut error.message));
        error.message = api_error.message().into_owned();
        error.extensions = Some(api_error.extensions());
    }
}

/// The `extensions.limit` of an error.
pub fn limit(error: &ServerError) -> Option<&str> {
    word(error, "limit")
}

fn word<'e>(error: &'e ServerError, name: &str) -> Option<&'e str> {
    match error.extensions.as_ref()?.get(name)? {
        Value::String(word) => Some(word),
        _ => None,
    }
}

/// Rounded up: who waits that long waits long enough.
pub fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

impl From<ApiError> for async_graphql::Error {
    fn from(error: ApiError) -> Self {
        Self { message: error.message().into_owned(), source: None, extensions: Some(error.extensions()) }
    }
}

impl From<ApiError> for ServerError {
    /// Without a place in the query or in the answer.
    fn from(error: ApiError) -> Self {
        let mut server_error = Self::new(error.message(), None);
        server_error.extensions = Some(error.extensions());
        server_error
    }
}
