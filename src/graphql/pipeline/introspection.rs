//! Rejection of schema introspection (`graphql.introspection = false`; specification, section 4). `__typename` stays allowed.

use async_graphql::{
    Pos, ServerError,
    parser::types::{ExecutableDocument, Selection, SelectionSet},
};

use crate::error::ApiError;

/// Checks that `document` selects neither `__schema` nor `__type`.
///
/// # Errors
/// `GRAPHQL_VALIDATION_FAILED` at the position of the first such field.
pub(crate) fn reject(document: &ExecutableDocument) -> Result<(), ServerError> {
    let of_operations = document.operations.iter().map(|(_, operation)| &operation.node.selection_set.node);
    let of_fragments = document.fragments.values().map(|fragment| &fragment.node.selection_set.node);
    let positions = of_operations.chain(of_fragments).filter_map(first_introspection);
    let Some(at) = positions.min() else { return Ok(()) };
    let text = "Introspection is disabled on this server. Remove __schema and __type from the query.";
    Err(ApiError::ValidationFailed(text.to_owned()).at([at]))
}

/// The position of the first introspection field in `set`. Recursion is bounded by the nesting of the text.
fn first_introspection(set: &SelectionSet) -> Option<Pos> {
    set.items.iter().find_map(|selection| match &selection.node {
        Selection::Field(field) if matches!(field.node.name.node.as_str(), "__schema" | "__type") => {
            Some(selection.pos)
        }
        Selection::Field(field) => first_introspection(&field.node.selection_set.node),
        Selection::InlineFragment(fragment) => first_introspection(&fragment.node.selection_set.node),
        Selection::FragmentSpread(_) => None,
    })
}
