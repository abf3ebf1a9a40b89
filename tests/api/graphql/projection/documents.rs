//! A cached document yields the same response as a parsed one, valid or not.

use std::sync::Arc;

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestCaseError, TestRunner},
};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use url::form_urlencoded::Serializer;

use super::{Worlds, answer, choices::Choices, operation::Operation, record::World};
use crate::support::{Gateway, Types, Upstream};

/// How many there are, unless `PROPTEST_CASES` says so.
const CASES: u32 = 150;

/// Limits that many of the queries are over, and as many are not. Every answer is made anew.
const SETTINGS: [(&str, &str); 7] = [
    ("cache.answers_size", "0"),
    ("limits.tokens", "3000"),
    ("limits.fields", "200"),
    ("limits.aliases", "60"),
    ("limits.root_fields", "30"),
    ("limits.items", "60"),
    ("limits.cost", "1500"),
];

/// A fault or peculiarity of a document.
fn changed(text: String, choices: &mut Choices) -> String {
    let words: Vec<_> = text.split(' ').collect();
    let at = choices.below(words.len());
    let word = |word: &str| {
        let mut words = words.clone();
        words[at] = word;
        words.join(" ")
    };
    match choices.below(16) {
        8 => word(""),
        9 => word("bogus"),
        10 => word(&format!("{0} {0}", words[at])),
        11 => text.replacen("query", ["mutation", "subscription"][choices.below(2)], 1),
        12 => {
            let change = "mutation Other { cancelAppointment(id: 1) { userErrors { message } } }";
            format!("{} {change}", text.replacen("query", "query First", 1))
        }
        13 => format!("{} query Other {{ __typename }}", text.replacen("query", "query First", 1)),
        14 => text.replacen('{', "{ __type(name: \"Feature\") { name fields { name type { kind } } }", 1),
        15 => text.replacen('{', "{ __schema { queryType { nope } }", 1),
        _ => text,
    }
}

/// Other values of the variables.
fn other(variables: &Value, choices: &mut Choices) -> Value {
    let mut variables = variables.clone();
    let Value::Object(fields) = &mut variables else { return variables };
    for value in fields.values_mut() {
        *value = match (choices.below(6), &*value) {
            (0, Value::Bool(value)) => json!(!value),
            (1, _) => Value::Null,
            (2, _) => json!("wrong"),
            (3, value) => json!([value]),
            (_, value) => value.clone(),
        };
    }
    if choices.once_in(4)
        && let Some(name) = fields.keys().next().cloned()
    {
        fields.remove(&name);
    }
    variables
}

fn request(
    gateway: &Gateway,
    token: &str,
    query: &str,
    name: &Value,
    variables: &Value,
    is_get: bool,
) -> RequestBuilder {
    let request = if is_get {
        let mut parameters = Serializer::new(String::new());
        parameters.append_pair("query", query).append_pair("variables", &variables.to_string());
        if let Value::String(name) = name {
            parameters.append_pair("operationName", name);
        }
        gateway.request(Method::GET, &format!("/graphql?{}", parameters.finish()))
    } else {
        let body = json!({ "query": query, "variables": variables, "operationName": name });
        gateway
            .request(Method::POST, "/graphql")
            .header("content-type", "application/json")
            .body(body.to_string())
    };
    request.bearer_auth(token).header("accept", "application/graphql-response+json")
}

/// The status, the errors without order, since calls complete in any order, and the exact data.
async fn answered(request: RequestBuilder) -> (u16, Vec<String>, String) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    let mut errors: Vec<_> =
        document["errors"].as_array().into_iter().flatten().map(Value::to_string).collect();
    errors.sort();
    let data = text.find("\"data\":").map(|at| text[at..].to_owned());
    (status, errors, data.unwrap_or_default())
}

#[test]
fn cached_documents_yield_the_same_response() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let worlds = Worlds::default();
    let (_upstream, knowing, reading) = runtime.block_on(async {
        let worlds = worlds.clone();
        let upstream = Upstream::answering(move |call| answer(&worlds, call)).await;
        let knowing = Gateway::before(upstream.url(), &SETTINGS).await;
        let none = [SETTINGS.as_slice(), &[("graphql.documents_size", "0")]].concat();
        let reading = Gateway::before(upstream.url(), &none).await;
        (upstream, knowing, reading)
    });
    let types = Types::read();
    let config = Config::default();
    let is_said = std::env::var_os("PROPTEST_CASES").is_some();
    let cases = if is_said { config.cases } else { CASES };
    let mut runner =
        TestRunner::new(Config { cases, failure_persistence: None, max_shrink_iters: 500, ..config });
    let choices = (vec(any::<u16>(), 0..300), vec(any::<u16>(), 0..300), vec(any::<u16>(), 0..60));
    let result = runner.run(&choices, |(of_operation, of_world, of_requests)| {
        let world = World::of(&mut Choices::new(of_world), &["a".to_owned()]);
        let operation = Operation::of(&mut Choices::new(of_operation), &types, &world);
        let token = uuid::Uuid::new_v4().to_string();
        worlds.lock().unwrap().insert(token.clone(), world);
        let mut choices = Choices::new(of_requests);
        let text = Arc::new(changed(operation.text(), &mut choices));
        let given = operation.variables();
        for _ in 0..4 {
            let variables = if choices.once_in(2) { other(&given, &mut choices) } else { given.clone() };
            let name = match choices.below(8) {
                4 => json!("First"),
                5 => json!("Other"),
                6 => json!("Nobody"),
                7 => json!(""),
                _ => Value::Null,
            };
            let is_get = choices.once_in(3);
            let ask = |gateway| answered(request(gateway, &token, &text, &name, &variables, is_get));
            let (new, first, second) =
                runtime.block_on(async { (ask(&reading).await, ask(&knowing).await, ask(&knowing).await) });
            prop_assert_eq!(&first, &new, "{} {} {}", text, name, variables);
            prop_assert_eq!(&second, &new, "{} {} {}", text, name, variables);
        }
        Ok::<_, TestCaseError>(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let (known, read) = runtime.block_on(async { (knowing.metrics().await, reading.metrics().await) });
    let hits = "gateway_documents_total{from=\"cache\"}";
    assert!(known[hits] >= f64::from(cases), "{}", known[hits]);
    assert_eq!(read[hits], 0.0);
    let anew = "gateway_documents_total{from=\"variables\"}";
    assert!(known[anew] > 1.0, "{}", known[anew]);
    assert!(known["gateway_cache_entries{cache=\"documents\"}"] > 1.0);
    assert_eq!(read["gateway_cache_entries{cache=\"documents\"}"], 0.0);
}
