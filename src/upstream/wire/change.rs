//! Encoding of changes, and decoding of the upstream's validation errors.

use serde_json::{Map, Value, value::RawValue};

use super::{
    DecodeError, appointment,
    json::{document, elements, members, string, trimmed},
};
use crate::model::{
    Appointment, Bandwidth, Date, DateTime, OpaqueId,
    change::{
        Change, ClaimantInput, CreateAppointmentInput, FeaturesInput, InputFault, MaybeUndefined,
        UpdateAppointmentInput,
    },
};

/// Encodes the request body for `change`. Omitted, null and set fields stay distinct.
pub(crate) fn encode(change: &Change) -> Vec<u8> {
    let mut body = JsonObject::default();
    match change {
        Change::Create(input) => body.create(input),
        Change::Update(_, input) => body.update(input),
        Change::Cancel(_, reason) => {
            if let Some(reason) = reason {
                body.0.insert("cancellation_reason".to_owned(), reason.clone().into());
            }
        }
    }
    // Serialisation of a map of JSON values cannot fail.
    serde_json::to_vec(&body.0).unwrap_or_default()
}

#[derive(Default)]
struct JsonObject(Map<String, Value>);

impl JsonObject {
    fn set<T>(&mut self, name: &str, value: &MaybeUndefined<T>, json: impl FnOnce(&T) -> Value) {
        let value = match value {
            MaybeUndefined::Undefined => return,
            MaybeUndefined::Null => Value::Null,
            MaybeUndefined::Value(value) => json(value),
        };
        self.0.insert(name.to_owned(), value);
    }

    fn text(&mut self, name: &str, value: &MaybeUndefined<String>) {
        self.set(name, value, |text| text.clone().into());
    }

    fn flag(&mut self, name: &str, value: &MaybeUndefined<bool>) {
        self.set(name, value, |flag| (*flag).into());
    }

    fn create(&mut self, input: &CreateAppointmentInput) {
        let CreateAppointmentInput {
            reference,
            appointment_at,
            duration_in_minutes,
            department_id,
            is_interpreter_needed,
            interpreter_language,
            claimant,
            features,
            use_custom_post_call_redirect,
            custom_user_post_call_redirect_url,
            custom_agent_post_call_redirect_url,
        } = input;
        self.text("reference", reference);
        self.0.insert("appointment_at".to_owned(), instant(appointment_at));
        self.set("duration_in_minutes", duration_in_minutes, |minutes| (*minutes).into());
        self.set("department_id", department_id, id);
        self.flag("is_interpreter_needed", is_interpreter_needed);
        self.text("interpreter_language", interpreter_language);
        self.set("claimant", claimant, person);
        if let Some(features) = features {
            self.features(features);
        }
        self.flag("use_custom_post_call_redirect", use_custom_post_call_redirect);
        self.text("custom_user_post_call_redirect_url", custom_user_post_call_redirect_url);
        self.text("custom_agent_post_call_redirect_url", custom_agent_post_call_redirect_url);
    }

    fn update(&mut self, input: &UpdateAppointmentInput) {
        let UpdateAppointmentInput {
            appointment_at,
            duration_in_minutes,
            department_id,
            is_interpreter_needed,
            interpreter_language,
            status,
            claimant,
            features,
            use_custom_post_call_redirect,
            custom_user_post_call_redirect_url,
            custom_agent_post_call_redirect_url,
        } = input;
        self.set("appointment_at", appointment_at, instant);
        self.set("duration_in_minutes", duration_in_minutes, |minutes| (*minutes).into());
        self.set("department_id", department_id, id);
        self.flag("is_interpreter_needed", is_interpreter_needed);
        self.text("interpreter_language", interpreter_language);
        self.text("status", status);
        self.set("claimant", claimant, person);
        // Null is rejected earlier: upstream the flags are members of the appointment, so there is no object to clear.
        if let MaybeUndefined::Value(features) = features {
            self.features(features);
        }
        self.flag("use_custom_post_call_redirect", use_custom_post_call_redirect);
        self.text("custom_user_post_call_redirect_url", custom_user_post_call_redirect_url);
        self.text("custom_agent_post_call_redirect_url", custom_agent_post_call_redirect_url);
    }

