//! The appointments REST API: the one way out of the gateway.
//!
//! Nothing above this module sees the upstream's JSON or a status code: [`UpstreamClient`] answers with
//! [`model`](crate::model) values or an [`UpstreamError`]. [`client`] knows what to ask and how to read the answer,
//! [`attempts`] when, how often and how many at once. What is asked beside that API goes out here too: the gateway's
//! own token ([`ServiceToken`]), and what else is [`Outside`].

mod answer;
mod attempts;
mod authorisation;
mod breaker;
mod budget;
mod cache_control;
mod client;
mod deadline;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
mod http;
mod latency;
mod outside;
mod pauses;
mod retry_after;
mod service_token;
mod wire;

pub use answer::{Answer, Applied, Page, PageItem};
pub use attempts::Turn;
pub use cache_control::Keep;
pub use client::UpstreamClient;
pub use deadline::Deadline;
pub use error::{Revocation, UpstreamError};
pub use outside::Outside;
pub use service_token::ServiceToken;
pub use wire::{NoAppointment, appointment as decode};
