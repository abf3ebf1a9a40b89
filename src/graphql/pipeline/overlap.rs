//! Validation of overlapping fields (GraphQL specification, section 5.3.2): fields with the same response name must be
//! the same field with the same arguments.
//!
//! async-graphql compares only fields within one selection set and one type condition, and merges the others: two
//! appointments under one response name would be served as a mixture. The schema's only abstract type has one
//! member, so all selections of an object can be compared regardless of their type conditions.

use async_graphql::{
    Name, ServerError,
    parser::types::{ExecutableDocument, Field, SelectionSet},
};
use async_graphql_value::Value;

use super::collect_fields::collect_fields;
use crate::error::ApiError;

/// Checks every operation of `document`, which is within the limits and has no fragment cycles. Recursion is bounded by the
/// depth of the response, and each fragment is visited once per object.
///
/// # Errors
/// `GRAPHQL_VALIDATION_FAILED`, naming the first conflicting response name, at two of its fields.
pub(crate) fn check(document: &ExecutableDocument) -> Result<(), ServerError> {
    document
        .operations
        .iter()
        .try_for_each(|(_, operation)| object(document, &[&operation.node.selection_set.node]))
}

/// Checks `sets`, which select from one object.
fn object(document: &ExecutableDocument, sets: &[&SelectionSet]) -> Result<(), ServerError> {
    // Skipped fields count too: the rule does not depend on variables.
    for (key, fields) in collect_fields(document, sets, |_| false) {
        let [first, others @ ..] = fields.as_slice() else { continue };
        if let Some(other) = others.iter().find(|other| !is_same_field(&first.node, &other.node)) {
            let message = format!(
                "The response name \"{key}\" is used for different fields or arguments. Give one of them an alias."
            );
            return Err(ApiError::ValidationFailed(message).at([first.pos, other.pos]));
        }
        let sets: Vec<_> = fields.iter().map(|field| &field.node.selection_set.node).collect();
        // A field without a selection may come first: validation rejects that later.
        if sets.iter().any(|set| !set.items.is_empty()) {
            object(document, &sets)?;
        }
    }
    Ok(())
}

fn is_same_field(one: &Field, other: &Field) -> bool {
    // `one` is compared with many fields. Comparing lengths first bounds each comparison by the length of `other`.
    one.name.node == other.name.node
        && one.arguments.len() == other.arguments.len()
        && sorted_arguments(one) == sorted_arguments(other)
}

/// The arguments sorted by name. Duplicate names are rejected later.
fn sorted_arguments(field: &Field) -> Vec<(&Name, &Value)> {
    let mut arguments: Vec<_> =
        field.arguments.iter().map(|(name, value)| (&name.node, &value.node)).collect();
    arguments.sort_by_key(|(name, _)| *name);
    arguments
}
