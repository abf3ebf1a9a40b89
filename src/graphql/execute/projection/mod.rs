//! Projection of appointments to JSON. To async-graphql, a projected appointment is one opaque value; the whole
//! selection below it is written when it is resolved. The [model](crate::model) defines the schema types.

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use async_graphql::{
    ContextSelectionSet, OutputType, PathSegment, Positioned, ServerError, ServerResult, Value,
    parser::types::Field, registry::Registry,
};

use super::{
    draft::ExceededBudget,
    run::Execution,
    writer::{Object, ResponsePath, Write, WriteField, Writer},
};
use crate::{
    error::ApiError,
    graphql::pipeline::selection::{Outline, Outlined, SelectedField},
    model::{
        Appointment, Claimant, ClaimantField, Department, Feature, Features, Meeting, SharedAppointment,
    },
};

/// An appointment that resolves to finished JSON in a [`Value::Binary`].
pub(crate) struct ProjectedAppointment(pub(crate) SharedAppointment);

impl OutputType for ProjectedAppointment {
    fn type_name() -> Cow<'static, str> {
        Appointment::type_name()
    }

    fn qualified_type_name() -> String {
        Appointment::qualified_type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        Appointment::create_type_info(registry)
    }

    async fn resolve(&self, ctx: &ContextSelectionSet<'_>, field: &Positioned<Field>) -> ServerResult<Value> {
        let execution = Execution::of(ctx);
        let mut draft = execution.draft();
        match draft.object(&*self.0, execution.plan.selection(ctx.item), &|| path_to(ctx)) {
            Ok(json) => Ok(Value::Binary(json.into())),
            Err(excess) => {
                // For a query or an event, all data is dropped later. A change was applied, so its response says so.
                if draft.is_mutation {
                    report(ctx, field, too_large_after_change(excess));
                }
                Ok(Value::Null)
            }
        }
    }
}

/// The response path of the current field.
pub(crate) fn path_to(ctx: &ContextSelectionSet<'_>) -> Vec<PathSegment> {
    ctx.set_error_path(ServerError::new("", None)).path
}

/// Adds an error at the current `field`.
pub(crate) fn report(ctx: &ContextSelectionSet<'_>, field: &Positioned<Field>, error: ApiError) {
    let error = ServerError { locations: vec![field.pos], ..error.into() };
    ctx.add_error(ctx.set_error_path(error));
}

/// The error in place of a changed appointment that is too large for the response.
fn too_large_after_change(excess: ExceededBudget) -> ApiError {
    let mut error = excess.into();
    if let ApiError::LimitExceeded(exceeded) = &mut error {
        // A retry because of this error would apply the change twice.
        exceeded.retry_after = None;
        exceeded.message =
            "The change was applied, but the appointment is too large for this response. Read the \
                        appointment. Do not send the change again."
                .into();
    }
    error
}

/// Implements [`Outlined`], [`Object`] and [`Write`]: maps each field name to its value and, for an object field, to the type it leads to.
/// A field with an argument also gets its selection.
macro_rules! object {
    ($type:ident |$object:ident| { $($name:literal $(($selected:ident))?: $value:expr $(=> $inner:ident)?,)+ }) => {
        impl Outlined for $type {
            const OUTLINE: Outline =
                Outline { name: stringify!($type), fields: &[$(($name, object!(@outline $($inner)?))),+] };
        }

        impl Object for $type {
            const FIELDS: &'static [WriteField<Self>] =
                &[$(|$object, selected, path, to| {
                    $(let $selected = selected;)?
                    Write::write(&$value, selected, path, to)
                }),+];
        }

        impl Write for $type {
            fn write(&self, selected: &SelectedField, path: &ResponsePath<'_>, to: &mut Writer<'_>) {
                to.object(self, &selected.inner, Some(path));
            }
        }
    };
    (@outline) => { None };
    (@outline $inner:ident) => { Some(&$inner::OUTLINE) };
}
pub(crate) use object;

object!(Appointment |it| {
    "id": it.id,
    "reference": it.reference,
    "appointmentAt": it.appointment_at,
    "durationInMinutes": it.duration_in_minutes,
    "isInterpreterNeeded": it.is_interpreter_needed,
    "interpreterLanguage": it.interpreter_language,
    "status": it.status,
    "url": it.url,
    "createdAt": it.created_at,
    "cancelledAt": it.cancelled_at,
    "cancellationReason": it.cancellation_reason,
    "department": it.department => Department,
    "claimant": it.claimant => Claimant,
    "meeting": it.meeting => Meeting,
    "sessionStartedAt": it.session_started_at,
    "sessionEndedAt": it.session_ended_at,
    "features": it.features => Features,
    "useCustomPostCallRedirect": it.use_custom_post_call_redirect,
    "customUserPostCallRedirectUrl": it.custom_user_post_call_redirect_url,
    "customAgentPostCallRedirectUrl": it.custom_agent_post_call_redirect_url,
    "endsAt": it.end(),
    "phase": it.current_phase(),
});

object!(Department |it| {
    "id": it.id,
    "name": it.name,
});

object!(Claimant |it| {
    "name": it.name,
    "phoneNumber": it.phone_number,
    "email": it.email,
    "dateOfBirth": it.date_of_birth,
    "data": it.data => ClaimantField,
});

object!(ClaimantField |it| {
    "id": it.id,
    "name": it.name,
    "value": it.value,
    "type": it.kind,
    "required": it.required,
});

object!(Meeting |it| {
    "id": it.id,
    "roomName": it.room_name,
    "roomUrl": it.room_url,
    "startDate": it.start_date,
    "endDate": it.end_date,
});

object!(Features |it| {
    "callRecording": it.call_recording,
    "breakoutRoom": it.breakout_room,
    "webcamAccessAgent": it.webcam_access_agent,
    "webcamAccessClaimant": it.webcam_access_claimant,
    "webcamBackgroundBlurring": it.webcam_background_blurring,
    "microphoneAccess": it.microphone_access,
    "screenSharing": it.screen_sharing,
    "messagesChat": it.messages_chat,
    "participantList": it.participant_list,
    "bandwidth": it.bandwidth,
    "all" (selected): it.known_flags(selected.enabled) => Feature,
});

object!(Feature |it| {
    "name": it.name,
    "enabled": it.enabled,
});
