//! Validation of request bodies, with a table of fields and the error messages of the upstream's framework.
//!
//! A [`Change`] is valid and can be applied directly. Like the framework, validation ignores unknown fields.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use serde_json::{Map, Value};

use super::{
    people,
    refusal::{FieldErrors, SandboxError},
};

/// A validated change: fields in the format in which they are served, and fields to merge into the claimant.
pub(crate) struct Change {
    pub(crate) at: Option<Timestamp>,
    pub(crate) fields: Map<String, Value>,
    pub(crate) claimant: Option<Map<String, Value>>,
}

/// The purpose of a body.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Purpose {
    Create,
    Update,
}

/// The validation rule of a field: for which purpose it is read, for which it is nullable, and its type.
struct FieldRule {
    name: &'static str,
    applies: fn(Purpose) -> bool,
    nullable: fn(Purpose) -> bool,
    field_type: FieldType,
}

#[derive(Debug, Clone, Copy)]
enum FieldType {
    DateTime,
    Date,
    /// A string with a maximum number of characters.
    Text(usize),
    Boolean,
    /// An integer in an inclusive range.
    Integer(i64, i64),
    OneOf(&'static [&'static str]),
    Department,
    Email,
    Phone,
}

const fn rule(name: &'static str, field_type: FieldType) -> FieldRule {
    FieldRule { name, applies: |_| true, nullable: |_| false, field_type }
}

const fn nullable(name: &'static str, field_type: FieldType) -> FieldRule {
    FieldRule { nullable: |_| true, ..rule(name, field_type) }
}

/// In the order of the upstream's documentation, which determines the first error message.
const FIELDS: [FieldRule; 20] = [
    rule("appointment_at", FieldType::DateTime),
    rule("duration_in_minutes", FieldType::Integer(1, 1440)),
    rule("department_id", FieldType::Department),
    FieldRule {
        nullable: |purpose| matches!(purpose, Purpose::Update),
        ..rule("is_interpreter_needed", FieldType::Boolean)
    },
    nullable("interpreter_language", FieldType::Text(255)),
    FieldRule {
        applies: |purpose| matches!(purpose, Purpose::Create),
        ..rule("reference", FieldType::Text(64))
    },
    FieldRule {
        applies: |purpose| matches!(purpose, Purpose::Update),
        ..nullable("status", FieldType::Text(64))
    },
    rule("features_call_recording_enable", FieldType::Boolean),
    rule("features_breakout_room_enable", FieldType::Boolean),
    rule("features_webcam_access_agent_enable", FieldType::Boolean),
    rule("features_webcam_access_claimant_enable", FieldType::Boolean),
    rule("features_webcam_background_blurring_enable", FieldType::Boolean),
    rule("features_microphone_access_enable", FieldType::Boolean),
    rule("features_screen_sharing_enable", FieldType::Boolean),
    rule("features_messages_chat_enable", FieldType::Boolean),
    rule("features_participant_list_enable", FieldType::Boolean),
    rule("features_bandwidth", FieldType::OneOf(&["low", "medium", "high"])),
    rule("use_custom_post_call_redirect", FieldType::Boolean),
    nullable("custom_user_post_call_redirect_url", FieldType::Text(2048)),
    nullable("custom_agent_post_call_redirect_url", FieldType::Text(2048)),
];

const CLAIMANT_FIELDS: [FieldRule; 4] = [
    rule("name", FieldType::Text(255)),
    rule("date_of_birth", FieldType::Date),
    rule("phone_number", FieldType::Phone),
    rule("email", FieldType::Email),
];

const CANCELLATION_FIELDS: [FieldRule; 1] = [nullable("cancellation_reason", FieldType::Text(1000))];

/// Validates the body of `POST /appointments`. Returns its time, which is required, and the other fields.
pub(crate) fn create(body: &Map<String, Value>) -> Result<(Timestamp, Change), SandboxError> {
    let mut errors = FieldErrors::default();
    if !body.contains_key("appointment_at") {
        errors.add("appointment_at", required("appointment_at"));
    }
    let change = read(body, Purpose::Create, &mut errors);
    match change.at {
        Some(at) => errors.into_result((at, change)),
        // The error has been added: the time is missing, null or invalid.
        None => Err(SandboxError::Invalid(errors)),
    }
}

/// Validates the body of `PATCH /appointments/{id}`.
pub(crate) fn update(body: &Map<String, Value>) -> Result<Change, SandboxError> {
    let mut errors = FieldErrors::default();
    let change = read(body, Purpose::Update, &mut errors);
    errors.into_result(change)
}

