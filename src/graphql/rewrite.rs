//! Where async-graphql departs from the specification, the document is rewritten so that it comes out right.

use std::collections::HashSet;

use async_graphql::{
    Name, Positioned, Variables,
    indexmap::IndexMap,
    parser::types::{
        DocumentOperations, ExecutableDocument, Field, FragmentDefinition, OperationDefinition,
        OperationType, Selection, SelectionSet,
    },
};
use async_graphql_value::Value;

use super::error::ApiError;

/// The variables that `operation` declares and that have neither a value nor a default.
///
/// An argument, or a field of an input object, that is given such a variable counts as left out (GraphQL, sections 6.4.1
/// and 3.10), where async-graphql would take null.
pub(super) fn absent_variables(operation: &OperationDefinition, coerced: &Variables) -> HashSet<Name> {
    let declared = operation.variable_definitions.iter().map(|definition| &definition.node.name.node);
    declared.filter(|name| !coerced.contains_key(*name)).cloned().collect()
}

/// Leaves out of `document` what is given an `absent` variable, and the variable itself.
pub(super) fn leave_out(document: &mut ExecutableDocument, absent: &HashSet<Name>) {
    let operations: Vec<&mut Positioned<OperationDefinition>> = match &mut document.operations {
        DocumentOperations::Single(operation) => vec![operation],
        DocumentOperations::Multiple(operations) => operations.values_mut().collect(),
    };
    for operation in operations {
        operation.node.variable_definitions.retain(|definition| !absent.contains(&definition.node.name.node));
        leave_out_of_set(&mut operation.node.selection_set.node, absent);
    }
    for fragment in document.fragments.values_mut() {
        leave_out_of_set(&mut fragment.node.selection_set.node, absent);
    }
}

fn leave_out_of_set(set: &mut SelectionSet, absent: &HashSet<Name>) {
    for selection in &mut set.items {
        match &mut selection.node {
            Selection::Field(field) => {
                field.node.arguments.retain_mut(|(_, value)| is_there(&mut value.node, absent));
                leave_out_of_set(&mut field.node.selection_set.node, absent);
            }
            Selection::InlineFragment(fragment) => {
                leave_out_of_set(&mut fragment.node.selection_set.node, absent)
            }
            Selection::FragmentSpread(_) => {}
        }
    }
}

/// Whether there is a value, from within which everything that is not there has then been left out.
fn is_there(value: &mut Value, absent: &HashSet<Name>) -> bool {
    match value {
        Value::Variable(name) => !absent.contains(name),
        Value::Object(fields) => {
            fields.retain(|_, value| is_there(value, absent));
            true
        }
        Value::List(items) => {
            for item in items {
                // A place in a list cannot be left out.
                if !is_there(item, absent) {
                    *item = Value::Null;
                }
            }
            true
        }
        _ => true,
    }
}

/// Puts the one field of each subscription directly at its top, where async-graphql looks for it, whatever fragments it
/// is in.
///
/// # Errors
/// `GRAPHQL_VALIDATION_FAILED` where there is not exactly one (GraphQL, section 5.2.3.1).
pub(super) fn flatten_subscriptions(document: &mut ExecutableDocument) -> Result<(), ApiError> {
    let ExecutableDocument { operations, fragments } = document;
    let operations: Vec<&mut Positioned<OperationDefinition>> = match operations {
        DocumentOperations::Single(operation) => vec![operation],
        DocumentOperations::Multiple(operations) => operations.values_mut().collect(),
    };
    for operation in operations {
        if operation.node.ty == OperationType::Subscription {
            let mut fields = IndexMap::new();
            collect(&operation.node.selection_set.node, fragments, &mut fields)?;
            if fields.len() != 1 {
                return Err(ApiError::ValidationFailed(
                    "A subscription has exactly one field at its top.".to_owned(),
                ));
            }
            let fields = fields.into_values().map(|field| {
                let pos = field.pos;
                Positioned::new(Selection::Field(field), pos)
            });
            operation.node.selection_set.node.items = fields.collect();
        }
    }
    // What was at the top of subscriptions is used no more.
    fragments.retain(|_, fragment| fragment.node.type_condition.node.on.node != "Subscription");
    Ok(())
}

type Fragments = std::collections::HashMap<Name, Positioned<FragmentDefinition>>;

fn collect(
    set: &SelectionSet,
    fragments: &Fragments,
    fields: &mut IndexMap<Name, Positioned<Field>>,
) -> Result<(), ApiError> {
    for selection in &set.items {
        let is_conditional = selection
            .node
            .directives()
            .iter()
            .any(|it| matches!(it.node.name.node.as_str(), "skip" | "include"));
        if is_conditional {
            return Err(ApiError::ValidationFailed(
                "@skip and @include cannot stand at the top of a subscription.".to_owned(),
            ));
        }
        match &selection.node {
            Selection::Field(field) => match fields.get_mut(&field.node.response_key().node) {
                Some(known) => {
                    known
                        .node
                        .selection_set
                        .node
                        .items
                        .extend(field.node.selection_set.node.items.iter().cloned());
                }
                None => {
                    fields.insert(field.node.response_key().node.clone(), field.clone());
                }
            },
            Selection::InlineFragment(fragment) => {
                collect(&fragment.node.selection_set.node, fragments, fields)?;
            }
            Selection::FragmentSpread(spread) => {
                // That there is one, and that it does not contain itself, has been found out while counting.
                if let Some(fragment) = fragments.get(&spread.node.fragment_name.node) {
                    collect(&fragment.node.selection_set.node, fragments, fields)?;
                }
            }
        }
    }
    Ok(())
}
