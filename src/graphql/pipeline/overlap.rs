//! GraphQL, section 5.3.2: fields of one answer under one name are the same field with the same arguments.
//!
//! async-graphql compares only what stands in one selection set under one type condition, and merges the rest: of two
//! appointments asked for under one name it would serve a mixture. No type of our schema is abstract, so a selection
//! set and the fragments in it are all about one object, and type conditions make no difference.

use std::collections::HashSet;

use async_graphql::{
    Name,
    indexmap::IndexMap,
    parser::types::{ExecutableDocument, Field, Selection, SelectionSet},
};
use async_graphql_value::Value;

use crate::error::ApiError;

/// Looks at every operation of `document`. It is within the limits and its fragments end, so this ends as well: it
/// recurses with the fields that the answer has, and each fragment is read once for each object.
///
/// # Errors
/// `GRAPHQL_VALIDATION_FAILED`, naming the first name that would have two meanings.
pub(crate) fn check(document: &ExecutableDocument) -> Result<(), ApiError> {
    document
        .operations
        .iter()
        .try_for_each(|(_, operation)| object(document, &[&operation.node.selection_set.node]))
}

/// `sets` are the selections of one object.
fn object(document: &ExecutableDocument, sets: &[&SelectionSet]) -> Result<(), ApiError> {
    let mut fields = IndexMap::new();
    let mut seen = HashSet::new();
    for set in sets {
        collect(document, set, &mut seen, &mut fields);
    }
    for (key, fields) in fields {
        let [first, others @ ..] = fields.as_slice() else { continue };
        if !others.iter().all(|other| is_same(first, other)) {
            return Err(ApiError::ValidationFailed(format!(
                "The name \"{key}\" is asked for with two meanings: another field, or other arguments. Give one of \
                 them an alias."
            )));
        }
        let sets: Vec<_> = fields.iter().map(|field| &field.selection_set.node).collect();
        // Also where the first has none: of an object each has to select something, which is left to validation.
        if sets.iter().any(|set| !set.items.is_empty()) {
            object(document, &sets)?;
        }
    }
    Ok(())
}

fn collect<'d>(
    document: &'d ExecutableDocument,
    set: &'d SelectionSet,
    seen: &mut HashSet<&'d Name>,
    fields: &mut IndexMap<&'d Name, Vec<&'d Field>>,
) {
    for selection in &set.items {
        match &selection.node {
            Selection::Field(field) => {
                fields.entry(&field.node.response_key().node).or_default().push(&field.node);
            }
            Selection::InlineFragment(fragment) => {
                collect(document, &fragment.node.selection_set.node, seen, fields);
            }
            Selection::FragmentSpread(spread) => {
                let name = &spread.node.fragment_name.node;
                if let Some(fragment) = document.fragments.get(name)
                    && seen.insert(name)
                {
                    collect(document, &fragment.node.selection_set.node, seen, fields);
                }
            }
        }
    }
}

fn is_same(one: &Field, other: &Field) -> bool {
    // `one` is compared with many: with their number first, each comparison costs only what `other` is long.
    one.name.node == other.name.node
        && one.arguments.len() == other.arguments.len()
        && in_order(one) == in_order(other)
}

/// The arguments by their names, so that comparing costs no more than sorting. A name that comes twice is refused later.
fn in_order(field: &Field) -> Vec<(&Name, &Value)> {
    let mut arguments: Vec<_> =
        field.arguments.iter().map(|(name, value)| (&name.node, &value.node)).collect();
    arguments.sort_by_key(|(name, _)| *name);
    arguments
}
