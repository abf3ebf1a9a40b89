//! The bodies of changes: a table of fields, and the framework's messages for what is wrong with them.
//!
//! Stands between the routes and the store. What comes out as a [`Change`] is right and can be applied as it is; whatever
//! the table does not name is ignored, as the upstream's framework does.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use serde_json::{Map, Value};

use super::{
    people,
    refusal::{Invalid, Refusal},
};

/// What is changed: fields as they will be served, and those of the claimant, which are merged into what is there.
pub(crate) struct Change {
    pub(crate) at: Option<Timestamp>,
    pub(crate) fields: Map<String, Value>,
    pub(crate) claimant: Option<Map<String, Value>>,
}

/// What the body is for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Purpose {
    Create,
    Update,
}

/// One field: when it is read, when it may be null, and what it must look like.
struct Rule {
    name: &'static str,
    reads: fn(Purpose) -> bool,
    nullable: fn(Purpose) -> bool,
    form: Form,
}

#[derive(Debug, Clone, Copy)]
enum Form {
    DateTime,
    Date,
    /// A string of at most so many characters.
    Text(usize),
    Boolean,
    /// A whole number between these, both included.
    Integer(i64, i64),
    OneOf(&'static [&'static str]),
    Department,
    Email,
    Phone,
}

const fn rule(name: &'static str, form: Form) -> Rule {
    Rule { name, reads: |_| true, nullable: |_| false, form }
}

const fn nullable(name: &'static str, form: Form) -> Rule {
    Rule { nullable: |_| true, ..rule(name, form) }
}

/// In the order of the documentation, which is the order in which the first message is found.
const FIELDS: [Rule; 20] = [
    rule("appointment_at", Form::DateTime),
    rule("duration_in_minutes", Form::Integer(1, 1440)),
    rule("department_id", Form::Department),
    Rule {
        nullable: |purpose| matches!(purpose, Purpose::Update),
        ..rule("is_interpreter_needed", Form::Boolean)
    },
    nullable("interpreter_language", Form::Text(255)),
    Rule { reads: |purpose| matches!(purpose, Purpose::Create), ..rule("reference", Form::Text(64)) },
    Rule { reads: |purpose| matches!(purpose, Purpose::Update), ..nullable("status", Form::Text(64)) },
    rule("features_call_recording_enable", Form::Boolean),
    rule("features_breakout_room_enable", Form::Boolean),
    rule("features_webcam_access_agent_enable", Form::Boolean),
    rule("features_webcam_access_claimant_enable", Form::Boolean),
    rule("features_webcam_background_blurring_enable", Form::Boolean),
    rule("features_microphone_access_enable", Form::Boolean),
    rule("features_screen_sharing_enable", Form::Boolean),
    rule("features_messages_chat_enable", Form::Boolean),
    rule("features_participant_list_enable", Form::Boolean),
    rule("features_bandwidth", Form::OneOf(&["low", "medium", "high"])),
    rule("use_custom_post_call_redirect", Form::Boolean),
    nullable("custom_user_post_call_redirect_url", Form::Text(2048)),
    nullable("custom_agent_post_call_redirect_url", Form::Text(2048)),
];

const CLAIMANT_FIELDS: [Rule; 4] = [
    rule("name", Form::Text(255)),
    rule("date_of_birth", Form::Date),
    rule("phone_number", Form::Phone),
    rule("email", Form::Email),
];

const CANCELLATION_FIELDS: [Rule; 1] = [nullable("cancellation_reason", Form::Text(1000))];

/// The body of `POST /appointments`: the time, which it must have, and the rest.
pub(crate) fn create(body: &Map<String, Value>) -> Result<(Timestamp, Change), Refusal> {
    let mut invalid = Invalid::default();
    if !body.contains_key("appointment_at") {
        invalid.note("appointment_at", required("appointment_at"));
    }
    let change = read(body, Purpose::Create, &mut invalid);
    match change.at {
        Some(at) => invalid.or((at, change)),
        // Missing, null or no time: a message for each of them is noted by now.
        None => Err(Refusal::Invalid(invalid)),
    }
}

