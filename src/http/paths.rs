//! Paths used by more than one module.

/// The GraphQL endpoint.
pub(crate) const GRAPHQL: &str = "/graphql";
