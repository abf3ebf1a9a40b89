//! Runs of the program that exit by themselves, and resource use of running gateways.

use std::collections::BTreeSet;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{process::Command, time::timeout};

use super::{Gateway, TIMEOUT, canary};

/// A finished run of the program.
#[derive(Debug)]
pub struct FinishedRun {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl FinishedRun {
    /// Runs `command` until it exits.
    pub async fn of(mut command: Command) -> Self {
        let output = timeout(TIMEOUT, command.output()).await.expect("the program exits").unwrap();
        let [stdout, stderr] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        for (place, text) in [("standard output", &stdout), ("standard error", &stderr)] {
            canary::assert_not_leaked(place, text, &BTreeSet::new());
        }
        Self { code: output.status.code(), stdout, stderr }
    }
}

/// The peak memory of the process so far, in KiB.
pub fn peak_memory(gateway: &Gateway) -> u64 {
    status(gateway, "VmHWM:")
}

/// The current memory of the process, in KiB.
pub fn memory(gateway: &Gateway) -> u64 {
    status(gateway, "VmRSS:")
}

fn status(gateway: &Gateway, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

/// Sends `signal` to the process.
pub fn signal(gateway: &Gateway, signal: Signal) {
    kill(Pid::from_raw(gateway.pid() as i32), signal).unwrap();
}

/// A file that is deleted when dropped.
pub struct TempFile(std::path::PathBuf);

impl TempFile {
    pub fn with(text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("gateway-test-{}.toml", uuid::Uuid::new_v4()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
