//! `Query`: appointments by id, and the appointment list. The [model](crate::model) defines the fields of an appointment.

use std::{
    collections::HashSet,
    sync::{PoisonError, atomic::Ordering},
};

use async_graphql::{Context, Object};

use super::cursor::{DEFAULT_WINDOW, MAX_WINDOW};
use super::{connection::AppointmentConnection, cursor::Cursor};
use crate::{
    appointments::{
        list::WindowRequest,
        served::{Outcome, Served},
    },
    config::limits::Limits,
    error::{
        ApiError,
        limit::{Limit, LimitExceeded},
    },
    graphql::execute::{projection::ProjectedAppointment, run::Execution},
    model::Uuid,
};

/// The query root type.
#[derive(Debug)]
pub(crate) struct Query {
    max_ids: usize,
    max_items: usize,
}

/// A nullable appointment field: `None` is null, `Some(Err(…))` is null with an error at its path. A `Result<Option<…>>`
/// that fails would lose its key in async-graphql.
type NullableAppointment = Option<Result<ProjectedAppointment, ApiError>>;

/// Reads on behalf of the caller.
#[Object]
impl Query {
    /// An appointment by id. Null, without an error, if it does not exist.
    async fn appointment(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The appointment's id.")] id: Uuid,
    ) -> NullableAppointment {
        match self.admit(ctx, &[id.0], 1).and_then(|()| Execution::of(ctx).appointments()) {
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
        if ids.len() > self.max_ids {
            return Err(self.too_many(ids.len()));
        }
        let ids = ids.into_iter().map(|id| id.0).collect::<Vec<_>>();
        self.admit(ctx, &ids, ids.len())?;
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
        self.admit(ctx, &[], request.length as usize)?;
        let window = Execution::of(ctx).appointments()?.window(request).await?;
        if let Some(age) = window.age {
            Execution::record_stale(ctx, None, age);
        }
        Ok(AppointmentConnection::new(request.start, window))
    }
}

impl Query {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { max_ids: limits.ids, max_items: limits.items }
    }

    /// Checks the totals of the operation against `limits.ids` and `limits.items`, however many fields it has.
    fn admit(&self, ctx: &Context<'_>, ids: &[uuid::Uuid], items: usize) -> Result<(), ApiError> {
        let requested = &Execution::of(ctx).requested;
        let mut distinct = requested.ids.lock().unwrap_or_else(PoisonError::into_inner);
        let items = requested.items.load(Ordering::Relaxed) + items;
        if items > self.max_items {
            let what = "requested appointments";
            return Err(LimitExceeded::too_complex(Limit::Items, what, self.max_items, items as u64));
        }
        let new: HashSet<_> = ids.iter().filter(|id| !distinct.contains(*id)).collect();
        let count = distinct.len() + new.len();
        if count > self.max_ids {
            return Err(self.too_many(count));
        }
        // A rejected field takes nothing from the others.
        distinct.extend(ids);
        requested.items.store(items, Ordering::Relaxed);
        Ok(())
    }

    fn too_many(&self, count: usize) -> ApiError {
        let maximum = self.max_ids;
        let message = format!(
            "{count} ids exceed the limit of {maximum} per field and of distinct ids per request (limits.ids). Split \
             the request."
        );
        LimitExceeded::bad_input(Limit::Ids, maximum as u64, count as u64, message)
    }
}

/// Converts the outcome of one id, at `index` if the field is a list.
fn to_field(ctx: &Context<'_>, index: Option<usize>, outcome: Outcome) -> NullableAppointment {
    let served = outcome.map_err(ApiError::from).transpose()?;
    Some(served.map(|Served { appointment, age }| {
        if let Some(age) = age {
            Execution::record_stale(ctx, index, age);
        }
        ProjectedAppointment(appointment)
    }))
}
