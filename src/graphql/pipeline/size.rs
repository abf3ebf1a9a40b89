//! Memory estimates of cached documents. Each name and each literal is an allocation of its own.

use async_graphql::{
    Name, Positioned,
    parser::types::{Field, OperationDefinition, Selection, SelectionSet, VariableDefinition},
};
use async_graphql_value::Value;

use crate::model::heap_size::allocation;

/// Heap bytes of the normalised `operation`. Recursion is bounded by the operation's depth.
pub(crate) fn operation(operation: &OperationDefinition) -> usize {
    definitions(&operation.variable_definitions) + selections(&operation.selection_set.node)
}

/// Bytes of the variable `definitions`.
pub(crate) fn definitions(definitions: &[Positioned<VariableDefinition>]) -> usize {
    let definition = |definition: &Positioned<VariableDefinition>| {
        let definition = &definition.node;
        let default = definition.default_value.as_ref();
        // An allowance for the type: parsed types have at most a few levels of lists.
        name(&definition.name.node)
            + 128
            + default.map_or(0, |value| literal(&value.node.clone().into_value()))
    };
    allocation(size_of_val(definitions)) + definitions.iter().map(definition).sum::<usize>()
}

fn selections(set: &SelectionSet) -> usize {
    let selection = |selection: &Positioned<Selection>| match &selection.node {
        Selection::Field(it) => field(&it.node),
        // Normalised selection sets contain no fragments.
        Selection::InlineFragment(_) | Selection::FragmentSpread(_) => 0,
    };
    allocation(set.items.capacity() * size_of::<Positioned<Selection>>())
        + set.items.iter().map(selection).sum::<usize>()
}

fn field(field: &Field) -> usize {
    let arguments = field.arguments.iter().map(|(key, value)| name(&key.node) + literal(&value.node));
    name(&field.name.node)
        + field.alias.as_ref().map_or(0, |alias| name(&alias.node))
        + allocation(field.arguments.capacity() * size_of::<(Positioned<Name>, Positioned<Value>)>())
        + arguments.sum::<usize>()
        + selections(&field.selection_set.node)
}

fn literal(value: &Value) -> usize {
    match value {
        Value::Variable(it) | Value::Enum(it) => name(it),
        Value::String(text) => allocation(text.capacity()),
        Value::List(items) => {
            allocation(items.capacity() * size_of::<Value>()) + items.iter().map(literal).sum::<usize>()
        }
        Value::Object(fields) => {
            // The value, its hash, and a slot of the index.
            let entry = size_of::<(Name, Value)>() + 3 * size_of::<usize>();
            let inner = fields.iter().map(|(key, value)| name(key) + literal(value));
            allocation(fields.capacity() * entry) + inner.sum::<usize>()
        }
        Value::Null | Value::Number(_) | Value::Boolean(_) | Value::Binary(_) => 0,
    }
}

/// Bytes of a name with its two reference counts.
pub(crate) fn name(name: &Name) -> usize {
    allocation(name.len() + 2 * size_of::<usize>())
}