    fn features(&mut self, features: &FeaturesInput) {
        let FeaturesInput {
            call_recording,
            breakout_room,
            webcam_access_agent,
            webcam_access_claimant,
            webcam_background_blurring,
            microphone_access,
            screen_sharing,
            messages_chat,
            participant_list,
            bandwidth,
        } = features;
        self.flag("features_call_recording_enable", call_recording);
        self.flag("features_breakout_room_enable", breakout_room);
        self.flag("features_webcam_access_agent_enable", webcam_access_agent);
        self.flag("features_webcam_access_claimant_enable", webcam_access_claimant);
        self.flag("features_webcam_background_blurring_enable", webcam_background_blurring);
        self.flag("features_microphone_access_enable", microphone_access);
        self.flag("features_screen_sharing_enable", screen_sharing);
        self.flag("features_messages_chat_enable", messages_chat);
        self.flag("features_participant_list_enable", participant_list);
        self.set("features_bandwidth", bandwidth, |bandwidth| {
            match bandwidth {
                Bandwidth::Low => "low",
                Bandwidth::Medium => "medium",
                Bandwidth::High => "high",
            }
            .into()
        });
    }
}

fn person(claimant: &ClaimantInput) -> Value {
    let ClaimantInput { name, phone_number, email, date_of_birth } = claimant;
    let mut person = JsonObject::default();
    person.text("name", name);
    person.text("phone_number", phone_number);
    person.text("email", email);
    person.set("date_of_birth", date_of_birth, |Date(date)| date.to_string().into());
    Value::Object(person.0)
}

fn instant(instant: &DateTime) -> Value {
    instant.to_string().into()
}

/// Encodes an id in the form in which the upstream sent it: an id of digits only was a number.
fn id(id: &OpaqueId) -> Value {
    match id.parse::<u64>() {
        Ok(number) if number.to_string() == id.as_str() => number.into(),
        _ => id.as_str().into(),
    }
}

/// Decodes the body of a success. `None` if it is complete and contains no appointment: the change was still made.
///
/// # Errors
/// The body is neither empty nor JSON, so it is not the API's response.
pub(crate) fn applied(body: &[u8]) -> Result<Option<Appointment>, DecodeError> {
    if trimmed(body).is_empty() {
        return Ok(None);
    }
    match appointment(body) {
        Ok(appointment) => Ok(Some(appointment)),
        Err(DecodeError::NoData | DecodeError::NoId) => Ok(None),
        Err(error @ DecodeError::NotJson) => Err(error),
    }
}

/// Decodes the validation errors of a 422: `{"errors": {"claimant.email": ["…"]}}`. A body of any other form becomes
/// one fault without a field.
pub(crate) fn faults(body: &[u8]) -> Vec<InputFault> {
    let mut faults = Vec::new();
    document(body, |body| {
        members(body, |name, errors| {
            if name == b"errors" {
                members(errors, |name, messages| {
                    let before = faults.len();
                    elements(messages, |message| faults.push(fault(name, message)));
                    if faults.len() == before {
                        faults.push(fault(name, messages));
                    }
                });
            }
        })
    });
    if faults.is_empty() {
        faults.push(InputFault { field: None, message: UNNAMED });
    }
    faults
}

fn fault(name: &[u8], message: &RawValue) -> InputFault {
    let field = std::str::from_utf8(name).ok().and_then(input_path);
    InputFault { field, message: rule_message(&string(message.get()).unwrap_or_default().to_lowercase()) }
}

/// The path into the GraphQL input for an upstream field; `None` for an unknown field.
fn input_path(name: &str) -> Option<Vec<String>> {
    let path: &[&str] = match name {
        "reference" => &["reference"],
        "appointment_at" => &["appointmentAt"],
        "duration_in_minutes" => &["durationInMinutes"],
        "department_id" => &["departmentId"],
        "is_interpreter_needed" => &["isInterpreterNeeded"],
        "interpreter_language" => &["interpreterLanguage"],
        "status" => &["status"],
        "cancellation_reason" => &["reason"],
        "claimant" => &["claimant"],
        "claimant.name" => &["claimant", "name"],
        "claimant.phone_number" => &["claimant", "phoneNumber"],
        "claimant.email" => &["claimant", "email"],
        "claimant.date_of_birth" => &["claimant", "dateOfBirth"],
        "features_call_recording_enable" => &["features", "callRecording"],
        "features_breakout_room_enable" => &["features", "breakoutRoom"],
        "features_webcam_access_agent_enable" => &["features", "webcamAccessAgent"],
        "features_webcam_access_claimant_enable" => &["features", "webcamAccessClaimant"],
        "features_webcam_background_blurring_enable" => &["features", "webcamBackgroundBlurring"],
        "features_microphone_access_enable" => &["features", "microphoneAccess"],
        "features_screen_sharing_enable" => &["features", "screenSharing"],
        "features_messages_chat_enable" => &["features", "messagesChat"],
        "features_participant_list_enable" => &["features", "participantList"],
        "features_bandwidth" => &["features", "bandwidth"],
        "use_custom_post_call_redirect" => &["useCustomPostCallRedirect"],
        "custom_user_post_call_redirect_url" => &["customUserPostCallRedirectUrl"],
        "custom_agent_post_call_redirect_url" => &["customAgentPostCallRedirectUrl"],
        _ => return None,
    };
    Some(path.iter().map(|name| (*name).to_owned()).collect())
}

