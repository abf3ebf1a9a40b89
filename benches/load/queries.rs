//! The requests of the workloads, and the data of their expected responses.

use appointments_gateway::sandbox::SAMPLE;
use async_graphql::parser::{
    parse_query,
    types::{Field, Selection, SelectionSet},
};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::{exchange::Call, ids::id};

/// The bearer token of the load.
pub const TOKEN: &str = "load-of-the-benchmark";

/// The id of the [`SAMPLE`]. The upstream has an appointment like it for every id.
pub const SAMPLE_ID: &str = "5b6f1f2e-3d1a-4c86-9a55-0d2f5f6c7a01";

/// The response to a query for all fields of the [`SAMPLE`].
const SAMPLE_SERVED: &str = include_str!("../../tests/fixtures/full.served.json");

/// Eight fields, enough for a list on a phone.
const MOBILE_QUERY: &str = include_str!("data/mobile.graphql");

/// All fields that the plain server has, with the features by name. Fixed, so that the results of different versions are
/// comparable.
const FULL_QUERY: &str = include_str!("data/full.graphql");

/// The number of appointments in the full query.
const FULL_IDS: u32 = 20;

/// The number of operations in a batch, the default of `limits.batch`.
const BATCH_SIZE: u32 = 10;

/// The mobile query for an id.
pub const MOBILE: Call<'static> = Call { request: &|id| mobile(id, None), expected: &mobile_data };

/// All fields of twenty appointments.
pub const FULL: Call<'static> = Call { request: &|id| full(id, None), expected: &full_data };

/// The mobile query for an id as a GET with the hash of the query.
pub const MOBILE_PERSISTED: Call<'static> =
    Call { request: &|id| persisted_get(id, None), expected: &mobile_data };

/// The mobile query for ten ids, as an array of operations.
pub const BATCH: Call<'static> = Call { request: &batch, expected: &batch_data };

/// The mobile query for one id, with a different text for each request.
pub const MOBILE_TEXTS: Call<'static> = Call { request: &mobile_text, expected: &|_| mobile_data(&id(0)) };

/// A GET of an appointment from the upstream itself.
pub const UPSTREAM: Call<'static> = Call { request: &upstream, expected: &upstream_data };

/// Returns a POST of `query`.
fn post(query: &str, variables: &Value, encoding: Option<&str>) -> Vec<u8> {
    let body = operation(query, variables).to_string();
    let encoding = encoding.map(|it| format!("Accept-Encoding: {it}\r\n")).unwrap_or_default();
    with_headers(TOKEN, &encoding, &body)
}

fn operation(query: &str, variables: &Value) -> Value {
    json!({ "query": query, "variables": variables })
}

/// Returns the mobile query with the given token.
pub fn with_token(token: &str) -> Vec<u8> {
    with_headers(token, "", &operation(MOBILE_QUERY, &json!({ "id": id(0) })).to_string())
}

