//! The credentials of callers: API keys, JWK sets, signature verification, and the reasons for rejection.

pub mod api_keys;
pub mod jwks;
pub mod key_ring;
pub mod rejection;
pub mod signature;
