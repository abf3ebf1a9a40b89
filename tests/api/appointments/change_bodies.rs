//! Omitted, null and set input fields stay distinct: all combinations, compared with the request bodies that the
//! upstream receives.

use serde_json::{Map, Value, json};

use crate::support::{Call, Gateway, Upstream, id};

/// A field of an input: its name and type here, a value, and the name and the value upstream.
struct Field {
    name: &'static str,
    ty: &'static str,
    value: Value,
    upstream: &'static str,
    sent: Value,
}

fn field(name: &'static str, ty: &'static str, value: Value, upstream: &'static str, sent: Value) -> Field {
    Field { name, ty, value, upstream, sent }
}

/// One that is the same upstream but for its name.
fn same(name: &'static str, ty: &'static str, value: Value, upstream: &'static str) -> Field {
    field(name, ty, value.clone(), upstream, value)
}

fn flat() -> Vec<Field> {
    let (local, utc) = (json!("2031-03-01T10:30:00+01:30"), json!("2031-03-01T09:00:00Z"));
    vec![
        field("appointmentAt", "DateTime", local, "appointment_at", utc),
        same("durationInMinutes", "Int", json!(45), "duration_in_minutes"),
        field("departmentId", "ID", json!("7"), "department_id", json!(7)),
        same("isInterpreterNeeded", "Boolean", json!(false), "is_interpreter_needed"),
        same("interpreterLanguage", "String", json!("Cymraeg \"ŵ\" 🦀"), "interpreter_language"),
        same("status", "String", json!(""), "status"),
        same("useCustomPostCallRedirect", "Boolean", json!(true), "use_custom_post_call_redirect"),
        same(
            "customUserPostCallRedirectUrl",
            "String",
            json!("https://u.example/?a=b&c"),
            "custom_user_post_call_redirect_url",
        ),
        same(
            "customAgentPostCallRedirectUrl",
            "String",
            json!("null"),
            "custom_agent_post_call_redirect_url",
        ),
    ]
}

fn claimant() -> Vec<Field> {
    vec![
        same("name", "String", json!("Ada Example"), "name"),
        same("phoneNumber", "String", json!("+442071234567"), "phone_number"),
        same("email", "String", json!("ada@example.com"), "email"),
        same("dateOfBirth", "Date", json!("1990-12-25"), "date_of_birth"),
    ]
}

fn features() -> Vec<Field> {
    let flag = |name, on: bool, upstream| same(name, "Boolean", json!(on), upstream);
    vec![
        flag("callRecording", true, "features_call_recording_enable"),
        flag("breakoutRoom", false, "features_breakout_room_enable"),
        flag("webcamAccessAgent", true, "features_webcam_access_agent_enable"),
        flag("webcamAccessClaimant", false, "features_webcam_access_claimant_enable"),
        flag("webcamBackgroundBlurring", true, "features_webcam_background_blurring_enable"),
        flag("microphoneAccess", false, "features_microphone_access_enable"),
        flag("screenSharing", true, "features_screen_sharing_enable"),
        flag("messagesChat", false, "features_messages_chat_enable"),
        flag("participantList", true, "features_participant_list_enable"),
        field("bandwidth", "Bandwidth", json!("MEDIUM"), "features_bandwidth", json!("medium")),
    ]
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Absent,
    Null,
    Value,
}

const STATES: [State; 3] = [State::Absent, State::Null, State::Value];

/// Rows of states in which any two of up to thirteen columns stand in each of the nine ways: the points of a space of
/// three dimensions over three elements, against its directions.
fn pairwise(columns: usize) -> Vec<Vec<State>> {
    let directions = [
        [1, 0, 0],
        [0, 1, 0],
        [0, 0, 1],
        [1, 1, 0],
        [1, 2, 0],
        [1, 0, 1],
        [1, 0, 2],
        [0, 1, 1],
        [0, 1, 2],
        [1, 1, 1],
        [1, 1, 2],
        [1, 2, 1],
        [1, 2, 2],
    ];
    assert!(columns <= directions.len());
    let row = |n: usize| {
        let state = |d: &[usize; 3]| STATES[(d[0] * n + d[1] * (n / 3) + d[2] * (n / 9)) % 3];
        directions[..columns].iter().map(state).collect()
    };
    (0..27).map(row).collect()
}

/// Every combination there is.
fn all(columns: u32) -> Vec<Vec<State>> {
    (0..3_usize.pow(columns))
        .map(|n| (0..columns).map(|column| STATES[n / 3_usize.pow(column) % 3]).collect())
        .collect()
}

