//! Manifests of trusted documents from real generators, made from `schema.graphql` when the tests run, and the clients that
//! send their ids.
//!
//! `cargo test --test generators` runs them. They need Node.js with npm and the packages of this directory, so they are not
//! part of a plain `cargo test`. `tests/run` installs all of these.

#![expect(unreachable_pub, reason = "a test binary has no public API")]
#![expect(clippy::unwrap_used, reason = "shared test code fails as a test does")]

#[path = "../api/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the black-box tests, which use all of it")]
mod support;

#[path = "../clients/node.rs"]
mod node;

use std::path::Path;

use support::{
    FinishedRun, Gateway, List, Pagination, Upstream, id, manifests::Manifests,
    persisted_query::RequestTransport, program,
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a Node.js program of this directory, which must succeed, and returns its output.
async fn run(program: &str, arguments: &[&str]) -> String {
    let (is_success, stdout, stderr) = node::run("generators", program, arguments).await;
    assert!(is_success, "{program}:\n{stdout}{stderr}");
    stdout
}

#[tokio::test]
async fn documents_of_every_generator_run_by_their_id() {
    let generated = Manifests::with(&[]);
    let schema = root().join("schema.graphql");
    run("generate.mjs", &[schema.to_str().unwrap(), generated.path()]).await;

    let manifests = generated.file("manifests");
    let check = FinishedRun::of(program(&["check"], &[("documents.path", &manifests)])).await;
    assert_eq!(check.code, Some(0), "{check:?}");
    // Four operations from each of three generators.
    assert!(check.stdout.contains("trusted documents valid (12 ids)"), "{check:?}");

    let list = List { length: 3, pagination: Pagination::Meta, cap: usize::MAX };
    let upstream = Upstream::answering(move |call| match call.path.contains("per_page") {
        true => list.page(call),
        false if call.is_change() => call.changed(),
        false => call.appointment(),
    })
    .await;
    let settings = [("documents.path", manifests.as_str()), ("documents.mode", "require")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let url = format!("{}/graphql", gateway.base());
    let text = run("run.mjs", &[&url, &gateway.secret("caller"), generated.path(), &id(1)]).await;
    assert_eq!(text.lines().filter(|line| line.starts_with("ok")).count(), 3, "{text}");
    assert_eq!(upstream.seen(|seen| seen.calls.iter().filter(|call| call.is_change()).count()), 3);
    assert_eq!(gateway.untrusted().await, (0.0, 0.0));

    let refused = RequestTransport::Post
        .send(&gateway, "caller", &serde_json::json!({ "query": "{ __typename }" }))
        .await;
    assert_eq!(refused["errors"][0]["extensions"]["code"], "PERSISTED_QUERY_ID_REQUIRED");
}

/// A change of the schema that breaks a released app is found before deployment.
#[tokio::test]
async fn check_finds_an_operation_that_the_schema_no_longer_has() {
    let generated = Manifests::with(&[]);
    // The apps were built when a claimant also had a nickname.
    let schema = std::fs::read_to_string(root().join("schema.graphql")).unwrap();
    let former = schema.replacen("type Claimant {", "type Claimant {\n  nickname: String", 1);
    generated.write("former.graphql", &former);
    run("generate.mjs", &[&generated.file("former.graphql"), generated.path(), "nickname"]).await;
    let manifests = generated.file("manifests");
    let check = FinishedRun::of(program(&["check"], &[("documents.path", &manifests)])).await;
    assert_eq!(check.code, Some(2), "{check:?}");
    for (file, app) in [("apollo.json", "Apollo"), ("relay.json", "Relay"), ("codegen.json", "Codegen")] {
        for operation in ["AppointmentQuery", "ListQuery", "ChangedSubscription"] {
            let name = format!("{app}{operation} (id ");
            let is_fault =
                |line: &&str| line.contains(file) && line.contains(&name) && line.contains("\"nickname\"");
            assert_eq!(check.stderr.lines().filter(is_fault).count(), 1, "{name} {check:?}");
        }
        assert!(!check.stderr.contains(&format!("{app}CancelMutation")), "{check:?}");
    }
}
