//! `graphql.*`: introspection, suggestions and the document cache.

use bytesize::ByteSize;

/// `graphql.*`: what clients are told of the schema, and what is remembered of their queries.
#[derive(Debug, Clone, Default)]
pub struct GraphqlConfig {
    /// `graphql.introspection`
    pub introspection: bool,
    /// `graphql.suggestions`
    pub suggestions: bool,
    /// `graphql.documents_size`
    pub documents_size: ByteSize,
}