/// Messages for clients, by a keyword in the message of the upstream's framework. The first matching keyword decides.
const RULES: &[(&str, &str)] = &[
    ("required", "This field is required."),
    ("email", "Must be an e-mail address."),
    ("phone", "Must be a phone number such as +442071234567."),
    ("url", "Must be a URL."),
    ("after", "Must be later."),
    ("before", "Must be earlier."),
    ("date", "Must be a date."),
    ("integer", "Must be an integer."),
    ("number", "Must be a number."),
    ("true or false", "Must be true or false."),
    ("taken", "This value is already in use."),
    ("characters", "The length of this text is out of range."),
    ("at least", "This value is too small."),
    ("greater", "This value is out of range."),
    ("less", "This value is out of range."),
    ("between", "This value is out of range."),
    ("string", "Must be a string."),
    ("selected", "Must be one of the allowed values."),
    ("format", "This value has the wrong format."),
];

/// The message for a violation of another rule.
const OTHER_RULE: &str = "The appointments service rejected this value.";

/// The message without a field.
const UNNAMED: &str = "The appointments service rejected this input without naming a field.";

/// Translates a validation message of the upstream's framework. The message itself is not passed on: it may quote the
/// input or internal details.
fn rule_message(message: &str) -> &'static str {
    RULES.iter().find(|(keyword, _)| message.contains(keyword)).map_or(OTHER_RULE, |(_, text)| text)
}

/// The message for clients that is equal to `text`; another one if there is none.
pub(crate) fn known_message(text: &str) -> &'static str {
    let messages = RULES.iter().map(|(_, message)| *message).chain([UNNAMED]);
    messages.into_iter().find(|message| *message == text).unwrap_or(OTHER_RULE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn faults_have_graphql_paths_and_texts_of_the_gateway() {
        let body = br#"{"message": "The given data was invalid.", "errors": {
            "appointment_at": ["The appointment at field is required."],
            "claimant.email": ["The claimant.email must be a valid email address.", "Ada@example is odd."],
            "features_bandwidth": "The selected features bandwidth is invalid.",
            "secret_internal": ["The secret is short."]
        }}"#;
        let fault = |path: &[&str], message| InputFault {
            field: (!path.is_empty()).then(|| path.iter().map(|name| (*name).to_owned()).collect()),
            message,
        };
        assert_eq!(
            faults(body),
            [
                fault(&["appointmentAt"], "This field is required."),
                fault(&["claimant", "email"], "Must be an e-mail address."),
                fault(&["claimant", "email"], "The appointments service rejected this value."),
                fault(&["features", "bandwidth"], "Must be one of the allowed values."),
                fault(&[], "The appointments service rejected this value."),
            ]
        );
        for body in [&b""[..], b"<html>", b"{}", br#"{"errors": []}"#, br#"{"errors": {}}"#] {
            let text = "The appointments service rejected this input without naming a field.";
            assert_eq!(faults(body), [fault(&[], text)]);
        }
    }

    #[test]
    fn ids_are_sent_in_the_form_in_which_they_came() {
        for (text, json) in [("7", "7"), ("007", "\"007\""), ("x7", "\"x7\""), ("-7", "\"-7\""), ("", "\"\"")]
        {
            assert_eq!(id(&OpaqueId(text.to_owned())).to_string(), json);
        }
    }

    proptest! {
        #[test]
        fn any_body_is_decoded_without_a_panic(text: String, name: String, message: String) {
            faults(text.as_bytes());
            let body = serde_json::json!({ "errors": { name: [message] } });
            prop_assert_eq!(faults(body.to_string().as_bytes()).len(), 1);
        }
    }
}
