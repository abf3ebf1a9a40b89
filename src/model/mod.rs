//! The model of an appointment. [`upstream`](crate::upstream) decodes it once; all readers share it.
//!
//! The types derive their GraphQL types, so each field has one definition and one description. A field that the
//! upstream may omit or send malformed is a [`Field`].
//!
//! The types hold personal data, so their `Debug` output is redacted. Their `serde` encoding is for other replicas, and leaves
//! the process encrypted only; [`execute`](crate::graphql::execute) writes the JSON of responses.

pub mod change;
pub mod date_time;
pub mod heap_size;
pub mod opaque_debug;
pub mod user_error;

use std::{fmt, sync::Arc};

/// The text of an opaque identifier of the upstream, the `ID` scalar of the schema.
pub use async_graphql::ID as OpaqueId;
use async_graphql::{ComplexObject, Enum, SimpleObject};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

pub use self::date_time::DateTime;
use self::{
    heap_size::{HeapSize, allocation, heap_sized, without_heap},
    opaque_debug::opaque_debug,
};

/// An appointment shared by many readers.
pub type SharedAppointment = Arc<Appointment>;

/// The decoded value of one field.
///
/// A response shows `null` unless it is a [`Value`](Field::Value). [`Malformed`](Field::Malformed) also adds an error at
/// the field's path.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Field<T> {
    /// Omitted, or null.
    #[default]
    Absent,
    /// A valid value.
    Value(T),
    /// A value of the wrong type or form.
    Malformed,
}

impl<T> Field<T> {
    /// Returns the value, if it is valid.
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent | Self::Malformed => None,
        }
    }

    /// Converts the value. A value that `convert` rejects becomes `Malformed`.
    pub fn and_then<U>(self, convert: impl FnOnce(T) -> Option<U>) -> Field<U> {
        match self {
            Self::Absent => Field::Absent,
            Self::Malformed => Field::Malformed,
            Self::Value(value) => convert(value).map_or(Field::Malformed, Field::Value),
        }
    }
}

/// A list without its malformed entries. A malformed list is empty.
///
/// A response shows the valid entries, with an error at the list's path if anything was dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entries<T> {
    /// The valid entries.
    pub items: Vec<T>,
    /// Whether the list or one of its entries was malformed.
    pub malformed: bool,
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self { items: Vec::new(), malformed: false }
    }
}

/// A calendar date, RFC 3339 full-date: 1990-12-25.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Date(pub jiff::civil::Date);

impl Serialize for Date {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.0.year(), self.0.month(), self.0.day()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (year, month, day) = Deserialize::deserialize(deserializer)?;
        jiff::civil::Date::new(year, month, day).map(Self).map_err(D::Error::custom)
    }
}

/// An RFC 9562 UUID, lower case with hyphens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Uuid(pub uuid::Uuid);

impl From<uuid::Uuid> for Uuid {
    fn from(id: uuid::Uuid) -> Self {
        Self(id)
    }
}

heap_sized! {
    /// A video appointment: a meeting of an agent and a claimant in a video room.
    #[derive(Clone, PartialEq, Default, SimpleObject, Serialize, Deserialize)]
    #[graphql(complex)]
    pub struct Appointment {
        /// The appointment's id, the argument of `appointment(id:)`.
        pub id: Uuid,
        /// The human-readable reference. Always a string, also if the upstream sends a number.
        pub reference: Field<Box<str>>,
        /// The scheduled start.
        pub appointment_at: Field<DateTime>,
        /// The scheduled duration in minutes.
        pub duration_in_minutes: Field<i32>,
        /// Whether an interpreter takes part.
        pub is_interpreter_needed: Field<bool>,
        /// The language of the interpretation for the claimant.
        pub interpreter_language: Field<Box<str>>,
        /// The upstream's status (scheduled, waiting, …). The set of values is open; `phase` is a closed set.
        pub status: Field<Box<str>>,
        /// The URL of the page on which the claimant joins.
        pub url: Field<Box<str>>,
        /// The time of creation.
        pub created_at: Field<DateTime>,
        /// The time of the cancellation; null if the appointment is not cancelled.
        pub cancelled_at: Field<DateTime>,
        /// The reason for the cancellation, as entered.
        #[graphql(tag = "personal-data")]
        pub cancellation_reason: Field<Box<str>>,
        /// The department responsible for the appointment.
        pub department: Field<Department>,
        /// The person that the agent meets. Personal data.
        #[graphql(tag = "personal-data")]
        pub claimant: Field<Claimant>,
        /// The room of the video call; null until one is booked.
        pub meeting: Field<Meeting>,
        /// The actual start of the call.
        pub session_started_at: Field<DateTime>,
        /// The actual end of the call.
        pub session_ended_at: Field<DateTime>,
        /// The features of the call.
        pub features: Features,
        /// Whether participants are redirected to a custom page after the call.
        pub use_custom_post_call_redirect: Field<bool>,
        /// The URL to which the claimant is redirected after the call.
        pub custom_user_post_call_redirect_url: Field<Box<str>>,
        /// The URL to which the agent is redirected after the call.
        pub custom_agent_post_call_redirect_url: Field<Box<str>>,
    }
}

