//! Rejections of invalid requests are bounded: in the number and length of errors, and in the work spent.

use serde_json::{Value, json};

use crate::support::{Gateway, GatewayResponse, RequestForm, Socket, Upstream, UpstreamResponse, ids};

const GRAPHQL: &str = "application/graphql-response+json";
const JSON: &str = "application/json";

/// The maximum length of a message: three names with text, or a few suggestions.
const LONGEST_MESSAGE: usize = 500;

const VALIDATION_FAILED: &str = "GRAPHQL_VALIDATION_FAILED";

/// `text` for each number, in one selection of an appointment.
fn fields(count: usize, text: impl Fn(usize) -> String) -> String {
    format!("{{ appointmentsByIds(ids: []) {{ {} }} }}", (0..count).map(text).collect::<String>())
}

/// Queries with `count` faults of one kind each, by the kind; each within all other limits.
fn faulty(count: usize) -> Vec<(&'static str, String)> {
    let all = |text: &dyn Fn(usize) -> String| (0..count).map(text).collect::<String>();
    vec![
        ("unknown fields", fields(count, |n| format!("referenc{n} "))),
        (
            "unknown arguments",
            format!("{{ appointmentsByIds(ids: [], {}) {{ id }} }}", all(&|n| format!("idz{n}: 1 "))),
        ),
        (
            "repeated arguments",
            format!("{{ appointmentsByIds(ids: [], {}) {{ id }} }}", all(&|_| "ids: [] ".to_owned())),
        ),
        (
            "wrong literals",
            format!("{{ appointmentsByIds(ids: [{}]) {{ id }} }}", all(&|n| format!("{n}, "))),
        ),
        ("unknown directives", fields(1, |_| format!("id {}", all(&|n| format!("@nope{n} "))))),
        ("missing directive arguments", fields(count, |_| "id @skip ".to_owned())),
        ("missing selections", fields(count, |_| "features ".to_owned())),
        ("selections of scalars", fields(count, |_| "id { x } ".to_owned())),
        (
            "undeclared variables",
            format!("{{ appointmentsByIds(ids: [{}]) {{ id }} }}", all(&|n| format!("$v{n} "))),
        ),
        ("undeclared variables of unknown fields", fields(count, |n| format!("u{n}(a: [{{b: $v{n}}}]) "))),
        (
            "variables of wrong types",
            format!(
                "query ({}) {{ appointmentsByIds(ids: [{}]) {{ id }} }}",
                all(&|n| format!("$v{n}: Int ")),
                all(&|n| format!("$v{n} "))
            ),
        ),
        ("unused variables", format!("query ({}) {{ __typename }}", all(&|n| format!("$v{n}: Int ")))),
        (
            "unknown types",
            format!(
                "query ({}) {{ appointmentsByIds(ids: []) {{ id }} }}",
                all(&|n| format!("$v{n}: Nope{n} "))
            ),
        ),
        (
            "unused fragments",
            format!("{{ __typename }} {}", all(&|n| format!("fragment F{n} on Query {{ __typename }} "))),
        ),
        (
            "fragments of unknown types",
            format!(
                "{{ __typename {} }} {}",
                all(&|n| format!("...F{n} ")),
                all(&|n| format!("fragment F{n} on Nope {{ id }} "))
            ),
        ),
        ("fragments that never apply", fields(count, |_| "... on Query { __typename } ".to_owned())),
        (
            "fragments on scalars",
            format!("{{ __typename {} }}", all(&|_| "... on Int { __typename } ".to_owned())),
        ),
        (
            "default values that do not fit",
            format!("query ({}) {{ __typename }}", all(&|n| format!("$v{n}: Int = \"x\" "))),
        ),
    ]
}

