//! The gateway's face to clients: routes, and what every request passes on its way to them.
//!
//! Everything that is refused anywhere here leaves as a `Refusal`, in the `errors` shape of GraphQL.

pub mod compression;
pub mod concurrency;
pub mod cors;
pub mod gateway;
pub mod graphiql;
pub mod graphql;
pub mod header_limits;
pub mod health;
pub mod hyper_errors;
pub mod metrics;
pub mod paths;
pub mod rate_limit;
pub mod refusal;
pub mod request_framing;
pub mod request_id;
pub mod router;
pub mod security_headers;
pub mod unread_body;
pub mod write_timeout;