#[ComplexObject]
impl Appointment {
    /// The scheduled end. Derived: `appointmentAt` + `durationInMinutes`.
    async fn ends_at(&self) -> Field<DateTime> {
        self.end()
    }

    /// The phase of the appointment. Derived from the timestamps alone: CANCELLED if `cancelledAt` is set, otherwise
    /// ENDED, IN_SESSION or SCHEDULED by `sessionEndedAt` and `sessionStartedAt`.
    async fn phase(&self) -> AppointmentPhase {
        self.current_phase()
    }
}

impl Appointment {
    /// The value of `endsAt`.
    pub fn end(&self) -> Field<DateTime> {
        let minutes = match self.duration_in_minutes {
            Field::Value(minutes) => minutes,
            Field::Absent => return Field::Absent,
            Field::Malformed => return Field::Malformed,
        };
        self.appointment_at.and_then(|start| start.checked_add_minutes(minutes))
    }

    /// The value of `phase`.
    pub fn current_phase(&self) -> AppointmentPhase {
        if self.cancelled_at.value().is_some() {
            AppointmentPhase::Cancelled
        } else if self.session_ended_at.value().is_some() {
            AppointmentPhase::Ended
        } else if self.session_started_at.value().is_some() {
            AppointmentPhase::InSession
        } else {
            AppointmentPhase::Scheduled
        }
    }
}

/// The phase of an appointment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub enum AppointmentPhase {
    /// Neither started nor cancelled.
    Scheduled,
    /// The call has started and not ended.
    InSession,
    /// The call has ended.
    Ended,
    /// Cancelled, before or after the start of the call.
    Cancelled,
}

heap_sized! {
    /// A department of the organisation.
    #[derive(Clone, PartialEq, Default, SimpleObject, Serialize, Deserialize)]
    pub struct Department {
        /// The department's opaque upstream id.
        pub id: Field<OpaqueId>,
        /// The name of the department.
        pub name: Field<Box<str>>,
    }
}

heap_sized! {
    /// The person that the agent meets. All fields are personal data.
    #[derive(Clone, PartialEq, Default, SimpleObject, Serialize, Deserialize)]
    #[graphql(tag = "personal-data")]
    pub struct Claimant {
        /// The person's name.
        #[graphql(tag = "personal-data")]
        pub name: Field<Box<str>>,
        /// The person's phone number, E.164: +442071234567.
        #[graphql(tag = "personal-data")]
        pub phone_number: Field<Box<str>>,
        /// The person's e-mail address.
        #[graphql(tag = "personal-data")]
        pub email: Field<Box<str>>,
        /// The person's date of birth.
        #[graphql(tag = "personal-data")]
        pub date_of_birth: Field<Date>,
        /// The answers to the organisation's custom questions.
        #[graphql(tag = "personal-data")]
        pub data: Entries<ClaimantField>,
    }
}

heap_sized! {
    /// A custom question of the organisation, with the claimant's answer.
    #[derive(Clone, PartialEq, Default, SimpleObject, Serialize, Deserialize)]
    #[graphql(tag = "personal-data")]
    pub struct ClaimantField {
        /// The question's opaque upstream id.
        pub id: Field<OpaqueId>,
        /// The question.
        pub name: Field<Box<str>>,
        /// The answer. Personal data.
        #[graphql(tag = "personal-data")]
        pub value: Field<Box<str>>,
        /// The type of the answer in the upstream's terms: text, date, ….
        #[graphql(name = "type")]
        pub kind: Field<Box<str>>,
        /// Whether the answer is mandatory.
        pub required: Field<bool>,
    }
}

heap_sized! {
    /// The room of the video call.
    #[derive(Clone, PartialEq, Default, SimpleObject, Serialize, Deserialize)]
    pub struct Meeting {
        /// The meeting's opaque upstream id.
        pub id: Field<OpaqueId>,
        /// The name of the room.
        pub room_name: Field<Box<str>>,
        /// The URL of the room.
        pub room_url: Field<Box<str>>,
        /// The time at which the room opens.
        pub start_date: Field<DateTime>,
        /// The time at which the room closes.
        pub end_date: Field<DateTime>,
    }
}