/// The payload of an answer over HTTP or of an error over a WebSocket: at most `maximum` errors, and one that names the limit
/// exactly where there are more.
#[track_caller]
fn assert_bounded(what: &str, errors: &Value, code: &str, maximum: usize, count: usize) {
    let errors = errors.as_array().unwrap();
    for error in errors {
        assert_eq!(error["extensions"]["code"], json!(code), "{what}: {error}");
        let message = error["message"].as_str().unwrap();
        assert!(!message.is_empty() && message.len() <= LONGEST_MESSAGE, "{what}: {message}");
        let is_located = error["locations"][0]["line"].is_u64();
        assert!(
            is_located || code == "BAD_USER_INPUT" || error["extensions"].get("limit").is_some(),
            "{error}"
        );
    }
    let shown = errors.iter().filter(|error| error["extensions"].get("limit").is_none()).count();
    assert_eq!(shown, count.min(maximum), "{what}: {errors:?}");
    if count > maximum {
        let last = errors.last().unwrap();
        assert_eq!(errors.len(), maximum + 1, "{what}: {errors:?}");
        assert_eq!(last["extensions"], json!({ "code": code, "limit": "errors", "maximum": maximum }));
        assert!(last["message"].as_str().unwrap().contains("limits.errors"), "{what}: {last}");
    }
}

async fn post(gateway: &Gateway, accept: &str, payload: &Value) -> GatewayResponse {
    let request = gateway.request(reqwest::Method::POST, "/graphql").header("accept", accept);
    GatewayResponse::of(request.header("content-type", JSON).bearer_auth("token").body(payload.to_string()))
        .await
}

/// Asks for `payload` over both transports and for both media types.
async fn assert_refused(
    gateway: &Gateway,
    what: &str,
    payload: &Value,
    code: &str,
    maximum: usize,
    count: usize,
) {
    let rejected = if code == "GRAPHQL_PARSE_FAILED" { 400 } else { 422 };
    for (accept, status) in [(GRAPHQL, rejected), (JSON, 200)] {
        let reply = post(gateway, accept, payload).await;
        reply.rejected(status, code);
        assert_bounded(what, &reply.body["errors"], code, maximum, count);
    }
    let mut socket = Socket::connect(gateway, "token").await;
    socket.send_message(json!({ "type": "subscribe", "id": "1", "payload": payload })).await;
    let message = socket.receive().await;
    assert_eq!(message["type"], json!("error"), "{what}: {message}");
    assert_bounded(what, &message["payload"], code, maximum, count);
}

#[tokio::test]
async fn errors_of_any_kind_are_listed_up_to_the_limit() {
    const MAXIMUM: usize = 7;
    let gateway = Gateway::on_sandbox(&[("limits.errors", "7")]).await;
    for (kind, query) in faulty(40) {
        let payload = json!({ "query": query });
        assert_refused(&gateway, kind, &payload, VALIDATION_FAILED, MAXIMUM, 40).await;
    }
    for (kind, query) in faulty(2) {
        let payload = json!({ "query": query });
        // Some faults are two errors.
        let reply = post(&gateway, GRAPHQL, &payload).await;
        let count = reply.body["errors"].as_array().unwrap().len();
        assert!((1..=MAXIMUM).contains(&count), "{kind}: {reply:?}");
        assert_refused(&gateway, kind, &payload, VALIDATION_FAILED, MAXIMUM, count).await;
    }
    assert!(gateway.rejections("errors").await > 0.0);
}

#[tokio::test]
async fn the_default_is_twenty_and_in_production_five() {
    for (settings, maximum) in [(&[][..], 20), (&[("profile", "production"), ("sandbox.enabled", "true")], 5)]
    {
        let gateway = Gateway::on_sandbox(settings).await;
        let query = fields(1_400, |n| format!("r{n} "));
        let payload = json!({ "query": query });
        assert_refused(&gateway, "unknown fields", &payload, VALIDATION_FAILED, maximum, 1_400).await;
    }
}

#[tokio::test]
async fn errors_of_variables_are_listed_up_to_the_limit() {
    let gateway = Gateway::on_sandbox(&[("limits.errors", "7")]).await;
    for count in [1, 7, 8, 300] {
        let declared = (0..count).map(|n| format!("$v{n}: Int! ")).collect::<String>();
        let query = format!("query ({declared}) {{ __typename }}");
        for variables in [json!({}), (0..count).map(|n| (format!("v{n}"), json!("x"))).collect()] {
            let payload = json!({ "query": query, "variables": variables });
            assert_refused(&gateway, "variables", &payload, "BAD_USER_INPUT", 7, count).await;
        }
    }
}

