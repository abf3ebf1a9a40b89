//! The reasons for the rejection of a token.

/// The reason why a token is rejected, or cannot be verified at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// An unknown API key.
    UnknownApiKey,
    /// A malformed JWT.
    Malformed,
    /// An algorithm that is not accepted.
    Algorithm,
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
        Self::Algorithm,
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
            Self::Algorithm => "algorithm",
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

    /// The message for the client. It does not quote the token.
    pub fn text(self) -> &'static str {
        match self {
            Self::UnknownApiKey => {
                "Unknown API key. Send the header \"Authorization: Bearer <key>\" with a key from the gateway's operator."
            }
            Self::Malformed => "Malformed JWT. Send the complete token from its issuer.",
            Self::Algorithm => {
                "The token's signature algorithm is not accepted. Get a token with one of the gateway's algorithms \
                 (callers.algorithms)."
            }
            Self::UnknownKey => {
                "The token is signed with a key that is not among its issuer's current keys. Get a new token."
            }
            Self::Signature => "The token's signature is invalid. Send the unchanged token from its issuer.",
            Self::Claims => {
                "A claim of the token is missing or invalid: exp, iss, aud and sub are required, nbf must be a number."
            }
            Self::Issuer => {
                "The token's issuer (iss) is not trusted by this gateway. Get a token from its issuer."
            }
            Self::Audience => "The token's audience (aud) is not this gateway. Get a token for this gateway.",
            Self::Expired => "The token has expired. Get a new token.",
            Self::NotYetValid => {
                "The token is not valid yet (nbf). Retry later, or correct the clock of its issuer."
            }
            Self::KeysUnavailable => {
                "Tokens cannot be verified at the moment: their issuer's keys could not be fetched. Try again later."
            }
            Self::OverBudget => "The limit of token verifications per second is reached. Try again shortly.",
        }
    }
}
