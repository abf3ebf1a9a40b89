//! Decoding of every kind of field: valid, absent and malformed values. [`properties`] covers arbitrary bodies.

pub(super) mod properties;

use serde_json::Value;

use super::*;
use crate::{model::Features, sandbox::sample};

const ID: &str = "9a0f170e-0aa0-47db-ab14-4ddcdcbad061";

/// Decodes an appointment in which one field has the raw value `json`.
fn with(field: &str, json: &str) -> Appointment {
    appointment(format!(r#"{{"data": {{"{field}": {json}, "id": "{ID}"}}}}"#).as_bytes()).unwrap()
}

/// Checks the decoded value of one field for each of `cases`, and that the field may be null or absent.
fn check<T: PartialEq + Clone>(
    field: &str,
    get: impl Fn(&Appointment) -> Field<T>,
    cases: &[(&str, Field<T>)],
) {
    assert!(get(&with("another", "0")) == Field::Absent, "{field} omitted");
    assert!(get(&with(field, "null")) == Field::Absent, "{field} null");
    for (json, expected) in cases {
        // The model's `Debug` output is redacted, so `assert_eq` would not help.
        assert!(get(&with(field, json)) == *expected, "{field}: {json}");
    }
}

fn value<T>(value: impl Into<T>) -> Field<T> {
    Field::Value(value.into())
}

#[test]
fn texts_are_strings() {
    type Getter = fn(&Appointment) -> Field<Box<str>>;
    let getters: [(&str, Getter); 6] = [
        ("interpreter_language", |it| it.interpreter_language.clone()),
        ("status", |it| it.status.clone()),
        ("url", |it| it.url.clone()),
        ("cancellation_reason", |it| it.cancellation_reason.clone()),
        ("custom_user_post_call_redirect_url", |it| it.custom_user_post_call_redirect_url.clone()),
        ("custom_agent_post_call_redirect_url", |it| it.custom_agent_post_call_redirect_url.clone()),
    ];
    for (field, get) in getters {
        let cases = [
            (r#""scheduled""#, value("scheduled")),
            (r#""""#, value("")),
            (r#""a \"quoted\" \u00e9 \ud83d\ude00\n""#, value("a \"quoted\" é 😀\n")),
            (r#""null""#, value("null")),
            // Half of a surrogate pair is valid JSON, but not valid text.
            (r#""\ud83d""#, Field::Malformed),
            (r#""\ude00\ud83d""#, Field::Malformed),
            ("7", Field::Malformed),
            ("true", Field::Malformed),
            ("[]", Field::Malformed),
            (r#"["scheduled"]"#, Field::Malformed),
            ("{}", Field::Malformed),
        ];
        check(field, get, &cases);
    }
}

#[test]
fn references_and_ids_preserve_the_digits_of_numbers() {
    let cases = [
        (r#""SXW5qOJBYeIEf0G""#, "SXW5qOJBYeIEf0G"),
        (r#""""#, ""),
        ("123456789", "123456789"),
        ("0", "0"),
        ("-1", "-1"),
        ("9007199254740993", "9007199254740993"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("1.50", "1.50"),
        ("1e999", "1e999"),
    ];
    let wrong = ["true", "[]", "{}", r#""\ud83d""#, "[1]"];
    let cases = || {
        cases.iter().map(|(json, text)| (*json, Some(*text))).chain(wrong.iter().map(|json| (*json, None)))
    };
    let texts = cases().map(|(json, text)| (json, text.map_or(Field::Malformed, value))).collect::<Vec<_>>();
    check("reference", |it| it.reference.clone(), &texts);

    for (json, text) in cases() {
        let expected = text.map_or(Field::Malformed, |text| Field::Value(text.into()));
        let of_department = with("department", &format!(r#"{{"id": {json}}}"#)).department;
        assert!(of_department.value().is_some_and(|it| it.id == expected), "department {json}");
        let of_meeting = with("meeting", &format!(r#"{{"id": {json}}}"#)).meeting;
        assert!(of_meeting.value().is_some_and(|it| it.id == expected), "meeting {json}");
        let claimant = with("claimant", &format!(r#"{{"data": [{{"id": {json}}}]}}"#)).claimant;
        assert!(claimant.value().is_some_and(|it| it.data.items[0].id == expected), "claimant's data {json}");
    }
}

#[test]
fn flags_are_true_or_false_only() {
    type Getter = fn(&Appointment) -> Field<bool>;
    let getters: [(&str, Getter); 11] = [
        ("is_interpreter_needed", |it| it.is_interpreter_needed),
        ("use_custom_post_call_redirect", |it| it.use_custom_post_call_redirect),
        ("features_call_recording_enable", |it| it.features.call_recording),
        ("features_breakout_room_enable", |it| it.features.breakout_room),
        ("features_webcam_access_agent_enable", |it| it.features.webcam_access_agent),
        ("features_webcam_access_claimant_enable", |it| it.features.webcam_access_claimant),
        ("features_webcam_background_blurring_enable", |it| it.features.webcam_background_blurring),
        ("features_microphone_access_enable", |it| it.features.microphone_access),
        ("features_screen_sharing_enable", |it| it.features.screen_sharing),
        ("features_messages_chat_enable", |it| it.features.messages_chat),
        ("features_participant_list_enable", |it| it.features.participant_list),
    ];
    for (field, get) in getters {
        check(field, get, &[("true", Field::Value(true)), ("false", Field::Value(false))]);
        for wrong in ["0", "1", r#""true""#, r#""""#, "[]", "[true]", "{}"] {
            check(field, get, &[(wrong, Field::Malformed)]);
        }
    }
}

#[test]
fn the_duration_is_a_whole_number_of_32_bits() {
    let right = [("60", 60), ("0", 0), ("-5", -5), ("60.0", 60), ("6e1", 60), ("2147483647", i32::MAX)];
    let wrong = [
        "60.5",
        "2147483648",
        "-2147483649",
        "1e10",
        "1e999",
        "-1e999",
        r#""60""#,
        "true",
        "[]",
        "{}",
        "[60]",
    ];
    let cases = right
        .iter()
        .map(|(json, number)| (*json, Field::Value(*number)))
        .chain(wrong.iter().map(|json| (*json, Field::Malformed)))
        .collect::<Vec<_>>();
    check("duration_in_minutes", |it| it.duration_in_minutes, &cases);
}

#[test]
fn instants_have_any_fraction_and_any_offset_or_none() {
    type Getter = fn(&Appointment) -> Field<DateTime>;
    let getters: [(&str, Getter); 5] = [
        ("appointment_at", |it| it.appointment_at),
        ("created_at", |it| it.created_at),
        ("cancelled_at", |it| it.cancelled_at),
        ("session_started_at", |it| it.session_started_at),
        ("session_ended_at", |it| it.session_ended_at),
    ];
    let at = |text: &str| Field::Value(DateTime::from(text.parse::<jiff::Timestamp>().unwrap()));
    let right = [
        ("2021-01-01T00:00:00.000Z", "2021-01-01T00:00:00Z"),
        ("2025-08-19T16:50:00.123000Z", "2025-08-19T16:50:00.123Z"),
        ("2025-08-19T16:50:00.123456Z", "2025-08-19T16:50:00.123456Z"),
        ("2021-01-30T08:30:00Z", "2021-01-30T08:30:00Z"),
        ("2021-01-30T08:30:00+01:00", "2021-01-30T07:30:00Z"),
        ("2021-01-30T08:30:00.5-05:30", "2021-01-30T14:00:00.5Z"),
        ("2021-01-30T08:30:00", "2021-01-30T08:30:00Z"),
        ("2021-01-30T08:30:00.25", "2021-01-30T08:30:00.25Z"),
        ("2021-01-30 08:30:00", "2021-01-30T08:30:00Z"),
        ("2021-01-30T08:30:00.12345678901234567890Z", "2021-01-30T08:30:00.123456789Z"),
        ("2021-01-30T08:30:00-23:59", "2021-01-31T08:29:00Z"),
    ];
    let wrong = [
        r#""""#,
        r#""tomorrow""#,
        r#""2021-01-30""#,
        r#""08:30:00""#,
        r#""2021-02-30T00:00:00Z""#,
        r#""2021-13-01T00:00:00Z""#,
        r#""2021-01-30T25:00:00Z""#,
        r#""2021-01-30T08:30:00[Europe/London]""#,
        r#""2021-01-30T08:30:00+24:00""#,
        r#""-002021-01-30T08:30:00Z""#,
        r#""99999-01-30T08:30:00Z""#,
        r#""２０21-01-30T08:30:00Z""#,
        r#""\ud83d2021-01-30T08:30:00Z""#,
        "1611995400",
        "true",
        "{}",
        "[]",
    ];
    for (field, get) in getters {
        for (text, expected) in right {
            check(field, get, &[(&format!("{text:?}"), at(expected))]);
        }
        check(field, get, &wrong.map(|json| (json, Field::Malformed)));
    }
}

#[test]
fn a_date_of_birth_is_a_calendar_date() {
    let born = |json: &str| {
        let claimant = with("claimant", &format!(r#"{{"date_of_birth": {json}}}"#)).claimant;
        claimant.value().unwrap().date_of_birth
    };
    assert!(born(r#""1990-12-25""#) == Field::Value(Date("1990-12-25".parse().unwrap())));
    assert!(born(r#""2000-02-29""#) == Field::Value(Date("2000-02-29".parse().unwrap())));
    assert!(born("null") == Field::Absent);
    for wrong in [
        r#""1999-02-29""#,
        r#""25/12/1990""#,
        r#""19901225""#,
        r#""1990-12-25T00:00:00Z""#,
        r#""""#,
        "1990",
        "{}",
        "[]",
    ] {
        assert!(born(wrong) == Field::Malformed, "{wrong}");
    }
}

#[test]
fn bandwidth_is_one_of_three_values() {
    let cases = [
        (r#""low""#, Field::Value(Bandwidth::Low)),
        (r#""medium""#, Field::Value(Bandwidth::Medium)),
        (r#""high""#, Field::Value(Bandwidth::High)),
        // Escapes do not change a value.
        (r#""\u006cow""#, Field::Value(Bandwidth::Low)),
        (r#""enormous""#, Field::Malformed),
        (r#""""#, Field::Malformed),
        ("1", Field::Malformed),
        ("true", Field::Malformed),
        ("{}", Field::Malformed),
        ("[]", Field::Malformed),
    ];
    check("features_bandwidth", |it| it.features.bandwidth, &cases);
}

#[test]
fn nested_objects_may_omit_every_member() {
    let wrong = [r#""text""#, "7", "true", "[[]]", "[{}]"];
    // PHP writes an empty object as an empty array.
    let cases = |empty: Field<bool>| {
        let empty = ["{}", "[]", "[ ]"].map(|json| (json, empty));
        wrong.map(|json| (json, Field::Malformed)).into_iter().chain(empty)
    };
    let departments = cases(Field::Value(false)).collect::<Vec<_>>();
    let has_name = |it: &Appointment| it.department.clone().and_then(|it| Some(it.name.value().is_some()));
    check("department", has_name, &departments);
    check("meeting", |it| it.meeting.clone(), &wrong.map(|json| (json, Field::Malformed)));
    for empty in ["{}", "[]"] {
        check("meeting", |it| it.meeting.clone(), &[(empty, Field::Value(Meeting::default()))]);
    }
    check("claimant", |it| it.claimant.clone(), &wrong.map(|json| (json, Field::Malformed)));
    for empty in ["{}", "[]"] {
        check("claimant", |it| it.claimant.clone(), &[(empty, Field::Value(Claimant::default()))]);
    }
}

#[test]
fn entries_of_claimant_data_that_are_no_objects_are_dropped() {
    let read = |json: &str| {
        let claimant = with("claimant", &format!(r#"{{"data": {json}}}"#)).claimant;
        let data = &claimant.value().unwrap().data;
        (
            data.items.iter().map(|it| it.name.value().map(ToString::to_string)).collect::<Vec<_>>(),
            data.malformed,
        )
    };
    let name = |name: &str| Some(name.to_owned());
    for (json, names, malformed) in [
        ("[]", vec![], false),
        ("null", vec![], false),
        (r#"[{"name": "a"}, {"name": "b"}]"#, vec![name("a"), name("b")], false),
        (r#"[{"name": "a"}, 7, {"name": "b"}]"#, vec![name("a"), name("b")], true),
        (r#"[null, {"name": "a"}, []]"#, vec![name("a"), None], true),
        (r#"[{"name": 7}, {}]"#, vec![None, None], false),
        // PHP writes a list with gaps as an object.
        ("{}", vec![], false),
        (r#"{"0": {"name": "a"}, "2": {"name": "b"}}"#, vec![name("a"), name("b")], false),
        (r#"{"7": 7, "10": {"name": "b"}}"#, vec![name("b")], true),
        (r#"{"0": {"name": "a"}, "x": {"name": "b"}}"#, vec![], true),
        (r#"{"": {"name": "a"}}"#, vec![], true),
        (r#"{"name": "a"}"#, vec![], true),
        ("7", vec![], true),
        (r#""a""#, vec![], true),
    ] {
        assert_eq!(read(json), (names, malformed), "{json}");
    }
}

#[test]
fn only_bodies_without_an_appointment_are_errors() {
    for (body, expected) in [
        ("", DecodeError::NotJson),
        (" ", DecodeError::NotJson),
        ("<html>", DecodeError::NotJson),
        (r#"{"data": {"id": "9a0f170e-0aa0-47db-ab14-4ddcdcbad061"}"#, DecodeError::NotJson),
        (r#"{"data": {"id": "9a0f170e-0aa0-47db-ab14-4ddcdcbad061"}} x"#, DecodeError::NotJson),
        ("null", DecodeError::NoData),
        ("7", DecodeError::NoData),
        (r#""data""#, DecodeError::NoData),
        ("[]", DecodeError::NoData),
        ("{}", DecodeError::NoData),
        (r#"{"data": null}"#, DecodeError::NoData),
        (r#"{"data": [[]]}"#, DecodeError::NoData),
        (r#"{"data": []}"#, DecodeError::NoId),
        (r#"{"data": "text"}"#, DecodeError::NoData),
        (r#"{"id": "9a0f170e-0aa0-47db-ab14-4ddcdcbad061"}"#, DecodeError::NoData),
        (r#"{"data": {}}"#, DecodeError::NoId),
        (r#"{"data": {"id": null}}"#, DecodeError::NoId),
        (r#"{"data": {"id": 17}}"#, DecodeError::NoId),
        (r#"{"data": {"id": ""}}"#, DecodeError::NoId),
        (r#"{"data": {"id": "9a0f170e0aa047dbab144ddcdcbad061"}}"#, DecodeError::NoId),
        (r#"{"data": {"id": "{9a0f170e-0aa0-47db-ab14-4ddcdcbad06}"}}"#, DecodeError::NoId),
        (r#"{"data": {"id": "9a0f170e-0aa0-47db-ab14-4ddcdcbad06g"}}"#, DecodeError::NoId),
        (r#"{"data": {"ID": "9a0f170e-0aa0-47db-ab14-4ddcdcbad061"}}"#, DecodeError::NoId),
    ] {
        assert_eq!(appointment(body.as_bytes()).err(), Some(expected), "{body}");
    }
    assert_eq!(appointment(b"{\"data\": {\"id\": \"\xff\"}}").err(), Some(DecodeError::NoId));
}

#[test]
fn an_invalid_text_costs_only_its_own_value() {
    let read = |text: &[u8]| {
        let head = format!(r#"{{"data": {{"id": "{ID}", "reference": "a", "status": ""#);
        let body = [head.as_bytes(), text, br#"", "url": "b"}}"#].concat();
        let read = appointment(&body).unwrap();
        assert!(read.reference == value("a") && read.url == value("b"), "{text:?}");
        read.status
    };
    for text in [
        &b"caf\xe9"[..],
        b"\xff",
        b"\xf0\x9f\x98",
        b"\xed\xa0\x80",
        b"\\\xff",
        b"\\\\\xff",
        b"\\x",
        b"\\u12",
        b"\\u12g4",
        b"\\'",
    ] {
        assert!(read(text) == Field::Malformed, "{text:?}");
    }
    for (text, expected) in [("a\tb\nc\0", "a\tb\nc\0"), ("\\\\\t", "\\\t"), ("\x01\\\"\\u0041", "\x01\"A")] {
        assert!(read(text.as_bytes()) == value(expected), "{text:?}");
    }
    // In a member name, it makes the name unknown.
    let body =
        [br#"{"data": {"stat"#, &b"\xff"[..], format!(r#"us": 7, "id": "{ID}"}}}}"#).as_bytes()].concat();
    assert!(appointment(&body).unwrap().status == Field::Absent);
    // Elsewhere, it is not JSON.
    for body in [&b"{\"data\": \xff}"[..], b"{\"data\": 7\x01}", b"{\"data\": \\\"}", b"{\"data\": \"\xff"] {
        assert_eq!(appointment(body).err(), Some(DecodeError::NotJson), "{body:?}");
    }
}

#[test]
fn byte_order_marks_are_ignored() {
    let mark = "\u{feff}";
    for before in [mark.to_owned(), mark.repeat(3), format!("\n{mark}\r\n {mark}\t")] {
        let body = format!(r#"{before}{{"data": {{"id": "{ID}", "status": "{mark}ok"}}}}"#);
        assert!(appointment(body.as_bytes()).unwrap().status == value(format!("{mark}ok")));
        assert_eq!(list_of(&format!(r#"{before}{{"data": [{{"id": "{ID}"}}]}}"#)).items.len(), 1);
        assert!(is_object(format!("{before}{{}}").as_bytes()));
    }
}

#[test]
fn a_list_may_be_an_object_with_numeric_names() {
    let item = format!(r#"{{"id": "{ID}"}}"#);
    for (data, items) in [
        ("{}".to_owned(), vec![]),
        (format!(r#"{{"3": {item}, "1": 7, "10": {item}}}"#), vec![true, false, true]),
    ] {
        let list = list_of(&format!(r#"{{"data": {data}, "meta": {{"total": 5}}}}"#));
        assert_eq!(list.items.iter().map(Option::is_some).collect::<Vec<_>>(), items, "{data}");
        assert_eq!(list.total, Some(5));
    }
    assert_eq!(list(format!(r#"{{"data": {item}}}"#).as_bytes()).err(), Some(DecodeError::NoData));
}

#[test]
fn the_last_of_duplicate_members_counts() {
    let other = "00000000-0000-4000-8000-000000000000";
    let body = format!(
        r#"{{"data": 7, "data": {{"id": 1, "id": "{other}", "status": "a", "status": 7, "id": "{ID}"}}}}"#
    );
    let read = appointment(body.as_bytes()).unwrap();
    assert_eq!(read.id.0.to_string(), ID);
    assert!(read.status == Field::Malformed);
    let body = format!(r#"{{"data": {{"id": "{ID}", "id": null}}}}"#);
    assert_eq!(appointment(body.as_bytes()).err(), Some(DecodeError::NoId));
}

#[test]
fn member_names_may_have_escapes() {
    // Half of a surrogate pair makes an unknown name.
    let body = format!(
        r#"{{"\u0064ata": {{"\u0069d": "{ID}", "\ud83d": 1, "\udc00\ud800": {{}}, "st\u0061tus": "ok"}}}}"#
    );
    let read = appointment(body.as_bytes()).unwrap();
    assert!(read.status == value("ok"));
}

#[test]
fn unknown_and_malformed_values_may_be_nested_to_any_depth() {
    for depth in [10, 100, 10_000, 100_000] {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        for field in ["unknown", "status", "claimant", "features_bandwidth"] {
            let body = format!(r#"{{"data": {{"{field}": {open}{close}, "id": "{ID}"}}}}"#);
            assert_eq!(appointment(body.as_bytes()).map(|read| read.id.0.to_string()), Ok(ID.to_owned()));
        }
        let open = r#"{"data": "#.repeat(depth);
        assert!(appointment(open.as_bytes()).is_err());
    }
}

#[test]
fn a_list_item_is_complete_with_every_documented_member() {
    let sample = Value::from(sample().clone());
    let is_complete = |item: &Value| {
        let list = serde_json::json!({ "data": [item] }).to_string();
        list_of(&list).items[0].as_ref().is_some_and(|item| item.is_complete)
    };
    assert!(is_complete(&sample));
    for pointer in documented() {
        let mut nulled = sample.clone();
        *nulled.pointer_mut(&pointer).unwrap() = Value::Null;
        let mut lacking = sample.clone();
        let (outer, last) = pointer.rsplit_once('/').unwrap();
        lacking.pointer_mut(outer).unwrap().as_object_mut().unwrap().remove(last);
        assert!(!is_complete(&lacking), "{pointer}");
        assert_eq!(is_complete(&nulled), pointer != "/id", "{pointer}");
    }
}

/// The JSON pointers of all documented members.
fn documented() -> Vec<String> {
    let text = |name: &[u8]| String::from_utf8(name.to_vec()).unwrap();
    let pointers = APPOINTMENT.iter().flat_map(|(name, nested)| {
        let outer = format!("/{}", text(name));
        let nested = nested.iter().map(|name| format!("{outer}/{}", text(name))).collect::<Vec<_>>();
        [outer].into_iter().chain(nested)
    });
    pointers.collect()
}

fn list_of(body: &str) -> ListPage {
    list(body.as_bytes()).unwrap()
}

#[test]
fn every_field_of_the_model_is_decoded() {
    let is_decoded = |prefix: &str, field: &&str| {
        let path = format!("{prefix}{field}.");
        DECODED.iter().any(|decoded| *decoded == *field || decoded.starts_with(&path))
    };
    for (prefix, fields) in [("", Appointment::FIELDS), ("features.", Features::FIELDS)] {
        for field in fields {
            assert!(
                is_decoded(prefix, field),
                "add {prefix}{field} to appointment_members! in src/upstream/wire/mod.rs"
            );
        }
    }
}

#[test]
fn every_field_has_a_value_in_the_sample() {
    let sample = Value::from(sample().clone());
    for pointer in documented() {
        let has_value = sample.pointer(&pointer).is_some_and(|value| !value.is_null());
        assert!(has_value, "add {pointer} to \"data\" in src/sandbox/data/appointment.json");
    }
}
