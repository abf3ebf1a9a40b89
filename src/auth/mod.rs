//! Authentication: from the bearer token of a request to a [`Caller`](crate::caller::Caller).
//!
//! In pass-through mode the upstream decides whether a token is valid, so each token is a caller of its own. In service
//! mode calls use the gateway's own token, so the gateway authenticates callers itself: by an API key
//! ([`api_keys`](crate::credentials::api_keys)) or by a JWT ([`jwt`]) that is verified against the keys of its issuer
//! ([`jwks`](crate::credentials::jwks)). Callers with a JWT are rejected once the issuer has removed the key.

pub mod bearer;
pub mod claims;
pub mod identity;
pub mod jwt;
pub mod rejected;
pub mod verification_budget;
