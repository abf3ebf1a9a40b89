//! The JSON of the upstream, read leniently into the [model](crate::model).
//!
//! The API's documentation and its real answers differ, so what is needed to read an answer is kept to what nothing
//! works without: JSON, an object under `data`, and its `id`. Everything else may be absent, null or wrong; a wrong
//! field becomes [`Field::Malformed`] and loses nothing beside itself. That is why every value is first taken as
//! [`RawValue`], which only has to be JSON, and then read by itself: a number out of range or a broken `\u` escape in
//! one field cannot stop the reading of the others.

pub mod change;
pub mod json;

use std::str::FromStr;

use async_graphql::ID;
use jiff::{Timestamp, civil, tz::Offset};
use serde_json::value::RawValue;

use self::json::{elements, members, string};
use crate::model::{
    Appointment, Bandwidth, Claimant, ClaimantField, Date, DateTime, Department, Entries, Features, Field,
    Meeting,
};

/// Why an answer is no appointment at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAppointment {
    /// The answer is not JSON.
    NotJson,
    /// There is no object under `data`.
    NoData,
    /// The object has no `id` that is a UUID.
    NoId,
}

impl NoAppointment {
    /// For the log: nothing of the answer is in it.
    pub fn text(self) -> &'static str {
        match self {
            Self::NotJson => "it is not JSON",
            Self::NoData => "it has nothing that is expected under `data`",
            Self::NoId => "the appointment has no `id`, or one that is not a UUID",
        }
    }
}

/// Reads `{"data": {appointment}}`.
///
/// # Errors
/// Where there is no appointment in it; a field of it that is wrong is none.
pub fn appointment(body: &[u8]) -> Result<Appointment, NoAppointment> {
    let body: &RawValue = serde_json::from_slice(body).map_err(|_| NoAppointment::NotJson)?;
    let mut data = None;
    members(body, |name, value| {
        if name == b"data" {
            data = Some(value);
        }
    });
    appointment_object(data.ok_or(NoAppointment::NoData)?)
}

/// A page of the list, and what it says of the rest.
#[derive(Debug, Default)]
pub(crate) struct ListPage {
    /// The appointments in their order; none where there is something that is no appointment.
    pub(crate) items: Vec<Option<ListItem>>,
    pub(crate) per_page: Option<u32>,
    pub(crate) total: Option<u64>,
    pub(crate) has_next: Option<bool>,
}

/// An appointment as a list shows it.
#[derive(Debug)]
pub(crate) struct ListItem {
    pub(crate) appointment: Appointment,
    /// Whether it has every documented member.
    pub(crate) is_whole: bool,
}

/// Reads `{"data": [appointment, …]}`, and of `meta` and `links` what is there.
pub(crate) fn list(body: &[u8]) -> Result<ListPage, NoAppointment> {
    let body: &RawValue = serde_json::from_slice(body).map_err(|_| NoAppointment::NotJson)?;
    let mut page = ListPage::default();
    let (mut is_list, mut next, mut current, mut last) = (false, None, None, None);
    members(body, |name, value| match name {
        b"data" => {
            page.items.clear();
            is_list = elements(value, |item| page.items.push(list_item(item)));
        }
        b"meta" => {
            members(value, |name, value| match name {
                b"per_page" => page.per_page = whole(value),
                b"total" => page.total = whole(value),
                b"current_page" => current = whole::<u64>(value),
                b"last_page" => last = whole::<u64>(value),
                _ => {}
            });
        }
        b"links" => {
            members(value, |name, value| {
                if name == b"next" {
                    next = Some(!is_null(value));
                }
            });
        }
        _ => {}
    });
    if !is_list {
        return Err(NoAppointment::NoData);
    }
    page.has_next = current.zip(last).map(|(current, last)| current < last).or(next);
    Ok(page)
}

fn list_item(object: &RawValue) -> Option<ListItem> {
    let appointment = appointment_object(object).ok()?;
    Some(ListItem { appointment, is_whole: has_all(object, APPOINTMENT) })
}

/// The documented members of an object, each with those of the object that it holds.
type Documented = &'static [(&'static [u8], &'static [&'static [u8]])];

const APPOINTMENT: Documented = &[
    (b"id", &[]),
    (b"reference", &[]),
    (b"appointment_at", &[]),
    (b"duration_in_minutes", &[]),
    (b"is_interpreter_needed", &[]),
    (b"interpreter_language", &[]),
    (b"status", &[]),
    (b"url", &[]),
    (b"created_at", &[]),
    (b"cancelled_at", &[]),
    (b"cancellation_reason", &[]),
    (b"department", &[b"id", b"name"]),
    (b"claimant", &[b"name", b"phone_number", b"email", b"date_of_birth", b"data"]),
    (b"meeting", &[b"id", b"room_name", b"room_url", b"start_date", b"end_date"]),
    (b"session_started_at", &[]),
    (b"session_ended_at", &[]),
    (b"features_call_recording_enable", &[]),
    (b"features_breakout_room_enable", &[]),
    (b"features_webcam_access_agent_enable", &[]),
    (b"features_webcam_access_claimant_enable", &[]),
    (b"features_webcam_background_blurring_enable", &[]),
    (b"features_microphone_access_enable", &[]),
    (b"features_screen_sharing_enable", &[]),
    (b"features_messages_chat_enable", &[]),
    (b"features_participant_list_enable", &[]),
    (b"features_bandwidth", &[]),
    (b"use_custom_post_call_redirect", &[]),
    (b"custom_user_post_call_redirect_url", &[]),
    (b"custom_agent_post_call_redirect_url", &[]),
];

