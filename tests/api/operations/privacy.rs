//! No personal data and no token in any log, metric or error (invariant 7).
//!
//! Every black-box test checks for leaks: see [`canary`](crate::support::canary). These tests verify that the check
//! detects leaks, and cover cases that other tests do not reach: every kind of upstream response, on every transport,
//! with personal data in wrong places.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    panic::{AssertUnwindSafe, catch_unwind},
};

use appointments_gateway::sandbox::sample;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{
    Call, Gateway, GatewayResponse, RawConnection, Socket, UPSTREAM_TEXT, Upstream, UpstreamResponse,
    canary::{CLIENT_SECRET, PERSONAL},
    everything, id, ids, raw,
};

/// A program that passes for a gateway and has written `lines`, with metrics at `metrics`.
async fn leaking(lines: &str, metrics: &str) -> Gateway {
    let script = r#"echo "$LINES_TO_LEAK" >&2; echo "$LINES_TO_LEAK"
        echo "  GraphQL   http://127.0.0.1:9/graphql"; echo "  Metrics   http://$METRICS/metrics"
        echo "  Upstream  http://127.0.0.1:9/"; exec sleep 600"#;
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).env("LINES_TO_LEAK", lines).env("METRICS", metrics);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).kill_on_drop(true);
    Gateway::of(command).await
}

/// Whether the test would have failed.
fn is_noticed(gateway: Gateway) -> bool {
    catch_unwind(AssertUnwindSafe(|| drop(gateway))).is_err()
}

#[tokio::test]
async fn leaks_are_detected() {
    assert!(!is_noticed(leaking("INFO serving appointment.id=1", "127.0.0.1:9").await));
    for secret in PERSONAL.iter().chain(&[UPSTREAM_TEXT, CLIENT_SECRET]) {
        let bytes = format!("{:?}", format!("body: {secret}").as_bytes());
        let hex = secret.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
        let basic = STANDARD.encode(format!("gateway:{secret}"));
        for line in [format!("WARN refused {{\"a\": \"{secret}\"}}"), bytes, hex, basic] {
            assert!(is_noticed(leaking(&line, "127.0.0.1:9").await), "{line}");
        }
    }
    let long = "eyJhbGciOiJub25lIn0.eyJleHAiOjB9.c2ln";
    for token in ["short", long] {
        let gateway = leaking("", "127.0.0.1:9").await;
        let told = leaking(&gateway.secret(token), "127.0.0.1:9").await;
        told.secret(token);
        assert!(is_noticed(told) && !is_noticed(gateway), "{token}");
    }
    // In the metrics alone.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]).unwrap();
        let answer = format!("HTTP/1.1 200 OK\r\n\r\ngateway_requests_total{{name=\"{}\"}} 1\n", PERSONAL[0]);
        stream.write_all(answer.as_bytes()).unwrap();
    });
    assert!(is_noticed(leaking("", &address).await));
    serving.join().unwrap();
}

#[tokio::test]
async fn leaks_to_clients_are_detected() {
    let upstream = Upstream::answering(|_| UpstreamResponse::status(500)).await;
    // The upstream itself poses as a gateway that leaks everything.
    let told = GatewayResponse::of(crate::support::client().get(upstream.url()));
    assert!(tokio::spawn(async move { told.await.status }).await.is_err());
}

/// Everything that an upstream may answer with, and then says of a person where it does not belong.
fn faults() -> Vec<UpstreamResponse> {
    let secrets = PERSONAL.join(" ");
    let page = format!("<html><body>{secrets} {UPSTREAM_TEXT}</body></html>");
    let mut faults = Vec::new();
    for status in [200, 201, 204, 301, 400, 401, 403, 404, 409, 410, 418, 422, 429, 500, 502, 503, 504, 599] {
        faults.push(UpstreamResponse::status(status));
        faults.push(UpstreamResponse::text(status, "text/html", &page));
        faults.push(UpstreamResponse::json(
            status,
            &json!({ "message": secrets, "errors": { "claimant.email": [secrets] } }),
        ));
        faults.push(UpstreamResponse::json(
            status,
            &json!({ "errors": { secrets.as_str(): { secrets.as_str(): secrets } } }),
        ));
    }
    let [name, phone, ..] = PERSONAL;
    for (header, value) in [
        ("Location", format!("/api/v1/{name}?phone={phone}")),
        ("Location", format!("http://{name}:{phone}@other.example/{name}?{phone}")),
        ("Location", format!("http://{name} {phone}/")),
        ("Retry-After", secrets.clone()),
        ("ETag", format!("\"{name}\"")),
        ("Cache-Control", format!("max-age={name}, {phone}")),
        ("Content-Type", format!("application/{name}; charset={phone}")),
        ("Content-Encoding", name.to_owned()),
        ("WWW-Authenticate", format!("Bearer realm=\"{name}\", error_description=\"{phone}\"")),
        ("Warning", format!("199 - \"{secrets}\"")),
    ] {
        for status in [200, 302, 401, 429, 503] {
            faults.push(UpstreamResponse::status(status).with(header, &value));
        }
    }
    for bytes in [
        format!("{secrets}\r\n\r\n"),
        format!("HTTP/1.1 {name} {phone}\r\n\r\n"),
        format!("HTTP/1.1 200 {name}\r\n{secrets}\r\n\r\n"),
        format!("HTTP/1.1 200 {name}\r\nContent-Length: {phone}\r\n\r\n{secrets}"),
        format!("HTTP/1.1 200 {name}\r\nContent-Length: 9000\r\n\r\n{{\"data\": \"{secrets}\""),
        format!("HTTP/1.1 200 {name}\r\nTransfer-Encoding: {name}\r\n\r\n{secrets}"),
        format!("HTTP/1.1 200 {name}\r\nTransfer-Encoding: chunked\r\n\r\n{secrets}\r\n"),
        format!("HTTP/1.1 200 {name}\r\nTransfer-Encoding: chunked\r\n\r\n5;{name}\r\n{secrets}\r\n"),
        format!("HTTP/1.1 101 {name}\r\nUpgrade: {name}\r\nConnection: upgrade\r\n\r\n{secrets}"),
    ] {
        faults.push(UpstreamResponse::raw(bytes));
    }
    faults
}

