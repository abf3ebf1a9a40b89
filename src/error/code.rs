//! Error codes: the closed set of `extensions.code`.

/// Defines an enum whose variants each have one public text.
macro_rules! named {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident => $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$doc])* $variant,)+
        }

        impl $name {
            /// All variants.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// The public texts of all variants.
            pub const NAMES: &'static [&'static str] = &[$($text),+];

            /// The public text.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }

            /// The variant with this public text.
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|known| known.as_str() == text)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(super) use named;

named! {
    /// The code of an error, for programs to act on.
    ErrorCode {
        /// A missing, malformed or rejected credential.
        Unauthenticated => "UNAUTHENTICATED",
        /// A credential without the required permission.
        Forbidden => "FORBIDDEN",
        /// An unknown appointment in a change or a subscription.
        NotFound => "NOT_FOUND",
        /// A change that the appointment's state does not allow.
        Conflict => "CONFLICT",
        /// A change that may or may not have been applied.
        OutcomeUnknown => "OUTCOME_UNKNOWN",
        /// An invalid argument or variable.
        BadUserInput => "BAD_USER_INPUT",
        /// Too many requests by the caller.
        RateLimited => "RATE_LIMITED",
        /// No response from the upstream in time.
        UpstreamTimeout => "UPSTREAM_TIMEOUT",
        /// An unreachable or failing upstream.
        UpstreamUnavailable => "UPSTREAM_UNAVAILABLE",
        /// A response from the upstream that violates its API.
        UpstreamInvalidResponse => "UPSTREAM_INVALID_RESPONSE",
        /// Load shedding by the gateway.
        Overloaded => "OVERLOADED",
        /// An invalid HTTP request.
        BadRequest => "BAD_REQUEST",
        /// Text that is not valid GraphQL syntax.
        ParseFailed => "GRAPHQL_PARSE_FAILED",
        /// A document that does not match the schema.
        ValidationFailed => "GRAPHQL_VALIDATION_FAILED",
        /// An operation or a response beyond a limit.
        QueryTooComplex => "QUERY_TOO_COMPLEX",
        /// An unknown persisted query.
        PersistedQueryNotFound => "PERSISTED_QUERY_NOT_FOUND",
        /// A text with another hash than the request states.
        PersistedQueryHashMismatch => "PERSISTED_QUERY_HASH_MISMATCH",
        /// A persisted query, while these are disabled.
        PersistedQueryNotSupported => "PERSISTED_QUERY_NOT_SUPPORTED",
        /// A text, while only trusted documents run.
        PersistedQueryIdRequired => "PERSISTED_QUERY_ID_REQUIRED",
        /// A fault of the gateway.
        Internal => "INTERNAL",
        /// A skipped change. Internal: such errors are removed from every response.
        ChangeSkipped => "CHANGE_SKIPPED",
    }
}

/// The codes that clients can receive: all but the internal last one.
pub const CODES: &[&str] = match ErrorCode::NAMES {
    [public @ .., _] => public,
    [] => &[],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_codes_are_all_but_the_internal_one() {
        let internal = ErrorCode::ChangeSkipped.as_str();
        assert!(!CODES.contains(&internal));
        assert_eq!(CODES.len() + 1, ErrorCode::ALL.len());
    }

    #[test]
    fn codes_round_trip() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::parse(code.as_str()), Some(*code));
        }
        assert_eq!(ErrorCode::parse("UNKNOWN"), None);
    }
}
