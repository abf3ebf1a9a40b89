//! Lenient decoding of the upstream's JSON into the [model](crate::model).
//!
//! The API's documentation and its real responses differ. A response is only required to be JSON with an object under
//! `data` that has an `id`. Any other field may be absent, null or invalid. An invalid field becomes
//! [`Field::Malformed`] and affects no other field. For this reason each value is first taken as [`RawValue`], which
//! only has to be JSON, and is decoded on its own: a number out of range or a broken `\u` escape fails one field only.
//! [`json`] accepts what PHP applications write in place of JSON.

pub mod change;
pub mod json;

use std::str::FromStr;

use serde_json::value::RawValue;

use self::json::{document, elements, members, string};
use crate::model::{
    Appointment, Bandwidth, Claimant, ClaimantField, Date, DateTime, Department, Entries, Field, Meeting,
    OpaqueId,
};

/// The reason why a body cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// The body is not JSON.
    NotJson,
    /// `data` is missing or has the wrong type.
    NoData,
    /// The appointment has no `id` that is a UUID.
    NoId,
}

impl DecodeError {
    /// The message for the log. It quotes nothing of the body.
    pub fn message(self) -> &'static str {
        match self {
            Self::NotJson => "it is not JSON",
            Self::NoData => "its `data` is missing or has the wrong type",
            Self::NoId => "the appointment has no `id`, or one that is not a UUID",
        }
    }
}

/// Decodes `{"data": {appointment}}`.
///
/// # Errors
/// The reason why the body holds no appointment. An invalid field is not an error.
pub fn appointment(body: &[u8]) -> Result<Appointment, DecodeError> {
    let appointment = document(body, |body| {
        let mut data = None;
        members(body, |name, value| {
            if name == b"data" {
                data = Some(value);
            }
        });
        appointment_object(data.ok_or(DecodeError::NoData)?)
    });
    appointment.unwrap_or(Err(DecodeError::NotJson))
}

/// A page of the list with the pagination data of the response.
#[derive(Debug, Default)]
pub(crate) struct ListPage {
    /// The appointments in the upstream's order; `None` in place of an item that is not an appointment.
    pub(crate) items: Vec<Option<ListItem>>,
    pub(crate) per_page: Option<u32>,
    pub(crate) total: Option<u64>,
    pub(crate) has_next: Option<bool>,
}

/// An item of the list.
#[derive(Debug)]
pub(crate) struct ListItem {
    pub(crate) appointment: Appointment,
    /// Whether the item has every documented member.
    pub(crate) is_complete: bool,
}

/// Decodes `{"data": [appointment, …]}` with the optional members `meta` and `links`.
pub(crate) fn list(body: &[u8]) -> Result<ListPage, DecodeError> {
    document(body, list_document).unwrap_or(Err(DecodeError::NotJson))
}

