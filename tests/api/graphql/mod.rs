//! GraphQL: schema, execution, and the limits of an operation.

mod cost;
mod execution;
mod federation;
mod hostile;
mod introspection;
mod limits;
mod literals;
mod persisted_queries;
mod persisted_queries_memory;
mod projection;
mod request_errors;
mod response_size;
mod schema;
mod selections;
mod syntax;
mod trusted_document_reloads;
mod trusted_documents;
