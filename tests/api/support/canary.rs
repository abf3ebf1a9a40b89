//! Canaries: made-up values that stand for what must never be told. They are planted, for every test, in what a scripted
//! upstream answers and in what clients send, and looked for in everything that the program writes: its output at the
//! level of traces, its metrics, and what its clients are told went wrong.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

/// Stands in the body of every answer of the upstream that is no appointment.
pub const UPSTREAM_TEXT: &str = "upstream-internal-text";

/// What the upstream says of an appointment beside what the tests have it say. It is for who asked for it, in `data`.
pub const PERSONAL: [&str; 6] = [
    "Canarybird",
    "+493055501987",
    "canary.mail@person.example",
    "1903-02-17",
    "canary-answer",
    "canary-room",
];

/// In members and headers that the API does not promise, and in the words behind the upstream's status.
const UPSTREAM: [&str; 4] = ["canary-member", "canary-header", "canary-session", "canary-reason"];

/// What clients send beside what the tests have them send.
const CLIENT: [&str; 5] = ["canary-cookie", "canary-agent", "canary-page", "canary-variable", TOKEN_MARK];

/// The secret of the gateway's own, where a test gives it one.
pub const CLIENT_SECRET: &str = "canary-client-secret";

/// At the end of every token that a test sends. It takes no part in what a [`Call`](super::Call) says of the token.
const TOKEN_MARK: &str = "-canary-token";

/// A token that is as long as this is found as it is.
const LONG: usize = 20;

/// Headers of every answer of the upstream.
pub const UPSTREAM_HEADERS: &str =
    "Set-Cookie: session=canary-session; HttpOnly\r\nX-Debug: canary-header\r\nServer: canary-header/1.0";

/// What stands behind the status of every answer of the upstream.
pub const REASON: &str = "Said canary-reason";

/// An answer of the upstream, with a person to each appointment that has none.
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

/// Variables of an operation, with one more.
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

/// Headers of every request that a test sends.
pub fn client_headers() -> HeaderMap {
    let headers = [
        ("cookie", "session=canary-cookie"),
        ("user-agent", "canary-agent/1.0"),
        ("referer", "https://canary-page.example/?person=canary-page"),
        ("x-debug", "canary-agent"),
    ];
    headers.into_iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

/// `token` with a mark by which it is found wherever it is told. The sandbox's own are no secrets.
pub fn marked(token: &str) -> String {
    let is_its_own_mark = token.is_empty() || token.len() >= LONG || token.starts_with("sandbox-");
    if is_its_own_mark { token.to_owned() } else { format!("{token}{TOKEN_MARK}") }
}

/// The token that was [`marked`].
pub fn unmarked(token: &str) -> &str {
    token.strip_suffix(TOKEN_MARK).unwrap_or(token)
}

/// Fails the test if something planted, or one of `secrets`, is in `text`; `place` says where that comes from. In a test
/// that fails already it adds a line on it.
#[track_caller]
pub fn assert_untold(place: &str, text: &str, secrets: &BTreeSet<String>) {
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

/// As it is, as the bytes that it is made of are printed, and within something in base64.
fn forms(secret: &str) -> Vec<String> {
    let bytes = secret.as_bytes();
    let numbers = bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    // Three bytes are four signs, wherever the first of the three is.
    let base64 = (0..3).map(|skipped| STANDARD.encode(bytes[skipped..].as_chunks::<3>().0.as_flattened()));
    [secret.to_owned(), numbers, hex].into_iter().chain(base64).collect()
}

/// Fails the test if an answer tells its client what nobody is to be told, or the errors in it what is for `data` alone.
#[track_caller]
pub fn assert_discreet(answer: &Value) {
    // An error over a WebSocket is the payload itself.
    let errors = [&answer["errors"], &answer["payload"]["errors"]];
    let payload = Some(&answer["payload"]).filter(|_| answer["type"] == "error");
    for errors in errors.into_iter().chain(payload) {
        assert_untold("what a client was told", &errors.to_string(), &BTreeSet::new());
    }
    let text = answer.to_string();
    for secret in [UPSTREAM_TEXT, CLIENT_SECRET].into_iter().chain(UPSTREAM).chain(CLIENT) {
        assert!(!text.contains(secret), "{secret:?} is in what a client was told: {answer}");
    }
}
