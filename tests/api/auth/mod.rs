//! Caller authentication, and the gateway's own token.

mod callers_api_keys;
mod callers_flood;
mod callers_jwt;
mod callers_keys;
mod callers_withdrawal;
mod key_rotation;
mod pass_through;
mod service_identity;
mod service_token;
mod token_endpoint;
mod verdicts;