fn list_document(body: &RawValue) -> Result<ListPage, DecodeError> {
    let mut page = ListPage::default();
    let (mut is_list, mut next, mut current, mut last) = (false, None, None, None);
    members(body, |name, value| match name {
        b"data" => {
            page.items.clear();
            is_list = elements(value, |item| page.items.push(list_item(item)));
        }
        b"meta" => {
            members(value, |name, value| match name {
                b"per_page" => page.per_page = number(value),
                b"total" => page.total = number(value),
                b"current_page" => current = number::<u64>(value),
                b"last_page" => last = number::<u64>(value),
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
        return Err(DecodeError::NoData);
    }
    page.has_next = current.zip(last).map(|(current, last)| current < last).or(next);
    Ok(page)
}

fn list_item(object: &RawValue) -> Option<ListItem> {
    let appointment = appointment_object(object).ok()?;
    Some(ListItem { appointment, is_complete: has_members(object, APPOINTMENT) })
}

/// The documented members of an object, each with the members of its nested object.
type DocumentedMembers = &'static [(&'static [u8], &'static [&'static [u8]])];

/// Defines the documented members of an appointment beside its id: the field that each fills, its decoder, and the documented
/// members of a nested object.
macro_rules! appointment_members {
    ($($member:literal => $($field:ident).+ = $decode:ident $([$($nested:literal),+])?,)+) => {
        const APPOINTMENT: DocumentedMembers = &[(b"id", &[]), $(($member, &[$($($nested),+)?])),+];

        /// The fields of the model that are decoded.
        #[cfg(test)]
        const DECODED: &[&str] = &["id", $(concat!($(stringify!($field), "."),+)),+];

        fn member(it: &mut Appointment, name: &[u8], value: &RawValue) {
            match name {
                $($member => it.$($field).+ = $decode(value),)+
                _ => {}
            }
        }
    };
}

appointment_members! {
    b"reference" => reference = text_or_number,
    b"appointment_at" => appointment_at = date_time,
    b"duration_in_minutes" => duration_in_minutes = integer,
    b"is_interpreter_needed" => is_interpreter_needed = boolean,
    b"interpreter_language" => interpreter_language = text,
    b"status" => status = text,
    b"url" => url = text,
    b"created_at" => created_at = date_time,
    b"cancelled_at" => cancelled_at = date_time,
    b"cancellation_reason" => cancellation_reason = text,
    b"department" => department = department [b"id", b"name"],
    b"claimant" => claimant = claimant [b"name", b"phone_number", b"email", b"date_of_birth", b"data"],
    b"meeting" => meeting = meeting [b"id", b"room_name", b"room_url", b"start_date", b"end_date"],
    b"session_started_at" => session_started_at = date_time,
    b"session_ended_at" => session_ended_at = date_time,
    b"features_call_recording_enable" => features.call_recording = boolean,
    b"features_breakout_room_enable" => features.breakout_room = boolean,
    b"features_webcam_access_agent_enable" => features.webcam_access_agent = boolean,
    b"features_webcam_access_claimant_enable" => features.webcam_access_claimant = boolean,
    b"features_webcam_background_blurring_enable" => features.webcam_background_blurring = boolean,
    b"features_microphone_access_enable" => features.microphone_access = boolean,
    b"features_screen_sharing_enable" => features.screen_sharing = boolean,
    b"features_messages_chat_enable" => features.messages_chat = boolean,
    b"features_participant_list_enable" => features.participant_list = boolean,
    b"features_bandwidth" => features.bandwidth = bandwidth,
    b"use_custom_post_call_redirect" => use_custom_post_call_redirect = boolean,
    b"custom_user_post_call_redirect_url" => custom_user_post_call_redirect_url = text,
    b"custom_agent_post_call_redirect_url" => custom_agent_post_call_redirect_url = text,
}

/// Whether `object` has all documented members. Their values may be null; a nested value that is null or not an object
/// counts as complete.
fn has_members(object: &RawValue, documented: DocumentedMembers) -> bool {
    let mut missing: u64 = (1 << documented.len()) - 1;
    let mut is_complete = true;
    members(object, |name, value| {
        if let Some(index) = documented.iter().position(|(member, _)| *member == name) {
            missing &= !(1 << index);
            let (_, inner) = documented[index];
            is_complete &= inner.is_empty() || has_nested_members(value, inner);
        }
    });
    is_complete && missing == 0
}

fn has_nested_members(object: &RawValue, documented: &[&[u8]]) -> bool {
    let mut missing: u64 = (1 << documented.len()) - 1;
    let is_object = members(object, |name, _| {
        if let Some(index) = documented.iter().position(|member| *member == name) {
            missing &= !(1 << index);
        }
    });
    !is_object || missing == 0
}

/// Whether `body` is a JSON object, like every response of the API.
pub(crate) fn is_object(body: &[u8]) -> bool {
    document(body, |body| members(body, |_, _| {})) == Some(true)
}

/// Decodes a number. Some senders quote it.
fn number<T: FromStr>(value: &RawValue) -> Option<T> {
    value.get().trim_matches('"').parse().ok()
}

fn appointment_object(object: &RawValue) -> Result<Appointment, DecodeError> {
    let mut id = None;
    // The id is set at the end, since members come in any order.
    let mut it = Appointment::bare(uuid::Uuid::nil());
    let is_object = members(object, |name, value| match name {
        b"id" => id = uuid(value),
        _ => member(&mut it, name, value),
    });
    if !is_object {
        return Err(DecodeError::NoData);
    }
    it.id = id.ok_or(DecodeError::NoId)?.into();
    Ok(it)
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

// Decoders of single values.

fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

/// Decodes a field with `read`: null is absent, a value that `read` rejects is malformed.
fn field<T>(value: &RawValue, read: impl FnOnce(&str) -> Option<T>) -> Field<T> {
    if is_null(value) { Field::Absent } else { read(value.get()).map_or(Field::Malformed, Field::Value) }
}

fn text(value: &RawValue) -> Field<Box<str>> {
    field(value, |json| string(json).map(String::into_boxed_str))
}

/// Decodes an opaque text. The digits of a number are preserved, since they may exceed any number type.
fn text_or_number(value: &RawValue) -> Field<Box<str>> {
    field(value, |json| match json.as_bytes() {
        [b'"', ..] => string(json).map(String::into_boxed_str),
        [b'-' | b'0'..=b'9', ..] => Some(json.into()),
        _ => None,
    })
}

fn id(value: &RawValue) -> Field<OpaqueId> {
    text_or_number(value).and_then(|id| Some(OpaqueId(id.into_string())))
}

fn uuid(value: &RawValue) -> Option<uuid::Uuid> {
    // `Uuid` accepts other notations too; the API uses hyphens only.
    string(value.get()).filter(|text| text.len() == 36).and_then(|text| uuid::Uuid::try_parse(&text).ok())
}

fn boolean(value: &RawValue) -> Field<bool> {
    field(value, |json| bool::from_str(json).ok())
}

/// Decodes a 32-bit integer, the range of GraphQL's `Int`. `60.0` is an integer too.
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

fn date_time(value: &RawValue) -> Field<DateTime> {
    field(value, |json| DateTime::parse(&string(json)?))
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

// Decoders of nested objects.

fn object<T: Default>(value: &RawValue, mut member: impl FnMut(&mut T, &[u8], &RawValue)) -> Field<T> {
    field(value, |_| {
        let mut it = T::default();
        members(value, |name, value| member(&mut it, name, value)).then_some(it)
    })
}

#[cfg(test)]
mod tests;
