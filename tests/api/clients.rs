//! Clients that others wrote, against a gateway on its sandbox: the audits of GraphQL over HTTP, and a browser.

use std::{path::Path, process::Stdio};

use tokio::{process::Command, time::timeout};

use crate::support::{Gateway, PATIENCE};

/// Runs a program of `tests/clients` and returns what it printed.
pub async fn run(name: &str, gateway: &Gateway) -> String {
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    assert!(
        clients.join("node_modules").is_dir(),
        "tests/clients has no node_modules: run the test command, tests/run, which installs what the tests need"
    );
    let output = Command::new("node")
        .arg(clients.join(name))
        .arg(gateway.base())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    // A browser on a busy machine has several pages to open.
    let output = timeout(8 * PATIENCE, output)
        .await
        .unwrap_or_else(|_| panic!("{name} does not end"))
        .expect("node is not there: run the test command, tests/run, which installs what the tests need");
    let text =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{name}:\n{text}");
    text
}

#[tokio::test]
async fn all_audits_of_graphql_over_http_pass() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let text = run("graphql-http.mjs", &gateway).await;
    assert!(text.contains("61 of 61 audits ok"), "{text}");
}

#[tokio::test]
async fn a_newcomer_plays_in_a_browser() {
    let browser = std::env::var("CHROMIUM").unwrap_or("/usr/bin/chromium".to_owned());
    assert!(
        Path::new(&browser).exists(),
        "{browser} is not there: run the test command, tests/run, which installs what the tests need"
    );
    let gateway = Gateway::on_sandbox(&[]).await;
    run("graphiql.mjs", &gateway).await;
}
