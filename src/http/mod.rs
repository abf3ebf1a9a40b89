//! The HTTP layer: the router, and the checks that every request passes before its handler. [`router`] lists them in
//! order.
//!
//! Every rejected request gets a [`refusal::Refusal`]: an HTTP status and a GraphQL error document.

pub mod compression;
pub mod concurrency;
pub mod connection_state;
pub mod cors;
pub mod gateway;
pub mod graphiql;
pub mod graphql;
pub mod header_limits;
pub mod health;
pub mod host;
pub mod hyper_errors;
pub mod lingering_close;
pub mod metrics;
pub mod quality_value;
pub mod rate_limit;
pub mod read_timeout;
pub mod refusal;
pub mod request_framing;
pub mod request_id;
pub mod router;
pub mod security_headers;
pub mod unread_body;
pub mod write_timeout;
