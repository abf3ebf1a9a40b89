//! Why a token stands for nobody.

/// Why a token stands for nobody, or cannot be looked into now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// It is none of the API keys.
    UnknownApiKey,
    /// It is no JWT that can be read.
    Malformed,
    /// It is signed with an algorithm that is not accepted.
    Algorithm,
    /// It is signed with a key that the issuer does not have.
    UnknownKey,
    /// The signature is not that of the key.
    Signature,
    /// A claim is missing, or is not what it has to be.
    Claims,
    /// Somebody else has issued it.
    Issuer,
    /// It is meant for somebody else.
    Audience,
    /// Its time is over.
    Expired,
    /// Its time is yet to come.
    NotYetValid,
    /// The issuer's keys could not be fetched so far: a fault on our side.
    KeysUnavailable,
    /// Its signature was not checked, since there are more checks than `callers.verifications_per_second` allows.
    OverBudget,
}

impl Rejection {
    /// Every one that there is.
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

    /// One of a few words, for the log and for counting.
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

    /// What the client is told: what to do, and nothing of what was sent.
    pub fn text(self) -> &'static str {
        match self {
            Self::UnknownApiKey => {
                "The API key is not known here. Send \"Authorization: Bearer <key>\" with one that the gateway's operator \
                 has given you."
            }
            Self::Malformed => {
                "The token is no JWT that can be read. Send the one that its issuer gave you, whole."
            }
            Self::Algorithm => "The token is signed with an algorithm that is not accepted here.",
            Self::UnknownKey => {
                "The token is signed with a key that its issuer does not have, or has no more. Get a new one."
            }
            Self::Signature => {
                "The token's signature is not right. Send the one that its issuer gave you, unchanged."
            }
            Self::Claims => {
                "The token lacks a claim, or has one that is not right: exp, iss, aud and sub are needed."
            }
            Self::Issuer => "The token is from an issuer that is not trusted here.",
            Self::Audience => "The token is meant for somebody else: its aud is not this gateway.",
            Self::Expired => "The token has expired. Get a new one.",
            Self::NotYetValid => "The token is not valid yet. Wait, or set your issuer's clock.",
            Self::KeysUnavailable => {
                "Tokens cannot be verified at the moment: their issuer's keys cannot be fetched. Try again later."
            }
            Self::OverBudget => {
                "More tokens have to be verified than this gateway allows. Try again shortly."
            }
        }
    }
}
