//! The one endpoint: GraphQL over HTTP to the letter of its specification, and the two transports that carry
//! subscriptions.
//!
//! A request goes through here from top to bottom, and each step either hands on less than it got or refuses:
//! method → WebSocket ([`websocket`])? → caller, and how often it asks → media types ([`negotiate`]) → body or
//! query string → an answer that is kept ([`mod@answers`])? → parameters ([`request`]) → its turn → operation →
//! one answer, or a stream of them ([`event_stream`]).

pub mod accept;
pub mod csrf;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod handler;
pub mod request;
pub mod response_cache;
pub mod run;
pub mod sse;
pub mod websocket;
