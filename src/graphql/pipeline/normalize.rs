//! Normalisation: `CollectFields` (GraphQL specification, section 6.3.2), applied before execution.
//!
//! async-graphql departs from the specification for anything but a plain list of fields: it resolves a repeated field
//! twice (and sends a repeated change twice), returns an object without selected fields as null, and treats an argument
//! with an absent variable as null. The normalised operation avoids these cases: fragments are inlined, skipped fields
//! removed, repeated fields merged and absent arguments omitted. [`crate::graphql::execute::response`] restores the
//! order of the selection.

use std::collections::HashSet;

use async_graphql::{
    Name, Pos, Positioned, ServerError, Value, Variables,
    parser::types::{
        BaseType, Directive, ExecutableDocument, Field, OperationDefinition, OperationType, Selection,
        SelectionSet, VariableDefinition,
    },
};
use async_graphql_value::Value as Literal;

use super::{collect_fields::collect_fields, size};
use crate::{error::ApiError, model::heap_size::allocation};

/// The reserved alias of a placeholder field in an otherwise empty selection set, which keeps async-graphql from returning
/// null for the object. No document can contain this alias, since `-` is not a name character.
const PLACEHOLDER: &str = "-";

/// The properties of a request's variables that determine its normalised operation. Requests with the same shape share a
/// query plan, whatever values their variables have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct VariableShape(Vec<(Name, VariableState)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum VariableState {
    /// Without a value and a default. An argument with this variable counts as omitted (sections 6.4.1 and 3.10).
    Absent,
    /// The value of a [condition](ShapingVariable::is_condition).
    Boolean(bool),
    /// Any other value; for a condition, null.
    Given,
}

/// A variable that is part of the shape.
#[derive(Debug, Clone)]
pub(crate) struct ShapingVariable {
    name: Name,
    /// Whether the value is part of the shape: a Boolean used directly as an argument of a directive or a field. For other
    /// variables, including Booleans within input objects, only their presence is.
    is_condition: bool,
}

/// Selects the shaping variables from `definitions`, by their use in `document`.
pub(crate) fn shaping_variables(
    document: &ExecutableDocument,
    definitions: &[Positioned<VariableDefinition>],
) -> Vec<ShapingVariable> {
    let mut arguments = HashSet::new();
    let of_operations = document.operations.iter().map(|(_, operation)| &operation.node.selection_set.node);
    let of_fragments = document.fragments.values().map(|fragment| &fragment.node.selection_set.node);
    of_operations.chain(of_fragments).for_each(|set| collect_arguments(set, &mut arguments));
    let variable = |definition: &Positioned<VariableDefinition>| {
        let VariableDefinition { name, var_type, default_value, .. } = &definition.node;
        let is_boolean = matches!(&var_type.node.base, BaseType::Named(ty) if ty == "Boolean");
        let is_condition = is_boolean && arguments.contains(&name.node);
        let may_be_absent = var_type.node.nullable && default_value.is_none();
        (is_condition || may_be_absent).then(|| ShapingVariable { name: name.node.clone(), is_condition })
    };
    definitions.iter().filter_map(variable).collect()
}

/// Collects the variables used directly as arguments in `set`. Recursion is bounded by the nesting of the text.
fn collect_arguments<'d>(set: &'d SelectionSet, variables: &mut HashSet<&'d Name>) {
    for selection in &set.items {
        let of_directives =
            selection.node.directives().iter().flat_map(|directive| &directive.node.arguments);
        let (of_field, inner) = match &selection.node {
            Selection::Field(field) => (field.node.arguments.as_slice(), Some(&field.node.selection_set)),
            Selection::InlineFragment(fragment) => (&[][..], Some(&fragment.node.selection_set)),
            Selection::FragmentSpread(_) => (&[][..], None),
        };
        variables.extend(of_directives.chain(of_field).filter_map(|(_, value)| match &value.node {
            Literal::Variable(name) => Some(name),
            _ => None,
        }));
        if let Some(inner) = inner {
            collect_arguments(&inner.node, variables);
        }
    }
}