/// The body of `PATCH /appointments/{id}`.
pub(crate) fn update(body: &Map<String, Value>) -> Result<Change, Refusal> {
    let mut invalid = Invalid::default();
    let change = read(body, Purpose::Update, &mut invalid);
    invalid.or(change)
}

/// The body of `POST /appointments/{id}/cancel`: the reason, if one is given.
pub(crate) fn cancellation(body: &Map<String, Value>) -> Result<Option<String>, Refusal> {
    let mut invalid = Invalid::default();
    let fields = judge(body, "", &CANCELLATION_FIELDS, Purpose::Update, &mut invalid);
    let reason = fields.get("cancellation_reason").and_then(Value::as_str).map(str::to_owned);
    invalid.or(reason)
}

fn read(body: &Map<String, Value>, purpose: Purpose, invalid: &mut Invalid) -> Change {
    let mut fields = judge(body, "", &FIELDS, purpose, invalid);
    let claimant = match body.get("claimant") {
        None => None,
        Some(Value::Object(claimant)) => {
            Some(judge(claimant, "claimant.", &CLAIMANT_FIELDS, purpose, invalid))
        }
        Some(Value::Null) => {
            invalid.note("claimant", required("claimant"));
            None
        }
        Some(_) => {
            // An object is an array to the upstream's framework.
            invalid.note("claimant", "The claimant must be an array.".to_owned());
            None
        }
    };
    let at = fields.remove("appointment_at").as_ref().and_then(date_time);
    if let Some(department) = fields.remove("department_id").as_ref().and_then(department) {
        fields.insert("department".to_owned(), department);
    }
    Change { at, fields, claimant }
}

/// The fields of the table that are right; those that are wrong are noted.
fn judge(
    body: &Map<String, Value>,
    prefix: &str,
    rules: &[Rule],
    purpose: Purpose,
    invalid: &mut Invalid,
) -> Map<String, Value> {
    let mut right = Map::new();
    for rule in rules.iter().filter(|rule| (rule.reads)(purpose)) {
        let Some(value) = body.get(rule.name) else { continue };
        let field = format!("{prefix}{}", rule.name);
        let complaint = match value {
            Value::Null if (rule.nullable)(purpose) => None,
            Value::Null => Some(required(&field)),
            value => complaint(rule.form, value, &field),
        };
        match complaint {
            Some(message) => invalid.note(&field, message),
            None => _ = right.insert(rule.name.to_owned(), value.clone()),
        }
    }
    right
}

/// The framework's message for a value that is not of this form.
fn complaint(form: Form, value: &Value, field: &str) -> Option<String> {
    let called = called(field);
    let text = value.as_str();
    let fits = match form {
        Form::DateTime => date_time(value).is_some(),
        Form::Date => text.is_some_and(is_date),
        Form::Text(longest) => text.is_some_and(|text| text.chars().count() <= longest),
        Form::Boolean => value.is_boolean(),
        Form::Integer(least, most) => value.as_i64().is_some_and(|number| (least..=most).contains(&number)),
        Form::OneOf(words) => text.is_some_and(|text| words.contains(&text)),
        Form::Department => department(value).is_some(),
        Form::Email => text.is_some_and(is_email),
        Form::Phone => text.is_some_and(is_phone),
    };
    if fits {
        return None;
    }
    Some(match form {
        Form::DateTime | Form::Date => format!("The {called} is not a valid date."),
        Form::Text(longest) if text.is_some() => {
            format!("The {called} must not be greater than {longest} characters.")
        }
        Form::Text(_) => format!("The {called} must be a string."),
        Form::Boolean => format!("The {called} field must be true or false."),
        Form::Integer(least, most) if value.is_i64() || value.is_u64() => {
            format!("The {called} must be between {least} and {most}.")
        }
        Form::Integer(..) => format!("The {called} must be an integer."),
        Form::OneOf(_) | Form::Department => format!("The selected {called} is invalid."),
        Form::Email => format!("The {called} must be a valid email address."),
        Form::Phone => format!("The {called} format is invalid."),
    })
}

