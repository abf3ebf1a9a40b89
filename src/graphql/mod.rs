//! GraphQL: the schema, and how an operation is made of a request and run.
//!
//! [`Api::parse`] reads a request within the limits, [`Api::prepare`] makes of it an operation that is valid and can be
//! run, [`Api::execute`] and [`Api::subscribe`] run it. All of them know nothing of HTTP, and a panic within one of them
//! is the answer to that operation alone: what is shared with others is never left half changed.

pub mod api;
pub mod execute;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod pipeline;
pub mod schema;
