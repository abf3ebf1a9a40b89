//! What an appointment is: decoded once by [`crate::upstream`], served as it is.
//!
//! The types derive their GraphQL face, so that a field has one definition and one description. They hold plain data;
//! a field that the upstream may leave out, or send in a wrong shape, is a [`Field`].
//!
//! The types have no `Debug` that prints what they hold: they are full of personal data.

pub mod change;
pub mod opaque_debug;
pub mod user_error;

use std::{fmt, sync::Arc};

use async_graphql::{ComplexObject, Enum, ID, SimpleObject};
use jiff::{SignedDuration, Timestamp};

use self::opaque_debug::opaque_debug;

/// An appointment that many readers share.
pub type SharedAppointment = Arc<Appointment>;

/// What the upstream said of one field.
///
/// Serves as `null` unless it is a [`Value`](Field::Value); [`Malformed`](Field::Malformed) adds an error at its path.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub enum Field<T> {
    /// Left out, or null.
    #[default]
    Absent,
    /// Sent as the API promises.
    Value(T),
    /// Sent in a shape that the API does not promise.
    Malformed,
}

impl<T> Field<T> {
    /// The value, where there is one.
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent | Self::Malformed => None,
        }
    }

    /// `Malformed` stays so, a value that `convert` cannot convert becomes so.
    pub fn and_then<U>(self, convert: impl FnOnce(T) -> Option<U>) -> Field<U> {
        match self {
            Self::Absent => Field::Absent,
            Self::Malformed => Field::Malformed,
            Self::Value(value) => convert(value).map_or(Field::Malformed, Field::Value),
        }
    }
}

/// A list in which entries of a wrong shape were dropped, or which had itself a wrong shape and is empty for it.
///
/// Serves the entries, and adds an error at the list's path where anything was dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Entries<T> {
    /// The entries that could be read.
    pub items: Vec<T>,
    /// Whether something could not.
    pub malformed: bool,
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self { items: Vec::new(), malformed: false }
    }
}

/// An instant, RFC 3339 in UTC with `Z`; a fraction only where it is not zero: 2021-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DateTime(pub Timestamp);

/// A calendar date, RFC 3339 full-date: 1990-12-25.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Date(pub jiff::civil::Date);

/// An RFC 9562 UUID, lower case with hyphens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Uuid(pub uuid::Uuid);

impl From<uuid::Uuid> for Uuid {
    fn from(id: uuid::Uuid) -> Self {
        Self(id)
    }
}

/// A video appointment: an agent and a claimant meet in a room at an appointed time.
#[derive(Clone, PartialEq, SimpleObject)]
#[graphql(complex)]
pub struct Appointment {
    /// The appointment's identity, by which `appointment(id:)` finds it.
    pub id: Uuid,
    /// The human-readable reference. A number or a string upstream; always a string here.
    pub reference: Field<Box<str>>,
    /// When the appointment is to begin.
    pub appointment_at: Field<DateTime>,
    /// How long it is to last, in minutes.
    pub duration_in_minutes: Field<i32>,
    /// Whether an interpreter takes part.
    pub is_interpreter_needed: Field<bool>,
    /// The language that the interpreter speaks with the claimant.
    pub interpreter_language: Field<Box<str>>,
    /// The upstream's own word (scheduled, waiting, …): an open set, so a string. See `phase` for a closed one.
    pub status: Field<Box<str>>,
    /// The page on which the claimant joins.
    pub url: Field<Box<str>>,
    /// When the appointment was made.
    pub created_at: Field<DateTime>,
    /// When it was cancelled; null while it stands.
    pub cancelled_at: Field<DateTime>,
    /// Why it was cancelled, in the words of who did it.
    pub cancellation_reason: Field<Box<str>>,
    /// The department that holds the appointment.
    pub department: Field<Department>,
    /// The person whom the agent meets. Personal data.
    pub claimant: Field<Claimant>,
    /// The room of the video call; null until one is booked.
    pub meeting: Field<Meeting>,
    /// When the call began.
    pub session_started_at: Field<DateTime>,
    /// When the call ended.
    pub session_ended_at: Field<DateTime>,
    /// What the call allows.
    pub features: Features,
    /// Whether participants are sent to a page of the organisation's own after the call.
    pub use_custom_post_call_redirect: Field<bool>,
    /// Where the claimant is sent after the call.
    pub custom_user_post_call_redirect_url: Field<Box<str>>,
    /// Where the agent is sent after the call.
    pub custom_agent_post_call_redirect_url: Field<Box<str>>,
}

