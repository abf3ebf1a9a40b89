//! A field that is an appointment or null.

use async_graphql::Context;

use crate::{
    appointments::served::{Outcome, Served},
    error::ApiError,
    graphql::execute::{projection::ProjectedAppointment, run::Execution},
};

/// A nullable appointment field: `None` is null, `Some(Err(…))` is null with an error at its path. A `Result<Option<…>>`
/// that fails would lose its key in async-graphql.
pub(crate) type NullableAppointment = Option<Result<ProjectedAppointment, ApiError>>;

/// Converts the outcome of one id, at `index` if the field is a list.
pub(crate) fn to_field(ctx: &Context<'_>, index: Option<usize>, outcome: Outcome) -> NullableAppointment {
    let served = outcome.map_err(ApiError::from).transpose()?;
    Some(served.map(|Served { appointment, age }| {
        if let Some(age) = age {
            Execution::record_stale(ctx, index, age);
        }
        ProjectedAppointment(appointment)
    }))
}
