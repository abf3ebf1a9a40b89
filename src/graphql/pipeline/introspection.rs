//! Introspection, where it is switched off: GraphQL, section 4. `__typename` is no secret and is served as ever.

use async_graphql::{
    Pos, ServerError,
    parser::types::{ExecutableDocument, Selection, SelectionSet},
};

use crate::error::ApiError;

/// Makes sure that `document` does not ask for the schema, wherever in it.
///
/// # Errors
/// `GRAPHQL_VALIDATION_FAILED`, with the first place at which it does.
pub(crate) fn refuse(document: &ExecutableDocument) -> Result<(), ServerError> {
    let of_operations = document.operations.iter().map(|(_, operation)| &operation.node.selection_set.node);
    let of_fragments = document.fragments.values().map(|fragment| &fragment.node.selection_set.node);
    let places = of_operations.chain(of_fragments).filter_map(asks_at);
    let Some(at) = places.min() else { return Ok(()) };
    let text =
        "Introspection is switched off here: the schema cannot be asked for. Leave out __schema and __type.";
    let mut error = ServerError::from(ApiError::ValidationFailed(text.to_owned()));
    error.locations.push(at);
    Err(error)
}

/// Where `set` itself asks first. It recurses with the nesting of the text, which is bounded.
fn asks_at(set: &SelectionSet) -> Option<Pos> {
    set.items.iter().find_map(|selection| match &selection.node {
        Selection::Field(field) if matches!(field.node.name.node.as_str(), "__schema" | "__type") => {
            Some(selection.pos)
        }
        Selection::Field(field) => asks_at(&field.node.selection_set.node),
        Selection::InlineFragment(fragment) => asks_at(&fragment.node.selection_set.node),
        Selection::FragmentSpread(_) => None,
    })
}