impl ShapingVariable {
    /// Heap bytes in use.
    pub(crate) fn size(&self) -> usize {
        size::name(&self.name)
    }
}

impl VariableShape {
    /// The shape of the coerced `variables`.
    pub(crate) fn of(shaping: &[ShapingVariable], variables: &Variables) -> Self {
        let state = |ShapingVariable { name, is_condition }: &ShapingVariable| {
            let state = match variables.get(name) {
                None => VariableState::Absent,
                Some(Value::Boolean(value)) if *is_condition => VariableState::Boolean(*value),
                Some(_) => VariableState::Given,
            };
            (name.clone(), state)
        };
        Self(shaping.iter().map(state).collect())
    }

    /// The shape of variables without a value, given their `definitions`. None if a required variable without a default
    /// decides the shape.
    pub(crate) fn of_defaults(
        shaping: &[ShapingVariable],
        definitions: &[Positioned<VariableDefinition>],
    ) -> Option<Self> {
        let state = |ShapingVariable { name, is_condition }: &ShapingVariable| {
            let definition = &definitions.iter().find(|definition| definition.node.name.node == *name)?.node;
            let state = match definition.default_value.as_ref().map(|value| &value.node) {
                Some(Value::Boolean(value)) if *is_condition => VariableState::Boolean(*value),
                Some(_) => VariableState::Given,
                None if definition.var_type.node.nullable => VariableState::Absent,
                None => return None,
            };
            Some((name.clone(), state))
        };
        shaping.iter().map(state).collect::<Option<Vec<_>>>().map(Self)
    }

    /// Bytes in use.
    pub(crate) fn size(&self) -> usize {
        let names = self.0.iter().map(|(name, _)| size::name(name));
        size_of::<Self>()
            + allocation(self.0.capacity() * size_of::<(Name, VariableState)>())
            + names.sum::<usize>()
    }

    fn state_of(&self, name: &Name) -> VariableState {
        let known = self.0.iter().find(|(known, _)| known == name);
        known.map_or(VariableState::Given, |(_, state)| *state)
    }
}

/// Normalises `operation` for variables of that `shape`. The result declares its variables without defaults, which
/// coercion has already applied.
///
/// Arguments and fragment cycles have been checked; the rest of the document is validated afterwards.
///
/// # Errors
/// `GRAPHQL_VALIDATION_FAILED` for a subscription without exactly one root field (section 5.2.3.1).
pub(crate) fn normalize(
    document: &ExecutableDocument,
    operation: &Positioned<OperationDefinition>,
    shape: &VariableShape,
) -> Result<OperationDefinition, ServerError> {
    let flattener = Flattener { document, shape };
    let selection_set = flattener.object(&[&operation.node.selection_set]);
    if operation.node.ty == OperationType::Subscription {
        let is_one =
            selection_set.node.items.len() == 1 && !selection_set.node.items.iter().any(is_introspection);
        if !is_one {
            let message = "A subscription must select exactly one root field.";
            return Err(ApiError::ValidationFailed(message.to_owned()).at([operation.pos]));
        }
    }
    let mut variable_definitions = operation.node.variable_definitions.clone();
    for definition in &mut variable_definitions {
        definition.node.default_value = None;
        definition.node.directives = Vec::new();
    }
    Ok(OperationDefinition {
        ty: operation.node.ty,
        variable_definitions,
        directives: Vec::new(),
        selection_set,
    })
}

/// The fields of the normalised `set`, without placeholders.
pub(crate) fn fields(set: &SelectionSet) -> impl Iterator<Item = &Positioned<Field>> {
    set.items.iter().filter_map(|selection| match &selection.node {
        Selection::Field(field) if !is_placeholder(&field.node) => Some(field),
        // Normalised selection sets contain no fragments.
        _ => None,
    })
}

fn is_introspection(selection: &Positioned<Selection>) -> bool {
    matches!(&selection.node, Selection::Field(field) if field.node.name.node.starts_with("__"))
}

/// The mutable fields of the normalised `set`, without placeholders.
pub(crate) fn fields_mut(set: &mut SelectionSet) -> impl Iterator<Item = &mut Positioned<Field>> {
    set.items.iter_mut().filter_map(|selection| match &mut selection.node {
        Selection::Field(field) if !is_placeholder(&field.node) => Some(field),
        _ => None,
    })
}

