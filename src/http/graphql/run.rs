//! Runs an operation of a caller.

use std::sync::Arc;

use futures_util::{Stream, StreamExt as _, stream};
use tokio::time::Instant;

use crate::{
    appointments::operation::Appointments,
    caller::Caller,
    error::ApiError,
    graphql::{api::Operation, execute::response::GraphqlResponse},
    http::gateway::Gateway,
};

/// What an operation of `caller` may ask through, until `deadline`; a subscription for as long as it goes on. The caller's
/// credential may have been withdrawn while the operation waited for its turn.
pub(crate) fn access(
    gateway: &Gateway,
    caller: Result<Caller, ApiError>,
    deadline: Instant,
) -> Result<Appointments, ApiError> {
    let caller = caller?;
    match caller.rejection() {
        Some(reason) => Err(ApiError::Unauthenticated(reason.into())),
        None => Ok(Appointments::new(gateway.appointments.clone(), caller, deadline)),
    }
}

/// Runs any operation: a subscription has an answer for each event, the others have one.
pub(crate) fn answers(
    gateway: &Arc<Gateway>,
    operation: Operation,
    caller: Result<Caller, ApiError>,
    deadline: Instant,
) -> impl Stream<Item = GraphqlResponse> + Send + use<> {
    let access = access(gateway, caller, deadline);
    if operation.is_subscription() {
        return gateway.api.subscribe(operation, access).left_stream();
    }
    let gateway = gateway.clone();
    stream::once(async move { gateway.api.execute(operation, access).await }).right_stream()
}
