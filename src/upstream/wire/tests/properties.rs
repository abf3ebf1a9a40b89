//! Properties of the decoder for arbitrary bodies: it never panics, and the `id` decides whether a body is an
//! appointment.

use proptest::{collection::vec, prelude::*, sample::select};
use serde::de::IgnoredAny;
use serde_json::Value;

use super::{super::*, ID};
use crate::sandbox::{self, SAMPLE};

const WRONG: &str = include_str!("../../../../tests/fixtures/wrong.json");

/// Known member names, so that random objects contain some.
const NAMES: &[&str] = &[
    "data",
    "id",
    "reference",
    "name",
    "value",
    "type",
    "required",
    "claimant",
    "meeting",
    "department",
    "date_of_birth",
    "room_name",
    "start_date",
    "appointment_at",
    "duration_in_minutes",
    "status",
    "features_bandwidth",
    "features_messages_chat_enable",
];

/// JSON values that are hard to decode: out of range, half a surrogate pair, or almost valid.
const HARD: &[&str] = &[
    "1e999",
    "-1e999",
    "-0",
    "0.1e-400",
    "123456789012345678901234567890",
    r#""\ud83d""#,
    r#""\udc00 \ud800""#,
    r#""\u0000""#,
    r#""2021-01-01T00:00:00.000000Z""#,
    r#""9999-12-31T23:59:59.999999999-23:59""#,
    r#""-009999-01-01T00:00:00+23:59""#,
    r#""2021-01-01T24:00:60""#,
    r#""0000-01-01""#,
    r#""9a0f170e-0aa0-47db-ab14-4ddcdcbad061""#,
    r#""9A0F170E-0AA0-47DB-AB14-4DDCDCBAD062""#,
    r#""9a0f170e0aa047dbab144ddcdcbad061""#,
    "[[[[[[[[]]]]]]]]",
    r#"{"":{"":{}}}"#,
    r#"{"\ud83d":1,"\ud83d":2}"#,
];

/// A member name as JSON.
fn any_name() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => select(NAMES).prop_map(|name| format!("{name:?}")),
        1 => any::<String>().prop_map(|name| Value::from(name).to_string()),
        1 => Just(r#""\udfff""#.to_owned()),
    ]
}

/// Any JSON, as text.
fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        select(&["null", "true", "false", "{}", "[]", r#""""#][..]).prop_map(str::to_owned),
        select(HARD).prop_map(str::to_owned),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| Value::from(number).to_string()),
        any::<String>().prop_map(|text| Value::from(text).to_string()),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(|items| format!("[{}]", items.join(","))),
            vec((any_name(), inner), 0..6).prop_map(|members| object(&members)),
        ]
    })
}

fn object(members: &[(String, String)]) -> String {
    let members = members.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>();
    format!("{{{}}}", members.join(", "))
}

/// The members of a complete appointment.
fn sample() -> Vec<(String, String)> {
    sandbox::sample().iter().map(|(name, value)| (format!("{name:?}"), value.to_string())).collect()
}

/// An edit of one member.
#[derive(Debug, Clone)]
enum Edit {
    Replace(String),
    Drop,
    /// Repeats the member with another value, at this position.
    Repeat(String, usize),
}

fn any_edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        3 => any_json().prop_map(Edit::Replace),
        1 => Just(Edit::Drop),
        1 => (any_json(), 0..50_usize).prop_map(|(json, place)| Edit::Repeat(json, place)),
    ]
}

/// The sample appointment with some members edited.
fn changed(changes: &[(usize, Edit)]) -> Vec<(String, String)> {
    let mut members = sample();
    for (place, change) in changes {
        if members.is_empty() {
            break;
        }
        let place = place % members.len();
        match change.clone() {
            Edit::Replace(json) => members[place].1 = json,
            Edit::Drop => drop(members.remove(place)),
            Edit::Repeat(json, at) => {
                let name = members[place].0.clone();
                members.insert(at % (members.len() + 1), (name, json));
            }
        }
    }
    members
}

