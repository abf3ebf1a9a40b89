//! An input that the upstream did not accept, as clients see it.

use async_graphql::SimpleObject;

/// Something in the input that is not accepted.
#[derive(SimpleObject)]
pub(crate) struct UserError {
    /// The path into the input, in GraphQL names: ["claimant", "email"]. Null where it is not about one field.
    pub(crate) field: Option<Vec<String>>,
    /// What is wrong with it.
    pub(crate) message: &'static str,
}
