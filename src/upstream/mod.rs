//! The client of the appointments REST API.
//!
//! Modules above this one see neither the upstream's JSON nor a status code. [`UpstreamClient`](client::UpstreamClient)
//! returns [`model`](crate::model) values or an [`UpstreamError`](error::UpstreamError). [`client`] builds requests and
//! decodes responses; [`resilience`] decides when a call is made, how often, and how many run at once.
//! [`service_token`] fetches the gateway's own access token.

pub mod authorisation;
pub mod cache_control;
pub mod client;
pub mod deadline;
pub mod error;
pub mod error_mapping;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod outcome;
pub mod resilience;
pub mod response;
pub mod service_token;
pub mod token_response;
pub mod validators;
pub mod wire;
