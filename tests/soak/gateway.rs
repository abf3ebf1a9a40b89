//! The gateway as a process: started, observed and terminated.

use std::{
    collections::BTreeMap,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{Child, Command},
    task::JoinHandle,
    time::timeout,
};

use crate::connection::{Connection, Reply, Request};

/// Time limit of start and shutdown.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running gateway. Dropping it kills the process.
pub struct Gateway {
    child: Child,
    port: u16,
    log: JoinHandle<String>,
    _stdout: BufReader<tokio::process::ChildStdout>,
}

impl Gateway {
    /// Starts a gateway on `port` with `settings` (configuration keys and values), and waits until it listens.
    pub async fn start(port: u16, settings: &[(&str, String)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_appointments-gateway"));
        command
            .arg("serve")
            .env_clear()
            .env("GATEWAY_LISTEN", format!("127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        for (key, value) in settings {
            command.env(format!("GATEWAY_{}", key.replace('.', "_").to_uppercase()), value);
        }
        let mut child = command.spawn().expect("the program can be run");
        let mut stderr = child.stderr.take().expect("it has an output");
        let log = tokio::spawn(async move {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text).await;
            String::from_utf8_lossy(&text).into_owned()
        });
        let mut stdout = BufReader::new(child.stdout.take().expect("it has an output"));
        let listens = async {
            let mut line = String::new();
            // The start-up output ends with the upstream's address.
            while !line.contains("  Upstream ") {
                line.clear();
                if stdout.read_line(&mut line).await.is_ok_and(|length| length > 0) {
                    continue;
                }
                return false;
            }
            true
        };
        let listens = timeout(PATIENCE, listens).await;
        if listens != Ok(true) {
            let _ = child.kill().await;
            panic!("the gateway does not start: {}", log.await.unwrap_or_default());
        }
        Self { child, port, log, _stdout: stdout }
    }

    /// The response to a GET of `path`.
    pub async fn get(&self, path: &str) -> Option<Reply> {
        get(self.port, path).await
    }

    /// The response to `request`, if there is one.
    pub async fn ask(&self, request: &Request) -> Option<Reply> {
        ask(self.port, request).await
    }

    /// All metrics, by name and labels.
    pub async fn metrics(&self) -> BTreeMap<String, f64> {
        self.try_metrics().await.expect("the metrics are served")
    }

    /// The metrics, if they are served.
    pub async fn try_metrics(&self) -> Option<BTreeMap<String, f64>> {
        metrics_at(self.port).await
    }

    /// The peak memory so far, in KiB.
    pub fn peak_memory(&self) -> u64 {
        let status = self.child.id().map(|id| std::fs::read_to_string(format!("/proc/{id}/status")));
        let status = status.and_then(Result::ok).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        peak.and_then(|peak| peak.parse().ok()).expect("the system knows how much memory a process took")
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let id = self.child.id().expect("it runs");
        kill(Pid::from_raw(id as i32), signal).expect("it runs");
    }

    /// Waits for the process to exit, and returns its status and its log.
    pub async fn ended(mut self) -> (ExitStatus, String) {
        let status = timeout(PATIENCE, self.child.wait()).await.expect("the gateway ends");
        (status.expect("it can be waited for"), self.log.await.unwrap_or_default())
    }
}

/// The metrics of the gateway at `port`, by name and labels, if they are served.
pub async fn metrics_at(port: u16) -> Option<BTreeMap<String, f64>> {
    let reply = get(port, "/metrics").await?;
    let text = reply.body.as_str().unwrap_or_default();
    let series = text.lines().filter_map(|line| line.rsplit_once(' '));
    Some(series.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
}

async fn get(port: u16, path: &str) -> Option<Reply> {
    let head = format!("GET {path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n");
    ask(port, &Request { head, body: String::new(), asks_first: false }).await
}

async fn ask(port: u16, request: &Request) -> Option<Reply> {
    Connection::open(port).await.ok()?.exchange(request).await.ok()
}