#[ComplexObject]
impl Appointment {
    /// When the appointment is to end. Derived: `appointmentAt` + `durationInMinutes`.
    async fn ends_at(&self) -> Field<DateTime> {
        self.end()
    }

    /// Where the appointment stands. Derived from the timestamps alone: CANCELLED where `cancelledAt` is set, else
    /// ENDED, IN_SESSION or SCHEDULED by `sessionEndedAt` and `sessionStartedAt`.
    async fn phase(&self) -> AppointmentPhase {
        self.current_phase()
    }
}

impl Appointment {
    /// `endsAt`
    pub fn end(&self) -> Field<DateTime> {
        let minutes = match self.duration_in_minutes {
            Field::Value(minutes) => minutes,
            Field::Absent => return Field::Absent,
            Field::Malformed => return Field::Malformed,
        };
        self.appointment_at.and_then(|DateTime(start)| {
            start.checked_add(SignedDuration::from_mins(i64::from(minutes))).ok().map(DateTime)
        })
    }

    /// `phase`
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

/// Where an appointment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub enum AppointmentPhase {
    /// Neither begun nor cancelled.
    Scheduled,
    /// The call has begun and not ended.
    InSession,
    /// The call has ended.
    Ended,
    /// Cancelled, whether or not the call had begun.
    Cancelled,
}

/// A part of the organisation.
#[derive(Clone, PartialEq, Default, SimpleObject)]
pub struct Department {
    /// The department's identity upstream: opaque.
    pub id: Field<ID>,
    /// What it is called.
    pub name: Field<Box<str>>,
}

/// The person whom the agent meets. Personal data throughout.
#[derive(Clone, PartialEq, Default, SimpleObject)]
pub struct Claimant {
    /// The person's name.
    pub name: Field<Box<str>>,
    /// The person's phone number, E.164: +442071234567.
    pub phone_number: Field<Box<str>>,
    /// The person's e-mail address.
    pub email: Field<Box<str>>,
    /// The person's date of birth.
    pub date_of_birth: Field<Date>,
    /// The answers to the organisation's own questions.
    pub data: Entries<ClaimantField>,
}

/// One of the organisation's own questions, with the claimant's answer.
#[derive(Clone, PartialEq, Default, SimpleObject)]
pub struct ClaimantField {
    /// The question's identity upstream: opaque.
    pub id: Field<ID>,
    /// The question.
    pub name: Field<Box<str>>,
    /// The answer. Personal data.
    pub value: Field<Box<str>>,
    /// What kind of answer is asked for, in the upstream's words: text, date, ….
    #[graphql(name = "type")]
    pub kind: Field<Box<str>>,
    /// Whether an answer must be given.
    pub required: Field<bool>,
}

/// The room of the video call.
#[derive(Clone, PartialEq, Default, SimpleObject)]
pub struct Meeting {
    /// The meeting's identity upstream: opaque.
    pub id: Field<ID>,
    /// What the room is called.
    pub room_name: Field<Box<str>>,
    /// Where the room is entered.
    pub room_url: Field<Box<str>>,
    /// From when the room is open.
    pub start_date: Field<DateTime>,
    /// Until when the room is open.
    pub end_date: Field<DateTime>,
}

/// What the call allows. A flag that the upstream leaves out is null: unknown, not off.
#[derive(Clone, PartialEq, Default, SimpleObject)]
#[graphql(complex)]
pub struct Features {
    /// The call may be recorded.
    pub call_recording: Field<bool>,
    /// The agent may send participants into rooms of their own.
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
    /// Participants may write messages.
    pub messages_chat: Field<bool>,
    /// Participants may see who takes part.
    pub participant_list: Field<bool>,
    /// How much bandwidth the video may use.
    pub bandwidth: Field<Bandwidth>,
}

