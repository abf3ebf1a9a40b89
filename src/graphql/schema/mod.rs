//! The GraphQL schema: root types, object types, scalars and their resolvers.

pub mod connection;
pub mod cursor;
pub mod entities;
pub mod federation;
pub mod mutation;
pub mod nullable_appointment;
pub mod query;
pub mod request_limits;
pub mod scalars;
pub mod subscription;
pub mod type_index;