#[tokio::test]
async fn the_first_errors_are_listed_in_the_order_of_the_document() {
    let gateway = Gateway::on_sandbox(&[("limits.errors", "3")]).await;
    let several = (0..9).map(|n| format!("query A{n} {{\n u{n}\n}}\n")).collect::<String>();
    let reply = post(&gateway, GRAPHQL, &json!({ "query": several, "operationName": "A5" })).await;
    let lines = reply.body["errors"].as_array().unwrap().iter();
    let lines = lines.filter_map(|error| error["locations"][0]["line"].as_u64()).collect::<Vec<_>>();
    assert_eq!(lines, [2, 5, 8], "{reply:?}");
}

/// Suggestions come with errors that are listed, not with more than that.
#[tokio::test]
async fn few_errors_have_suggestions() {
    let gateway = Gateway::on_sandbox(&[("limits.errors", "3")]).await;
    for (count, has_suggestions) in [(1, true), (3, true), (4, false)] {
        let reply = gateway.query(None, &fields(count, |n| format!("referenc{n} "))).await;
        let errors = reply.body["errors"].to_string();
        assert_eq!(errors.contains("Did you mean \\\"reference\\\""), has_suggestions, "{errors}");
    }
    let off = Gateway::on_sandbox(&[("graphql.suggestions", "false")]).await;
    let reply = off.query(None, &fields(1, |_| "referenc ".to_owned())).await;
    assert!(!reply.body["errors"].to_string().contains("Did you mean"), "{reply:?}");
}

/// A query for each place that a name can have in a document; each is refused with a message that repeats the name.
fn with_names(name: &str) -> Vec<(&'static str, String, &'static str)> {
    let nothing = "{ __typename }";
    vec![
        ("a field", format!("{{ {name} }}"), VALIDATION_FAILED),
        ("an argument", format!("{{ appointment({name}: 1) {{ id }} }}"), VALIDATION_FAILED),
        ("a field of an input", format!("{{ __type(name: {{{name}: 1}}) {{ name }} }}"), VALIDATION_FAILED),
        (
            "a field of an input object",
            format!("mutation {{ createAppointment(input: {{{name}: 1}}) {{ appointment {{ id }} }} }}"),
            VALIDATION_FAILED,
        ),
        (
            "a repeated field of an input",
            format!("{{ appointment(id: {{{name}: 1, {name}: 2}}) {{ id }} }}"),
            VALIDATION_FAILED,
        ),
        ("an enum value", format!("{{ appointment(id: {name}) {{ id }} }}"), VALIDATION_FAILED),
        ("a directive", format!("{{ __typename @{name} }}"), VALIDATION_FAILED),
        ("a directive's argument", format!("{{ __typename @skip(if: true, {name}: 1) }}"), VALIDATION_FAILED),
        ("an undeclared variable", format!("{{ appointment(id: ${name}) {{ id }} }}"), VALIDATION_FAILED),
        ("an unused variable", format!("query (${name}: Int) {nothing}"), VALIDATION_FAILED),
        (
            "a variable of a wrong type",
            format!("query (${name}: Int) {{ appointment(id: ${name}) {{ id }} }}"),
            VALIDATION_FAILED,
        ),
        ("a repeated variable", format!("query (${name}: Int, ${name}: Int) {nothing}"), VALIDATION_FAILED),
        ("a missing variable", format!("query (${name}: Int!) {nothing}"), "BAD_USER_INPUT"),
        ("an operation", format!("query {name}($a: Int) {nothing}"), VALIDATION_FAILED),
        ("two operations", format!("query {name} {nothing} query {name} {nothing}"), VALIDATION_FAILED),
        ("a missing fragment", format!("{{ ...{name} }}"), VALIDATION_FAILED),
        ("an unused fragment", format!("{nothing} fragment {name} on Query {nothing}"), VALIDATION_FAILED),
        (
            "a fragment in itself",
            format!("{{ ...{name} }} fragment {name} on Query {{ ...{name} }}"),
            VALIDATION_FAILED,
        ),
        (
            "two fragments",
            format!("{{ ...{name} }} fragment {name} on Query {nothing} fragment {name} on Query {nothing}"),
            VALIDATION_FAILED,
        ),
        (
            "a fragment of another type",
            format!("{{ ...{name} }} fragment {name} on Appointment {{ id }}"),
            VALIDATION_FAILED,
        ),
        ("a fragment's type", format!("{{ ...F }} fragment F on {name} {nothing}"), VALIDATION_FAILED),
        ("an inline fragment's type", format!("{{ ... on {name} {nothing} }}"), VALIDATION_FAILED),
        (
            "a variable's type",
            format!("query ($a: [{name}!]!) {{ appointment(id: $a) {{ id }} }}"),
            VALIDATION_FAILED,
        ),
        ("an unused variable's type", format!("query ($a: {name}) {nothing}"), VALIDATION_FAILED),
        (
            "an alias of two meanings",
            format!("{{ {name}: appointment(id: 1) {{ id }} {name}: __typename }}"),
            VALIDATION_FAILED,
        ),
        ("a syntax error", format!("{{ {name}"), "GRAPHQL_PARSE_FAILED"),
        ("a syntax error in a string", format!("{{ a(b: \"{name})"), "GRAPHQL_PARSE_FAILED"),
    ]
}