/// Validates the body of `POST /appointments/{id}/cancel`. Returns the optional reason.
pub(crate) fn cancellation(body: &Map<String, Value>) -> Result<Option<String>, SandboxError> {
    let mut errors = FieldErrors::default();
    let fields = validate_fields(body, "", &CANCELLATION_FIELDS, Purpose::Update, &mut errors);
    let reason = fields.get("cancellation_reason").and_then(Value::as_str).map(str::to_owned);
    errors.into_result(reason)
}

fn read(body: &Map<String, Value>, purpose: Purpose, errors: &mut FieldErrors) -> Change {
    let mut fields = validate_fields(body, "", &FIELDS, purpose, errors);
    let claimant = match body.get("claimant") {
        None => None,
        Some(Value::Object(claimant)) => {
            Some(validate_fields(claimant, "claimant.", &CLAIMANT_FIELDS, purpose, errors))
        }
        Some(Value::Null) => {
            errors.add("claimant", required("claimant"));
            None
        }
        Some(_) => {
            // The upstream's framework calls objects arrays.
            errors.add("claimant", "The claimant must be an array.".to_owned());
            None
        }
    };
    let at = fields.remove("appointment_at").as_ref().and_then(date_time);
    if let Some(department) = fields.remove("department_id").as_ref().and_then(department) {
        fields.insert("department".to_owned(), department);
    }
    Change { at, fields, claimant }
}

/// Returns the valid fields of the table, and adds errors for the others.
fn validate_fields(
    body: &Map<String, Value>,
    prefix: &str,
    rules: &[FieldRule],
    purpose: Purpose,
    errors: &mut FieldErrors,
) -> Map<String, Value> {
    let mut valid = Map::new();
    for rule in rules.iter().filter(|rule| (rule.applies)(purpose)) {
        let Some(value) = body.get(rule.name) else { continue };
        let field = format!("{prefix}{}", rule.name);
        let error = match value {
            Value::Null if (rule.nullable)(purpose) => None,
            Value::Null => Some(required(&field)),
            value => error_message(rule.field_type, value, &field),
        };
        match error {
            Some(message) => errors.add(&field, message),
            None => _ = valid.insert(rule.name.to_owned(), value.clone()),
        }
    }
    valid
}

/// Returns the framework's error message if `value` is not of this type.
fn error_message(field_type: FieldType, value: &Value, field: &str) -> Option<String> {
    let name = display_name(field);
    let text = value.as_str();
    let fits = match field_type {
        FieldType::DateTime => date_time(value).is_some(),
        FieldType::Date => text.is_some_and(is_date),
        FieldType::Text(max) => text.is_some_and(|text| text.chars().count() <= max),
        FieldType::Boolean => value.is_boolean(),
        FieldType::Integer(min, max) => value.as_i64().is_some_and(|number| (min..=max).contains(&number)),
        FieldType::OneOf(words) => text.is_some_and(|text| words.contains(&text)),
        FieldType::Department => department(value).is_some(),
        FieldType::Email => text.is_some_and(is_email),
        FieldType::Phone => text.is_some_and(is_phone),
    };
    if fits {
        return None;
    }
    Some(match field_type {
        FieldType::DateTime | FieldType::Date => format!("The {name} is not a valid date."),
        FieldType::Text(max) if text.is_some() => {
            format!("The {name} must not be greater than {max} characters.")
        }
        FieldType::Text(_) => format!("The {name} must be a string."),
        FieldType::Boolean => format!("The {name} field must be true or false."),
        FieldType::Integer(min, max) if value.is_i64() || value.is_u64() => {
            format!("The {name} must be between {min} and {max}.")
        }
        FieldType::Integer(..) => format!("The {name} must be an integer."),
        FieldType::OneOf(_) | FieldType::Department => format!("The selected {name} is invalid."),
        FieldType::Email => format!("The {name} must be a valid email address."),
        FieldType::Phone => format!("The {name} format is invalid."),
    })
}

fn required(field: &str) -> String {
    format!("The {} field is required.", display_name(field))
}

/// Returns the name of a field in messages. The framework replaces underscores, but not dots.
fn display_name(field: &str) -> String {
    field.replace('_', " ")
}

/// Parses RFC 3339 with years of four digits. Like the upstream, it takes a missing offset as UTC.
fn date_time(value: &Value) -> Option<Timestamp> {
    let text = value.as_str()?;
    // The parser accepts more than RFC 3339: signed years, time zones in brackets, dates without a time.
    if !text.starts_with(|first: char| first.is_ascii_digit()) || text.contains('[') || !text.contains(':') {
        return None;
    }
    let zoneless = || text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok();
    text.parse().ok().or_else(|| zoneless().map(|zoned| zoned.timestamp()))
}