/// The expected id: the last `id` of the members, if it is a UUID with hyphens.
fn id_of(members: &[(String, String)]) -> Option<uuid::Uuid> {
    let (_, id) = members.iter().rev().find(|(name, _)| name == r#""id""#)?;
    uuid_of(&serde_json::from_str(id).ok()?)
}

fn uuid_of(value: &Value) -> Option<uuid::Uuid> {
    let text = value.as_str()?;
    let hyphens = text.bytes().enumerate().all(|(at, byte)| (byte == b'-') == [8, 13, 18, 23].contains(&at));
    text.parse().ok().filter(|_| hyphens && text.len() == 36)
}

/// Decodes arbitrary bytes and compares the result with generic JSON parsing.
fn check(body: &[u8]) -> Result<(), TestCaseError> {
    let read = appointment(body).map(|it| it.id.0);
    let is_json = std::str::from_utf8(body).is_ok() && serde_json::from_slice::<IgnoredAny>(body).is_ok();
    // A body with any of these may have been repaired.
    let is_repairable =
        std::str::from_utf8(body).is_err() || body.iter().any(|byte| matches!(byte, 0..0x20 | b'\\' | 0xef));
    if !is_json {
        prop_assert!(is_repairable || read == Err(DecodeError::NotJson));
    } else if let Ok(value) = serde_json::from_slice::<Value>(body) {
        // `Value` rejects some valid JSON, such as numbers out of range.
        prop_assert_eq!(read.ok(), uuid_of(&value["data"]["id"]));
    }
    Ok(())
}

proptest! {
    #[test]
    fn only_the_id_decides_whether_a_body_is_an_appointment(changes in vec((any::<usize>(), any_edit()), 0..8)) {
        let members = changed(&changes);
        let body = format!(r#"{{"meta": null, "data": {}}}"#, object(&members));
        let read = appointment(body.as_bytes()).map(|it| it.id.0);
        prop_assert_eq!(read, id_of(&members).ok_or(DecodeError::NoId), "{}", body);
    }

    #[test]
    fn edits_of_other_members_do_not_affect_the_url(changes in vec((any::<usize>(), any_json()), 0..8)) {
        let mut members = sample();
        let count = members.len();
        for (place, json) in changes {
            let place = place % count;
            if !["\"id\"", "\"url\""].contains(&members[place].0.as_str()) {
                members[place].1 = json;
            }
        }
        let read = appointment(format!(r#"{{"data": {}}}"#, object(&members)).as_bytes()).unwrap();
        prop_assert!(read.url.value().is_some_and(|url| **url == sandbox::sample()["url"]));
    }

    #[test]
    fn any_json_is_decoded_without_a_panic(json in any_json(), data in any_json()) {
        check(json.as_bytes())?;
        check(format!(r#"{{"data": {data}}}"#).as_bytes())?;
        check(format!(r#"{{"data": {{"id": "{ID}", "claimant": {data}, "meeting": {json}}}}}"#).as_bytes())?;
    }

    #[test]
    fn any_bytes_are_decoded_without_a_panic(bytes: Vec<u8>) {
        check(&bytes)?;
    }

    #[test]
    fn an_invalid_byte_in_a_text_affects_no_other_value(
        text: String,
        byte in 0x80..=0xff_u8,
        place: usize,
    ) {
        let places = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect::<Vec<_>>();
        let (before, after) = text.split_at(places[place % places.len()]);
        let escaped = |text: &str| {
            let json = Value::from(text).to_string();
            json[1..json.len() - 1].to_owned()
        };
        let (before, after) = (escaped(before), escaped(after));
        let head = format!(r#"{{"data": {{"id": "{ID}", "status": "{before}"#);
        let tail = format!(r#"{after}", "url": "https://rooms.example/7"}}}}"#);
        let read = appointment(&[head.as_bytes(), &[byte], tail.as_bytes()].concat()).unwrap();
        prop_assert!(read.status == Field::Malformed);
        prop_assert!(read.url.value().is_some_and(|url| **url == *"https://rooms.example/7"));
    }

    #[test]
    fn a_body_with_flipped_bytes_is_decoded_without_a_panic(
        sample in select(&[SAMPLE, WRONG][..]),
        flips in vec((any::<usize>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = sample.as_bytes().to_vec();
        for (place, byte) in flips {
            let place = place % bytes.len();
            bytes[place] = byte;
        }
        check(&bytes)?;
    }

    #[test]
    fn a_truncated_body_is_not_json(length in 0..SAMPLE.trim_end().len()) {
        prop_assert_eq!(appointment(&SAMPLE.as_bytes()[..length]).err(), Some(DecodeError::NotJson));
    }
}
