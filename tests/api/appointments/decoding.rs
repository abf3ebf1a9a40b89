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

/// Queries every field of an appointment that the upstream serves as `sent`. Returns the reply and the expected
/// appointment.
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
    assert_eq!(reply.status, 294);
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

/// Asks for `fields` of an appointment that the upstream sends as `body`.
async fn fields_of(body: impl Into<Vec<u8>>, fields: &str) -> GatewayResponse {
    let body = body.into();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    let answer = [head.into_bytes(), body].concat();
    let upstream = Upstream::answering(move |_| UpstreamResponse::raw(answer.clone())).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    gateway.query(Some("token"), &format!(r#"{{ appointment(id: "{ID}") {{ {fields} }} }}"#)).await
}

const ID: &str = "5b6f1f2e-3d1a-4c86-9a55-0d2f5f6c7a01";

#[tokio::test]
async fn an_invalid_byte_costs_only_its_text() {
    let body = [
        format!(r#"{{"data": {{"id": "{ID}", "reference": "R", "claimant": {{"name": "Zo"#).as_bytes(),
        b"\xeb",
        br#"", "email": "zoe@person.example"}, "status": "a\x"}}"#,
    ]
    .concat();
    let reply = fields_of(body, "reference status claimant { name email }").await;
    let expected = json!({
        "reference": "R", "status": null, "claimant": { "name": null, "email": "zoe@person.example" },
    });
    assert_eq!(reply.body["data"]["appointment"], expected);
    let invalid = |path: &str| (path.to_owned(), "UPSTREAM_INVALID_RESPONSE");
    let paths = [r#"["appointment","claimant","name"]"#, r#"["appointment","status"]"#];
    assert_eq!(reply.paths_and_codes(), paths.map(invalid));
}

#[tokio::test]
async fn phps_notations_of_the_same_are_read() {
    let body = format!(
        "\u{feff}\r\n\u{feff}{}",
        json!({
            "data": {
                "id": ID,
                "department": [],
                "meeting": [],
                "claimant": { "name": "Zoë\u{feff}", "data": { "1": { "name": "a" }, "3": { "name": "b" } } },
                "features_messages_chat_enable": true,
            },
            "meta": [],
        })
    );
    let fields = "department { id name } meeting { id roomName startDate } claimant { name data { name value } } features { messagesChat }";
    let reply = fields_of(body, fields).await;
    let expected = json!({
        "department": { "id": null, "name": null },
        "meeting": { "id": null, "roomName": null, "startDate": null },
        "claimant": {
            "name": "Zoë\u{feff}",
            "data": [{ "name": "a", "value": null }, { "name": "b", "value": null }],
        },
        "features": { "messagesChat": true },
    });
    assert_eq!(*reply.appointment(), expected);
    let empty = fields_of(
        format!(r#"{{"data": {{"id": "{ID}", "claimant": {{"data": {{}}}}}}}}"#),
        "claimant { data { name } }",
    );
    assert_eq!(*empty.await.appointment(), json!({ "claimant": { "data": [] } }));
}

#[tokio::test]
async fn timestamps_are_those_of_rfc_3339() {
    for (sent, served) in [
        ("0001-01-01T00:00:00Z", Some("0001-01-01T00:00:00Z")),
        ("9999-12-31T23:59:59.999999Z", Some("9999-12-31T23:59:59.999999Z")),
        ("9999-12-31T22:59:59-01:00", Some("9999-12-31T23:59:59Z")),
        ("2031-06-01T10:00:00.1234567890123456Z", Some("2031-06-01T10:00:00.123456789Z")),
        ("2031-06-01T10:00:00.00000000000000000001Z", Some("2031-06-01T10:00:00Z")),
        ("2031-06-01t10:00:00z", Some("2031-06-01T10:00:00Z")),
        ("2031-06-01 10:00:00", Some("2031-06-01T10:00:00Z")),
        ("2031-06-01T10:00:00+23:59", Some("2031-05-31T10:01:00Z")),
        ("2031-06-01T10:00:00-23:59", Some("2031-06-02T09:59:00Z")),
        ("2031-06-01T10:00:00+0200", Some("2031-06-01T08:00:00Z")),
        ("2016-12-31T23:59:60Z", Some("2016-12-31T23:59:59Z")),
        ("2031-06-01T10:00:00+24:00", None),
        ("2031-06-01T10:00:00-24:00", None),
        ("2031-06-01T10:00:00+25:59", None),
        ("2031-06-01T10:00:00+10:60", None),
        ("9999-12-31T23:59:59-00:01", None),
        ("10000-01-01T00:00:00Z", None),
        ("-000001-11-30T00:00:00.000000Z", None),
        ("0000-00-00 00:00:00", None),
    ] {
        let body = json!({ "data": { "id": ID, "reference": "R", "created_at": sent } }).to_string();
        let reply = fields_of(body, "reference createdAt").await;
        assert_eq!(
            reply.body["data"]["appointment"],
            json!({ "reference": "R", "createdAt": served }),
            "{sent}"
        );
        assert_eq!(reply.codes().len(), usize::from(served.is_none()), "{sent}");
    }
}

#[tokio::test]
async fn the_end_of_time_costs_only_ends_at() {
    for (start, minutes, end) in [
        ("9999-12-31T23:00:00Z", 59, Some("9999-12-31T23:59:00Z")),
        ("9999-12-31T23:00:00Z", 60, None),
        ("9999-12-31T23:59:59Z", i32::MAX, None),
        ("0001-01-01T00:00:00Z", i32::MIN, None),
    ] {
        let body = json!({ "data": { "id": ID, "appointment_at": start, "duration_in_minutes": minutes } });
        let reply = fields_of(body.to_string(), "appointmentAt durationInMinutes endsAt phase").await;
        let expected = json!({
            "appointmentAt": start, "durationInMinutes": minutes, "endsAt": end, "phase": "SCHEDULED",
        });
        assert_eq!(reply.body["data"]["appointment"], expected);
        let errors = if end.is_none() {
            vec![(r#"["appointment","endsAt"]"#.to_owned(), "UPSTREAM_INVALID_RESPONSE")]
        } else {
            vec![]
        };
        assert_eq!(reply.paths_and_codes(), errors);
    }
}

#[tokio::test]
async fn an_appointment_at_the_end_of_time_can_be_watched() {
    let upstream = Upstream::answering(|call| {
        let data = json!({ "id": call.id, "status": "far", "appointment_at": "9999-12-31T23:59:59Z" });
        UpstreamResponse::json(200, &json!({ "data": data }))
    })
    .await;
    let quick = [("live.fast_interval", "10ms"), ("live.slow_interval", "20ms")];
    let gateway = Gateway::before(upstream.url(), &quick).await;
    let mut events = gateway.watch("token", ID).await;
    assert_eq!(events.status().await, "far");
    upstream.until_polled(2).await;
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
