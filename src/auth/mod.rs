//! Who asks: from the token that came with a request to a [`Caller`].
//!
//! Where each caller's own token goes to the upstream, the upstream decides what it is worth, and anything is taken for a
//! caller of its own. Where the upstream is asked with the gateway's token, it would answer anybody, so here is the place
//! where callers show who they are: with an API key ([`api_keys`]) or a JWT ([`jwt`]) that is verified against the keys of
//! its issuer ([`key_set`]). A caller with a JWT knows when the issuer withdraws the key.

pub mod bearer;
pub mod claims;
pub mod identity;
pub mod jwt;
pub mod rejected;
pub mod verification_budget;
