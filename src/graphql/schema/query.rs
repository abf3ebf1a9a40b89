//! `Query`: which appointments. What each of them holds is the [model](crate::model)'s to say.

use std::sync::{PoisonError, atomic::Ordering};

use async_graphql::{Context, Object};

use super::cursor::{DEFAULT_WINDOW, LONGEST_WINDOW};
use super::{connection::AppointmentConnection, cursor::Cursor};
use crate::{
    appointments::{
        list::WindowRequest,
        served::{Outcome, Served},
    },
    config::limits::Limits,
    error::{ApiError, limit::OverLimit},
    graphql::execute::{projection::Written, run::Run},
    model::Uuid,
};

/// Reading.
#[derive(Debug)]
pub(crate) struct Query {
    max_ids: usize,
    max_items: usize,
}

/// An appointment as a nullable field serves it: `None` is null, `Some(Err(…))` is null with an error at its place.
type Found = Option<Result<Written, ApiError>>;

/// Reading, as the bearer of the request's token.
#[Object]
impl Query {
    /// One appointment, or null where the upstream knows none by that id (no error).
    async fn appointment(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The appointment's id.")] id: Uuid,
    ) -> Found {
        match self.admit(ctx, &[id.0], 1).and_then(|()| Run::of(ctx).appointments()) {
            Ok(appointments) => found(ctx, None, appointments.get(id.0).await),
            Err(error) => Some(Err(error)),
        }
    }

    /// Several, in the order asked, null for each unknown id. At most 100 ids. A failing id never fails its siblings.
    async fn appointments_by_ids(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The ids, in the order in which the answers are to come. One may come twice.")] ids: Vec<Uuid>,
    ) -> Result<Vec<Found>, ApiError> {
        if ids.len() > self.max_ids {
            return Err(self.too_many(ids.len()));
        }
        let ids = ids.into_iter().map(|id| id.0).collect::<Vec<_>>();
        self.admit(ctx, &ids, ids.len())?;
        Ok(match Run::of(ctx).appointments() {
            Ok(appointments) => {
                let outcomes = appointments.get_many(ids).await.into_iter().enumerate();
                outcomes.map(|(index, outcome)| found(ctx, Some(index), outcome)).collect()
            }
            Err(error) => ids.iter().map(|_| Some(Err(error.clone()))).collect(),
        })
    }

    /// The appointments that the caller may see, as a Relay connection over the upstream's pages. At most 100 a page.
    async fn appointments(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many at most, from 1 to 100.", default = 25)] first: Option<i32>,
        #[graphql(desc = "The cursor behind which to begin; left out: at the beginning.")] after: Option<
            String,
        >,
    ) -> Result<AppointmentConnection, ApiError> {
        let length = first.unwrap_or(DEFAULT_WINDOW);
        if !(1..=LONGEST_WINDOW).contains(&length) {
            let message = format!("first has to be from 1 to {LONGEST_WINDOW}.");
            return Err(match u64::try_from(length) {
                Ok(value @ 1..) => OverLimit::bad_input("first", LONGEST_WINDOW as u64, value, message),
                _ => ApiError::BadUserInput(message),
            });
        }
        let after = match after.as_deref().map(Cursor::decode) {
            None => None,
            Some(Some(cursor)) => Some(cursor),
            Some(None) => {
                return Err(ApiError::BadUserInput(
                    "after is no cursor of this list: give an endCursor, or a cursor of an edge, as it came."
                        .to_owned(),
                ));
            }
        };
        let place = WindowRequest {
            start: after.map_or(0, |cursor| cursor.position + 1),
            length: length.unsigned_abs(),
            page_cap: after.and_then(|cursor| cursor.page_cap),
        };
        self.admit(ctx, &[], place.length as usize)?;
        let window = Run::of(ctx).appointments()?.window(place).await?;
        if let Some(age) = window.age {
            Run::note_stale(ctx, None, age);
        }
        Ok(AppointmentConnection::new(place.start, window))
    }
}

impl Query {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { max_ids: limits.ids, max_items: limits.items }
    }

    /// Makes sure that an operation with many fields asks for no more than one with few.
    fn admit(&self, ctx: &Context<'_>, ids: &[uuid::Uuid], items: usize) -> Result<(), ApiError> {
        let tally = &Run::of(ctx).tally;
        let items = tally.items.fetch_add(items, Ordering::Relaxed) + items;
        if items > self.max_items {
            let what = "appointments in all its fields";
            return Err(OverLimit::too_complex("items", what, self.max_items, items as u64));
        }
        let mut asked = tally.ids.lock().unwrap_or_else(PoisonError::into_inner);
        asked.extend(ids);
        if asked.len() > self.max_ids { Err(self.too_many(asked.len())) } else { Ok(()) }
    }

    fn too_many(&self, count: usize) -> ApiError {
        let most = self.max_ids;
        let message = format!(
            "{count} ids are more than the {most} that limits.ids allows in one field, or of distinct ones in one \
             operation. Ask for them in parts."
        );
        OverLimit::bad_input("ids", most as u64, count as u64, message)
    }
}

/// At `index` of the field, where it is a list.
fn found(ctx: &Context<'_>, index: Option<usize>, outcome: Outcome) -> Found {
    let served = outcome.map_err(ApiError::from).transpose()?;
    Some(served.map(|Served { appointment, age }| {
        if let Some(age) = age {
            Run::note_stale(ctx, index, age);
        }
        Written(appointment)
    }))
}