fn is_date(text: &str) -> bool {
    text.len() == "2006-01-02".len() && text.parse::<Date>().is_ok()
}

/// Returns the department with an id that is a number or a string of digits.
fn department(value: &Value) -> Option<Value> {
    let id = value.as_u64().or_else(|| value.as_str()?.parse().ok())?;
    people::department(id)
}

/// Whether `text` has a local part, an at sign and a domain with at least two labels.
fn is_email(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.chars().all(|letter| letter.is_alphanumeric() || letter == '-')
    };
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    let local_fits =
        !local.is_empty() && !local.contains(|letter: char| letter.is_whitespace() || letter == '@');
    text.len() <= 254 && local_fits && domain.contains('.') && domain.split('.').all(is_label)
}

/// Whether `text` is an E.164 number: a plus sign and 7 to 15 digits, the first of them not zero.
fn is_phone(text: &str) -> bool {
    text.strip_prefix('+').is_some_and(|digits| {
        (7..=15).contains(&digits.len())
            && digits.bytes().all(|digit| digit.is_ascii_digit())
            && !digits.starts_with('0')
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fits(field_type: FieldType, value: &Value) -> bool {
        error_message(field_type, value, "field").is_none()
    }

    #[test]
    fn times_are_parsed_like_the_upstream() {
        let expected: Timestamp = "2026-03-05T10:00:00Z".parse().unwrap();
        for text in [
            "2026-03-05T10:00:00Z",
            "2026-03-05T10:00:00.000000Z",
            "2026-03-05T11:00:00+01:00",
            "2026-03-05T10:00:00",
            "2026-03-05 10:00:00.000",
        ] {
            assert_eq!(date_time(&json!(text)), Some(expected), "{text}");
        }
        for value in [
            json!("soon"),
            json!(""),
            json!("2026-02-30T10:00:00Z"),
            json!("2026-03-05"),
            json!("-009999-01-01T00:00:00Z"),
            json!("2026-03-05T10:00:00Z[Europe/London]"),
            json!(1_772_704_800),
        ] {
            assert_eq!(date_time(&value), None, "{value}");
        }
    }

    #[test]
    fn field_types_accept_only_valid_values() {
        assert!(fits(FieldType::Date, &json!("1990-12-25")));
        assert!(!fits(FieldType::Date, &json!("1990-12-25T00:00:00")));
        assert!(!fits(FieldType::Date, &json!("25.12.1990")));
        assert!(fits(FieldType::Text(3), &json!("äöü")));
        assert!(!fits(FieldType::Text(3), &json!("four")));
        assert!(!fits(FieldType::Boolean, &json!("true")));
        assert!(fits(FieldType::Integer(1, 1440), &json!(1440)));
        assert!(!fits(FieldType::Integer(1, 1440), &json!(0)));
        assert!(!fits(FieldType::Integer(1, 1440), &json!(30.5)));
        assert!(fits(FieldType::Department, &json!("6")));
        assert!(!fits(FieldType::Department, &json!(7)));
        assert!(fits(FieldType::Email, &json!("ada.lanternby@example.com")));
        for email in ["ada", "@example.com", "ada@", "ada@example", "a da@example.com", "a@b@example.com"] {
            assert!(!fits(FieldType::Email, &json!(email)), "{email}");
        }
        assert!(fits(FieldType::Phone, &json!("+442079460123")));
        for phone in ["020 7946 0123", "+0442079460", "+44207946012345678", "+44 20 7946"] {
            assert!(!fits(FieldType::Phone, &json!(phone)), "{phone}");
        }
    }

    #[test]
    fn null_is_accepted_only_for_nullable_fields() {
        let nulls = json!({
            "is_interpreter_needed": null, "interpreter_language": null, "status": null,
            "custom_user_post_call_redirect_url": null, "custom_agent_post_call_redirect_url": null,
        });
        assert!(update(nulls.as_object().unwrap()).is_ok_and(|change| change.fields.len() == 5));
        for field in
            ["appointment_at", "duration_in_minutes", "department_id", "claimant", "features_bandwidth"]
        {
            assert!(update(json!({ field: null }).as_object().unwrap()).is_err(), "{field}");
        }
        let created = json!({ "appointment_at": "2026-03-05T10:00:00Z", "is_interpreter_needed": null });
        assert!(create(created.as_object().unwrap()).is_err());
    }

    #[test]
    fn unknown_fields_and_fields_of_the_other_purpose_are_ignored() {
        let body = json!({ "reference": 5, "id": "x", "cancelled_at": "now", "url": 7 });
        assert!(update(body.as_object().unwrap()).is_ok_and(|change| change.fields.is_empty()));
    }
}