fn with_headers(token: &str, encoding: &str, body: &str) -> Vec<u8> {
    format!(
        "POST /graphql HTTP/1.1\r\nHost: gateway\r\nUser-Agent: load\r\nAuthorization: Bearer {token}\r\n\
         Accept: application/graphql-response+json\r\n{encoding}Content-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Returns the mobile query for one id as a GET.
pub fn mobile_get(id: &str) -> Vec<u8> {
    get(&[("query", MOBILE_QUERY), ("variables", &json!({ "id": id }).to_string())])
}

/// Returns the mobile query for one id as a GET that registers its text.
pub fn mobile_registration(id: &str) -> Vec<u8> {
    persisted_get(id, Some(MOBILE_QUERY))
}

/// Returns the mobile query for one id as a GET with its hash.
fn persisted_get(id: &str, text: Option<&str>) -> Vec<u8> {
    let hash = digest(&SHA256, MOBILE_QUERY.as_bytes());
    let hash = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let extensions = json!({ "persistedQuery": { "version": 1, "sha256Hash": hash } }).to_string();
    let variables = json!({ "id": id }).to_string();
    let mut parameters = vec![("variables", variables.as_str()), ("extensions", &extensions)];
    parameters.extend(text.map(|text| ("query", text)));
    get(&parameters)
}

fn get(parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut url = url::Url::parse("http://gateway/graphql").expect("a valid URL in this program");
    url.query_pairs_mut().extend_pairs(parameters);
    let parameters = url.query().unwrap_or_default();
    format!(
        "GET /graphql?{parameters} HTTP/1.1\r\nHost: gateway\r\nUser-Agent: load\r\n\
         Authorization: Bearer {TOKEN}\r\nAccept: application/graphql-response+json\r\n\r\n"
    )
    .into_bytes()
}

/// Returns a change of an appointment.
pub fn change(id: &str) -> Vec<u8> {
    let mutation = "mutation ($id: UUID!) { updateAppointment(id: $id, input: { status: \"waiting\" }) { userErrors { message } } }";
    post(mutation, &json!({ "id": id }), None)
}

/// The response to a [`change`].
pub const CHANGED: &str = r#"{"data":{"updateAppointment":{"userErrors":[]}}}"#;

/// Returns a query without any upstream data.
pub fn typename() -> Vec<u8> {
    post("{ __typename }", &json!({}), None)
}

pub fn typename_data() -> Value {
    json!({ "data": { "__typename": "Query" } })
}

/// Returns the mobile query for one id.
pub fn mobile(id: &str, encoding: Option<&str>) -> Vec<u8> {
    post(MOBILE_QUERY, &json!({ "id": id }), encoding)
}

/// Returns the mobile query for a constant id, with `text` in a comment of the query.
fn mobile_text(text: &str) -> Vec<u8> {
    post(&format!("{MOBILE_QUERY}# {text}"), &json!({ "id": id(0) }), None)
}

/// Returns the mobile query for a constant set of ids, as an array.
fn batch(_: &str) -> Vec<u8> {
    let all = (0..BATCH_SIZE).map(|number| operation(MOBILE_QUERY, &json!({ "id": id(number) })));
    with_headers(TOKEN, "", &Value::from_iter(all).to_string())
}

fn batch_data(_: &str) -> Value {
    (0..BATCH_SIZE).map(|number| mobile_data(&id(number))).collect()
}

pub fn mobile_data(id: &str) -> Value {
    json!({ "data": { "appointment": served(MOBILE_QUERY, id) } })
}

/// Returns the full query for a constant set of ids.
pub fn full(_: &str, encoding: Option<&str>) -> Vec<u8> {
    post(FULL_QUERY, &json!({ "ids": (0..FULL_IDS).map(id).collect::<Vec<_>>() }), encoding)
}

pub fn full_data(_: &str) -> Value {
    let all = (0..FULL_IDS).map(|number| served(FULL_QUERY, &id(number)));
    json!({ "data": { "appointmentsByIds": all.collect::<Vec<_>>() } })
}

/// Returns the sample with another id, as JSON of the upstream or of a response.
fn appointment(sample: &str, id: &str) -> Value {
    serde_json::from_str(&sample.replace(SAMPLE_ID, id)).expect("valid JSON in this program")
}

/// Returns an appointment in the response to `query`.
fn served(query: &str, id: &str) -> Value {
    let document = parse_query(query).expect("a valid query in this program");
    let (_, operation) = document.operations.iter().next().expect("an operation");
    let root = fields(&operation.node.selection_set.node).next().expect("a root field");
    selected(&appointment(SAMPLE_SERVED, id), &root.selection_set.node)
}

/// Returns the part of `value` that `set` selects.
fn selected(value: &Value, set: &SelectionSet) -> Value {
    match value {
        Value::Array(items) => items.iter().map(|item| selected(item, set)).collect(),
        Value::Object(members) => {
            let selected = fields(set).map(|field| {
                let name = field.name.node.to_string();
                let value = selected(&members[&name], &field.selection_set.node);
                (name, value)
            });
            selected.collect()
        }
        leaf => leaf.clone(),
    }
}

fn fields(set: &SelectionSet) -> impl Iterator<Item = &Field> {
    set.items.iter().filter_map(|item| match &item.node {
        Selection::Field(field) => Some(&field.node),
        _ => None,
    })
}

/// Returns a GET of an appointment from the upstream itself.
fn upstream(id: &str) -> Vec<u8> {
    format!(
        "GET /api/v1/appointments/{id} HTTP/1.1\r\nHost: upstream\r\nAuthorization: Bearer {TOKEN}\r\n\
         Accept: application/json\r\n\r\n"
    )
    .into_bytes()
}

fn upstream_data(id: &str) -> Value {
    appointment(SAMPLE, id)
}
