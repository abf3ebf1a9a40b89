//! A validation error of the upstream in the GraphQL schema.

use async_graphql::SimpleObject;

/// A rejected value of the input.
#[derive(SimpleObject)]
pub(crate) struct UserError {
    /// The path of the input field, in GraphQL names: ["claimant", "email"]. Null if the error concerns no single
    /// field.
    pub(crate) field: Option<Vec<String>>,
    /// The reason for the rejection.
    pub(crate) message: &'static str,
}
