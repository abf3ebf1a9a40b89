//! Node.js programs with npm packages, for the suites that need them.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::{process::Command, time::timeout};

use crate::support::TIMEOUT;

/// Runs the program `name` in the directory `suite` of the tests. Returns whether it succeeded, with its output and its
/// error output.
pub async fn run(suite: &str, name: &str, arguments: &[&str]) -> (bool, String, String) {
    let directory: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(suite);
    assert!(
        directory.join("node_modules").is_dir(),
        "tests/{suite}/node_modules is missing. Run `npm ci --ignore-scripts --prefix tests/{suite}`. tests/run installs \
         it where it can."
    );
    let output = Command::new("node")
        .arg(directory.join(name))
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    // Browsers, routers and generators take seconds on a busy machine.
    let output = timeout(8 * TIMEOUT, output)
        .await
        .unwrap_or_else(|_| panic!("{name} did not finish"))
        .unwrap_or_else(|error| {
            panic!("Node.js 20 or later is missing ({error}). tests/run installs it where it can.")
        });
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (output.status.success(), stdout, stderr)
}
