//! What an operation costs, known before it is run.
//!
//! A field costs 1. What it asks the upstream for costs [`ASKED`] more, each: an appointment by its id is one thing, each
//! of `appointmentsByIds` one, a window of the list two (it may lie across two pages), a change one, what is watched one.
//! What is selected below a field is added, below a list once for each item: of `appointmentsByIds` as many as there are
//! ids, of a window `first`, of any other list [`ASSUMED`].
//!
//! It is the flattened operation that is weighed: with its variables, without what is skipped, each field once.

use async_graphql::{
    Name, Value, Variables,
    parser::types::{Field, OperationDefinition, SelectionSet},
};
use async_graphql_value::{Number, Value as Literal};

use super::normalize;
use crate::{
    config::limits::Limits,
    error::{ApiError, limit::OverLimit},
    graphql::schema::{
        cursor::{DEFAULT_WINDOW, LONGEST_WINDOW},
        types::{Fields, Types},
    },
};

/// What it costs to ask the upstream for one thing.
const ASKED: u64 = 10;

/// How long a list is taken to be of which nobody can know.
const ASSUMED: u64 = 10;

/// What an operation costs, as far as its variables leave that open. Sums and products of it stop at the greatest number.
#[derive(Debug, Default)]
pub(crate) struct Price {
    fixed: u64,
    /// What each costs of those of which a variable says how many there are.
    open: Vec<(Times, Name, u64)>,
}

/// What says how many of something there will be.
#[derive(Debug, Clone, Copy)]
enum Times {
    /// The number of ids.
    Ids,
    /// The length of the window.
    First,
}

impl Price {
    /// That of `operation`, flattened and valid. It recurses with the operation's depth.
    pub(crate) fn of(operation: &OperationDefinition, types: &Types, limits: &Limits) -> Self {
        let mut price = Self::default();
        let root = types.root(operation.ty);
        for field in normalize::fields(&operation.selection_set.node) {
            let field = &field.node;
            let inner = |list| sum(&field.selection_set.node, behind(field, root, types), types, list);
            let fixed = match field.name.node.as_str() {
                "appointmentsByIds" => {
                    price.add_each(Times::Ids, field, inner(ASSUMED).saturating_add(ASKED), limits);
                    0
                }
                "appointments" => {
                    // What is listed comes as often as the window is long, the rest once.
                    let (none, one) = (inner(0), inner(1));
                    price.add_each(Times::First, field, one.saturating_sub(none), limits);
                    none.saturating_add(2 * ASKED)
                }
                "__typename" | "__schema" | "__type" => inner(ASSUMED),
                _ => inner(ASSUMED).saturating_add(ASKED),
            };
            price.add(fixed.saturating_add(1));
        }
        price
    }

    /// Makes sure that it is no more than it may be.
    ///
    /// # Errors
    /// `QUERY_TOO_COMPLEX` with the cost.
    pub(crate) fn check(&self, variables: &Variables, limits: &Limits) -> Result<(), ApiError> {
        let cost = self.open.iter().fold(self.fixed, |cost, (times, name, each)| {
            let count = match variables.get(name) {
                Some(Value::List(ids)) => times.count(Some(ids.len()), None, limits),
                Some(Value::Number(number)) => times.count(None, Some(number), limits),
                _ => times.count(None, None, limits),
            };
            cost.saturating_add(count.saturating_mul(*each))
        });
        if cost > limits.cost as u64 {
            return Err(OverLimit::too_complex("cost", "points of cost", limits.cost, cost));
        }
        Ok(())
    }

    /// The bytes that it takes beside itself.
    pub(crate) fn size(&self) -> usize {
        self.open.capacity() * size_of::<(Times, Name, u64)>()
    }

    fn add(&mut self, cost: u64) {
        self.fixed = self.fixed.saturating_add(cost);
    }

    /// As many times `each` as the argument of `field` says.
    fn add_each(&mut self, times: Times, field: &Field, each: u64, limits: &Limits) {
        let count = match field.get_argument(times.argument()).map(|value| &value.node) {
            Some(Literal::Variable(name)) => return self.open.push((times, name.clone(), each)),
            Some(Literal::List(ids)) => times.count(Some(ids.len()), None, limits),
            Some(Literal::Number(number)) => times.count(None, Some(number), limits),
            _ => times.count(None, None, limits),
        };
        self.add(count.saturating_mul(each));
    }
}

impl Times {
    fn argument(self) -> &'static str {
        match self {
            Self::Ids => "ids",
            Self::First => "first",
        }
    }

    /// How many, where the argument is a list of that length, or that number. More than may be there fail by themselves.
    fn count(self, list: Option<usize>, number: Option<&Number>, limits: &Limits) -> u64 {
        match self {
            // One id stands for a list of one.
            Self::Ids => list.unwrap_or(1).min(limits.ids) as u64,
            Self::First => {
                let first =
                    number.map_or(DEFAULT_WINDOW.into(), |number| number.as_i64().unwrap_or_default());
                first.clamp(0, LONGEST_WINDOW.into()).unsigned_abs()
            }
        }
    }
}

/// What is selected in `set`, of the object that has these `fields`, once; of a list of it, `list`.
fn sum(set: &SelectionSet, of: Option<&Fields>, types: &Types, list: u64) -> u64 {
    normalize::fields(set).fold(0, |cost, field| {
        let field = &field.node;
        let is_list = of.and_then(|of| of.get(&field.name.node)).is_some_and(|field| field.is_list);
        let inner = sum(&field.selection_set.node, behind(field, of, types), types, ASSUMED);
        let times = if is_list { list } else { 1 };
        cost.saturating_add(1).saturating_add(inner.saturating_mul(times))
    })
}

/// The fields of what `field`, one of `of`, leads to.
fn behind<'t>(field: &Field, of: Option<&'t Fields>, types: &'t Types) -> Option<&'t Fields> {
    types.behind(of?.get(&field.name.node)?)
}
