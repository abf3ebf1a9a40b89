//! The operation as it is to be run: GraphQL, section 6.3.2 `CollectFields`, carried out before the execution instead of
//! in it.
//!
//! async-graphql departs from the specification where a selection is more than a list of fields: it resolves a field
//! that is selected twice twice (and a change that is selected twice is sent twice), answers fields in the order in which
//! they are ready, makes null of an object of which everything is skipped, and takes an argument whose variable is absent
//! for null. So what it is given has none of that: every fragment is in its place, what is skipped is gone, what is
//! selected twice is merged, what is absent is left out. And what it answers is written in the order in which it was
//! asked for ([`crate::graphql::execute::response`]).

use std::collections::HashSet;

use async_graphql::{
    Name, Pos, Positioned, Value, Variables,
    indexmap::IndexMap,
    parser::types::{
        BaseType, Directive, ExecutableDocument, Field, OperationDefinition, OperationType, Selection,
        SelectionSet, VariableDefinition,
    },
};
use async_graphql_value::Value as Literal;

use super::size;
use crate::{error::ApiError, model::allocation};

/// The alias of what stands where nothing was selected, so that there is an object in the answer. No document can have it.
const NOTHING: &str = "-";

/// What the variables of a request have to say in how its operation is flattened. Requests that agree in it agree in what
/// is run, whatever else their variables hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct VariableShape(Vec<(Name, Decision)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    /// It has neither a value nor a default. What is given it counts as left out (sections 6.4.1 and 3.10).
    Absent,
    /// Of a [condition](Variable::is_condition).
    Boolean(bool),
    /// Anything else; of a condition, null.
    Given,
}

/// A variable that decides.
#[derive(Debug, Clone)]
pub(crate) struct Variable {
    name: Name,
    /// Whether its value decides: it is a Boolean, and stands for an argument of a directive or of a field. Of any other,
    /// also of a Boolean within an input object, it is only whether it is given.
    is_condition: bool,
}

/// The variables that decide, of those that `document` declares by `definitions`.
pub(crate) fn deciding(
    document: &ExecutableDocument,
    definitions: &[Positioned<VariableDefinition>],
) -> Vec<Variable> {
    let mut arguments = HashSet::new();
    let of_operations = document.operations.iter().map(|(_, operation)| &operation.node.selection_set.node);
    let of_fragments = document.fragments.values().map(|fragment| &fragment.node.selection_set.node);
    of_operations.chain(of_fragments).for_each(|set| collect_arguments(set, &mut arguments));
    let variable = |definition: &Positioned<VariableDefinition>| {
        let VariableDefinition { name, var_type, default_value, .. } = &definition.node;
        let is_boolean = matches!(&var_type.node.base, BaseType::Named(ty) if ty == "Boolean");
        let is_condition = is_boolean && arguments.contains(&name.node);
        let may_be_absent = var_type.node.nullable && default_value.is_none();
        (is_condition || may_be_absent).then(|| Variable { name: name.node.clone(), is_condition })
    };
    definitions.iter().filter_map(variable).collect()
}

/// Adds the variables that stand for an argument in `set`. It recurses with the nesting of the text, which is bounded.
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

impl Variable {
    /// The bytes that it takes beside itself.
    pub(crate) fn size(&self) -> usize {
        size::name(&self.name)
    }
}

impl VariableShape {
    /// Those that `deciding` variables make where all of them, coerced, are `variables`.
    pub(crate) fn of(deciding: &[Variable], variables: &Variables) -> Self {
        let decision = |Variable { name, is_condition }: &Variable| {
            let decision = match variables.get(name) {
                None => Decision::Absent,
                Some(Value::Boolean(value)) if *is_condition => Decision::Boolean(*value),
                Some(_) => Decision::Given,
            };
            (name.clone(), decision)
        };
        Self(deciding.iter().map(decision).collect())
    }

    /// The bytes that they take.
    pub(crate) fn size(&self) -> usize {
        let names = self.0.iter().map(|(name, _)| size::name(name));
        size_of::<Self>()
            + allocation(self.0.capacity() * size_of::<(Name, Decision)>())
            + names.sum::<usize>()
    }

    fn on(&self, name: &Name) -> Decision {
        let known = self.0.iter().find(|(known, _)| known == name);
        known.map_or(Decision::Given, |(_, decision)| *decision)
    }
}

