//! Static cost analysis of an operation (`limits.cost`).
//!
//! A field costs 1. Each upstream call that it may cause costs [`UPSTREAM_COST`] more: one per id of a list of ids, two for
//! a window of a connection (it may span two pages), and one for any other root field. The selection below a field is
//! added; below a list it is multiplied by the number of ids, by `first`, or by [`ASSUMED_LENGTH`] for any other list.
//! The arguments of a field, not its name, tell which of these applies ([`Multiplier`]).
//!
//! The analysis reads the normalised operation: merged fields count once, and skipped fields do not count.

use async_graphql::{
    Name, Positioned, Value, Variables,
    parser::types::{BaseType, Field, OperationDefinition, SelectionSet},
};
use async_graphql_value::{Number, Value as Literal};

use super::normalize;
use crate::{
    config::limits::Limits,
    error::{
        ApiError,
        limit::{Limit, LimitExceeded},
    },
    graphql::schema::{
        cursor::{DEFAULT_WINDOW, MAX_WINDOW},
        type_index::{OutputField, OutputFields, Types, is_schema_field},
    },
};

/// The cost of one upstream call.
const UPSTREAM_COST: u64 = 10;

/// The assumed length of lists whose length is unknown before execution.
const ASSUMED_LENGTH: u64 = 10;

/// The cost of an operation, as a function of its variables. Arithmetic saturates.
#[derive(Debug, Default)]
pub(crate) struct Cost {
    fixed: u64,
    /// The parts multiplied by a variable: the kind of multiplier, the variable, the cost of one item.
    variable_parts: Vec<(Multiplier, Name, u64)>,
}

/// The argument that determines how many objects a root field returns.
#[derive(Debug, Clone, Copy)]
enum Multiplier {
    /// The ids of a list of objects.
    Ids,
    /// `first`, the window length of a connection.
    First,
}

impl Cost {
    /// Analyses `operation`, which is normalised and valid. Recursion is bounded by the operation's depth.
    pub(crate) fn of(operation: &OperationDefinition, types: &Types, limits: &Limits) -> Self {
        let mut total = Self::default();
        let root = types.root(operation.ty);
        for field in normalize::fields(&operation.selection_set.node) {
            let field = &field.node;
            let definition = root.and_then(|root| root.get(&field.name.node));
            let inner = |list| sum(&field.selection_set.node, target_fields(field, root, types), types, list);
            let fixed = match definition.and_then(Multiplier::of) {
                _ if is_schema_field(&field.name.node) => inner(ASSUMED_LENGTH),
                None => inner(ASSUMED_LENGTH).saturating_add(UPSTREAM_COST),
                Some((Multiplier::Ids, argument)) => {
                    let each = inner(ASSUMED_LENGTH).saturating_add(UPSTREAM_COST);
                    total.add_each(Multiplier::Ids, field.get_argument(argument), each, limits);
                    0
                }
                Some((Multiplier::First, argument)) => {
                    // Selections below `nodes` and `edges` are multiplied by the window length, others are not.
                    let (none, one) = (inner(0), inner(1));
                    let each = one.saturating_sub(none);
                    total.add_each(Multiplier::First, field.get_argument(argument), each, limits);
                    none.saturating_add(2 * UPSTREAM_COST)
                }
            };
            total.add(fixed.saturating_add(1));
        }
        total
    }

    /// Checks the cost under `variables` against `limits.cost`, and returns it.
    ///
    /// # Errors
    /// `QUERY_TOO_COMPLEX` with the cost.
    pub(crate) fn check(&self, variables: &Variables, limits: &Limits) -> Result<u64, ApiError> {
        let cost = self.variable_parts.iter().fold(self.fixed, |cost, (multiplier, name, each)| {
            let count = match variables.get(name) {
                Some(Value::List(ids)) => multiplier.count(Some(ids.len()), None, limits),
                Some(Value::Number(number)) => multiplier.count(None, Some(number), limits),
                _ => multiplier.count(None, None, limits),
            };
            cost.saturating_add(count.saturating_mul(*each))
        });
        if cost > limits.cost as u64 {
            return Err(LimitExceeded::too_complex(Limit::Cost, "cost points", limits.cost, cost));
        }
        Ok(cost)
    }

    /// Checks the part of the cost that does not depend on variables against `limits.cost`.
    ///
    /// # Errors
    /// `QUERY_TOO_COMPLEX` with the cost.
    pub(crate) fn check_fixed(&self, limits: &Limits) -> Result<(), ApiError> {
        let cost = Self { fixed: self.fixed, variable_parts: Vec::new() };
        cost.check(&Variables::default(), limits).map(drop)
    }

    /// Heap bytes in use.
    pub(crate) fn size(&self) -> usize {
        self.variable_parts.capacity() * size_of::<(Multiplier, Name, u64)>()
    }

    fn add(&mut self, cost: u64) {
        self.fixed = self.fixed.saturating_add(cost);
    }

    /// Adds `each` multiplied by an argument.
    fn add_each(
        &mut self,
        multiplier: Multiplier,
        argument: Option<&Positioned<Literal>>,
        each: u64,
        limits: &Limits,
    ) {
        let count = match argument.map(|value| &value.node) {
            Some(Literal::Variable(name)) => {
                return self.variable_parts.push((multiplier, name.clone(), each));
            }
            Some(Literal::List(ids)) => multiplier.count(Some(ids.len()), None, limits),
            Some(Literal::Number(number)) => multiplier.count(None, Some(number), limits),
            _ => multiplier.count(None, None, limits),
        };
        self.add(count.saturating_mul(each));
    }
}

impl Multiplier {
    /// The multiplier of a root field, and the name of its argument.
    fn of(field: &OutputField) -> Option<(Self, &Name)> {
        field.arguments.iter().find_map(|(name, input)| match &input.ty.base {
            BaseType::List(_) if field.is_list => Some((Self::Ids, name)),
            BaseType::Named(_) if name == "first" => Some((Self::First, name)),
            _ => None,
        })
    }

    /// The number of items for an argument that is a list of that length, or that number. Values out of range are capped:
    /// the resolver rejects them.
    fn count(self, list: Option<usize>, number: Option<&Number>, limits: &Limits) -> u64 {
        match self {
            // A single id is coerced to a list of one.
            Self::Ids => list.unwrap_or(1).min(limits.ids) as u64,
            Self::First => {
                let first =
                    number.map_or(DEFAULT_WINDOW.into(), |number| number.as_i64().unwrap_or_default());
                first.clamp(0, MAX_WINDOW.into()).unsigned_abs()
            }
        }
    }
}

/// The cost of `set`, which selects from an object with the fields `of`. Selections of lists are multiplied by `list`.
fn sum(set: &SelectionSet, of: Option<&OutputFields>, types: &Types, list: u64) -> u64 {
    normalize::fields(set).fold(0, |cost, field| {
        let field = &field.node;
        let is_list = of.and_then(|of| of.get(&field.name.node)).is_some_and(|field| field.is_list);
        let inner = sum(&field.selection_set.node, target_fields(field, of, types), types, ASSUMED_LENGTH);
        let multiplier = if is_list { list } else { 1 };
        cost.saturating_add(1).saturating_add(inner.saturating_mul(multiplier))
    })
}

/// The fields of the object type that `field` returns.
fn target_fields<'t>(
    field: &Field,
    of: Option<&'t OutputFields>,
    types: &'t Types,
) -> Option<&'t OutputFields> {
    types.target_fields(of?.get(&field.name.node)?)
}
