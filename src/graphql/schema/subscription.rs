//! `Subscription`: changes of appointments.

use std::time::Duration;

use async_graphql::{Context, Subscription as Root};
use futures_util::{Stream, StreamExt as _, future, stream};
use tokio::time::sleep;

use crate::{
    caller::Caller,
    error::ApiError,
    graphql::execute::{projection::ProjectedAppointment, run::Execution},
    model::Uuid,
};

/// The maximum wait for the upstream's verdict on a token that has expired by the gateway's clock. An upstream that fails
/// gives none.
const MAX_VERDICT_WAIT: Duration = Duration::from_secs(60);

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
/// upstream decides on the first update, within [`MAX_VERDICT_WAIT`].
fn until_rejected<T: Send>(
    caller: Caller,
    updates: impl Stream<Item = Result<T, ApiError>> + Send,
) -> impl Stream<Item = Result<T, ApiError>> + Send {
    let is_judged = !caller.is_past_expiry();
    let rejected = Box::pin(async move { caller.until_rejected().await });
    let no_verdict = Box::pin(sleep(MAX_VERDICT_WAIT));
    let start = Some((is_judged, no_verdict, rejected, Box::pin(updates)));
    stream::unfold(start, async |state| {
        let (mut is_judged, mut no_verdict, mut rejected, mut updates) = state?;
        loop {
            tokio::select! {
                biased;
                reason = &mut rejected, if is_judged => {
                    return Some((Err(ApiError::Unauthenticated(reason)), None));
                }
                next = updates.next() => return next.map(|next| {
                    // No second verdict follows the upstream's.
                    let is_over = matches!(next, Err(ApiError::Unauthenticated(_)));
                    (next, (!is_over).then_some((true, no_verdict, rejected, updates)))
                }),
                () = &mut no_verdict, if !is_judged => is_judged = true,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;
    use crate::caller::ScopeKey;

    #[tokio::test(start_paused = true)]
    async fn an_expired_token_without_a_verdict_is_rejected() {
        let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(r#"{"exp":1}"#);
        let caller = Caller::with_token(&format!("e30.{payload}.e30"), &ScopeKey::random());
        let mut updates = Box::pin(until_rejected(caller, stream::pending::<Result<(), ApiError>>()));
        assert!(matches!(updates.next().await, Some(Err(ApiError::Unauthenticated(_)))));
        assert!(updates.next().await.is_none());
    }
}
