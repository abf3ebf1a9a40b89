//! What an operation costs, known before it is run.
//!
//! A field costs 1. What it asks the upstream for costs [`ASKED`] more, each: an appointment by its id is one thing, each
//! of `appointmentsByIds` one, a window of the list two (it may lie across two pages), a change one, what is watched one.
//! What is selected below a field is added, below a list once for each item: of `appointmentsByIds` as many as there are
//! ids, of a window `first`, of any other list [`ASSUMED`].
//!
//! It is the flattened operation that is weighed: with its variables, without what is skipped, each field once.

use async_graphql::{
    Value, Variables,
    parser::types::{Field, OperationDefinition, OperationType, Selection, SelectionSet},
};
use async_graphql_value::Value as Literal;

use super::{
    error::ApiError,
    limit::OverLimit,
    query::{DEFAULT_WINDOW, LONGEST_WINDOW},
    types::{Fields, Types},
};
use crate::config::Limits;

/// What it costs to ask the upstream for one thing.
const ASKED: u64 = 10;

/// How long a list is taken to be of which nobody can know.
const ASSUMED: u64 = 10;

/// Makes sure that `operation`, flattened and valid, costs no more than it may. It recurses with the operation's depth.
///
/// # Errors
/// `QUERY_TOO_COMPLEX` with the cost.
pub(super) fn check(
    operation: &OperationDefinition,
    variables: &Variables,
    types: &Types,
    limits: &Limits,
) -> Result<(), ApiError> {
    let cost = Weighing { types, variables, limits }.operation(operation);
    if cost > limits.cost as u64 {
        return Err(OverLimit::too_complex("cost", "points of cost", limits.cost, cost));
    }
    Ok(())
}

struct Weighing<'a> {
    types: &'a Types,
    variables: &'a Variables,
    limits: &'a Limits,
}

impl Weighing<'_> {
    fn operation(&self, operation: &OperationDefinition) -> u64 {
        let fields = self.types.root(operation.ty);
        sum(&operation.selection_set.node, |field| self.root(field, operation.ty, fields))
    }

    /// A field at the top.
    fn root(&self, field: &Field, kind: OperationType, fields: Option<&Fields>) -> u64 {
        // How many things it asks for, and how many of what is selected there will be; of a window, its length.
        let (asked, times, window) = match (kind, field.name.node.as_str()) {
            (_, "__typename" | "__schema" | "__type") => (0, 1, None),
            (_, "appointmentsByIds") => {
                let ids = self.ids(field);
                (ids, ids, None)
            }
            (_, "appointments") => (2, 1, Some(self.first(field))),
            _ => (1, 1, None),
        };
        let inner = self.inner(field, fields, window);
        1_u64.saturating_add(ASKED.saturating_mul(asked)).saturating_add(inner.saturating_mul(times))
    }

    /// What is selected in `field`, one of `fields`, once.
    fn inner(&self, field: &Field, fields: Option<&Fields>, window: Option<u64>) -> u64 {
        let fields =
            fields.and_then(|fields| fields.get(&field.name.node)).and_then(|it| self.types.behind(it));
        sum(&field.selection_set.node, |field| {
            let is_list =
                fields.and_then(|fields| fields.get(&field.name.node)).is_some_and(|field| field.is_list);
            let times = if is_list { window.unwrap_or(ASSUMED) } else { 1 };
            1_u64.saturating_add(self.inner(field, fields, None).saturating_mul(times))
        })
    }

    /// How many ids there are. More than may be there fail by themselves.
    fn ids(&self, field: &Field) -> u64 {
        let count = match self.argument(field, "ids") {
            Some(Literal::List(ids)) => ids.len(),
            _ => 1,
        };
        count.min(self.limits.ids) as u64
    }

    /// How long the window is. A length that may not be fails by itself.
    fn first(&self, field: &Field) -> u64 {
        let first = match self.argument(field, "first") {
            Some(Literal::Number(first)) => first.as_i64().unwrap_or_default(),
            _ => DEFAULT_WINDOW.into(),
        };
        first.clamp(0, LONGEST_WINDOW.into()).unsigned_abs()
    }

    fn argument(&self, field: &Field, name: &str) -> Option<Literal> {
        match &field.get_argument(name)?.node {
            Literal::Variable(name) => self.variables.get(name).cloned().map(Value::into),
            literal => Some(literal.clone()),
        }
    }
}

fn sum(set: &SelectionSet, cost: impl Fn(&Field) -> u64) -> u64 {
    set.items.iter().fold(0, |sum, selection| match &selection.node {
        Selection::Field(field) => sum.saturating_add(cost(&field.node)),
        // There are none once it is flattened.
        Selection::InlineFragment(_) | Selection::FragmentSpread(_) => sum,
    })
}
