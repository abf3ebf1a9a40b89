//! `graphql.*`: introspection, suggestions, federation and the document cache.

use bytesize::ByteSize;

/// `graphql.*`: visibility of the schema, and the size of the document cache.
#[derive(Debug, Clone, Default)]
pub struct GraphqlConfig {
    /// `graphql.introspection`
    pub introspection: bool,
    /// `graphql.suggestions`
    pub suggestions: bool,
    /// `graphql.federation`
    pub federation: bool,
    /// `graphql.documents_size`
    pub documents_size: ByteSize,
}