/// Whether `object` has all of `documented`, be they null. An object that is null, or of a wrong kind, lacks nothing.
fn has_all(object: &RawValue, documented: Documented) -> bool {
    let mut missing: u32 = (1 << documented.len()) - 1;
    let mut is_whole = true;
    members(object, |name, value| {
        if let Some(index) = documented.iter().position(|(member, _)| *member == name) {
            missing &= !(1 << index);
            let (_, inner) = documented[index];
            is_whole &= inner.is_empty() || has_each(value, inner);
        }
    });
    is_whole && missing == 0
}

fn has_each(object: &RawValue, documented: &[&[u8]]) -> bool {
    let mut missing: u32 = (1 << documented.len()) - 1;
    let is_object = members(object, |name, _| {
        if let Some(index) = documented.iter().position(|member| *member == name) {
            missing &= !(1 << index);
        }
    });
    !is_object || missing == 0
}

/// Whether `body` is a JSON object, as every answer of the API is.
pub(crate) fn is_object(body: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(body).is_ok_and(|body| body.get().starts_with('{'))
}

/// A count; some senders put theirs into quotes.
fn whole<T: FromStr>(value: &RawValue) -> Option<T> {
    value.get().trim_matches('"').parse().ok()
}

fn appointment_object(object: &RawValue) -> Result<Appointment, NoAppointment> {
    let mut id = None;
    // The id is put in at the end: the rest is read in the same pass, whatever the order of the members.
    let mut it = Appointment::bare(uuid::Uuid::nil());
    let is_object = members(object, |name, value| {
        let features = &mut it.features;
        match name {
            b"id" => id = uuid(value),
            b"reference" => it.reference = text_or_number(value),
            b"appointment_at" => it.appointment_at = date_time(value),
            b"duration_in_minutes" => it.duration_in_minutes = integer(value),
            b"is_interpreter_needed" => it.is_interpreter_needed = boolean(value),
            b"interpreter_language" => it.interpreter_language = text(value),
            b"status" => it.status = text(value),
            b"url" => it.url = text(value),
            b"created_at" => it.created_at = date_time(value),
            b"cancelled_at" => it.cancelled_at = date_time(value),
            b"cancellation_reason" => it.cancellation_reason = text(value),
            b"department" => it.department = department(value),
            b"claimant" => it.claimant = claimant(value),
            b"meeting" => it.meeting = meeting(value),
            b"session_started_at" => it.session_started_at = date_time(value),
            b"session_ended_at" => it.session_ended_at = date_time(value),
            b"use_custom_post_call_redirect" => it.use_custom_post_call_redirect = boolean(value),
            b"custom_user_post_call_redirect_url" => it.custom_user_post_call_redirect_url = text(value),
            b"custom_agent_post_call_redirect_url" => it.custom_agent_post_call_redirect_url = text(value),
            _ => feature(features, name, value),
        }
    });
    if !is_object {
        return Err(NoAppointment::NoData);
    }
    it.id = id.ok_or(NoAppointment::NoId)?.into();
    Ok(it)
}

fn feature(features: &mut Features, name: &[u8], value: &RawValue) {
    let flag = match name {
        b"features_call_recording_enable" => &mut features.call_recording,
        b"features_breakout_room_enable" => &mut features.breakout_room,
        b"features_webcam_access_agent_enable" => &mut features.webcam_access_agent,
        b"features_webcam_access_claimant_enable" => &mut features.webcam_access_claimant,
        b"features_webcam_background_blurring_enable" => &mut features.webcam_background_blurring,
        b"features_microphone_access_enable" => &mut features.microphone_access,
        b"features_screen_sharing_enable" => &mut features.screen_sharing,
        b"features_messages_chat_enable" => &mut features.messages_chat,
        b"features_participant_list_enable" => &mut features.participant_list,
        b"features_bandwidth" => {
            features.bandwidth = bandwidth(value);
            return;
        }
        _ => return,
    };
    *flag = boolean(value);
}

fn department(value: &RawValue) -> Field<Department> {
    object(value, |it: &mut Department, name, value| match name {
        b"id" => it.id = id(value),
        b"name" => it.name = text(value),
        _ => {}
    })
}

