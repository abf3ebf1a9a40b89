//! What is asked of the gateway, and what it has to say to it.

use serde_json::{Value, json};

use crate::{exchange::Asked, ids::id};

/// The token that is asked with.
const TOKEN: &str = "load-of-the-benchmark";

/// The eight fields that a list on a phone shows.
const MOBILE_QUERY: &str = include_str!("data/mobile.graphql");
const MOBILE_ANSWER: &str = include_str!("data/mobile.json");

/// All fields of the schema, but for the flags as a list: they are there by name.
const FULL_QUERY: &str = include_str!("data/full.graphql");
const FULL_ANSWER: &str = include_str!("data/full.json");

/// How many appointments are asked for in full at once.
const TOGETHER: u32 = 20;

/// The mobile query for an id.
pub const MOBILE: Asked<'static> = Asked { request: &|id| mobile(id, None), data: &mobile_data };

/// All fields of twenty appointments.
pub const FULL: Asked<'static> = Asked { request: &|id| full(id, None), data: &full_data };

/// The mobile query for one id, each time in another text.
pub const MOBILE_TEXTS: Asked<'static> = Asked { request: &mobile_text, data: &|_| mobile_data(&id(0)) };

/// An appointment, of the upstream itself.
pub const UPSTREAM: Asked<'static> = Asked { request: &upstream, data: &upstream_data };

/// A POST of `query`, as an app sends it.
fn post(query: &str, variables: &Value, encoding: Option<&str>) -> Vec<u8> {
    let body = json!({ "query": query, "variables": variables }).to_string();
    let encoding = encoding.map(|it| format!("Accept-Encoding: {it}\r\n")).unwrap_or_default();
    as_caller(TOKEN, &encoding, &body)
}

/// The mobile query with a token that may be too long.
pub fn with_token(token: &str) -> Vec<u8> {
    as_caller(token, "", &json!({ "query": MOBILE_QUERY, "variables": { "id": id(0) } }).to_string())
}

fn as_caller(token: &str, encoding: &str, body: &str) -> Vec<u8> {
    format!(
        "POST /graphql HTTP/1.1\r\nHost: gateway\r\nUser-Agent: load\r\nAuthorization: Bearer {token}\r\n\
         Accept: application/graphql-response+json\r\n{encoding}Content-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// What every gateway can answer, whatever it knows.
pub fn typename() -> Vec<u8> {
    post("{ __typename }", &json!({}), None)
}

pub fn typename_data() -> Value {
    json!({ "data": { "__typename": "Query" } })
}

/// The mobile query for one id.
pub fn mobile(id: &str, encoding: Option<&str>) -> Vec<u8> {
    post(MOBILE_QUERY, &json!({ "id": id }), encoding)
}

/// The mobile query, always for the same id, with `text` in its own: another query each time.
fn mobile_text(text: &str) -> Vec<u8> {
    post(&format!("{MOBILE_QUERY}# {text}"), &json!({ "id": id(0) }), None)
}

pub fn mobile_data(id: &str) -> Value {
    json!({ "data": { "appointment": appointment(MOBILE_ANSWER, id) } })
}

/// All fields of twenty appointments, always the same ones.
pub fn full(_: &str, encoding: Option<&str>) -> Vec<u8> {
    post(FULL_QUERY, &json!({ "ids": (0..TOGETHER).map(id).collect::<Vec<_>>() }), encoding)
}

pub fn full_data(_: &str) -> Value {
    let all = (0..TOGETHER).map(|number| appointment(FULL_ANSWER, &id(number)));
    json!({ "data": { "appointmentsByIds": all.collect::<Vec<_>>() } })
}

/// What the gateway has to say of an appointment.
fn appointment(answer: &str, id: &str) -> Value {
    serde_json::from_str(&answer.replace("{id}", id)).expect("JSON, since it is part of this program")
}

/// A GET of an appointment of the upstream itself.
fn upstream(id: &str) -> Vec<u8> {
    format!(
        "GET /api/v1/appointments/{id} HTTP/1.1\r\nHost: upstream\r\nAuthorization: Bearer {TOKEN}\r\n\
         Accept: application/json\r\n\r\n"
    )
    .into_bytes()
}

fn upstream_data(id: &str) -> Value {
    appointment(include_str!("data/appointment.json"), id)
}