#[tokio::test]
async fn no_message_repeats_a_long_name() {
    let gateway = Gateway::on_sandbox(&[]).await;
    for name in ["x".repeat(15_000), "a_b".repeat(5_000), format!("__{}", "T1".repeat(7_000)), "y".repeat(90)]
    {
        for (what, query, code) in with_names(&name) {
            let operation = if what == "an operation" { json!(name) } else { Value::Null };
            for operation in [operation, Value::Null] {
                let payload = json!({ "query": query, "operationName": operation });
                let reply = post(&gateway, GRAPHQL, &payload).await;
                let count = reply.body["errors"].as_array().unwrap().len();
                assert_refused(&gateway, what, &payload, code, 20, count).await;
            }
        }
        let payload =
            json!({ "query": "query A { __typename } query B { __typename }", "operationName": name });
        assert_refused(&gateway, "operationName", &payload, "BAD_USER_INPUT", 20, 1).await;
        let payload = json!({ "query": "query ($a: Int) { __typename }", "variables": { "a": name } });
        assert_refused(&gateway, "a variable's value", &payload, "BAD_USER_INPUT", 20, 1).await;
    }
}

/// Long names are names as any others: shortened or not, they stay apart.
#[tokio::test]
async fn long_names_work_and_stay_apart() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let (one, two) = (format!("{}one", "x".repeat(200)), format!("{}two", "x".repeat(200)));
    let query = format!(
        "query {one}(${one}: Boolean!, ${two}: Boolean!) {{ ...{two} {one}: __typename @skip(if: ${one}) }} \
         fragment {two} on Query {{ {two}: __typename @include(if: ${two}) }}"
    );
    let payload =
        json!({ "query": query, "operationName": one, "variables": { (&one): false, (&two): true } });
    let reply = post(&gateway, GRAPHQL, &payload).await;
    assert_eq!(reply.body, json!({ "data": { (&two): "Query", (&one): "Query" } }));
    let unused = query.replace(&format!("@include(if: ${two})"), "");
    let reply = post(&gateway, GRAPHQL, &json!({ "query": unused, "variables": payload["variables"] })).await;
    assert!(reply.rejected(422, VALIDATION_FAILED).contains("is not used"), "{reply:?}");
    let column = reply.body["errors"][0]["locations"][0]["column"].as_u64().unwrap();
    assert!(unused[column as usize - 1..].starts_with(&format!("${two}")), "{reply:?}");
}

