//! The GraphQL types of the plain server: derived from structs that serde reads from the upstream's JSON.

use async_graphql::{
    ComplexObject, Enum, ID, InputValueError, InputValueResult, Scalar, ScalarType, SimpleObject, Value,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer};
use uuid::Uuid;

/// `UUID`
#[derive(Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
pub struct AppointmentId(pub Uuid);

#[Scalar(name = "UUID")]
impl ScalarType for AppointmentId {
    fn parse(value: Value) -> InputValueResult<Self> {
        match &value {
            Value::String(text) => {
                text.parse().map(Self).map_err(|_| InputValueError::custom("invalid UUID"))
            }
            _ => Err(InputValueError::expected_type(value)),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.to_string())
    }
}

/// `DateTime`
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub struct DateTime(Timestamp);

impl TryFrom<String> for DateTime {
    type Error = jiff::Error;

    fn try_from(text: String) -> Result<Self, jiff::Error> {
        text.parse().map(Self)
    }
}

#[Scalar]
impl ScalarType for DateTime {
    fn parse(value: Value) -> InputValueResult<Self> {
        match &value {
            Value::String(text) => {
                text.parse().map(Self).map_err(|_| InputValueError::custom("invalid DateTime"))
            }
            _ => Err(InputValueError::expected_type(value)),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.to_string())
    }
}

#[derive(SimpleObject, Deserialize)]
#[graphql(complex)]
pub struct Appointment {
    id: AppointmentId,
    #[serde(deserialize_with = "text_or_number")]
    reference: ID,
    appointment_at: Option<DateTime>,
    duration_in_minutes: Option<i32>,
    is_interpreter_needed: Option<bool>,
    interpreter_language: Option<String>,
    status: Option<String>,
    url: Option<String>,
    created_at: Option<DateTime>,
    cancelled_at: Option<DateTime>,
    cancellation_reason: Option<String>,
    department: Option<Department>,
    claimant: Option<Claimant>,
    meeting: Option<Meeting>,
    session_started_at: Option<DateTime>,
    session_ended_at: Option<DateTime>,
    #[graphql(skip)]
    features_call_recording_enable: Option<bool>,
    #[graphql(skip)]
    features_breakout_room_enable: Option<bool>,
    #[graphql(skip)]
    features_webcam_access_agent_enable: Option<bool>,
    #[graphql(skip)]
    features_webcam_access_claimant_enable: Option<bool>,
    #[graphql(skip)]
    features_webcam_background_blurring_enable: Option<bool>,
    #[graphql(skip)]
    features_microphone_access_enable: Option<bool>,
    #[graphql(skip)]
    features_screen_sharing_enable: Option<bool>,
    #[graphql(skip)]
    features_messages_chat_enable: Option<bool>,
    #[graphql(skip)]
    features_participant_list_enable: Option<bool>,
    #[graphql(skip)]
    features_bandwidth: Option<Bandwidth>,
    use_custom_post_call_redirect: Option<bool>,
    custom_user_post_call_redirect_url: Option<String>,
    custom_agent_post_call_redirect_url: Option<String>,
}

#[ComplexObject]
impl Appointment {
    async fn features(&self) -> Features {
        Features {
            call_recording: self.features_call_recording_enable,
            breakout_room: self.features_breakout_room_enable,
            webcam_access_agent: self.features_webcam_access_agent_enable,
            webcam_access_claimant: self.features_webcam_access_claimant_enable,
            webcam_background_blurring: self.features_webcam_background_blurring_enable,
            microphone_access: self.features_microphone_access_enable,
            screen_sharing: self.features_screen_sharing_enable,
            messages_chat: self.features_messages_chat_enable,
            participant_list: self.features_participant_list_enable,
            bandwidth: self.features_bandwidth,
        }
    }

    async fn ends_at(&self) -> Option<DateTime> {
        let duration = SignedDuration::from_mins(i64::from(self.duration_in_minutes?));
        self.appointment_at?.0.checked_add(duration).ok().map(DateTime)
    }

    async fn phase(&self) -> AppointmentPhase {
        if self.cancelled_at.is_some() {
            AppointmentPhase::Cancelled
        } else if self.session_ended_at.is_some() {
            AppointmentPhase::Ended
        } else if self.session_started_at.is_some() {
            AppointmentPhase::InSession
        } else {
            AppointmentPhase::Scheduled
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Enum)]
enum AppointmentPhase {
    Scheduled,
    InSession,
    Ended,
    Cancelled,
}

#[derive(SimpleObject, Deserialize)]
struct Department {
    #[serde(deserialize_with = "text_or_number")]
    id: ID,
    name: Option<String>,
}

#[derive(SimpleObject, Deserialize)]
struct Claimant {
    name: Option<String>,
    phone_number: Option<String>,
    email: Option<String>,
    date_of_birth: Option<String>,
    data: Vec<ClaimantField>,
}

#[derive(SimpleObject, Deserialize)]
struct ClaimantField {
    #[serde(deserialize_with = "text_or_number")]
    id: ID,
    name: Option<String>,
    value: Option<String>,
    r#type: Option<String>,
    required: Option<bool>,
}

#[derive(SimpleObject, Deserialize)]
struct Meeting {
    #[serde(deserialize_with = "text_or_number")]
    id: ID,
    room_name: Option<String>,
    room_url: Option<String>,
    start_date: Option<DateTime>,
    end_date: Option<DateTime>,
}

#[derive(SimpleObject)]
struct Features {
    call_recording: Option<bool>,
    breakout_room: Option<bool>,
    webcam_access_agent: Option<bool>,
    webcam_access_claimant: Option<bool>,
    webcam_background_blurring: Option<bool>,
    microphone_access: Option<bool>,
    screen_sharing: Option<bool>,
    messages_chat: Option<bool>,
    participant_list: Option<bool>,
    bandwidth: Option<Bandwidth>,
}

#[derive(Clone, Copy, PartialEq, Eq, Enum, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Bandwidth {
    Low,
    Medium,
    High,
}

/// Reads an opaque id of the upstream as the string that GraphQL clients expect.
fn text_or_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ID, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OpaqueId {
        Text(String),
        Number(u64),
    }
    OpaqueId::deserialize(deserializer).map(|id| match id {
        OpaqueId::Text(text) => ID(text),
        OpaqueId::Number(number) => ID::from(number),
    })
}
