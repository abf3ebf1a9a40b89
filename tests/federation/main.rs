//! The gateway as a subgraph: composition libraries, and routers in front of it and of a second subgraph.
//!
//! `cargo test --test federation` runs them. They need Node.js with npm and the packages of this directory, so they are not
//! part of a plain `cargo test`. `tests/run` installs all of these.

#![expect(unreachable_pub, reason = "a test binary has no public API")]
#![expect(clippy::unwrap_used, reason = "shared test code fails as a test does")]

#[path = "../api/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the black-box tests, which use all of it")]
mod support;

#[path = "../clients/node.rs"]
mod node;

use std::path::Path;

use serde_json::{Value, json};
use support::{Gateway, Upstream, UpstreamResponse, id, ids};

/// Runs a Node.js program of this directory, which must succeed, and returns its output.
async fn run(program: &str, arguments: &[&str]) -> String {
    let (is_success, stdout, stderr) = node::run("federation", program, arguments).await;
    assert!(is_success, "{program}:\n{stdout}{stderr}");
    stdout
}

#[tokio::test]
async fn the_subgraph_composes_with_every_library() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("subgraph.graphql");
    let text = run("composition.mjs", &[file.to_str().unwrap()]).await;
    assert_eq!(text.lines().filter(|line| line.starts_with("ok")).count(), 4, "{text}");
}

#[tokio::test]
async fn apollo_gateway_joins_entities_in_one_round_trip() {
    joins_entities("apollo").await;
}

#[tokio::test]
async fn hive_gateway_joins_entities_in_one_round_trip() {
    joins_entities("hive").await;
}

/// A hundred entities, of which one is missing and one is forbidden.
async fn joins_entities(router: &str) {
    let upstream = Upstream::start().await;
    upstream.on(&id(7), |_| UpstreamResponse::status(404));
    upstream.on(&id(8), |_| UpstreamResponse::status(403));
    let gateway = Gateway::before(upstream.url(), &[("graphql.federation", "true")]).await;
    let token = gateway.secret("caller");
    let ids = ids(0..100);
    let arguments = [router, gateway.base(), &token].into_iter().chain(ids.iter().map(String::as_str));

    let text = run("routers.mjs", &arguments.collect::<Vec<_>>()).await;
    let seen: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));

    // Composition reads the schema without a credential.
    let started = seen["started"].as_array().unwrap();
    assert!(!started.is_empty() && started.iter().all(|it| it.get("authorization").is_none()), "{started:?}");
    // One round trip with the caller's token.
    let during = seen["during"].as_array().unwrap();
    assert_eq!(during.len(), 1, "{during:?}");
    assert_eq!(during[0]["authorization"], format!("Bearer {token}"));
    assert!(during[0]["query"].as_str().unwrap().contains("_entities"), "{during:?}");
    assert_eq!(upstream.calls(), 100);
    upstream.seen(|seen| assert!(seen.calls.iter().all(|call| call.token() == "caller")));
    // Each entity but the two has the fields of both subgraphs.
    let joined = &seen["joined"];
    let nodes = joined["data"]["visits"]["nodes"].as_array().unwrap();
    for (index, (node, id)) in nodes.iter().zip(&ids).enumerate() {
        let (reference, status) = if matches!(index, 7 | 8) {
            (Value::Null, Value::Null)
        } else {
            ("caller".into(), "call 1".into())
        };
        let appointment =
            json!({ "id": id, "note": format!("note {id}"), "reference": reference, "status": status });
        assert_eq!(*node, json!({ "room": format!("room {index}"), "appointment": appointment }));
    }
    assert_eq!(nodes.len(), 100);
    let errors = joined["errors"].as_array().unwrap();
    let mut codes =
        errors.iter().filter_map(|error| error["extensions"]["code"].as_str()).collect::<Vec<_>>();
    codes.sort_unstable();
    // Hive Gateway repeats an error at each field.
    codes.dedup();
    assert_eq!(codes, ["FORBIDDEN", "NOT_FOUND"], "{joined}");
    // An appointment of the gateway has the field of the other subgraph.
    let appointment = json!({ "reference": "caller", "note": format!("note {}", id(0)) });
    assert_eq!(seen["extended"], json!({ "data": { "appointment": appointment } }));
    assert_eq!(upstream.calls(), 100);
}