impl Features {
    /// Every flag under its name, in the order of the schema.
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
    /// The known flags as a list, for a screen that draws them all; `enabled` keeps only those that are on, or off.
    async fn all(
        &self,
        #[graphql(desc = "Keep only flags that are on (true) or off (false). Left out: both.")]
        enabled: Option<bool>,
    ) -> Entries<Feature> {
        self.known_flags(enabled)
    }
}

impl Features {
    /// `all(enabled:)`
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

/// One thing that a call allows or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, SimpleObject)]
pub struct Feature {
    /// Which.
    pub name: FeatureName,
    /// Whether it is allowed.
    pub enabled: bool,
}

/// The things that a call can allow.
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

/// How much bandwidth the video of a call may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub enum Bandwidth {
    /// For poor connections.
    Low,
    /// The middle.
    Medium,
    /// For the best picture.
    High,
}

impl Appointment {
    /// An appointment of which nothing but the id is known.
    pub fn bare(id: uuid::Uuid) -> Self {
        Self {
            id: Uuid(id),
            reference: Field::Absent,
            appointment_at: Field::Absent,
            duration_in_minutes: Field::Absent,
            is_interpreter_needed: Field::Absent,
            interpreter_language: Field::Absent,
            status: Field::Absent,
            url: Field::Absent,
            created_at: Field::Absent,
            cancelled_at: Field::Absent,
            cancellation_reason: Field::Absent,
            department: Field::Absent,
            claimant: Field::Absent,
            meeting: Field::Absent,
            session_started_at: Field::Absent,
            session_ended_at: Field::Absent,
            features: Features::default(),
            use_custom_post_call_redirect: Field::Absent,
            custom_user_post_call_redirect_url: Field::Absent,
            custom_agent_post_call_redirect_url: Field::Absent,
        }
    }

    /// The bytes of memory that the appointment takes, its texts included, about.
    pub fn size(&self) -> usize {
        let texts = [
            &self.reference,
            &self.interpreter_language,
            &self.status,
            &self.url,
            &self.cancellation_reason,
            &self.custom_user_post_call_redirect_url,
            &self.custom_agent_post_call_redirect_url,
        ];
        allocation(size_of::<Self>())
            + texts.into_iter().map(text_size).sum::<usize>()
            + self.department.value().map_or(0, |it| id_size(&it.id) + text_size(&it.name))
            + self
                .meeting
                .value()
                .map_or(0, |it| id_size(&it.id) + text_size(&it.room_name) + text_size(&it.room_url))
            + self.claimant.value().map_or(0, Claimant::heap_size)
    }
}

impl Claimant {
    fn heap_size(&self) -> usize {
        let answer = |it: &ClaimantField| {
            id_size(&it.id) + text_size(&it.name) + text_size(&it.value) + text_size(&it.kind)
        };
        text_size(&self.name)
            + text_size(&self.phone_number)
            + text_size(&self.email)
            + allocation(self.data.items.capacity() * size_of::<ClaimantField>())
            + self.data.items.iter().map(answer).sum::<usize>()
    }
}

/// What `bytes` on the heap take: allocators give them out in steps of 16 and keep 8 for themselves.
pub(crate) fn allocation(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { (bytes + 8).next_multiple_of(16).max(32) }
}

fn text_size(text: &Field<Box<str>>) -> usize {
    text.value().map_or(0, |text| allocation(text.len()))
}

fn id_size(id: &Field<ID>) -> usize {
    id.value().map_or(0, |id| allocation(id.0.capacity()))
}

impl fmt::Debug for Appointment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Appointment").field("id", &self.id.0).finish_non_exhaustive()
    }
}

opaque_debug!(Department, Claimant, ClaimantField, Meeting, Features, Field<T>, Entries<T>, Date);
