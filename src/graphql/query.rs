//! `Query`: which appointments. What each of them holds is the [model](crate::model)'s to say.

use async_graphql::{Context, Object};

use super::error::ApiError;
use crate::{
    appointments::{Appointments, Outcome},
    config::Limits,
    model::{SharedAppointment, Uuid},
};

/// Reading.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) max_ids: usize,
}

/// What an operation may ask through: none where its caller has no credential, so that there is nothing to ask with.
pub(super) type Access = Result<Appointments, ApiError>;

/// An appointment as a nullable field serves it: `None` is null, `Some(Err(…))` is null with an error at its place.
type Found = Option<Result<SharedAppointment, ApiError>>;

/// Reading, as the bearer of the request's token.
#[Object]
impl Query {
    /// One appointment, or null where the upstream knows none by that id (no error).
    async fn appointment(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The appointment's id.")] id: Uuid,
    ) -> Found {
        match access(ctx) {
            Ok(appointments) => found(appointments.get(id.0).await),
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
            let (count, most) = (ids.len(), self.max_ids);
            return Err(ApiError::BadUserInput(format!(
                "{count} ids are more than the {most} that limits.ids allows. Ask for them in parts."
            )));
        }
        let ids = ids.into_iter().map(|id| id.0).collect::<Vec<_>>();
        Ok(match access(ctx) {
            Ok(appointments) => appointments.get_many(ids).await.into_iter().map(found).collect(),
            Err(error) => ids.iter().map(|_| Some(Err(error.clone()))).collect(),
        })
    }
}

impl Query {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { max_ids: limits.ids }
    }
}

fn access<'a>(ctx: &Context<'a>) -> Result<&'a Appointments, ApiError> {
    // `execute` puts it there for every operation.
    ctx.data_unchecked::<Access>().as_ref().map_err(Clone::clone)
}

fn found(outcome: Outcome) -> Found {
    outcome.map_err(ApiError::from).transpose()
}
