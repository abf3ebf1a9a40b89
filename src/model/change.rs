//! Changes of appointments. Omitted, null and set fields stay distinct.

use std::fmt;

use async_graphql::InputObject;
/// An input field that is omitted, null or set.
pub use async_graphql::MaybeUndefined;

use super::{Bandwidth, Date, DateTime, OpaqueId, Uuid};

/// A change to be sent to the upstream, exactly once.
#[derive(Clone)]
pub enum Change {
    /// Creates an appointment.
    Create(Box<CreateAppointmentInput>),
    /// Updates fields of an appointment.
    Update(Uuid, Box<UpdateAppointmentInput>),
    /// Cancels an appointment, with an optional reason.
    Cancel(Uuid, Option<String>),
}

/// The fields of a new appointment.
#[derive(Clone, InputObject)]
pub struct CreateAppointmentInput {
    /// The human-readable reference. If omitted, the upstream generates one.
    pub reference: MaybeUndefined<String>,
    /// The scheduled start.
    pub appointment_at: DateTime,
    /// The scheduled duration in minutes.
    pub duration_in_minutes: MaybeUndefined<i32>,
    /// The id of the responsible department.
    pub department_id: MaybeUndefined<OpaqueId>,
    /// Whether an interpreter takes part.
    pub is_interpreter_needed: MaybeUndefined<bool>,
    /// The language of the interpretation for the claimant.
    pub interpreter_language: MaybeUndefined<String>,
    /// The person that the agent meets.
    #[graphql(tag = "personal-data")]
    pub claimant: MaybeUndefined<ClaimantInput>,
    /// The features of the call. Null counts as omitted.
    pub features: Option<FeaturesInput>,
    /// Whether participants are redirected to a custom page after the call.
    pub use_custom_post_call_redirect: MaybeUndefined<bool>,
    /// The URL to which the claimant is redirected after the call.
    pub custom_user_post_call_redirect_url: MaybeUndefined<String>,
    /// The URL to which the agent is redirected after the call.
    pub custom_agent_post_call_redirect_url: MaybeUndefined<String>,
}

/// The fields to change. An omitted field keeps its value, a field set to null is cleared.
#[derive(Clone, Default, InputObject)]
pub struct UpdateAppointmentInput {
    /// The scheduled start.
    pub appointment_at: MaybeUndefined<DateTime>,
    /// The scheduled duration in minutes.
    pub duration_in_minutes: MaybeUndefined<i32>,
    /// The id of the responsible department.
    pub department_id: MaybeUndefined<OpaqueId>,
    /// Whether an interpreter takes part.
    pub is_interpreter_needed: MaybeUndefined<bool>,
    /// The language of the interpretation for the claimant.
    pub interpreter_language: MaybeUndefined<String>,
    /// The upstream's status: scheduled, waiting, ….
    pub status: MaybeUndefined<String>,
    /// The person that the agent meets. Omitted fields within keep their values.
    #[graphql(tag = "personal-data")]
    pub claimant: MaybeUndefined<ClaimantInput>,
    /// The features of the call. Omitted fields within keep their values. Cannot be null, since there is nothing to
    /// clear.
    pub features: MaybeUndefined<FeaturesInput>,
    /// Whether participants are redirected to a custom page after the call.
    pub use_custom_post_call_redirect: MaybeUndefined<bool>,
    /// The URL to which the claimant is redirected after the call.
    pub custom_user_post_call_redirect_url: MaybeUndefined<String>,
    /// The URL to which the agent is redirected after the call.
    pub custom_agent_post_call_redirect_url: MaybeUndefined<String>,
}

/// The person that the agent meets. All fields are personal data.
#[derive(Clone, Default, InputObject)]
#[graphql(tag = "personal-data")]
pub struct ClaimantInput {
    /// The person's name.
    #[graphql(tag = "personal-data")]
    pub name: MaybeUndefined<String>,
    /// The person's phone number, E.164: +442071234567.
    #[graphql(tag = "personal-data")]
    pub phone_number: MaybeUndefined<String>,
    /// The person's e-mail address.
    #[graphql(tag = "personal-data")]
    pub email: MaybeUndefined<String>,
    /// The person's date of birth.
    #[graphql(tag = "personal-data")]
    pub date_of_birth: MaybeUndefined<Date>,
}

/// The features of a call.
#[derive(Clone, Default, InputObject)]
pub struct FeaturesInput {
    /// Whether the call may be recorded.
    pub call_recording: MaybeUndefined<bool>,
    /// Whether the agent may move participants into breakout rooms.
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
    /// Whether participants may write chat messages.
    pub messages_chat: MaybeUndefined<bool>,
    /// Whether participants may see the list of participants.
    pub participant_list: MaybeUndefined<bool>,
    /// The bandwidth of the video.
    pub bandwidth: MaybeUndefined<Bandwidth>,
}

/// A validation error of the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputFault {
    /// The path into the input, in GraphQL names; `None` for a field that is not part of the input.
    pub field: Option<Vec<String>>,
    /// The reason for the rejection, in the gateway's own words.
    pub message: &'static str,
}

impl fmt::Debug for Change {
    /// Prints the kind of the change and the id. The input is redacted.
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
