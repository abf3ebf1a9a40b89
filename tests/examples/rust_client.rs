//! The command in `examples/rust-client`, whose types are generated from `schema.graphql` when it is compiled.

use std::process::{Output, Stdio};

use tokio::{process::Command, time::timeout};

use crate::support::{Gateway, GatewayResponse, TIMEOUT, Upstream, UpstreamResponse, id};

/// Runs the example with the command of its README.
async fn run(arguments: &[&str]) -> Output {
    let cargo = std::env::var("CARGO").unwrap_or("cargo".to_owned());
    let mut command = Command::new(cargo);
    // What cargo tells a test about its package would make build scripts run again, and their dependents with them.
    let is_of_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for name in std::env::vars().map(|(name, _)| name).filter(|name| is_of_package(name)) {
        command.env_remove(name);
    }
    let output = command
        .args(["run", "--quiet", "--locked", "--example", "rust-client", "--"])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    // Includes its build, unless `tests/run` has built it.
    timeout(20 * TIMEOUT, output).await.expect("the example ends in time").unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The duration that the sandbox has.
async fn minutes(gateway: &Gateway, id: &str) -> i64 {
    let url = format!("{}/api/v1/appointments/{id}", gateway.sandbox());
    let appointment = GatewayResponse::of(gateway.client().get(url).bearer_auth("sandbox-all")).await;
    appointment.body["data"]["duration_in_minutes"].as_i64().unwrap_or_else(|| panic!("{appointment:?}"))
}

#[tokio::test]
async fn the_rust_client_lists_reads_and_changes() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let ids = gateway.listed_ids("sandbox-all").await;
    let example = &gateway.sandbox_ids().await[0];
    let before = minutes(&gateway, example).await;

    let output = run(&[&format!("{}/graphql", gateway.base()), "sandbox-all", example]).await;
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
    let listed = stdout.lines().take(3).map(|line| line.split(' ').next().unwrap());
    assert_eq!(listed.collect::<Vec<_>>(), ids[..3], "{stdout}");
    assert!(stdout.contains("3 of 244 appointments"), "{stdout}");
    assert!(stdout.contains("6ZziPsu1ZsoD5Mz") && stdout.contains("Ada Applebatch"), "{stdout}");
    assert!(stdout.contains(&format!("The appointment now takes {} minutes.", before + 5)), "{stdout}");
    assert_eq!(minutes(&gateway, example).await, before + 5);
}

#[tokio::test]
async fn the_rust_client_explains_failures() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let url = format!("{}/graphql", gateway.base());
    let forbidden = &gateway.sandbox_ids().await[2];
    let unknown = id(1);
    let proxy =
        Upstream::answering(|_| UpstreamResponse::text(502, "text/html", "<h1>Bad Gateway</h1>")).await;
    for (arguments, message) in [
        ([&*url, "revoked", &unknown], "(UNAUTHENTICATED)"),
        ([&url, "sandbox-some", forbidden], "appointment: "),
        ([&url, "sandbox-some", forbidden], "(FORBIDDEN)"),
        ([&url, "sandbox-all", &unknown], "There is no appointment"),
        ([&url, "sandbox-all", "nonsense"], "nonsense is not a UUID."),
        (["http://127.0.0.1:1/graphql", "sandbox-all", &unknown], "The gateway cannot be reached"),
        (
            [&format!("{}/other", gateway.base()), "sandbox-all", &unknown],
            "The GraphQL endpoint is /graphql.",
        ),
        ([proxy.url(), "sandbox-all", &unknown], "HTTP status 502 Bad Gateway without a GraphQL response"),
    ] {
        let output = run(&arguments).await;
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
        assert!(stderr.contains(message), "{arguments:?}: {stderr}");
    }
}
