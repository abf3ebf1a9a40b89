//! Paths that more than one module knows.

/// Where GraphQL is.
pub(crate) const GRAPHQL: &str = "/graphql";
