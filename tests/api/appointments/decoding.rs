//! Decoding: an invalid field never loses the appointment (invariant 9). Whole upstream responses are compared with
//! whole gateway responses, in pairs of files: the sample of the sandbox and `full.served.json`, and others under
//! `tests/fixtures`.

use appointments_gateway::sandbox::SAMPLE;
use serde_json::{Value, json};

use crate::support::{Gateway, GatewayResponse, Types, Upstream, UpstreamResponse, everything};

/// The response to the sample, with a value in every field.
const SAMPLE_SERVED: &str = include_str!("../../fixtures/full.served.json");

/// The upstream's JSON and the expected response without the fields that are null.
macro_rules! fixture {
    ($name:literal) => {
        (
            include_str!(concat!("../../fixtures/", $name, ".json")),
            include_str!(concat!("../../fixtures/", $name, ".served.json")),
        )
    };
}

/// Adds the members of `full` that `part` lacks, as null.
fn fill(part: &mut Value, full: &Value) {
    match (part, full) {
        (Value::Object(part), Value::Object(full)) => {
            for (name, full) in full {
                fill(part.entry(name).or_insert(Value::Null), full);
            }
        }
        (Value::Array(items), Value::Array(full)) => items.iter_mut().for_each(|item| fill(item, &full[0])),
        _ => {}
    }
}

/// Asks for everything where the upstream answers with `sent`; the other half of the pair comes back parsed.
async fn ask((sent, served): (&'static str, &str)) -> (GatewayResponse, Value) {
    let mut served: Value = serde_json::from_str(served).unwrap();
    fill(&mut served, &serde_json::from_str(SAMPLE_SERVED).unwrap());
    let query = format!("query ($id: UUID!) {{ appointment(id: $id) {} }}", everything());
    let upstream = Upstream::answering(|_| UpstreamResponse::text(200, "application/json", sent)).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let reply = gateway.query_with(Some("token"), &query, json!({ "id": served["id"] })).await;
    // Cached data is served like fetched data.
    let again = gateway.query_with(Some("token"), &query, json!({ "id": served["id"] })).await;
    assert_eq!((&again.body, upstream.calls()), (&reply.body, 1));
    (reply, served)
}

#[test]
fn every_field_has_a_value_in_the_served_sample() {
    fn check(types: &Types, object: &str, value: &Value) {
        for field in types.fields(object).unwrap() {
            let value = &value[&field.name];
            assert!(!value.is_null(), "add {object}.{} to tests/fixtures/full.served.json", field.name);
            if types.fields(&field.of).is_some() {
                check(types, &field.of, value.get(0).unwrap_or(value));
            }
        }
    }
    check(&Types::read(), "Appointment", &serde_json::from_str(SAMPLE_SERVED).unwrap());
}

#[tokio::test]
async fn an_appointment_with_everything_is_served_whole() {
    let (reply, served) = ask((SAMPLE, SAMPLE_SERVED)).await;
    assert_eq!(reply.body, json!({ "data": { "appointment": served } }));
}

#[tokio::test]
async fn a_new_appointment_is_served_with_its_nulls() {
    let (reply, served) = ask(fixture!("fresh")).await;
    assert_eq!(reply.body, json!({ "data": { "appointment": served } }));
}

#[tokio::test]
async fn missing_members_are_null_without_an_error() {
    let (reply, served) = ask(fixture!("sparse")).await;
    assert_eq!(reply.body, json!({ "data": { "appointment": served } }));
}

#[tokio::test]
async fn other_notations_of_the_same_are_read() {
    let (reply, served) = ask(fixture!("notations")).await;
    assert_eq!(reply.body, json!({ "data": { "appointment": served } }));
}

#[tokio::test]
async fn fields_of_wrong_type_are_null_with_an_error_at_their_path() {
    let (reply, served) = ask(fixture!("wrong")).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.body["data"], json!({ "appointment": served }));
    let paths = [
        "reference",
        "appointmentAt",
        "durationInMinutes",
        // Derived from the two above.
        "endsAt",
        "isInterpreterNeeded",
        "interpreterLanguage",
        "status",
        "createdAt",
        "cancelledAt",
        "cancellationReason",
        "department",
        "claimant.name",
        "claimant.email",
        "claimant.dateOfBirth",
        // Two of its three entries are no objects, and are dropped.
        "claimant.data",
        "claimant.data.0.id",
        "claimant.data.0.value",
        "claimant.data.0.type",
        "claimant.data.0.required",
        "meeting.id",
        "meeting.roomName",
        "meeting.startDate",
        "meeting.endDate",
        "sessionStartedAt",
        "sessionEndedAt",
        "features.callRecording",
        "features.webcamAccessAgent",
        "features.webcamBackgroundBlurring",
        "features.microphoneAccess",
        "features.messagesChat",
        "features.bandwidth",
        // Some of the flags above are missing in it.
        "features.all",
        "useCustomPostCallRedirect",
        "customUserPostCallRedirectUrl",
        "customAgentPostCallRedirectUrl",
    ];
    let path = |path: &str| {
        let segments = path.split('.').map(|it| it.parse::<usize>().map_or(json!(it), |index| json!(index)));
        Value::from_iter([json!("appointment")].into_iter().chain(segments)).to_string()
    };
    let mut expected = paths.map(|it| (path(it), "UPSTREAM_INVALID_RESPONSE"));
    expected.sort();
    assert_eq!(reply.paths_and_codes(), expected);
}

