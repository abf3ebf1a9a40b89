//! For any selection and any JSON of the upstream, the response is the projection of that JSON in the order of the
//! query, with one call per id.
//!
//! Operations are generated from the schema ([`operation`]). The upstream's JSON is generated with every documented and
//! observed notation, and with faults ([`record`]). The expected response is computed by code that shares only the
//! contract with the gateway ([`expected`]).

mod choices;
mod documents;
mod expected;
mod operation;
mod record;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestCaseError, TestRunner},
};
use serde_json::{Value, json};

use self::{choices::Choices, operation::Operation, record::World};
use crate::support::{Call, Gateway, GatewayResponse, List, Pagination, Types, Upstream, UpstreamResponse};

/// How many there are, unless `PROPTEST_CASES` says so.
const CASES: u32 = 300;

/// Nothing is kept from one case to the next, and no operation is too large.
const SETTINGS: [(&str, &str); 11] = [
    ("cache.ttl", "0"),
    ("cache.absence_ttl", "0"),
    ("cache.list_ttl", "0"),
    ("limits.tokens", "50000"),
    ("limits.depth", "50"),
    ("limits.fields", "50000"),
    ("limits.items", "100000"),
    ("limits.root_fields", "5000"),
    ("limits.aliases", "10000"),
    ("limits.directives", "10000"),
    ("limits.cost", "1000000000"),
];

/// The upstream's data, by token.
type Worlds = Arc<Mutex<HashMap<String, World>>>;

fn answer(worlds: &Worlds, call: &Call) -> UpstreamResponse {
    let worlds = worlds.lock().unwrap();
    let world = &worlds[call.token()];
    if call.id == "appointments" {
        let tells = if world.tells_of_the_rest { Pagination::Meta } else { Pagination::Nothing };
        return as_it_is(&List::of(world.records.len(), tells).body_of(call, |n| world.records[n].clone()));
    }
    match world.record(&call.id) {
        Some(record) => as_it_is(&json!({ "data": record })),
        None => UpstreamResponse::status(404),
    }
}

/// Compared responses contain no canaries.
fn as_it_is(body: &Value) -> UpstreamResponse {
    UpstreamResponse::text(200, "application/json", &body.to_string())
}

/// Queries the gateway and compares the response with the expected one.
async fn check(
    gateway: &Gateway,
    upstream: &Upstream,
    types: &Types,
    token: &str,
    world: &World,
    operation: &Operation,
) -> Result<(), TestCaseError> {
    let text = operation.text();
    let request = gateway
        .request(reqwest::Method::POST, "/graphql")
        .bearer_auth(token)
        .header("content-type", "application/json")
        .body(json!({ "query": text, "variables": operation.variables() }).to_string());
    let answer = request.send().await.unwrap().text().await.unwrap();
    let expected = expected::answer(types, world, operation);

    // As text, since the order of the names counts.
    let data = format!("\"data\":{}}}", expected.data);
    prop_assert!(
        answer.ends_with(&data),
        "{}\n{}\nis answered with\n{}\nand not\n{}",
        text,
        operation.variables(),
        answer,
        data
    );
    let reply = GatewayResponse {
        status: 200,
        headers: Default::default(),
        body: serde_json::from_str(&answer).unwrap(),
    };
    let faults = reply.paths_and_codes();
    prop_assert!(faults.iter().all(|(_, code)| *code == "UPSTREAM_INVALID_RESPONSE"), "{}", answer);
    let places = faults.into_iter().map(|(path, _)| path).collect::<Vec<_>>();
    prop_assert_eq!(&places, &expected.faults, "{}\n{}", text, answer);

    let calls = upstream
        .seen(|seen| seen.calls.iter().filter(|call| call.token() == token).cloned().collect::<Vec<_>>());
    let mut ids =
        calls.iter().map(|call| call.id.clone()).filter(|id| id != "appointments").collect::<Vec<_>>();
    ids.sort();
    prop_assert_eq!(ids, expected.ids.into_iter().collect::<Vec<_>>(), "{}", text);
    // Equal windows that are asked for at once are one.
    let pages = calls.iter().filter(|call| call.id == "appointments").count();
    prop_assert!(
        (expected.windows.min(1)..=3 * expected.windows).contains(&pages),
        "{} pages for {}",
        pages,
        text
    );
    Ok(())
}

#[test]
fn responses_are_projections_of_the_upstream_json() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let worlds = Worlds::default();
    let (upstream, gateway) = runtime.block_on(async {
        let worlds = worlds.clone();
        let upstream = Upstream::answering(move |call| answer(&worlds, call)).await;
        let gateway = Gateway::before(upstream.url(), &SETTINGS).await;
        (upstream, gateway)
    });
    let types = Types::read();
    let config = Config::default();
    let is_said = std::env::var_os("PROPTEST_CASES").is_some();
    let cases = if is_said { config.cases } else { CASES };
    let mut runner =
        TestRunner::new(Config { cases, failure_persistence: None, max_shrink_iters: 2_000, ..config });
    let seen = Mutex::new(Coverage::default());
    let choices = (vec(any::<u16>(), 0..600), vec(any::<u16>(), 0..600), vec(any::<String>(), 8));
    let result = runner.run(&choices, |(of_operation, of_world, texts)| {
        let world = World::of(&mut Choices::new(of_world), &texts);
        let operation = Operation::of(&mut Choices::new(of_operation), &types, &world);
        seen.lock().unwrap().look(&operation.text());
        // Of each case the caller is another one, so that it finds nothing of the others.
        let token = uuid::Uuid::new_v4().to_string();
        worlds.lock().unwrap().insert(token.clone(), world.clone());
        runtime.block_on(check(&gateway, &upstream, &types, &token, &world, &operation))
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    seen.lock().unwrap().assert_all(&types);
}

/// The contents of the generated operations, to prove that the property is not vacuous.
#[derive(Default)]
struct Coverage {
    words: std::collections::HashSet<String>,
}

impl Coverage {
    fn look(&mut self, text: &str) {
        let words = text.split(|c: char| !(c.is_alphanumeric() || "@._$".contains(c)));
        self.words.extend(words.map(str::to_owned));
    }

    /// Every field of everything that can be read, and every kind of selection, came up.
    fn assert_all(&self, types: &Types) {
        let syntax = ["@skip", "@include", "..."].map(str::to_owned);
        let missing: Vec<_> = types.names().chain(syntax).filter(|word| !self.words.contains(word)).collect();
        assert!(missing.is_empty(), "no operation asked for {missing:?}");
    }
}

/// A value where there is one.
fn given(value: &Value) -> Option<&Value> {
    (!value.is_null()).then_some(value)
}