/// An appointment with an invalid value in every member.
fn in_wrong_shapes(call: &Call) -> UpstreamResponse {
    let secrets = PERSONAL.join(" ");
    let mut appointment = sample().clone();
    for (name, member) in &mut appointment {
        *member = match name.as_str() {
            "id" => call.id.clone().into(),
            "reference" | "url" => json!([{ secrets.as_str(): secrets }]),
            "claimant" | "meeting" => secrets.as_str().into(),
            _ => json!({ secrets.as_str(): secrets }),
        };
    }
    UpstreamResponse::json(200, &json!({ "data": appointment }))
}

/// All fields of an appointment, with personal data in them.
fn operations(id: &str) -> [(String, Value); 5] {
    let [name, phone, email, birth, answer, room] = PERSONAL;
    let claimant = json!({ "name": name, "phoneNumber": phone, "email": email, "dateOfBirth": birth });
    let input = json!({
        "appointmentAt": "2031-03-01T09:00:00Z", "claimant": claimant, "interpreterLanguage": answer,
        "customUserPostCallRedirectUrl": format!("https://{room}.example/"),
    });
    let all = everything();
    let literal = format!(
        r#"mutation {{ updateAppointment(id: "{id}", input: {{ interpreterLanguage: "{answer}", claimant: {{ name: "{name}" }} }})
            {{ appointment {all} userErrors {{ field message }} }} }}"#
    );
    let payload = format!("{{ appointment {all} userErrors {{ field message }} }}");
    [
        (format!("query ($id: UUID!) {{ appointment(id: $id) {all} }}"), json!({ "id": id })),
        (
            format!("mutation ($i: CreateAppointmentInput!) {{ createAppointment(input: $i) {payload} }}"),
            json!({ "i": input }),
        ),
        (
            format!(
                "mutation ($id: UUID!, $r: String) {{ cancelAppointment(id: $id, reason: $r) {payload} }}"
            ),
            json!({ "id": id, "r": answer }),
        ),
        (literal, Value::Null),
        ("{ appointments { nodes { reference claimant { name email } } } }".to_owned(), Value::Null),
    ]
}

#[tokio::test]
async fn upstream_responses_do_not_leak() {
    for format in ["human", "json"] {
        let faults = faults();
        let count = faults.len();
        let upstream = Upstream::answering(move |call| {
            // By the id. The list and creations have none, and cycle through all.
            let number = |part: &str| usize::from_str_radix(part.split_once('-')?.0, 16).ok();
            let fault = call.path.split('/').find_map(number).unwrap_or(call.nth) % (faults.len() + 1);
            faults.get(fault).cloned().unwrap_or_else(|| in_wrong_shapes(call))
        })
        .await;
        let settings = [("log.format", format), ("upstream.timeout", "1s"), ("cache.ttl", "0")];
        let gateway = Gateway::before(upstream.url(), &settings).await;
        for id in ids(0..count + 1) {
            for (query, variables) in operations(&id) {
                gateway.query_with(Some("token"), &query, variables).await;
            }
        }
        // Over the other two transports, where each ends by itself.
        let mut socket = Socket::connect(&gateway, "token").await;
        for (n, id) in ids(0..count + 1).into_iter().enumerate() {
            let [(query, _), ..] = operations(&id);
            let variables = json!({ "id": id });
            let payload = json!({ "query": query, "variables": variables });
            socket
                .send_message(json!({ "type": "subscribe", "id": n.to_string(), "payload": payload }))
                .await;
            while socket.receive().await["type"] != "complete" {}
            let stream = gateway
                .request(Method::POST, "/graphql")
                .bearer_auth(gateway.secret("token"))
                .header("content-type", "application/json")
                .header("accept", "text/event-stream")
                .body(json!({ "query": query, "variables": variables }).to_string());
            let told = GatewayResponse::of(stream).await;
            assert!(told.body.as_str().unwrap().contains("event: complete"), "{told:?}");
        }
        socket.close().await;
        for id in ids(0..count + 1) {
            assert!(upstream.calls_for(&id) > 0, "each fault was met");
        }
        let log = gateway.stderr();
        for line in ["fetch failed", "change failed", "rejected", "fetched"] {
            assert!(log.contains(line), "this is about what is logged: {line} in {log}");
        }
        assert!(gateway.metrics().await["gateway_errors_total{code=\"UPSTREAM_INVALID_RESPONSE\"}"] > 1.0);
    }
}