fn required(field: &str) -> String {
    format!("The {} field is required.", called(field))
}

/// The framework takes the underscores out of a field's name, and leaves the dots in.
fn called(field: &str) -> String {
    field.replace('_', " ")
}

/// RFC 3339, and as the upstream takes it: the offset may be missing, which means UTC. Only years of four digits.
fn date_time(value: &Value) -> Option<Timestamp> {
    let text = value.as_str()?;
    // The parser knows more than RFC 3339 does: signed years, time zones in brackets, days without a time.
    if !text.starts_with(|first: char| first.is_ascii_digit()) || text.contains('[') || !text.contains(':') {
        return None;
    }
    let zoneless = || text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok();
    text.parse().ok().or_else(|| zoneless().map(|zoned| zoned.timestamp()))
}

fn is_date(text: &str) -> bool {
    text.len() == "2006-01-02".len() && text.parse::<Date>().is_ok()
}

/// A number, or a string of digits as ids often are.
fn department(value: &Value) -> Option<Value> {
    let id = value.as_u64().or_else(|| value.as_str()?.parse().ok())?;
    people::department(id)
}

/// As much as can be said without sending one: something, an at sign, and a domain of at least two labels.
fn is_email(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.chars().all(|letter| letter.is_alphanumeric() || letter == '-')
    };
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    let local_fits =
        !local.is_empty() && !local.contains(|letter: char| letter.is_whitespace() || letter == '@');
    text.len() <= 254 && local_fits && domain.contains('.') && domain.split('.').all(is_label)
}

/// E.164: a plus sign, and up to fifteen digits of which the first is not zero. No country's are shorter than seven.
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

    fn fits(form: Form, value: &Value) -> bool {
        complaint(form, value, "field").is_none()
    }

    #[test]
    fn times_are_read_as_the_upstream_reads_them() {
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
    fn each_form_takes_what_it_says() {
        assert!(fits(Form::Date, &json!("1990-12-25")));
        assert!(!fits(Form::Date, &json!("1990-12-25T00:00:00")));
        assert!(!fits(Form::Date, &json!("25.12.1990")));
        assert!(fits(Form::Text(3), &json!("äöü")));
        assert!(!fits(Form::Text(3), &json!("four")));
        assert!(!fits(Form::Boolean, &json!("true")));
        assert!(fits(Form::Integer(1, 1440), &json!(1440)));
        assert!(!fits(Form::Integer(1, 1440), &json!(0)));
        assert!(!fits(Form::Integer(1, 1440), &json!(30.5)));
        assert!(fits(Form::Department, &json!("6")));
        assert!(!fits(Form::Department, &json!(7)));
        assert!(fits(Form::Email, &json!("ada.lanternby@example.com")));
        for email in ["ada", "@example.com", "ada@", "ada@example", "a da@example.com", "a@b@example.com"] {
            assert!(!fits(Form::Email, &json!(email)), "{email}");
        }
        assert!(fits(Form::Phone, &json!("+442079460123")));
        for phone in ["020 7946 0123", "+0442079460", "+44207946012345678", "+44 20 7946"] {
            assert!(!fits(Form::Phone, &json!(phone)), "{phone}");
        }
    }

    #[test]
    fn null_is_taken_only_where_the_upstream_says_so() {
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
    fn what_belongs_to_the_other_purpose_or_to_nobody_is_ignored() {
        let body = json!({ "reference": 5, "id": "x", "cancelled_at": "now", "url": 7 });
        assert!(update(body.as_object().unwrap()).is_ok_and(|change| change.fields.is_empty()));
    }
}