fn claimant(value: &RawValue) -> Field<Claimant> {
    object(value, |it: &mut Claimant, name, value| match name {
        b"name" => it.name = text(value),
        b"phone_number" => it.phone_number = text(value),
        b"email" => it.email = text(value),
        b"date_of_birth" => it.date_of_birth = date(value),
        b"data" => it.data = claimant_data(value),
        _ => {}
    })
}

fn claimant_data(value: &RawValue) -> Entries<ClaimantField> {
    let mut entries = Entries::default();
    let is_list = elements(value, |value| match claimant_field(value) {
        Field::Value(entry) => entries.items.push(entry),
        Field::Absent | Field::Malformed => entries.malformed = true,
    });
    entries.malformed |= !is_list && !is_null(value);
    entries.items.shrink_to_fit();
    entries
}

fn claimant_field(value: &RawValue) -> Field<ClaimantField> {
    object(value, |it: &mut ClaimantField, name, value| match name {
        b"id" => it.id = id(value),
        b"name" => it.name = text(value),
        b"value" => it.value = text(value),
        b"type" => it.kind = text(value),
        b"required" => it.required = boolean(value),
        _ => {}
    })
}

fn meeting(value: &RawValue) -> Field<Meeting> {
    object(value, |it: &mut Meeting, name, value| match name {
        b"id" => it.id = id(value),
        b"room_name" => it.room_name = text(value),
        b"room_url" => it.room_url = text(value),
        b"start_date" => it.start_date = date_time(value),
        b"end_date" => it.end_date = date_time(value),
        _ => {}
    })
}

// One value each.

fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

/// Null is absent, what `read` takes is a value, the rest is malformed.
fn field<T>(value: &RawValue, read: impl FnOnce(&str) -> Option<T>) -> Field<T> {
    if is_null(value) { Field::Absent } else { read(value.get()).map_or(Field::Malformed, Field::Value) }
}

fn text(value: &RawValue) -> Field<Box<str>> {
    field(value, |json| string(json).map(String::into_boxed_str))
}

/// A number's digits are kept as they were sent: the reference and the ids are opaque, and may be larger than any
/// number type.
fn text_or_number(value: &RawValue) -> Field<Box<str>> {
    field(value, |json| match json.as_bytes() {
        [b'"', ..] => string(json).map(String::into_boxed_str),
        [b'-' | b'0'..=b'9', ..] => Some(json.into()),
        _ => None,
    })
}

fn id(value: &RawValue) -> Field<ID> {
    text_or_number(value).and_then(|id| Some(ID(id.into_string())))
}

fn uuid(value: &RawValue) -> Option<uuid::Uuid> {
    // `Uuid` reads other notations as well; the API promises the one with hyphens.
    string(value.get()).filter(|text| text.len() == 36).and_then(|text| uuid::Uuid::try_parse(&text).ok())
}

fn boolean(value: &RawValue) -> Field<bool> {
    field(value, |json| bool::from_str(json).ok())
}

/// GraphQL's `Int` has 32 bits; a whole number written as `60.0` is one too.
fn integer(value: &RawValue) -> Field<i32> {
    field(value, |json| {
        i32::from_str(json).ok().or_else(|| {
            let number = f64::from_str(json).ok()?;
            let whole =
                number.fract() == 0.0 && (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number);
            whole.then_some(number as i32)
        })
    })
}

/// Any number of fraction digits, any offset; without an offset it is UTC.
fn date_time(value: &RawValue) -> Field<DateTime> {
    field(value, |json| {
        let text = string(json)?;
        // A date alone is no instant, and RFC 3339 knows no years before 0 and no names of time zones.
        if !text.is_ascii() || text.len() < 16 || text.starts_with('-') || text.contains('[') {
            return None;
        }
        let instant = text
            .parse::<Timestamp>()
            .or_else(|_| Offset::UTC.to_timestamp(text.parse::<civil::DateTime>()?))
            .ok()?;
        (Offset::UTC.to_datetime(instant).year() >= 0).then_some(DateTime(instant))
    })
}

fn date(value: &RawValue) -> Field<Date> {
    field(value, |json| {
        let text = string(json).filter(|text| text.len() == 10 && !text.starts_with('-'))?;
        text.parse().ok().map(Date)
    })
}

fn bandwidth(value: &RawValue) -> Field<Bandwidth> {
    field(value, |json| match string(json)?.as_str() {
        "low" => Some(Bandwidth::Low),
        "medium" => Some(Bandwidth::Medium),
        "high" => Some(Bandwidth::High),
        _ => None,
    })
}

// Objects and lists, a member at a time.

fn object<T: Default>(value: &RawValue, mut member: impl FnMut(&mut T, &[u8], &RawValue)) -> Field<T> {
    field(value, |_| {
        let mut it = T::default();
        members(value, |name, value| member(&mut it, name, value)).then_some(it)
    })
}

#[cfg(test)]
mod tests;
