//! `Subscription`: appointments as they change.

use async_graphql::{Context, Subscription as Root};
use futures_util::{Stream, StreamExt as _, future, stream};

use crate::{
    caller::Caller,
    error::ApiError,
    graphql::execute::{projection::Written, run::Run},
    model::Uuid,
    upstream::error::UpstreamError,
};

/// Watching.
#[derive(Debug)]
pub(crate) struct Subscription;

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
                let seen = seen.map(|seen| seen.map(Written).map_err(ApiError::from));
                until_rejected(appointments.caller().clone(), seen).left_stream()
            }
            Err(error) => stream::once(future::ready(Err(error))).right_stream(),
        }
    }
}

/// Ends `seen` with an error once the credential of `caller` has expired or was withdrawn.
fn until_rejected<T: Send>(
    caller: Caller,
    seen: impl Stream<Item = Result<T, ApiError>> + Send,
) -> impl Stream<Item = Result<T, ApiError>> + Send {
    stream::unfold(Some((caller, Box::pin(seen))), async |state| {
        let (caller, mut seen) = state?;
        tokio::select! {
            biased;
            reason = caller.until_rejected() => {
                let error = reason.map_or_else(
                    || UpstreamError::Unauthenticated.into(),
                    |reason| ApiError::Unauthenticated(reason.into()),
                );
                Some((Err(error), None))
            }
            next = seen.next() => next.map(|next| (next, Some((caller, seen)))),
        }
    })
}
