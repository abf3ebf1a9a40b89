//! `Query`: appointments by id, and the appointment list. The [model](crate::model) defines the fields of an appointment.

use std::sync::Arc;

use async_graphql::{Context, MergedObject, Object};

use super::cursor::{DEFAULT_WINDOW, MAX_WINDOW};
use super::{
    connection::AppointmentConnection,
    cursor::Cursor,
    entities::Subgraph,
    nullable_appointment::{NullableAppointment, to_field},
    request_limits::RequestLimits,
};
use crate::{
    appointments::list::WindowRequest,
    config::limits::Limits,
    error::{
        ApiError,
        limit::{Limit, LimitExceeded},
    },
    graphql::execute::run::Execution,
    model::Uuid,
};

/// Reads on behalf of the caller.
#[derive(Debug, MergedObject)]
pub(crate) struct Query(AppointmentQuery, Subgraph);

/// The root fields that read appointments.
#[derive(Debug)]
pub(crate) struct AppointmentQuery {
    limits: RequestLimits,
}

#[Object]
impl AppointmentQuery {
    /// An appointment by id. Null, without an error, if it does not exist.
    async fn appointment(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The appointment's id.")] id: Uuid,
    ) -> NullableAppointment {
        match self.limits.admit(ctx, &[id.0], 1).and_then(|()| Execution::of(ctx).appointments()) {
            Ok(appointments) => to_field(ctx, None, appointments.get(id.0).await),
            Err(error) => Some(Err(error)),
        }
    }

    /// Appointments by id, in the requested order, with null for each unknown id. At most 100 ids. An error for one id does
    /// not affect the others.
    async fn appointments_by_ids(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The ids of the appointments. Duplicates are allowed.")] ids: Vec<Uuid>,
    ) -> Result<Vec<NullableAppointment>, ApiError> {
        let ids = ids.into_iter().map(|id| id.0).collect::<Vec<_>>();
        self.limits.admit_list(ctx, &ids, ids.len())?;
        Ok(match Execution::of(ctx).appointments() {
            Ok(appointments) => {
                let outcomes = appointments.get_many(ids).await.into_iter().enumerate();
                outcomes.map(|(index, outcome)| to_field(ctx, Some(index), outcome)).collect()
            }
            Err(error) => ids.iter().map(|_| Some(Err(error.clone()))).collect(),
        })
    }

    /// The appointments visible to the caller, as a Relay connection. At most 100 per page.
    async fn appointments(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The page size, from 1 to 100.", default = 25)] first: Option<i32>,
        #[graphql(desc = "The cursor to continue after. Omit it for the first page.")] after: Option<String>,
    ) -> Result<AppointmentConnection, ApiError> {
        let length = first.unwrap_or(DEFAULT_WINDOW);
        if !(1..=MAX_WINDOW).contains(&length) {
            let message = format!("first must be between 1 and {MAX_WINDOW}.");
            return Err(match u64::try_from(length) {
                Ok(value @ 1..) => LimitExceeded::bad_input(Limit::First, MAX_WINDOW as u64, value, message),
                _ => ApiError::BadUserInput(message),
            });
        }
        let after = match after.as_deref().map(Cursor::decode) {
            None => None,
            Some(Some(cursor)) => Some(cursor),
            Some(None) => {
                return Err(ApiError::BadUserInput(
                    "after is not a cursor of this list. Pass an unchanged endCursor or edge cursor."
                        .to_owned(),
                ));
            }
        };
        let request = WindowRequest {
            start: after.map_or(0, |cursor| cursor.position + 1),
            length: length.unsigned_abs(),
            page_cap: after.and_then(|cursor| cursor.page_cap),
        };
        self.limits.admit(ctx, &[], request.length as usize)?;
        let window = Execution::of(ctx).appointments()?.window(request).await?;
        if let Some(age) = window.age {
            Execution::record_stale(ctx, None, age);
        }
        Ok(AppointmentConnection::new(request.start, window))
    }
}

impl Query {
    /// A query root. `subgraph_sdl` is empty if the schema has no subgraph.
    pub(crate) fn new(limits: &Limits, subgraph_sdl: Arc<str>) -> Self {
        let limits = RequestLimits::new(limits);
        Self(AppointmentQuery { limits }, Subgraph::new(limits, subgraph_sdl))
    }
}