/// What `operation` asks for under variables that make these `decisions`, and nothing else. Its variables have no defaults any
/// more: those are among the coerced ones.
///
/// Its arguments have been looked at, and its fragments end; the rest of the document is judged afterwards.
///
/// # Errors
/// `GRAPHQL_VALIDATION_FAILED` for a subscription that does not have exactly one field (section 5.2.3.1).
pub(crate) fn flatten(
    document: &ExecutableDocument,
    operation: &Positioned<OperationDefinition>,
    decisions: &VariableShape,
) -> Result<OperationDefinition, ApiError> {
    let rewriting = Rewriting { document, decisions };
    let selection_set = rewriting.object(&[&operation.node.selection_set]);
    if operation.node.ty == OperationType::Subscription {
        let is_one =
            selection_set.node.items.len() == 1 && !selection_set.node.items.iter().any(is_introspection);
        if !is_one {
            return Err(ApiError::ValidationFailed(
                "A subscription has exactly one field at its top.".to_owned(),
            ));
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

/// The fields of `set`, which is flattened, as they are in the answer.
pub(crate) fn fields(set: &SelectionSet) -> impl Iterator<Item = &Positioned<Field>> {
    set.items.iter().filter_map(|selection| match &selection.node {
        Selection::Field(field) if !is_nothing(&field.node) => Some(field),
        // There are no fragments once it is flattened.
        _ => None,
    })
}

fn is_introspection(selection: &Positioned<Selection>) -> bool {
    matches!(&selection.node, Selection::Field(field) if field.node.name.node.starts_with("__"))
}

/// The same, to be changed.
pub(crate) fn fields_mut(set: &mut SelectionSet) -> impl Iterator<Item = &mut Positioned<Field>> {
    set.items.iter_mut().filter_map(|selection| match &mut selection.node {
        Selection::Field(field) if !is_nothing(&field.node) => Some(field),
        _ => None,
    })
}

struct Rewriting<'d> {
    document: &'d ExecutableDocument,
    decisions: &'d VariableShape,
}

impl<'d> Rewriting<'d> {
    /// What all `sets` select of one object, each name once.
    fn object(&self, sets: &[&'d Positioned<SelectionSet>]) -> Positioned<SelectionSet> {
        let mut fields = IndexMap::new();
        let mut seen = HashSet::new();
        for set in sets {
            self.collect(&set.node, &mut seen, &mut fields);
        }
        let mut items = Vec::with_capacity(fields.len().max(1));
        for fields in fields.values() {
            items.push(Positioned::new(Selection::Field(self.field(fields)), fields[0].pos));
        }
        let pos = sets.first().map(|set| set.pos).unwrap_or_default();
        if items.is_empty() {
            items.push(nothing(pos));
        }
        Positioned::new(SelectionSet { items }, pos)
    }

    /// One field of the several that have one name, which are the same but for what they select.
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

    fn collect(
        &self,
        set: &'d SelectionSet,
        seen: &mut HashSet<&'d Name>,
        fields: &mut IndexMap<&'d Name, Vec<&'d Positioned<Field>>>,
    ) {
        for selection in &set.items {
            if self.is_skipped(selection.node.directives()) {
                continue;
            }
            // No type of the schema is abstract, so a fragment that may stand in a place always applies there.
            match &selection.node {
                Selection::Field(field) => {
                    fields.entry(&field.node.response_key().node).or_default().push(field);
                }
                Selection::InlineFragment(fragment) => {
                    self.collect(&fragment.node.selection_set.node, seen, fields);
                }
                Selection::FragmentSpread(spread) => {
                    let name = &spread.node.fragment_name.node;
                    if let Some(fragment) = self.document.fragments.get(name)
                        && seen.insert(name)
                    {
                        self.collect(&fragment.node.selection_set.node, seen, fields);
                    }
                }
            }
        }
    }

    /// GraphQL, section 3.13: `@skip` and `@include`.
    fn is_skipped(&self, directives: &[Positioned<Directive>]) -> bool {
        directives.iter().any(|directive| {
            let skips_if = match directive.node.name.node.as_str() {
                "skip" => true,
                "include" => false,
                _ => return false,
            };
            let condition = match directive.node.get_argument("if").map(|condition| &condition.node) {
                Some(Literal::Boolean(condition)) => Some(*condition),
                Some(Literal::Variable(name)) => match self.decisions.on(name) {
                    Decision::Boolean(condition) => Some(condition),
                    Decision::Absent | Decision::Given => None,
                },
                _ => None,
            };
            condition == Some(skips_if)
        })
    }

    /// The value without what is absent from it, and with the conditions that are given; none where it is absent itself.
    fn present(&self, value: &Literal) -> Option<Literal> {
        Some(match value {
            Literal::Variable(name) => match self.decisions.on(name) {
                Decision::Absent => return None,
                Decision::Boolean(value) => Literal::Boolean(value),
                Decision::Given => value.clone(),
            },
            Literal::Object(fields) => Literal::Object(
                fields
                    .iter()
                    .filter_map(|(name, value)| Some((name.clone(), self.present(value)?)))
                    .collect(),
            ),
            // A place in a list cannot be left out.
            Literal::List(items) => {
                Literal::List(items.iter().map(|item| self.present(item).unwrap_or(Literal::Null)).collect())
            }
            other => other.clone(),
        })
    }
}

fn nothing(pos: Pos) -> Positioned<Selection> {
    let at = |name| Positioned::new(Name::new(name), pos);
    let field = Field {
        alias: Some(at(NOTHING)),
        name: at("__typename"),
        arguments: Vec::new(),
        directives: Vec::new(),
        selection_set: Positioned::default(),
    };
    Positioned::new(Selection::Field(Positioned::new(field, pos)), pos)
}

/// Whether `field` stands where nothing was selected.
pub(crate) fn is_nothing(field: &Field) -> bool {
    field.alias.as_ref().is_some_and(|alias| alias.node == NOTHING)
}
