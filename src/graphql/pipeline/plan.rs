//! Query plans. A plan is valid for all requests whose variables have the same
//! [shape](crate::graphql::pipeline::normalize::VariableShape).

use async_graphql::{
    Name, Pos, Positioned,
    parser::types::{
        DocumentOperations, ExecutableDocument, OperationDefinition, OperationType, SelectionSet,
    },
};

use super::{
    cost::Cost,
    normalize,
    selection::{Outline, Outlined as _, Selection},
    size,
};
use crate::{
    config::limits::Limits,
    graphql::schema::type_index::{OutputFields, Types, is_schema_field},
    model::{Appointment, heap_size::allocation, user_error::UserError},
};

/// The object types that are projected straight to JSON.
const PROJECTED: [&Outline; 2] = [&Appointment::OUTLINE, &UserError::OUTLINE];

/// The plan of an operation: async-graphql resolves the fields down to appointments and user errors, whose selections are
/// [projected](crate::graphql::execute::projection) to JSON.
pub(crate) struct Plan {
    /// The normalised operation. Each projected selection is replaced by a [marker] with its index in `selections`.
    operation: OperationDefinition,
    selections: Vec<Selection>,
    pub(crate) shape: Shape,
    pub(crate) cost: Cost,
}

/// The response names down to the projected objects, in selection order.
#[derive(Debug, Default)]
pub(crate) struct Shape(pub(crate) Vec<(Name, Shape)>);

impl Plan {
    /// Plans `operation`, which is normalised and valid. Recursion is bounded by the operation's depth.
    pub(crate) fn of(mut operation: OperationDefinition, types: &Types, limits: &Limits) -> Self {
        let cost = Cost::of(&operation, types, limits);
        let mut planner = Planner { types, selections: Vec::new() };
        let shape = planner.object(&mut operation.selection_set, types.root(operation.ty));
        Self { operation, selections: planner.selections, shape, cost }
    }

    pub(crate) fn kind(&self) -> OperationType {
        self.operation.ty
    }

    /// Whether a root field needs access to appointments: any but those that describe the schema.
    pub(crate) fn needs_access(&self) -> bool {
        normalize::fields(&self.operation.selection_set.node)
            .any(|field| !is_schema_field(&field.node.name.node))
    }

    /// The document for async-graphql to execute.
    pub(crate) fn document(&self) -> ExecutableDocument {
        let operation = Positioned::new(self.operation.clone(), Pos::default());
        ExecutableDocument {
            operations: DocumentOperations::Single(operation),
            fragments: Default::default(),
        }
    }

    /// Bytes in use.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>()
            + size::operation(&self.operation)
            + allocation(self.selections.capacity() * size_of::<Selection>())
            + self.selections.iter().map(Selection::size).sum::<usize>()
            + self.shape.size()
            + self.cost.size()
    }

    /// The projected selection behind the marker `set`.
    pub(crate) fn selection(&self, set: &Positioned<SelectionSet>) -> &Selection {
        static EMPTY: Selection = Selection::EMPTY;
        self.selections.get(set.pos.line).unwrap_or(&EMPTY)
    }
}

/// An empty selection set that carries an index into [`Plan::selections`] in its position: async-graphql passes the
/// position on to the resolver unchanged.
fn marker(index: usize) -> Positioned<SelectionSet> {
    Positioned::new(SelectionSet::default(), Pos { line: index, column: 0 })
}

struct Planner<'t> {
    types: &'t Types,
    selections: Vec<Selection>,
}

impl Planner<'_> {
    /// Moves the selections of [`PROJECTED`] types out of `set`, which selects from an object with these `fields`.
    fn object(&mut self, set: &mut Positioned<SelectionSet>, fields: Option<&OutputFields>) -> Shape {
        let selected = normalize::fields_mut(&mut set.node).map(|field| {
            let field = &mut field.node;
            let known = fields.and_then(|fields| fields.get(&field.name.node));
            let ty = known.map(|known| self.types.concrete(&known.ty));
            let written = ty.and_then(|ty| PROJECTED.into_iter().find(|outline| *ty == outline.name));
            let shape = if let Some(outline) = written {
                let set = std::mem::replace(&mut field.selection_set, marker(self.selections.len()));
                self.selections.push(Selection::of(&set.node, outline));
                Shape::default()
            } else {
                self.object(&mut field.selection_set, known.and_then(|known| self.types.target_fields(known)))
            };
            (field.response_key().node.clone(), shape)
        });
        Shape(selected.collect())
    }
}

impl Shape {
    /// Heap bytes in use, without the names, which are shared with the operation.
    fn size(&self) -> usize {
        allocation(self.0.capacity() * size_of::<(Name, Self)>())
            + self.0.iter().map(|(_, inner)| inner.size()).sum::<usize>()
    }

    /// Whether the response has a root field of that name.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.index(key).is_some()
    }

    /// The index of the root field of that response name.
    pub(crate) fn index(&self, key: &str) -> Option<usize> {
        self.0.iter().position(|(name, _)| name == key)
    }
}
