//! The appointments REST API: the one way out of the gateway.
//!
//! Nothing above this module sees the upstream's JSON or a status code: [`UpstreamClient`] answers with
//! [`model`](crate::model) values or an [`UpstreamError`]. [`client`] knows what to ask and how to read the answer,
//! [`attempts`] when, how often and how many at once. What is asked beside that API goes out here too: the gateway's
//! own token ([`ServiceToken`]), and what else is [`HttpClient`].

pub mod answer;
pub mod api_error;
pub mod authorisation;
pub mod cache_control;
pub mod client;
pub mod deadline;
pub mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod resilience;
pub mod service_token;
pub mod wire;