/// The three ways in which an input may be written. All have to send the same.
async fn send(gateway: &Gateway, group: Option<&str>, fields: &[Field], states: &[State]) {
    let wrap = |inner: String| match group {
        Some(group) => format!("{{{group}: {{{inner}}}}}"),
        None => format!("{{{inner}}}"),
    };
    let columns = || fields.iter().zip(states);
    let given = || columns().filter(|(_, state)| **state != State::Absent);
    let value =
        |field: &Field, state: State| if state == State::Null { Value::Null } else { field.value.clone() };

    let literal = given().map(|(field, state)| {
        let value = value(field, *state);
        let text = if field.ty == "Bandwidth" {
            value.as_str().unwrap_or("null").to_owned()
        } else {
            value.to_string()
        };
        format!("{}: {text}", field.name)
    });
    let input = wrap(literal.collect::<Vec<_>>().join(" "));
    let literal = format!(
        "mutation {{ updateAppointment(id: \"{}\", input: {input}) {{ userErrors {{ message }} }} }}",
        id(1)
    );
    gateway.query(Some("token"), &literal).await.payload();

    let declared =
        fields.iter().map(|field| format!("${}: {}", field.name, field.ty)).collect::<Vec<_>>().join(" ");
    let input = wrap(fields.iter().map(|field| format!("{0}: ${0} ", field.name)).collect());
    let variables = given().map(|(field, state)| (field.name.to_owned(), value(field, *state)));
    let variables = Value::Object(variables.collect());
    let by_variable = format!(
        "mutation ($id: UUID! {declared}) {{ updateAppointment(id: $id, input: {input}) {{ userErrors {{ message }} }} }}"
    );
    let mut with_id = variables.clone();
    with_id["id"] = json!(id(1));
    gateway.query_with(Some("token"), &by_variable, with_id).await.payload();

    let whole = group.map_or(variables.clone(), |group| json!({ group: variables }));
    gateway.update("token", &id(1), whole).await.payload();
}

/// Sends every row in each of the three forms, and checks the bodies that the upstream received.
async fn check(group: Option<&str>, around: Option<&str>, fields: &[Field], rows: &[Vec<State>]) {
    let upstream = Upstream::answering(Call::changed).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    for (n, states) in rows.iter().enumerate() {
        send(&gateway, group, fields, states).await;
        let mut sent = Map::new();
        for (field, state) in fields.iter().zip(states) {
            match state {
                State::Absent => {}
                State::Null => drop(sent.insert(field.upstream.to_owned(), Value::Null)),
                State::Value => drop(sent.insert(field.upstream.to_owned(), field.sent.clone())),
            }
        }
        let expected = around.map_or(Value::Object(sent.clone()), |around| json!({ around: sent }));
        let seen = upstream.seen(|seen| seen.calls[3 * n..].to_vec());
        assert_eq!(seen.len(), 3);
        for (call, way) in seen.iter().zip(["literals", "variables", "one variable"]) {
            assert_eq!(call.json(), expected, "row {n} by {way}");
            assert_eq!(
                (call.method.as_str(), &call.path),
                ("PATCH", &format!("/api/v1/appointments/{}", id(1)))
            );
        }
    }
}

#[tokio::test]
async fn flat_fields_stay_omitted_null_or_set() {
    let fields = flat();
    check(None, None, &fields, &pairwise(fields.len())).await;
}

#[tokio::test]
async fn claimant_fields_stay_omitted_null_or_set_in_all_combinations() {
    check(Some("claimant"), Some("claimant"), &claimant(), &all(4)).await;
}

#[tokio::test]
async fn features_stay_omitted_null_or_set() {
    let fields = features();
    check(Some("features"), None, &fields, &pairwise(fields.len())).await;
}

#[tokio::test]
async fn a_group_as_a_whole_is_absent_null_empty_or_has_its_fields() {
    let upstream = Upstream::answering(Call::changed).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    for (input, expected) in [
        ("{}", json!({})),
        ("{claimant: null}", json!({ "claimant": null })),
        ("{claimant: {}}", json!({ "claimant": {} })),
        ("{features: {}}", json!({})),
        ("{claimant: $claimant}", json!({})),
        ("{features: $features}", json!({})),
        ("{claimant: {email: $text} status: $text}", json!({ "claimant": {} })),
        (
            "{claimant: {email: null} features: {bandwidth: null}}",
            json!({ "claimant": { "email": null }, "features_bandwidth": null }),
        ),
    ] {
        // Only used variables may be declared.
        let declared = [("claimant", "ClaimantInput"), ("features", "FeaturesInput"), ("text", "String")];
        let used = declared.iter().filter(|(name, _)| input.contains(&format!("${name}")));
        let declared = used.map(|(name, ty)| format!("${name}: {ty}")).collect::<String>();
        let declared = if declared.is_empty() { declared } else { format!("({declared})") };
        let query = format!(
            "mutation {declared} {{ updateAppointment(id: \"{}\", input: {input}) {{ userErrors {{ message }} }} }}",
            id(1)
        );
        gateway.query(Some("token"), &query).await.payload();
        assert_eq!(upstream.seen(|seen| seen.calls.last().unwrap().json()), expected, "{input}");
    }
    for (claimant, expected) in [(json!(null), json!(null)), (json!({}), json!({}))] {
        gateway.update("token", &id(1), json!({ "claimant": claimant })).await.payload();
        assert_eq!(upstream.seen(|seen| seen.calls.last().unwrap().json()), json!({ "claimant": expected }));
    }
}

