//! The operation as it is to be run: GraphQL, section 6.3.2 `CollectFields`, carried out before the execution instead of
//! in it.
//!
//! async-graphql departs from the specification where a selection is more than a list of fields: it resolves a field
//! that is selected twice twice (and a change that is selected twice is sent twice), answers fields in the order in which
//! they are ready, makes null of an object of which everything is skipped, and takes an argument whose variable is absent
//! for null. So what it is given has none of that: every fragment is in its place, what is skipped is gone, what is
//! selected twice is merged, what is absent is left out. And what it answers is [arranged](Shape::arrange) by the order
//! in which it was asked for.

use std::collections::HashSet;

use async_graphql::{
    Name, Pos, Positioned, Value, Variables,
    indexmap::IndexMap,
    parser::types::{
        Directive, DocumentOperations, ExecutableDocument, Field, OperationDefinition, OperationType,
        Selection, SelectionSet,
    },
};
use async_graphql_value::Value as Literal;

use super::error::ApiError;

/// Stands where nothing was selected, so that there is an object in the answer.
const NOTHING: &str = "__nothing";

/// The names of an answer, in the order in which they were asked for.
#[derive(Debug, Default)]
pub(super) struct Shape(Vec<(Name, Shape)>);

/// What `operation` asks for under `variables`, as a document of its own, and the shape of its answer.
///
/// Its arguments have been looked at, and its fragments end; the rest of the document is judged afterwards.
///
/// # Errors
/// `GRAPHQL_VALIDATION_FAILED` for a subscription that does not have exactly one field (section 5.2.3.1).
pub(super) fn flatten(
    document: &ExecutableDocument,
    operation: &Positioned<OperationDefinition>,
    variables: &Variables,
) -> Result<(ExecutableDocument, Shape), ApiError> {
    let rewriting = Rewriting { document, variables, absent: absent(&operation.node, variables) };
    let (selection_set, shape) = rewriting.object(&[&operation.node.selection_set]);
    if operation.node.ty == OperationType::Subscription {
        let is_one = shape.0.len() == 1 && !selection_set.node.items.iter().any(is_introspection);
        if !is_one {
            return Err(ApiError::ValidationFailed(
                "A subscription has exactly one field at its top.".to_owned(),
            ));
        }
    }
    let operation = OperationDefinition {
        ty: operation.node.ty,
        variable_definitions: operation.node.variable_definitions.clone(),
        directives: Vec::new(),
        selection_set,
    };
    let operations = DocumentOperations::Single(Positioned::new(operation, Pos::default()));
    Ok((ExecutableDocument { operations, fragments: Default::default() }, shape))
}

/// The variables that `operation` declares and that have neither a value nor a default. What is given one of them counts
/// as left out (sections 6.4.1 and 3.10).
fn absent<'d>(operation: &'d OperationDefinition, variables: &Variables) -> HashSet<&'d Name> {
    let declared = operation.variable_definitions.iter().map(|definition| &definition.node.name.node);
    declared.filter(|name| !variables.contains_key(*name)).collect()
}

fn is_introspection(selection: &Positioned<Selection>) -> bool {
    matches!(&selection.node, Selection::Field(field) if field.node.name.node.starts_with("__"))
}

struct Rewriting<'d> {
    document: &'d ExecutableDocument,
    variables: &'d Variables,
    absent: HashSet<&'d Name>,
}

impl<'d> Rewriting<'d> {
    /// What all `sets` select of one object, each name once.
    fn object(&self, sets: &[&'d Positioned<SelectionSet>]) -> (Positioned<SelectionSet>, Shape) {
        let mut fields = IndexMap::new();
        let mut seen = HashSet::new();
        for set in sets {
            self.collect(&set.node, &mut seen, &mut fields);
        }
        let mut items = Vec::with_capacity(fields.len().max(1));
        let mut shape = Shape(Vec::with_capacity(fields.len().max(1)));
        for (key, fields) in fields {
            let (field, inner) = self.field(&fields);
            items.push(Positioned::new(Selection::Field(field), fields[0].pos));
            shape.0.push((key.clone(), inner));
        }
        let pos = sets.first().map(|set| set.pos).unwrap_or_default();
        if items.is_empty() {
            items.push(nothing(pos));
        }
        (Positioned::new(SelectionSet { items }, pos), shape)
    }

    /// One field of the several that have one name, which are the same but for what they select.
    fn field(&self, fields: &[&'d Positioned<Field>]) -> (Positioned<Field>, Shape) {
        let field = fields[0];
        let is_leaf = field.node.selection_set.node.items.is_empty();
        let (selection_set, shape) = if is_leaf {
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
        (Positioned::new(rewritten, field.pos), shape)
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
                Some(Literal::Variable(name)) => match self.variables.get(name) {
                    Some(Value::Boolean(condition)) => Some(*condition),
                    _ => None,
                },
                _ => None,
            };
            condition == Some(skips_if)
        })
    }

    /// The value without what is absent from it; none where it is absent itself.
    fn present(&self, value: &Literal) -> Option<Literal> {
        Some(match value {
            Literal::Variable(name) if self.absent.contains(name) => return None,
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

impl Shape {
    /// Whether the answer has a field by that name at its top.
    pub(super) fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(name, _)| name == key)
    }

    /// `value` with its fields in this order (section 7.2.2), and without those that stand for nothing.
    pub(super) fn arrange(&self, value: Value) -> Value {
        match value {
            Value::Object(mut fields) => {
                let field = |(key, inner): &(Name, Self)| {
                    Some((key.clone(), inner.arrange(fields.swap_remove(key)?)))
                };
                Value::Object(self.0.iter().filter_map(field).collect())
            }
            Value::List(items) => Value::List(items.into_iter().map(|item| self.arrange(item)).collect()),
            other => other,
        }
    }
}
