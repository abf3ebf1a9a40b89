//! `Subscription`: appointments as they change.

use async_graphql::{Context, Subscription as Root};
use futures_util::{Stream, StreamExt as _, future, stream};

use super::{Run, appointment::Written, error::ApiError};
use crate::model::Uuid;

/// Watching.
#[derive(Debug)]
pub(super) struct Subscription;

/// Watching, as the bearer of the request's token.
#[Root]
impl Subscription {
    /// Emits the appointment at once, then again each time that it changes.
    async fn appointment_changed(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The appointment's id.")] id: Uuid,
    ) -> impl Stream<Item = Result<Written, ApiError>> {
        match Run::of(ctx).appointments() {
            Ok(appointments) => {
                let seen = appointments.watch(id.0);
                seen.map(|seen| seen.map(Written).map_err(ApiError::from)).left_stream()
            }
            Err(error) => stream::once(future::ready(Err(error))).right_stream(),
        }
    }
}
