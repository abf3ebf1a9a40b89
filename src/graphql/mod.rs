//! GraphQL: the schema, the pipeline from a request to a planned operation, and its execution. Independent of HTTP.
//!
//! [`parse`](api::Api::parse) applies the limits, [`prepare`](api::Api::prepare) validates and plans,
//! [`execute`](api::Api::execute) and [`subscribe`](api::Api::subscribe) run the operation. A panic in one of them fails
//! that operation alone. Shared state stays consistent.

pub mod api;
pub mod async_graphql_compat;
pub mod execute;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod persisted;
pub mod pipeline;
pub mod schema;
pub mod trusted_documents;
