//! Execution of prepared operations, for all transports.

use std::sync::Arc;

use futures_util::{Stream, StreamExt as _, stream};
use tokio::time::Instant;

use crate::{
    appointments::operation::Appointments,
    caller::Caller,
    error::ApiError,
    graphql::{
        api::Operation,
        execute::{response::GraphqlResponse, run::Access},
    },
    http::gateway::Gateway,
};

/// The access of an operation to appointments: until `deadline`, or as long as a subscription lasts.
///
/// # Errors
/// `UNAUTHENTICATED`, also if the credential was withdrawn while the operation waited for admission.
pub(crate) fn access(
    gateway: &Gateway,
    caller: Result<Caller, ApiError>,
    deadline: Instant,
) -> Result<Appointments, ApiError> {
    let caller = caller?;
    match caller.rejection() {
        Some(reason) => Err(ApiError::Unauthenticated(reason)),
        None => Ok(Appointments::new(gateway.appointments.clone(), caller, deadline)),
    }
}

/// Executes an operation: a subscription has a response per event, any other operation has one.
pub(crate) fn responses(
    gateway: &Arc<Gateway>,
    operation: Operation,
    access: Access,
) -> impl Stream<Item = GraphqlResponse> + Send + use<> {
    if operation.is_subscription() {
        return gateway.api.subscribe(operation, access).left_stream();
    }
    let gateway = gateway.clone();
    stream::once(async move { gateway.api.execute(operation, access).await }).right_stream()
}