#[tokio::test]
async fn invalid_fields_that_are_not_selected_cause_no_error() {
    let upstream =
        Upstream::answering(|_| UpstreamResponse::text(200, "application/json", fixture!("wrong").0)).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let query = r#"{ appointment(id: "5b6f1f2e-3d1a-4c86-9a55-0d2f5f6c7a05") {
        url claimant { phoneNumber } features { breakoutRoom } phase
    } }"#;
    let reply = gateway.query(Some("token"), query).await;
    let expected = json!({
        "url": "https://rooms.example/still-served",
        "claimant": { "phoneNumber": "+442079460020" },
        "features": { "breakoutRoom": true },
        "phase": "SCHEDULED",
    });
    assert_eq!(*reply.appointment(), expected);
}

#[tokio::test]
async fn features_can_be_selected_individually() {
    let upstream = Upstream::answering(|_| UpstreamResponse::text(200, "application/json", SAMPLE)).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let query = r#"{ appointment(id: "5b6f1f2e-3d1a-4c86-9a55-0d2f5f6c7a01") {
        features { on: all(enabled: true) { name } off: all(enabled: false) { name } }
    } }"#;
    let reply = gateway.query(Some("token"), query).await;
    let names = |names: &[&str]| names.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>();
    let on = [
        "CALL_RECORDING",
        "WEBCAM_ACCESS_AGENT",
        "WEBCAM_BACKGROUND_BLURRING",
        "SCREEN_SHARING",
        "PARTICIPANT_LIST",
    ];
    let off = ["BREAKOUT_ROOM", "WEBCAM_ACCESS_CLAIMANT", "MICROPHONE_ACCESS", "MESSAGES_CHAT"];
    assert_eq!(*reply.appointment(), json!({ "features": { "on": names(&on), "off": names(&off) } }));
}

#[tokio::test]
async fn the_phase_follows_from_the_timestamps_alone() {
    let gateway_for = async |timestamps: Value| {
        let upstream = Upstream::answering(move |call| {
            let mut data = timestamps.clone();
            data["id"] = json!(call.id);
            data["status"] = json!("cancelled");
            UpstreamResponse::json(200, &json!({ "data": data }))
        })
        .await;
        let gateway = Gateway::before(upstream.url(), &[]).await;
        let query = r#"{ appointment(id: "5b6f1f2e-3d1a-4c86-9a55-0d2f5f6c7a01") { phase } }"#;
        gateway.query(Some("token"), query).await.appointment()["phase"].clone()
    };
    let past = "2001-01-01T00:00:00Z";
    let future = "2999-01-01T00:00:00Z";
    for (timestamps, phase) in [
        (json!({}), "SCHEDULED"),
        (json!({ "session_started_at": future }), "IN_SESSION"),
        (json!({ "session_started_at": past, "session_ended_at": future }), "ENDED"),
        (json!({ "session_ended_at": past }), "ENDED"),
        (
            json!({ "session_started_at": past, "session_ended_at": past, "cancelled_at": future }),
            "CANCELLED",
        ),
        (json!({ "cancelled_at": "never", "session_started_at": past }), "IN_SESSION"),
    ] {
        assert_eq!(gateway_for(timestamps.clone()).await, phase, "{timestamps}");
    }
}
