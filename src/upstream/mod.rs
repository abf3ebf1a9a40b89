//! The appointments REST API: the one way out of the gateway.
//!
//! Nothing above this module sees the upstream's JSON or a status code: [`UpstreamClient`] answers with
//! [`model`](crate::model) values or an [`UpstreamError`].

mod cache_control;
mod client;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
mod retry_after;
mod wire;

pub use cache_control::Keep;
pub use client::{Answer, Applied, Page, Turn, UpstreamClient};
pub use error::UpstreamError;
