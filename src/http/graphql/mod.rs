//! The GraphQL endpoint and its transports: GraphQL over HTTP, server-sent events ([`sse`]) and WebSocket
//! ([`websocket`]).
//!
//! The steps of [`handler`], each of which may reject the request: method, WebSocket upgrade, deadline
//! ([`request_timeout`]), [`idempotency_key`], authentication, rate limit, content negotiation ([`accept`]), CSRF protection ([`csrf`]), body
//! or query string ([`request`]), response cache ([`response_cache`]), parameters ([`batch`] for arrays), concurrency limit,
//! operation, response ([`status`]), [`delivery`] ([`client_cache`]).

pub mod accept;
pub mod batch;
pub mod client_cache;
pub mod csrf;
pub mod delivery;
pub mod encoded_response;
pub mod entity_tag;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod handler;
pub mod idempotency_key;
pub mod request;
pub mod request_timeout;
pub mod response_cache;
pub mod run;
pub mod sse;
pub mod status;
pub mod websocket;
