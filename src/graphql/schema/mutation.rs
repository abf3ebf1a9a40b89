//! `Mutation`: changes to appointments, each sent upstream once, in the order of the operation.

use std::{borrow::Cow, sync::atomic::Ordering};

use async_graphql::{
    Context, ContextSelectionSet, MaybeUndefined, Object, OutputType, Positioned, ServerResult, SimpleObject,
    Value, parser::types::Field, registry::Registry,
};

use super::nullable_appointment::{NullableAppointment, to_field};
use crate::model::user_error::UserError;
use crate::{
    appointments::changed::Changed,
    error::ApiError,
    graphql::{
        execute::{
            projection::{ProjectedAppointment, object, path_to, report},
            run::Execution,
            writer::{Object, ResponsePath, Write, WriteField, Writer},
        },
        pipeline::selection::{Outline, Outlined, SelectedField},
    },
    model::{
        Uuid,
        change::{Change, CreateAppointmentInput, UpdateAppointmentInput},
    },
};

/// The mutation root type.
#[derive(Debug)]
pub(crate) struct Mutation;

/// The result of a change: the changed appointment, or the errors in the input.
#[derive(SimpleObject)]
pub(crate) struct AppointmentPayload {
    /// The appointment after the change. Null if the change was rejected or the upstream did not return the appointment.
    appointment: NullableAppointment,
    /// Errors in the input, by field. Empty if the change was applied.
    user_errors: UserErrors,
}

object!(UserError |it| {
    "field": it.field,
    "message": it.message,
});

/// User errors, projected to JSON when they are resolved.
struct UserErrors(Vec<UserError>);

impl OutputType for UserErrors {
    fn type_name() -> Cow<'static, str> {
        Vec::<UserError>::type_name()
    }

    fn qualified_type_name() -> String {
        Vec::<UserError>::qualified_type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        Vec::<UserError>::create_type_info(registry)
    }

    /// Serves as many errors as fit the response: an empty list would mean that the change was applied.
    async fn resolve(&self, ctx: &ContextSelectionSet<'_>, field: &Positioned<Field>) -> ServerResult<Value> {
        let execution = Execution::of(ctx);
        let (json, excess) =
            execution.draft().list(&self.0, execution.plan.selection(ctx.item), &|| path_to(ctx));
        if let Some(excess) = excess {
            report(ctx, field, excess.into());
        }
        Ok(Value::Binary(json.into()))
    }
}

/// Changes on behalf of the caller. Each change is sent upstream once, in the order of the operation.
#[Object]
impl Mutation {
    /// Creates an appointment. A repeated request creates another one, unless both have the same request header
    /// Idempotency-Key: send a new UUID with each new appointment, and if there is no answer, repeat the request with
    /// the same key. After OUTCOME_UNKNOWN, check whether the appointment exists before you use a new key.
    async fn create_appointment(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The appointment to create.")] input: CreateAppointmentInput,
    ) -> Result<AppointmentPayload, ApiError> {
        run_in_sequence(ctx, Ok(Change::Create(Box::new(input)))).await
    }

    /// Updates the fields that are present in the input. Omitted fields stay unchanged.
    async fn update_appointment(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The appointment's id.")] id: Uuid,
        #[graphql(desc = "The fields to change.")] input: UpdateAppointmentInput,
    ) -> Result<AppointmentPayload, ApiError> {
        let is_valid = !matches!(input.features, MaybeUndefined::Null);
        let rejection = || {
            let text = "features cannot be null. Omit it, or set the flags to change.";
            ApiError::BadUserInput(text.to_owned())
        };
        let change = is_valid.then(|| Change::Update(id, Box::new(input))).ok_or_else(rejection);
        run_in_sequence(ctx, change).await
    }

    /// Cancels an appointment.
    async fn cancel_appointment(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The appointment's id.")] id: Uuid,
        #[graphql(desc = "The reason, as free text.", tag = "personal-data")] reason: Option<String>,
    ) -> Result<AppointmentPayload, ApiError> {
        run_in_sequence(ctx, Ok(Change::Cancel(id, reason))).await
    }
}

async fn run_in_sequence(
    ctx: &Context<'_>,
    change: Result<Change, ApiError>,
) -> Result<AppointmentPayload, ApiError> {
    let sequence = &Execution::of(ctx).sequence;
    if sequence.has_failed.load(Ordering::Relaxed) {
        return Err(ApiError::ChangeSkipped);
    }
    let payload = send(ctx, change).await;
    sequence.has_failed.store(payload.is_err(), Ordering::Relaxed);
    payload
}

async fn send(ctx: &Context<'_>, change: Result<Change, ApiError>) -> Result<AppointmentPayload, ApiError> {
    let execution = Execution::of(ctx);
    // Without memory for the response, the change is not sent.
    execution.draft().begin()?;
    let appointments = execution.appointments()?;
    let applied = |appointment| AppointmentPayload { appointment, user_errors: UserErrors(Vec::new()) };
    Ok(match appointments.change(Execution::root_index(ctx), change?).await? {
        Changed::To(appointment) => applied(appointment.map(|it| Ok(ProjectedAppointment(it)))),
        // The change was made, whatever comes of the read.
        Changed::Earlier(Some(id)) if ctx.look_ahead().field("appointment").exists() => {
            applied(to_field(ctx, None, appointments.get_again(id).await))
        }
        Changed::Earlier(_) => applied(None),
        Changed::Rejected(errors) => AppointmentPayload {
            appointment: None,
            user_errors: UserErrors(
                errors
                    .into_iter()
                    .map(|error| UserError { field: error.field, message: error.message })
                    .collect(),
            ),
        },
    })
}
