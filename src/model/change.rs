//! Changes of appointments, as clients put them: what is left out, what is null and what has a value are three things.

use std::fmt;

use async_graphql::{ID, InputObject, MaybeUndefined};

use super::{Bandwidth, Date, DateTime, Uuid};

/// A change to be sent upstream, once.
#[derive(Clone)]
pub enum Change {
    /// Make an appointment.
    Create(Box<CreateAppointmentInput>),
    /// Change some of its fields.
    Update(Uuid, Box<UpdateAppointmentInput>),
    /// Cancel it, for a reason.
    Cancel(Uuid, Option<String>),
}

/// What a new appointment is to be.
#[derive(Clone, InputObject)]
pub struct CreateAppointmentInput {
    /// The human-readable reference; the upstream makes one where it is left out.
    pub reference: MaybeUndefined<String>,
    /// When the appointment is to begin.
    pub appointment_at: DateTime,
    /// How long it is to last, in minutes.
    pub duration_in_minutes: MaybeUndefined<i32>,
    /// The department that is to hold it.
    pub department_id: MaybeUndefined<ID>,
    /// Whether an interpreter is to take part.
    pub is_interpreter_needed: MaybeUndefined<bool>,
    /// The language that the interpreter is to speak with the claimant.
    pub interpreter_language: MaybeUndefined<String>,
    /// The person whom the agent is to meet.
    pub claimant: MaybeUndefined<ClaimantInput>,
    /// What the call is to allow. Null counts as left out.
    pub features: Option<FeaturesInput>,
    /// Whether participants are to be sent to a page of the organisation's own after the call.
    pub use_custom_post_call_redirect: MaybeUndefined<bool>,
    /// Where the claimant is to be sent after the call.
    pub custom_user_post_call_redirect_url: MaybeUndefined<String>,
    /// Where the agent is to be sent after the call.
    pub custom_agent_post_call_redirect_url: MaybeUndefined<String>,
}

/// What is to change. A field left out stays as it is; a field given as null is cleared.
#[derive(Clone, Default, InputObject)]
pub struct UpdateAppointmentInput {
    /// When the appointment is to begin.
    pub appointment_at: MaybeUndefined<DateTime>,
    /// How long it is to last, in minutes.
    pub duration_in_minutes: MaybeUndefined<i32>,
    /// The department that is to hold it.
    pub department_id: MaybeUndefined<ID>,
    /// Whether an interpreter is to take part.
    pub is_interpreter_needed: MaybeUndefined<bool>,
    /// The language that the interpreter is to speak with the claimant.
    pub interpreter_language: MaybeUndefined<String>,
    /// The upstream's own word: scheduled, waiting, ….
    pub status: MaybeUndefined<String>,
    /// The person whom the agent is to meet; what is left out within stays as it is.
    pub claimant: MaybeUndefined<ClaimantInput>,
    /// What the call is to allow; what is left out within stays as it is. Cannot be null: there is nothing to clear.
    pub features: MaybeUndefined<FeaturesInput>,
    /// Whether participants are to be sent to a page of the organisation's own after the call.
    pub use_custom_post_call_redirect: MaybeUndefined<bool>,
    /// Where the claimant is to be sent after the call.
    pub custom_user_post_call_redirect_url: MaybeUndefined<String>,
    /// Where the agent is to be sent after the call.
    pub custom_agent_post_call_redirect_url: MaybeUndefined<String>,
}

/// The person whom the agent is to meet. Personal data throughout.
#[derive(Clone, Default, InputObject)]
pub struct ClaimantInput {
    /// The person's name.
    pub name: MaybeUndefined<String>,
    /// The person's phone number, E.164: +442071234567.
    pub phone_number: MaybeUndefined<String>,
    /// The person's e-mail address.
    pub email: MaybeUndefined<String>,
    /// The person's date of birth.
    pub date_of_birth: MaybeUndefined<Date>,
}

/// What a call is to allow.
#[derive(Clone, Default, InputObject)]
pub struct FeaturesInput {
    /// Whether the call may be recorded.
    pub call_recording: MaybeUndefined<bool>,
    /// Whether the agent may send participants into rooms of their own.
    pub breakout_room: MaybeUndefined<bool>,
    /// Whether the agent's camera may be on.
    pub webcam_access_agent: MaybeUndefined<bool>,
    /// Whether the claimant's camera may be on.
    pub webcam_access_claimant: MaybeUndefined<bool>,
    /// Whether camera backgrounds may be blurred.
    pub webcam_background_blurring: MaybeUndefined<bool>,
    /// Whether microphones may be on.
    pub microphone_access: MaybeUndefined<bool>,
    /// Whether screens may be shared.
    pub screen_sharing: MaybeUndefined<bool>,
    /// Whether participants may write messages.
    pub messages_chat: MaybeUndefined<bool>,
    /// Whether participants may see who takes part.
    pub participant_list: MaybeUndefined<bool>,
    /// How much bandwidth the video may use.
    pub bandwidth: MaybeUndefined<Bandwidth>,
}

/// Something that the upstream does not accept in a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputFault {
    /// The path into the input, in GraphQL names; none where the upstream names something that clients do not send.
    pub field: Option<Vec<String>>,
    /// What is wrong, in the gateway's own words.
    pub message: &'static str,
}

impl fmt::Debug for Change {
    /// Says what it is and nothing of what it holds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(_) => f.write_str("Create(…)"),
            Self::Update(id, _) => write!(f, "Update({}, …)", id.0),
            Self::Cancel(id, _) => write!(f, "Cancel({}, …)", id.0),
        }
    }
}

super::opaque_debug::opaque_debug!(
    CreateAppointmentInput,
    UpdateAppointmentInput,
    ClaimantInput,
    FeaturesInput
);
