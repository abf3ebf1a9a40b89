//! The reasons for the rejection of a token.

use std::borrow::Cow;

/// The reason why a token is rejected, or cannot be verified at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// An unknown API key.
    UnknownApiKey,
    /// A malformed JWT.
    Malformed,
    /// An algorithm that is not accepted.
    Algorithm {
        /// Its registered name.
        name: Option<&'static str>,
    },
    /// A key that is not among the issuer's keys.
    UnknownKey,
    /// An invalid signature.
    Signature,
    /// A missing or invalid claim.
    Claims,
    /// Another issuer.
    Issuer,
    /// Another audience.
    Audience,
    /// Expired.
    Expired,
    /// Not valid yet.
    NotYetValid,
    /// The issuer's keys have not been fetched successfully: a fault of the gateway or the issuer.
    KeysUnavailable,
    /// The budget of signature checks (`callers.verifications_per_second`) is used up.
    OverBudget,
}

impl Rejection {
    /// All reasons.
    pub const ALL: [Self; 12] = [
        Self::UnknownApiKey,
        Self::Malformed,
        Self::Algorithm { name: None },
        Self::UnknownKey,
        Self::Signature,
        Self::Claims,
        Self::Issuer,
        Self::Audience,
        Self::Expired,
        Self::NotYetValid,
        Self::KeysUnavailable,
        Self::OverBudget,
    ];

    /// The value of a metric label and of a log field.
    pub fn reason(self) -> &'static str {
        match self {
            Self::UnknownApiKey => "unknown_api_key",
            Self::Malformed => "malformed",
            Self::Algorithm { .. } => "algorithm",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::Claims => "claims",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::KeysUnavailable => "keys_unavailable",
            Self::OverBudget => "over_budget",
        }
    }

    /// The message for the client: the gateway's verdict, not that of the upstream. It does not quote the token.
    pub fn text(self) -> Cow<'static, str> {
        let text = match self {
            Self::UnknownApiKey => {
                "The gateway does not know this API key. Send the header \"Authorization: Bearer <key>\" with a key from \
                 the gateway's operator."
            }
            Self::Malformed => {
                "The gateway rejected the token: it is not a well-formed JWT. Send the complete token from its issuer."
            }
            Self::Algorithm { name: Some(name) } => {
                return format!(
                    "The gateway does not accept the token's signature algorithm, {name}. Get a token with one of the \
                     gateway's algorithms (callers.algorithms)."
                )
                .into();
            }
            Self::Algorithm { name: None } => {
                "The gateway does not accept the token's signature algorithm. Get a token with one of the gateway's \
                 algorithms (callers.algorithms)."
            }
            Self::UnknownKey => {
                "The gateway rejected the token: it is signed with a key that is not among its issuer's current keys. Get \
                 a new token."
            }
            Self::Signature => {
                "The gateway rejected the token: its signature is invalid. Send the unchanged token from its issuer."
            }
            Self::Claims => {
                "The gateway rejected the token: a claim is missing or invalid. exp, iss, aud and sub are required, nbf \
                 must be a number."
            }
            Self::Issuer => {
                "The gateway does not trust the token's issuer (iss). Get a token from one of the gateway's issuers."
            }
            Self::Audience => {
                "The gateway rejected the token: it is meant for another audience (aud). Get a token for this gateway."
            }
            Self::Expired => "The gateway rejected the token: it has expired. Get a new token.",
            Self::NotYetValid => {
                "The gateway rejected the token: it is not valid yet (nbf). Retry later, or correct the clock of its \
                 issuer."
            }
            Self::KeysUnavailable => {
                "Tokens cannot be verified at the moment: the gateway could not fetch their issuer's keys. Try again \
                 later."
            }
            Self::OverBudget => "The limit of token verifications per second is reached. Try again shortly.",
        };
        text.into()
    }
}
