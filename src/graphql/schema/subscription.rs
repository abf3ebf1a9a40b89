//! `Subscription`: changes of appointments.

use async_graphql::{Context, Subscription as Root};
use futures_util::{Stream, StreamExt as _, future, stream};

use crate::{
    caller::Caller,
    error::ApiError,
    graphql::execute::{projection::ProjectedAppointment, run::Execution},
    model::Uuid,
};

/// The subscription root type.
#[derive(Debug)]
pub(crate) struct Subscription;

/// Subscriptions on behalf of the caller.
#[Root]
impl Subscription {
    /// Emits the appointment immediately, and again after each change.
    async fn appointment_changed(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The appointment's id.")] id: Uuid,
    ) -> impl Stream<Item = Result<ProjectedAppointment, ApiError>> {
        match Execution::of(ctx).appointments() {
            Ok(appointments) => {
                let updates = appointments.watch(id.0);
                let updates = updates.map(|update| update.map(ProjectedAppointment).map_err(ApiError::from));
                until_rejected(appointments.caller().clone(), updates).left_stream()
            }
            Err(error) => stream::once(future::ready(Err(error))).right_stream(),
        }
    }
}

/// Ends `updates` with an error once the credential of `caller` is revoked or has expired. If it had expired before, the
/// upstream decides on the first update.
fn until_rejected<T: Send>(
    caller: Caller,
    updates: impl Stream<Item = Result<T, ApiError>> + Send,
) -> impl Stream<Item = Result<T, ApiError>> + Send {
    let is_judged = !caller.is_past_expiry();
    let rejected = Box::pin(async move { caller.until_rejected().await });
    let start = Some((is_judged, rejected, Box::pin(updates)));
    stream::unfold(start, async |state| {
        let (is_judged, mut rejected, mut updates) = state?;
        tokio::select! {
            biased;
            reason = &mut rejected, if is_judged => Some((Err(ApiError::Unauthenticated(reason)), None)),
            next = updates.next() => next.map(|next| {
                // No second verdict follows the upstream's.
                let is_over = matches!(next, Err(ApiError::Unauthenticated(_)));
                (next, (!is_over).then_some((true, rejected, updates)))
            }),
        }
    })
}
