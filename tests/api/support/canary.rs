//! Canaries: made-up secrets and personal data. Every test plants them in the responses of the upstream and in the
//! requests of clients. They must not appear in the gateway's logs (at trace level), its metrics or its error
//! responses.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

/// Part of the body of every upstream response that is not an appointment.
pub const UPSTREAM_TEXT: &str = "upstream-internal-text";

/// Personal data added to every appointment. It may appear in `data` only.
pub const PERSONAL: [&str; 6] = [
    "Canarybird",
    "+493055501987",
    "canary.mail@person.example",
    "1903-02-17",
    "canary-answer",
    "canary-room",
];

/// Values in undocumented members and headers, and in the reason phrase, of upstream responses.
const UPSTREAM: [&str; 4] = ["canary-member", "canary-header", "canary-session", "canary-reason"];

/// Values added to every request of a client.
const CLIENT: [&str; 5] = ["canary-cookie", "canary-agent", "canary-page", "canary-variable", TOKEN_MARK];

/// The gateway's own client secret in service mode.
pub const CLIENT_SECRET: &str = "canary-client-secret";

/// The end of every token sent by a test. [`Call::token`](super::Call::token) removes it.
const TOKEN_MARK: &str = "-canary-token";

/// Tokens of at least this length are unique enough to be searched for without a mark.
const LONG: usize = 20;

/// Headers of every upstream response.
pub const UPSTREAM_HEADERS: &str =
    "Set-Cookie: session=canary-session; HttpOnly\r\nX-Debug: canary-header\r\nServer: canary-header/1.0";

/// The reason phrase of every upstream response.
pub const REASON: &str = "Said canary-reason";

/// An upstream response with personal data added to each appointment that has none.
pub fn planted(answer: &Value) -> Value {
    let mut answer = answer.clone();
    if let Value::Object(members) = &mut answer {
        match members.get_mut("data") {
            Some(Value::Array(appointments)) => appointments.iter_mut().for_each(plant_person),
            Some(appointment) => plant_person(appointment),
            None => {}
        }
        members.entry("debug").or_insert("canary-member".into());
    }
    answer
}

fn plant_person(appointment: &mut Value) {
    let Value::Object(appointment) = appointment else { return };
    appointment.entry("claimant").or_insert_with(|| {
        json!({
            "name": "Philomena Canarybird",
            "phone_number": "+493055501987",
            "email": "canary.mail@person.example",
            "date_of_birth": "1903-02-17",
            "data": [{ "name": "canary-answer", "value": "canary-answer" }],
        })
    });
    appointment.entry("meeting").or_insert_with(|| {
        json!({
            "id": null,
            "room_name": "canary-room",
            "room_url": "https://meet.example/canary-room",
            "start_date": null,
            "end_date": null,
        })
    });
    appointment.entry("internal_note").or_insert("canary-member".into());
}

/// Adds a variable to those of an operation.
pub fn with_variable(variables: Value) -> Value {
    match variables {
        Value::Null => json!({ "canary": "canary-variable" }),
        Value::Object(mut variables) => {
            variables.insert("canary".to_owned(), "canary-variable".into());
            Value::Object(variables)
        }
        other => other,
    }
}

/// Headers of every request of a test.
pub fn client_headers() -> HeaderMap {
    let headers = [
        ("cookie", "session=canary-cookie"),
        ("user-agent", "canary-agent/1.0"),
        ("referer", "https://canary-page.example/?person=canary-page"),
        ("x-debug", "canary-agent"),
    ];
    headers.into_iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

/// `token` with a mark by which leaks are found. Tokens of the sandbox are not secret.
pub fn marked(token: &str) -> String {
    let is_its_own_mark = token.is_empty() || token.len() >= LONG || token.starts_with("sandbox-");
    if is_its_own_mark { token.to_owned() } else { format!("{token}{TOKEN_MARK}") }
}

/// The token that was [`marked`].
pub fn unmarked(token: &str) -> &str {
    token.strip_suffix(TOKEN_MARK).unwrap_or(token)
}

/// Fails the test if `text` contains a canary or one of `secrets`; `place` names the origin of `text`. In a test that
/// has already failed it prints the leak instead.
#[track_caller]
pub fn assert_not_leaked(place: &str, text: &str, secrets: &BTreeSet<String>) {
    let planted = [UPSTREAM_TEXT, CLIENT_SECRET].into_iter().chain(PERSONAL).chain(UPSTREAM).chain(CLIENT);
    let long = secrets.iter().map(String::as_str).filter(|secret| secret.len() >= LONG);
    for secret in planted.chain(long) {
        let Some(form) = forms(secret).into_iter().find(|form| text.contains(form)) else { continue };
        let line = text.lines().find(|line| line.contains(&form)).unwrap_or(text);
        let report = format!("{secret:?} is in {place}: {line}");
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "a second panic would end all tests")]
            {
                eprintln!("{report}");
            }
        } else {
            panic!("{report}");
        }
    }
}

/// The plain secret, its bytes as printed by `Debug` and in hexadecimal, and its base64 at each alignment.
fn forms(secret: &str) -> Vec<String> {
    let bytes = secret.as_bytes();
    let numbers = bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    // Base64 encodes groups of three bytes; the secret may start at any position within a group.
    let base64 = (0..3).map(|skipped| STANDARD.encode(bytes[skipped..].as_chunks::<3>().0.as_flattened()));
    [secret.to_owned(), numbers, hex].into_iter().chain(base64).collect()
}

/// Fails the test if a response contains a secret, or personal data outside `data`.
#[track_caller]
pub fn assert_no_leak_in(answer: &Value) {
    // An error over a WebSocket is the payload itself.
    let errors = [&answer["errors"], &answer["payload"]["errors"]];
    let payload = Some(&answer["payload"]).filter(|_| answer["type"] == "error");
    for errors in errors.into_iter().chain(payload) {
        assert_not_leaked("an error response", &errors.to_string(), &BTreeSet::new());
    }
    let text = answer.to_string();
    for secret in [UPSTREAM_TEXT, CLIENT_SECRET].into_iter().chain(UPSTREAM).chain(CLIENT) {
        assert!(!text.contains(secret), "{secret:?} is in a response: {answer}");
    }
}
