//! Credential material of callers, parsed: API keys, JWK sets, signatures, and the reasons for rejection.

pub mod api_keys;
pub mod jwks;
pub mod rejection;
pub mod signature;