#[tokio::test]
async fn features_cannot_be_null_and_nothing_is_sent() {
    let upstream = Upstream::answering(Call::changed).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let literal = format!(
        "mutation {{ updateAppointment(id: \"{}\", input: {{status: \"x\" features: null}}) {{ userErrors {{ message }} }} }}",
        id(1)
    );
    let replies = [
        gateway.query(Some("token"), &literal).await,
        gateway.update("token", &id(1), json!({ "features": null, "status": "x" })).await,
    ];
    for reply in replies {
        assert_eq!(reply.paths_and_codes(), [(r#"["updateAppointment"]"#.to_owned(), "BAD_USER_INPUT")]);
        assert_eq!(reply.body["data"], Value::Null);
    }
    assert_eq!(upstream.calls(), 0);
}

#[tokio::test]
async fn creations_are_sent_unchanged() {
    let upstream = Upstream::answering(Call::changed).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let at = "2031-03-01T09:00:00Z";
    for (input, expected) in [
        (json!({}), json!({})),
        (
            json!({ "reference": "R-1", "departmentId": "x7", "claimant": { "name": "Ada", "email": null }, "features": { "bandwidth": "LOW", "messagesChat": null } }),
            json!({ "reference": "R-1", "department_id": "x7", "claimant": { "name": "Ada", "email": null }, "features_bandwidth": "low", "features_messages_chat_enable": null }),
        ),
        (
            json!({ "reference": null, "durationInMinutes": null, "departmentId": 7, "claimant": null, "features": null, "interpreterLanguage": null }),
            json!({ "reference": null, "duration_in_minutes": null, "department_id": 7, "claimant": null, "interpreter_language": null }),
        ),
    ] {
        let (mut input, mut expected) = (input, expected);
        (input["appointmentAt"], expected["appointment_at"]) =
            (json!("2031-03-01T10:00:00.000+01:00"), json!(at));
        gateway.create("token", input).await.payload();
        assert_eq!(upstream.seen(|seen| seen.calls.last().unwrap().json()), expected);
    }
    let before = upstream.calls();
    for at in [json!(null), json!("2031-03-01"), json!("2031-03-01T10:00:00"), json!(1)] {
        let reply = gateway.create("token", json!({ "appointmentAt": at })).await;
        assert_eq!(reply.codes(), ["BAD_USER_INPUT"], "{at}");
    }
    assert_eq!(gateway.create("token", json!({ "reference": "R" })).await.codes(), ["BAD_USER_INPUT"]);
    assert_eq!(upstream.calls(), before);
}

#[tokio::test]
async fn every_instant_of_rfc_3339_reaches_the_upstream() {
    let upstream = Upstream::answering(Call::changed).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    for (text, expected) in [
        ("0001-01-01T00:00:00Z", Some("0001-01-01T00:00:00Z")),
        ("9999-12-31T23:59:59Z", Some("9999-12-31T23:59:59Z")),
        ("2031-03-01T09:00:00.12345678901234567890Z", Some("2031-03-01T09:00:00.123456789Z")),
        ("2031-03-01T09:00:00+23:59", Some("2031-02-28T09:01:00Z")),
        ("2031-03-01T09:00:00+24:00", None),
        ("2031-03-01T09:00:00-99:99", None),
    ] {
        let before = upstream.calls();
        let reply = gateway.update("token", &id(1), json!({ "appointmentAt": text })).await;
        let sent = upstream.seen(|seen| seen.calls[before..].iter().map(Call::json).collect::<Vec<_>>());
        let expected = expected.map(|text| json!({ "appointment_at": text }));
        assert_eq!(sent, expected.into_iter().collect::<Vec<_>>(), "{text}");
        assert_eq!(reply.codes().is_empty(), !sent.is_empty(), "{text}");
    }
}
