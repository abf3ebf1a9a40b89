//! The appointments REST API: the one way out of the gateway.
//!
//! Nothing above this module sees the upstream's JSON or a status code: [`UpstreamClient`] answers with
//! [`model`](crate::model) values or an [`UpstreamError`]. What is asked beside that API goes out here too: the gateway's
//! own token ([`ServiceToken`]), and what else is [`Outside`].

mod authorisation;
mod cache_control;
mod client;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
mod http;
mod outside;
mod retry_after;
mod service_token;
mod wire;

pub use cache_control::Keep;
pub use client::{Answer, Applied, Page, Turn, UpstreamClient};
pub use error::UpstreamError;
pub use outside::Outside;
pub use service_token::ServiceToken;