heap_sized! {
    /// The features of a call. A flag that the upstream omits is null: unknown, not off.
    #[derive(Clone, PartialEq, Default, SimpleObject, Serialize, Deserialize)]
    #[graphql(complex)]
    pub struct Features {
        /// The call may be recorded.
        pub call_recording: Field<bool>,
        /// The agent may move participants into breakout rooms.
        pub breakout_room: Field<bool>,
        /// The agent's camera may be on.
        pub webcam_access_agent: Field<bool>,
        /// The claimant's camera may be on.
        pub webcam_access_claimant: Field<bool>,
        /// Camera backgrounds may be blurred.
        pub webcam_background_blurring: Field<bool>,
        /// Microphones may be on.
        pub microphone_access: Field<bool>,
        /// Screens may be shared.
        pub screen_sharing: Field<bool>,
        /// Participants may write chat messages.
        pub messages_chat: Field<bool>,
        /// Participants may see the list of participants.
        pub participant_list: Field<bool>,
        /// The bandwidth of the video.
        pub bandwidth: Field<Bandwidth>,
    }
}

impl Features {
    /// Every flag with its name, in the order of the schema.
    pub fn flags(&self) -> [(FeatureName, Field<bool>); 9] {
        [
            (FeatureName::CallRecording, self.call_recording),
            (FeatureName::BreakoutRoom, self.breakout_room),
            (FeatureName::WebcamAccessAgent, self.webcam_access_agent),
            (FeatureName::WebcamAccessClaimant, self.webcam_access_claimant),
            (FeatureName::WebcamBackgroundBlurring, self.webcam_background_blurring),
            (FeatureName::MicrophoneAccess, self.microphone_access),
            (FeatureName::ScreenSharing, self.screen_sharing),
            (FeatureName::MessagesChat, self.messages_chat),
            (FeatureName::ParticipantList, self.participant_list),
        ]
    }
}

#[ComplexObject]
impl Features {
    /// The known flags as a list, for a user interface that shows all of them.
    async fn all(
        &self,
        #[graphql(desc = "Returns only flags that are on (true) or off (false). Default: both.")]
        enabled: Option<bool>,
    ) -> Entries<Feature> {
        self.known_flags(enabled)
    }
}

impl Features {
    /// The value of `all(enabled:)`.
    pub fn known_flags(&self, enabled: Option<bool>) -> Entries<Feature> {
        let flags = self.flags();
        Entries {
            malformed: flags.iter().any(|(_, flag)| *flag == Field::Malformed),
            items: flags
                .into_iter()
                .filter_map(|(name, flag)| Some(Feature { name, enabled: *flag.value()? }))
                .filter(|feature| enabled.is_none_or(|wanted| wanted == feature.enabled))
                .collect(),
        }
    }
}

/// A feature of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, SimpleObject)]
pub struct Feature {
    /// The name of the feature.
    pub name: FeatureName,
    /// Whether the feature is enabled.
    pub enabled: bool,
}

/// The names of the features of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub enum FeatureName {
    /// `features.callRecording`
    CallRecording,
    /// `features.breakoutRoom`
    BreakoutRoom,
    /// `features.webcamAccessAgent`
    WebcamAccessAgent,
    /// `features.webcamAccessClaimant`
    WebcamAccessClaimant,
    /// `features.webcamBackgroundBlurring`
    WebcamBackgroundBlurring,
    /// `features.microphoneAccess`
    MicrophoneAccess,
    /// `features.screenSharing`
    ScreenSharing,
    /// `features.messagesChat`
    MessagesChat,
    /// `features.participantList`
    ParticipantList,
}

/// The bandwidth of the video of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, Serialize, Deserialize)]
pub enum Bandwidth {
    /// For slow connections.
    Low,
    /// A compromise of quality and bandwidth.
    Medium,
    /// For the best picture quality.
    High,
}

/// The fields of all types that an [`Appointment`] consists of. Encoded appointments can be decoded where these are the
/// same.
pub(crate) const LAYOUT: &[&str] = &[
    Appointment::LAYOUT,
    Department::LAYOUT,
    Claimant::LAYOUT,
    ClaimantField::LAYOUT,
    Meeting::LAYOUT,
    Features::LAYOUT,
];

impl Appointment {
    /// An appointment with an id and no other field.
    pub fn bare(id: uuid::Uuid) -> Self {
        Self { id: Uuid(id), ..Self::default() }
    }

    /// The approximate memory use in bytes, including texts. Caches are bounded by it.
    pub fn size(&self) -> usize {
        allocation(size_of::<Self>()) + self.heap_size()
    }
}

impl<T: HeapSize> HeapSize for Field<T> {
    fn heap_size(&self) -> usize {
        self.value().map_or(0, T::heap_size)
    }
}

impl<T: HeapSize> HeapSize for Entries<T> {
    fn heap_size(&self) -> usize {
        allocation(self.items.capacity() * size_of::<T>())
            + self.items.iter().map(T::heap_size).sum::<usize>()
    }
}

impl HeapSize for OpaqueId {
    fn heap_size(&self) -> usize {
        allocation(self.0.capacity())
    }
}

without_heap!(Uuid, DateTime, Date, Bandwidth);

impl fmt::Debug for Appointment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Appointment").field("id", &self.id.0).finish_non_exhaustive()
    }
}

opaque_debug!(Department, Claimant, ClaimantField, Meeting, Features, Field<T>, Entries<T>, Date);