#[tokio::test]
async fn client_input_does_not_leak() {
    for format in ["human", "json"] {
        let gateway = Gateway::on_sandbox(&[("log.format", format)]).await;
        let secrets = PERSONAL.join(" ");
        let [name, phone, email, birth, answer, _] = PERSONAL;
        // Request errors may echo input to their sender, so the response is not checked here.
        for body in [
            json!({ "query": format!("{{ {name} }}") }),
            json!({ "query": format!("{{ appointment(id: \"{name}\") {{ id }} }}") }),
            json!({ "query": format!("{{ appointment({name}: \"{answer}\") {{ {name} }} }}") }),
            json!({ "query": format!("query {name}($a: String = \"{phone}\") {{ __typename @skip(if: \"{email}\") }}") }),
            json!({ "query": format!("# {secrets}\n{{ __typename") }),
            json!({ "query": "query ($id: UUID!) { appointment(id: $id) { id } }", "variables": { "id": secrets } }),
            json!({ "query": "query ($id: UUID!) { appointment(id: $id) { id } }", "variables": { "id": { birth: birth } } }),
            json!({ "query": "query ($a: String) { appointments(after: $a) { nodes { id } } }", "variables": { "a": secrets } }),
            json!({ "query": "{ __typename }", "operationName": secrets }),
            json!({ "query": "{ __typename }", "variables": secrets, "extensions": secrets }),
            json!({ "query": { secrets.as_str(): secrets } }),
            json!({ secrets.as_str(): secrets }),
            json!([secrets]),
        ] {
            let authorization = format!("Authorization: Bearer {}\r\n", gateway.secret("token"));
            let reply = RawConnection::once(&gateway, raw::post(&authorization, &body.to_string())).await;
            assert!([200, 294, 400, 422].contains(&reply.status), "{reply:?}");
        }
        for headers in [
            format!("Authorization: Basic {answer}\r\n"),
            format!("Authorization: Bearer {answer} {answer}\r\n"),
            format!("Authorization: Bearer {answer}\r\nAuthorization: Bearer {answer}\r\n"),
            format!("X-Request-Id: {answer}!\r\nAccept: {answer}\r\nX-Api-Key: {answer}\r\n"),
            format!("Content-Encoding: {answer}\r\nOrigin: https://{answer}.example\r\nHost: {answer}\r\n"),
            format!("Bad Header {answer}\r\n"),
            format!("{answer}: {}\r\n", answer.repeat(4000)),
        ] {
            RawConnection::once(&gateway, raw::post(&headers, &secrets)).await;
        }
        for line in [
            format!("GET /{answer}?{answer}={answer} HTTP/1.1"),
            format!("GET /graphql?query={answer}&variables={answer}&access_token={answer} HTTP/1.1"),
            format!("{answer} /graphql HTTP/1.1"),
            format!("GET http://{answer}:{answer}@{answer}/ HTTP/1.1"),
            format!("GET / HTTP/{answer}"),
            answer.to_owned(),
        ] {
            RawConnection::once(
                &gateway,
                format!("{line}\r\nHost: gateway\r\nAccept: application/json\r\n\r\n"),
            )
            .await;
        }
        let mut socket = Socket::connect(&gateway, "token").await;
        for id in [secrets.as_str(), answer] {
            socket.subscribe(id, &format!("{{ {name} }}")).await;
            assert!(socket.frame().await.to_text().unwrap().contains("\"type\":\"error\""));
        }
        socket.send_message(json!({ secrets.as_str(): secrets })).await;
        assert_eq!(socket.closed().await.0, 4400);
        assert!(gateway.stderr().contains("request head rejected by hyper"), "{}", gateway.stderr());
    }
}

#[tokio::test]
async fn canaries_reach_permitted_readers() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let query = format!("query ($id: UUID!) {{ appointment(id: $id) {} }}", everything());
    let reply = gateway.query_with(Some("token"), &query, json!({ "id": id(1) })).await;
    let text = reply.appointment().to_string();
    for value in PERSONAL {
        assert!(text.contains(value), "{value} in {text}");
    }
}