#[tokio::test]
async fn a_long_id_is_not_repeated_when_a_websocket_is_closed() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let id = gateway.sandbox_ids().await.remove(0);
    let watch = format!(r#"subscription {{ appointmentChanged(id: "{id}") {{ id }} }}"#);
    for (name, reason) in [
        ("a".repeat(64), format!("Subscriber for {} already exists", "a".repeat(64))),
        ("a".repeat(65), "Subscriber already exists".to_owned()),
        ("é".repeat(64), "Subscriber already exists".to_owned()),
    ] {
        let mut socket = Socket::connect(&gateway, "sandbox-all").await;
        socket.subscribe(&name, &watch).await;
        assert_eq!(socket.receive().await["id"], json!(name));
        socket.subscribe(&name, &watch).await;
        assert_eq!(socket.closed().await, (4409, reason));
    }
    // An id is held for as long as the operation runs.
    let mut socket = Socket::connect(&gateway, "sandbox-all").await;
    socket.subscribe(&"a".repeat(129), &watch).await;
    assert_eq!(socket.closed().await.0, 4400);
}

/// Null without an error would mean that there is no appointment.
#[tokio::test]
async fn all_field_errors_are_reported() {
    let upstream = Upstream::answering(|_| UpstreamResponse::status(500)).await;
    let gateway = Gateway::before(upstream.url(), &[("limits.errors", "5")]).await;
    let query = format!("{{ appointmentsByIds(ids: {:?}) {{ id }} }}", ids(0..100));
    for way in [RequestForm::POST, RequestForm::POST.accepting(JSON), RequestForm::GET] {
        let reply = way.ask(&gateway, "token", &query).await;
        assert_eq!(reply.codes(), ["UPSTREAM_UNAVAILABLE"; 100]);
    }
    let mut socket = Socket::connect(&gateway, "token").await;
    socket.subscribe("1", &query).await;
    let message = socket.receive().await;
    assert_eq!(message["payload"]["errors"].as_array().map(Vec::len), Some(100), "{message}");
    assert_eq!(gateway.rejections("errors").await, 0.0);
}

/// Documents with errors that could multiply: by the length of a name, by operations, or by fragments.
#[tokio::test]
async fn rejections_are_small_for_any_input() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let long = "x".repeat(30_000);
    for (what, query) in [
        ("unknown fields", fields(1_900, |n| format!("referenc{n} "))),
        ("a long unknown field", fields(1, |_| "r".repeat(60_000))),
        (
            "a long operation's unused variables",
            format!(
                "query {long}({}) {{ __typename }}",
                (0..900).map(|n| format!("$v{n}: Int ")).collect::<String>()
            ),
        ),
        (
            "undeclared variables of many operations",
            format!(
                "{} fragment F on Query {{ {} }}",
                (0..300).map(|n| format!("query A{n} {{ ...F }} ")).collect::<String>(),
                (0..40).map(|n| format!("u{n}(a: $v{n}) ")).collect::<String>()
            ),
        ),
        (
            "conflicts in unused fragments",
            format!(
                "{{ __typename }} {} fragment F on Appointment {{ {} }}",
                (0..150).map(|n| format!("fragment A{n} on Appointment {{ ...F }} ")).collect::<String>(),
                (0..45).map(|n| format!("id(a:{n}) ")).collect::<String>()
            ),
        ),
        (
            "conflicts behind a field that selects nothing",
            format!(
                "{{ appointmentsByIds(ids: []) {{ features {} }} }} fragment F on Features {{ x(a:1) x(a:2) }}",
                "features { ...F } ".repeat(300)
            ),
        ),
    ] {
        let operation = if query.starts_with("query A0") { json!("A0") } else { Value::Null };
        let reply = post(&gateway, GRAPHQL, &json!({ "query": query, "operationName": operation })).await;
        reply.rejected(422, VALIDATION_FAILED);
        assert!(reply.body.to_string().len() < 8 * 1024, "{what}: {} bytes", reply.body.to_string().len());
    }
}
