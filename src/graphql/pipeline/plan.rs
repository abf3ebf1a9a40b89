//! What is made of an operation before it is run. It holds for all requests that agree in what their variables
//! [decide](crate::graphql::pipeline::normalize::VariableShape).

use async_graphql::{
    Name, Pos, Positioned,
    parser::types::{
        DocumentOperations, ExecutableDocument, OperationDefinition, OperationType, SelectionSet,
    },
};

use super::{
    cost::Price,
    normalize,
    selection::{Outline, Selection},
    size,
};
use crate::{
    config::limits::Limits,
    graphql::{
        execute::writer::Object as _,
        schema::types::{Fields, Types},
    },
    model::{Appointment, allocation, user_error::UserError},
};

/// The objects that are written straight to JSON.
const WRITTEN: [&Outline; 2] = [&Appointment::OUTLINE, &UserError::OUTLINE];

/// An operation as it is run: async-graphql resolves the fields down to the appointments (and the errors of users), and
/// what is selected of those is [written](crate::graphql::execute::projection) at once.
pub(crate) struct Plan {
    /// Flattened; what is selected of an appointment is left out, and its [number](mark) stands there.
    operation: OperationDefinition,
    selections: Vec<Selection>,
    pub(crate) shape: Shape,
    pub(crate) price: Price,
}

/// The names of an answer, down to the appointments, in the order in which they were asked for.
#[derive(Debug, Default)]
pub(crate) struct Shape(pub(crate) Vec<(Name, Shape)>);

impl Plan {
    /// Of an `operation` that is flattened and valid. It recurses with the operation's depth.
    pub(crate) fn of(mut operation: OperationDefinition, types: &Types, limits: &Limits) -> Self {
        let price = Price::of(&operation, types, limits);
        let mut cutting = Cutting { types, selections: Vec::new() };
        let shape = cutting.object(&mut operation.selection_set, types.root(operation.ty));
        Self { operation, selections: cutting.selections, shape, price }
    }

    pub(crate) fn kind(&self) -> OperationType {
        self.operation.ty
    }

    /// What async-graphql runs.
    pub(crate) fn document(&self) -> ExecutableDocument {
        let operation = Positioned::new(self.operation.clone(), Pos::default());
        ExecutableDocument {
            operations: DocumentOperations::Single(operation),
            fragments: Default::default(),
        }
    }

    /// The bytes that it takes.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>()
            + size::operation(&self.operation)
            + allocation(self.selections.capacity() * size_of::<Selection>())
            + self.selections.iter().map(Selection::size).sum::<usize>()
            + self.shape.size()
            + self.price.size()
    }

    /// What is selected of the object of which async-graphql has this `set` to run.
    pub(crate) fn selection(&self, set: &Positioned<SelectionSet>) -> &Selection {
        static NOTHING: Selection = Selection::NOTHING;
        self.selections.get(set.pos.line).unwrap_or(&NOTHING)
    }
}

/// Stands for what is selected by `number`.
fn mark(number: usize) -> Positioned<SelectionSet> {
    Positioned::new(SelectionSet::default(), Pos { line: number, column: 0 })
}

struct Cutting<'t> {
    types: &'t Types,
    selections: Vec<Selection>,
}

impl Cutting<'_> {
    /// Takes what is selected of [`WRITTEN`] objects out of `set`, of an object that has these `fields`.
    fn object(&mut self, set: &mut Positioned<SelectionSet>, fields: Option<&Fields>) -> Shape {
        let selected = normalize::fields_mut(&mut set.node).map(|field| {
            let field = &mut field.node;
            let known = fields.and_then(|fields| fields.get(&field.name.node));
            let written =
                known.and_then(|known| WRITTEN.into_iter().find(|outline| known.ty == outline.name));
            let shape = if let Some(outline) = written {
                let set = std::mem::replace(&mut field.selection_set, mark(self.selections.len()));
                self.selections.push(Selection::of(&set.node, outline));
                Shape::default()
            } else {
                self.object(&mut field.selection_set, known.and_then(|known| self.types.behind(known)))
            };
            (field.response_key().node.clone(), shape)
        });
        Shape(selected.collect())
    }
}

impl Shape {
    /// Beside itself, and beside its names, which are those of the operation.
    fn size(&self) -> usize {
        allocation(self.0.capacity() * size_of::<(Name, Self)>())
            + self.0.iter().map(|(_, inner)| inner.size()).sum::<usize>()
    }

    /// Whether the answer has a field by that name at its top.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(name, _)| name == key)
    }
}
