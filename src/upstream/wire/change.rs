//! Changes as the upstream takes them, and what it does not accept in them.

use async_graphql::{ID, MaybeUndefined};
use serde_json::{Map, Value, value::RawValue};

use super::json::{elements, members, string};
use crate::model::{
    Bandwidth, Date, DateTime,
    change::{
        Change, ClaimantInput, CreateAppointmentInput, FeaturesInput, InputFault, UpdateAppointmentInput,
    },
};

/// The body of the request for `change`: what is left out is left out, what is null is null.
pub(crate) fn encode(change: &Change) -> Vec<u8> {
    let mut body = Body::default();
    match change {
        Change::Create(input) => body.create(input),
        Change::Update(_, input) => body.update(input),
        Change::Cancel(_, reason) => {
            if let Some(reason) = reason {
                body.0.insert("cancellation_reason".to_owned(), reason.clone().into());
            }
        }
    }
    // An object of strings, numbers and flags is always JSON.
    serde_json::to_vec(&body.0).unwrap_or_default()
}

#[derive(Default)]
struct Body(Map<String, Value>);

impl Body {
    fn put<T>(&mut self, name: &str, value: &MaybeUndefined<T>, json: impl FnOnce(&T) -> Value) {
        let value = match value {
            MaybeUndefined::Undefined => return,
            MaybeUndefined::Null => Value::Null,
            MaybeUndefined::Value(value) => json(value),
        };
        self.0.insert(name.to_owned(), value);
    }

    fn text(&mut self, name: &str, value: &MaybeUndefined<String>) {
        self.put(name, value, |text| text.clone().into());
    }

    fn flag(&mut self, name: &str, value: &MaybeUndefined<bool>) {
        self.put(name, value, |flag| (*flag).into());
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
        self.put("duration_in_minutes", duration_in_minutes, |minutes| (*minutes).into());
        self.put("department_id", department_id, id);
        self.flag("is_interpreter_needed", is_interpreter_needed);
        self.text("interpreter_language", interpreter_language);
        self.put("claimant", claimant, person);
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
        self.put("appointment_at", appointment_at, instant);
        self.put("duration_in_minutes", duration_in_minutes, |minutes| (*minutes).into());
        self.put("department_id", department_id, id);
        self.flag("is_interpreter_needed", is_interpreter_needed);
        self.text("interpreter_language", interpreter_language);
        self.text("status", status);
        self.put("claimant", claimant, person);
        // Null is refused before it comes here: the flags lie side by side upstream, with nothing around them to clear.
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
        self.put("features_bandwidth", bandwidth, |bandwidth| {
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
    let mut person = Body::default();
    person.text("name", name);
    person.text("phone_number", phone_number);
    person.text("email", email);
    person.put("date_of_birth", date_of_birth, |Date(date)| date.to_string().into());
    Value::Object(person.0)
}

fn instant(DateTime(instant): &DateTime) -> Value {
    instant.to_string().into()
}

/// As it was read: what came as a number, which is then a string of digits, goes back as one.
fn id(id: &ID) -> Value {
    match id.parse::<u64>() {
        Ok(number) if number.to_string() == id.as_str() => number.into(),
        _ => id.as_str().into(),
    }
}

/// Reads what a 422 says of the input: `{"errors": {"claimant.email": ["…"]}}`. One fault that names nothing where it
/// cannot be read.
pub(crate) fn faults(body: &[u8]) -> Vec<InputFault> {
    let mut faults = Vec::new();
    if let Ok(body) = serde_json::from_slice::<&RawValue>(body) {
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
        });
    }
    if faults.is_empty() {
        faults.push(InputFault {
            field: None,
            message: "The appointments service does not accept this input.",
        });
    }
    faults
}

fn fault(name: &[u8], message: &RawValue) -> InputFault {
    let field = std::str::from_utf8(name).ok().and_then(field);
    InputFault { field, message: rule(&string(message.get()).unwrap_or_default().to_lowercase()) }
}

/// The path into the input for a name of the upstream; none for a name that it does not have.
fn field(name: &str) -> Option<Vec<String>> {
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

/// Our words for the rule that a message of the upstream's framework is about. The message itself is not shown: it may
/// repeat the input, or say what is nobody's business. The first that fits counts.
fn rule(message: &str) -> &'static str {
    const RULES: &[(&str, &str)] = &[
        ("required", "This is required."),
        ("email", "This has to be an e-mail address."),
        ("phone", "This has to be a phone number such as +442071234567."),
        ("url", "This has to be a URL."),
        ("after", "This is too early."),
        ("before", "This is too late."),
        ("date", "This has to be a date."),
        ("integer", "This has to be a whole number."),
        ("number", "This has to be a number."),
        ("true or false", "This has to be true or false."),
        ("taken", "This is taken already."),
        ("characters", "This is too long or too short."),
        ("at least", "This is too small."),
        ("greater", "This is out of range."),
        ("less", "This is out of range."),
        ("between", "This is out of range."),
        ("string", "This has to be a text."),
        ("selected", "There is no such choice."),
        ("format", "This is not written in the form that is expected."),
    ];
    let rule = RULES.iter().find(|(sign, _)| message.contains(sign));
    rule.map_or("This is not accepted.", |(_, words)| words)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn faults_are_told_in_our_words_under_graphql_names() {
        let body = br#"{"message": "The given data was invalid.", "errors": {
            "appointment_at": ["The appointment at field is required."],
            "claimant.email": ["The claimant.email must be a valid email address.", "Ada@example is odd."],
            "features_bandwidth": "The selected features bandwidth is invalid.",
            "secret_internal": ["The secret is short."]
        }}"#;
        let told = |path: &[&str], message| InputFault {
            field: (!path.is_empty()).then(|| path.iter().map(|name| (*name).to_owned()).collect()),
            message,
        };
        assert_eq!(
            faults(body),
            [
                told(&["appointmentAt"], "This is required."),
                told(&["claimant", "email"], "This has to be an e-mail address."),
                told(&["claimant", "email"], "This is not accepted."),
                told(&["features", "bandwidth"], "There is no such choice."),
                told(&[], "This is not accepted."),
            ]
        );
        for body in [&b""[..], b"<html>", b"{}", br#"{"errors": []}"#, br#"{"errors": {}}"#] {
            assert_eq!(faults(body), [told(&[], "The appointments service does not accept this input.")]);
        }
    }

    #[test]
    fn ids_go_back_as_they_came() {
        for (text, json) in [("7", "7"), ("007", "\"007\""), ("x7", "\"x7\""), ("-7", "\"-7\""), ("", "\"\"")]
        {
            assert_eq!(id(&ID(text.to_owned())).to_string(), json);
        }
    }

    proptest! {
        #[test]
        fn any_body_is_read_without_a_panic(text: String, name: String, message: String) {
            faults(text.as_bytes());
            let body = serde_json::json!({ "errors": { name: [message] } });
            prop_assert_eq!(faults(body.to_string().as_bytes()).len(), 1);
        }
    }
}
