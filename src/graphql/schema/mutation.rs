//! `Mutation`: changes, each sent once and in the order of the operation.

use std::{borrow::Cow, sync::atomic::Ordering};

use async_graphql::{
    Context, ContextSelectionSet, MaybeUndefined, Object, OutputType, Positioned, ServerResult, SimpleObject,
    Value, parser::types::Field, registry::Registry,
};

use crate::model::user_error::UserError;
use crate::{
    appointments::changes::Changed,
    error::ApiError,
    graphql::{
        execute::{
            projection::{Written, object, path_to, report},
            run::Run,
            writer::{Object, Path, Write, WriteField, Writer},
        },
        pipeline::selection::{Outline, Selected},
    },
    model::{
        Uuid,
        change::{Change, CreateAppointmentInput, UpdateAppointmentInput},
    },
};

/// Changing.
#[derive(Debug)]
pub(crate) struct Mutation;

/// The upstream's verdict on a change: the appointment as it now is, or what is wrong with the input, field by field.
#[derive(SimpleObject)]
pub(crate) struct AppointmentPayload {
    /// The appointment as it now is. Null where nothing was changed, or where the upstream did not show it.
    appointment: Option<Written>,
    /// What is wrong with the input. Empty where the change was made.
    user_errors: UserErrors,
}

object!(UserError |it| {
    "field": it.field,
    "message": it.message,
});

/// User errors, written to JSON when they are resolved.
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

    /// Where they exceed the size of an answer, those that fit are served: an empty list would say that the change was made.
    async fn resolve(&self, ctx: &ContextSelectionSet<'_>, field: &Positioned<Field>) -> ServerResult<Value> {
        let run = Run::of(ctx);
        let (json, excess) = run.draft().list(&self.0, run.plan.selection(ctx.item), &|| path_to(ctx));
        if let Some(excess) = excess {
            report(ctx, field, excess.into());
        }
        Ok(Value::Binary(json.into()))
    }
}

/// Changing, as the bearer of the request's token: each change is sent once, in the order of the operation.
#[Object]
impl Mutation {
    /// Makes an appointment. It is sent upstream once; there is no key to send it again safely: after OUTCOME_UNKNOWN,
    /// look before you repeat it.
    async fn create_appointment(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What it is to be.")] input: CreateAppointmentInput,
    ) -> Result<AppointmentPayload, ApiError> {
        carry_out(ctx, Ok(Change::Create(Box::new(input)))).await
    }

    /// Changes what the input holds and nothing else.
    async fn update_appointment(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which appointment.")] id: Uuid,
        #[graphql(desc = "What is to change.")] input: UpdateAppointmentInput,
    ) -> Result<AppointmentPayload, ApiError> {
        let is_possible = !matches!(input.features, MaybeUndefined::Null);
        let refusal = || {
            let text = "features cannot be null: leave it out, or give the flags that are to change.";
            ApiError::BadUserInput(text.to_owned())
        };
        let change = is_possible.then(|| Change::Update(id, Box::new(input))).ok_or_else(refusal);
        carry_out(ctx, change).await
    }

    /// Cancels an appointment.
    async fn cancel_appointment(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which appointment.")] id: Uuid,
        #[graphql(desc = "Why, for people to read.")] reason: Option<String>,
    ) -> Result<AppointmentPayload, ApiError> {
        carry_out(ctx, Ok(Change::Cancel(id, reason))).await
    }
}

async fn carry_out(
    ctx: &Context<'_>,
    change: Result<Change, ApiError>,
) -> Result<AppointmentPayload, ApiError> {
    let sequence = &Run::of(ctx).sequence;
    if sequence.has_failed.load(Ordering::Relaxed) {
        return Err(ApiError::NotRun);
    }
    let payload = send(ctx, change).await;
    sequence.has_failed.store(payload.is_err(), Ordering::Relaxed);
    payload
}

async fn send(ctx: &Context<'_>, change: Result<Change, ApiError>) -> Result<AppointmentPayload, ApiError> {
    let run = Run::of(ctx);
    // A change is not sent where there is no memory to answer it.
    run.draft().begin()?;
    Ok(match run.appointments()?.change(change?).await? {
        Changed::To(appointment) => {
            AppointmentPayload { appointment: appointment.map(Written), user_errors: UserErrors(Vec::new()) }
        }
        Changed::Rejected(faults) => AppointmentPayload {
            appointment: None,
            user_errors: UserErrors(
                faults
                    .into_iter()
                    .map(|fault| UserError { field: fault.field, message: fault.message })
                    .collect(),
            ),
        },
    })
}