struct Flattener<'d> {
    document: &'d ExecutableDocument,
    shape: &'d VariableShape,
}

impl<'d> Flattener<'d> {
    /// Merges all `sets`, which select from one object.
    fn object(&self, sets: &[&'d Positioned<SelectionSet>]) -> Positioned<SelectionSet> {
        let selected = sets.iter().map(|set| &set.node).collect::<Vec<_>>();
        let fields = collect_fields(self.document, &selected, |directives| self.is_skipped(directives));
        let mut items = Vec::with_capacity(fields.len().max(1));
        for fields in fields.values() {
            items.push(Positioned::new(Selection::Field(self.field(fields)), fields[0].pos));
        }
        let pos = sets.first().map(|set| set.pos).unwrap_or_default();
        if items.is_empty() {
            items.push(placeholder(pos));
        }
        Positioned::new(SelectionSet { items }, pos)
    }

    /// Merges fields with the same response name. They differ only in their selection sets.
    fn field(&self, fields: &[&'d Positioned<Field>]) -> Positioned<Field> {
        let field = fields[0];
        let is_leaf = field.node.selection_set.node.items.is_empty();
        let selection_set = if is_leaf {
            Default::default()
        } else {
            self.object(&fields.iter().map(|field| &field.node.selection_set).collect::<Vec<_>>())
        };
        let arguments = field.node.arguments.iter().filter_map(|(name, value)| {
            Some((name.clone(), Positioned::new(self.present(&value.node)?, value.pos)))
        });
        let rewritten = Field {
            alias: field.node.alias.clone(),
            name: field.node.name.clone(),
            arguments: arguments.collect(),
            directives: Vec::new(),
            selection_set,
        };
        Positioned::new(rewritten, field.pos)
    }

    /// Evaluates `@skip` and `@include` (section 3.13).
    fn is_skipped(&self, directives: &[Positioned<Directive>]) -> bool {
        directives.iter().any(|directive| {
            let skips_if = match directive.node.name.node.as_str() {
                "skip" => true,
                "include" => false,
                _ => return false,
            };
            let condition = match directive.node.get_argument("if").map(|condition| &condition.node) {
                Some(Literal::Boolean(condition)) => Some(*condition),
                Some(Literal::Variable(name)) => match self.shape.state_of(name) {
                    VariableState::Boolean(condition) => Some(condition),
                    VariableState::Absent | VariableState::Given => None,
                },
                _ => None,
            };
            condition == Some(skips_if)
        })
    }

    /// The value without absent parts and with conditions substituted; None if the value itself is absent.
    fn present(&self, value: &Literal) -> Option<Literal> {
        Some(match value {
            Literal::Variable(name) => match self.shape.state_of(name) {
                VariableState::Absent => return None,
                VariableState::Boolean(value) => Literal::Boolean(value),
                VariableState::Given => value.clone(),
            },
            Literal::Object(fields) => Literal::Object(
                fields
                    .iter()
                    .filter_map(|(name, value)| Some((name.clone(), self.present(value)?)))
                    .collect(),
            ),
            // A list item cannot be omitted, so an absent variable becomes null.
            Literal::List(items) => {
                Literal::List(items.iter().map(|item| self.present(item).unwrap_or(Literal::Null)).collect())
            }
            other => other.clone(),
        })
    }
}

fn placeholder(pos: Pos) -> Positioned<Selection> {
    let at = |name| Positioned::new(Name::new(name), pos);
    let field = Field {
        alias: Some(at(PLACEHOLDER)),
        name: at("__typename"),
        arguments: Vec::new(),
        directives: Vec::new(),
        selection_set: Positioned::default(),
    };
    Positioned::new(Selection::Field(Positioned::new(field, pos)), pos)
}

/// Whether `field` is the placeholder of an empty selection set.
pub(crate) fn is_placeholder(field: &Field) -> bool {
    field.alias.as_ref().is_some_and(|alias| alias.node == PLACEHOLDER)
}
