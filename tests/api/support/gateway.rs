//! The gateway as a process, on a free port, with settings from its environment.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::fd::OwnedFd,
    process::{ExitStatus, Stdio},
    sync::Mutex,
    time::Duration,
};

use flate2::read::GzDecoder;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use super::{canary, output::Output};

/// The time after which a test gives up waiting. No test asserts an upper bound on durations.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// Timeout of the last look at the metrics when a gateway is dropped: it may no longer respond.
const METRICS_TIMEOUT: Duration = Duration::from_secs(1);

/// A running gateway. Dropping it kills the process, and fails the test if its output contains a canary.
pub struct Gateway {
    child: Child,
    base: String,
    stdout: Output,
    stderr: Output,
    client: reqwest::Client,
    /// Tokens sent by the test.
    secrets: Mutex<BTreeSet<String>>,
}

/// A complete response of the gateway.
#[derive(Debug)]
pub struct GatewayResponse {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Gateway {
    /// Starts a gateway for the upstream at `upstream`, with `settings`: configuration keys and values.
    pub async fn before(upstream: &str, settings: &[(&str, &str)]) -> Self {
        let settings = [&[("upstream.url", upstream)], settings].concat();
        Self::start(&settings).await
    }

    /// Starts a gateway on its built-in sandbox.
    pub async fn on_sandbox(settings: &[(&str, &str)]) -> Self {
        Self::start(settings).await
    }

    async fn start(settings: &[(&str, &str)]) -> Self {
        Self::of(program(&["serve"], settings)).await
    }

    /// Starts a gateway by `command`.
    pub async fn of(command: Command) -> Self {
        Self::with_path(command, "/graphql").await
    }

    /// Starts a gateway whose GraphQL endpoint is at `path`.
    pub async fn with_path(command: Command, path: &str) -> Self {
        Self::logging_to(Output::of, command, path).await
    }

    /// Starts a gateway whose log is not read until [`Gateway::read_log`].
    pub async fn with_unread_log(upstream: &str, settings: &[(&str, &str)]) -> Self {
        let settings = [&[("upstream.url", upstream)], settings].concat();
        Self::logging_to(Output::unread, program(&["serve"], &settings), "/graphql").await
    }

    /// Starts to read the log.
    pub fn read_log(&mut self) {
        self.stderr.read();
    }

    async fn logging_to(log: fn(OwnedFd) -> Output, mut command: Command, path: &str) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = Output::of(child.stdout.take().unwrap().into_owned_fd().unwrap());
        let stderr = log(child.stderr.take().unwrap().into_owned_fd().unwrap());
        let base = timeout(TIMEOUT, async {
            loop {
                let text = stdout.text();
                let base = text.lines().find_map(|line| {
                    line.trim().strip_prefix("GraphQL")?.trim().strip_suffix(path).map(str::to_owned)
                });
                // The address of the upstream comes last, or the tokens of the sandbox.
                let is_all = text.contains("  Tokens ") || text.contains("  Upstream  http");
                if let Some(base) = base.filter(|_| is_all) {
                    return base;
                }
                if let Some(status) = child.try_wait().unwrap() {
                    panic!("the gateway exited with {status}: {}", stderr.text());
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("the gateway prints its address");
        Self { child, base, stdout, stderr, client: client(), secrets: Mutex::default() }
    }

    /// `http://127.0.0.1:PORT`
    pub fn base(&self) -> &str {
        &self.base
    }

    /// `127.0.0.1:PORT`
    pub fn address(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    /// The address of the built-in sandbox.
    pub fn sandbox(&self) -> String {
        let stdout = self.stdout();
        let line = stdout.lines().find(|line| line.contains("built-in sandbox at ")).unwrap();
        line.split_whitespace().find_map(|word| word.strip_suffix("/:")).unwrap().to_owned()
    }

    /// A request builder for `path`.
    pub fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    /// Sends a query as `token`.
    pub async fn query(&self, token: Option<&str>, query: &str) -> GatewayResponse {
        self.query_with(token, query, Value::Null).await
    }

    /// Sends a query with variables as `token`.
    pub async fn query_with(&self, token: Option<&str>, query: &str, variables: Value) -> GatewayResponse {
        let mut request = self
            .request(reqwest::Method::POST, "/graphql")
            .header("content-type", "application/json")
            .header("accept", "application/graphql-response+json")
            .body(json!({ "query": query, "variables": canary::with_variable(variables) }).to_string());
        if let Some(token) = token {
            request = request.bearer_auth(self.secret(token));
        }
        GatewayResponse::of(request).await
    }

    /// Marks and remembers `token`, so that a leak is found.
    pub fn secret(&self, token: &str) -> String {
        let token = canary::marked(token);
        self.secrets.lock().unwrap().insert(token.clone());
        token
    }

    /// All metrics, by name and labels.
    pub async fn metrics(&self) -> BTreeMap<String, f64> {
        let reply = GatewayResponse::of(self.request(reqwest::Method::GET, "/metrics")).await;
        let text = reply.body.as_str().expect("metrics are text").to_owned();
        let series =
            text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        series.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
    }

    /// How many requests or operations `limit` has rejected.
    pub async fn rejections(&self, limit: &str) -> f64 {
        self.metrics().await[&format!("gateway_limited_total{{limit=\"{limit}\"}}")]
    }

    /// Waits until `gauge` has the value.
    pub async fn until_gauge(&self, gauge: &str, value: f64) {
        timeout(TIMEOUT, async {
            while self.metrics().await[gauge] != value {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{gauge} does not reach {value}"));
    }

    /// The ids in the examples of GraphiQL on the sandbox.
    pub async fn sandbox_ids(&self) -> Vec<String> {
        let settings = GatewayResponse::of(self.request(reqwest::Method::GET, "/graphiql.json")).await;
        serde_json::from_value(settings.body["ids"].clone()).unwrap()
    }

    /// The ids of the first hundred appointments in the sandbox's list for `token`.
    pub async fn listed_ids(&self, token: &str) -> Vec<String> {
        let url = format!("{}/api/v1/appointments?per_page=100", self.sandbox());
        let list = GatewayResponse::of(self.client.get(url).bearer_auth(token)).await;
        let ids =
            list.body["data"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap().to_owned());
        ids.collect()
    }

    /// An HTTP client for other servers.
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        kill(Pid::from_raw(self.pid() as i32), Signal::SIGTERM).unwrap();
    }

    /// Waits for the process to exit, and for all of its output.
    pub async fn ended(&mut self) -> ExitStatus {
        let status = timeout(TIMEOUT, self.child.wait()).await.expect("the gateway exits").unwrap();
        self.stdout.finish();
        self.stderr.finish();
        status
    }

    /// The standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// The log so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }
}

impl Gateway {
    /// The metrics, if the gateway still serves them.
    fn last_metrics(&self) -> Option<String> {
        let stdout = self.stdout();
        let url = stdout.lines().find_map(|line| line.trim().strip_prefix("Metrics"))?.trim();
        let address: SocketAddr = url.strip_prefix("http://")?.strip_suffix("/metrics")?.parse().ok()?;
        let mut stream = TcpStream::connect_timeout(&address, METRICS_TIMEOUT).ok()?;
        stream.set_read_timeout(Some(METRICS_TIMEOUT)).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let metrics = self.last_metrics().unwrap_or_default();
        // The process may have exited already.
        let _ = self.child.start_kill();
        self.stdout.finish();
        self.stderr.finish();
        let secrets = self.secrets.lock().unwrap();
        for (place, text) in
            [("the metrics", metrics), ("standard output", self.stdout()), ("the log", self.stderr())]
        {
            canary::assert_not_leaked(place, &text, &secrets);
        }
    }
}

impl GatewayResponse {
    /// Sends `request` and reads the response, decompressed. A body that is not JSON becomes a string.
    pub async fn of(request: reqwest::RequestBuilder) -> Self {
        let response = timeout(TIMEOUT, request.send()).await.expect("a response in time").unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = timeout(TIMEOUT, response.bytes()).await.expect("a body in time").unwrap();
        let text = String::from_utf8(decoded(&headers, &body)).unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        canary::assert_no_leak_in(&body);
        canary::assert_not_leaked("the headers of a response", &format!("{headers:?}"), &BTreeSet::new());
        Self { status, headers, body }
    }

    /// Asserts that the request was rejected with `status` and `code`, in the common form of all rejections: JSON with
    /// errors and without data, and a request id. Returns the first message.
    #[track_caller]
    pub fn rejected(&self, status: u16, code: &str) -> &str {
        assert_eq!(self.status, status, "{self:?}");
        let header =
            |name: &str| self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default();
        assert!(header("content-type").contains("json; charset=utf-8"), "{self:?}");
        assert!(!header("x-request-id").is_empty(), "{self:?}");
        assert_eq!(header("x-content-type-options"), "nosniff", "{self:?}");
        assert_eq!(self.body.as_object().unwrap().keys().collect::<Vec<_>>(), ["errors"], "{self:?}");
        assert!(!self.codes().is_empty() && self.codes().iter().all(|it| *it == code), "{self:?}");
        self.body["errors"][0]["message"].as_str().filter(|message| !message.is_empty()).unwrap()
    }

    /// The `extensions.code` of every error.
    pub fn codes(&self) -> Vec<&str> {
        let errors = self.body["errors"].as_array().map_or(&[][..], Vec::as_slice);
        errors.iter().map(|error| error["extensions"]["code"].as_str().unwrap_or("(none)")).collect()
    }
}

/// A decompressed body.
pub fn decoded(headers: &reqwest::header::HeaderMap, body: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match headers.get("content-encoding").map(|coding| coding.to_str().unwrap()) {
        None => plain.extend_from_slice(body),
        Some("gzip") => drop(GzDecoder::new(body).read_to_end(&mut plain).unwrap()),
        Some("br") => brotli::BrotliDecompress(&mut &*body, &mut plain).unwrap(),
        Some(other) => panic!("unexpected content coding {other:?}"),
    }
    plain
}

/// Disables retries, circuit breaker and fair shares, so that tests can count calls exactly. Tests of these enable
/// them.
const RESILIENCE_OFF: [(&str, &str); 5] = [
    ("upstream.retries", "0"),
    ("upstream.breaker_percent", "0"),
    ("upstream.caller_share", "100"),
    ("limits.caller_share", "100"),
    ("upstream.max_paused", "0"),
];

/// Few enough connections for the open-file limit of any machine, so that the gateway does not warn.
const CONNECTIONS: [(&str, &str); 2] =
    [("http.max_connections", "1000"), ("websocket.max_connections", "1000")];

/// A command that runs the program on a free port, with only [`RESILIENCE_OFF`], [`CONNECTIONS`] and `settings` in its
/// environment. It logs at trace level by default, so that every test checks the log for leaks.
pub fn program(arguments: &[&str], settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_appointments-gateway"));
    command
        .args(arguments)
        .env_clear()
        .env("GATEWAY_LISTEN", "127.0.0.1:0")
        .env("GATEWAY_LOG_LEVEL", "trace")
        .env("RUST_BACKTRACE", "full")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    for (key, value) in RESILIENCE_OFF.iter().chain(&CONNECTIONS).chain(settings) {
        command.env(format!("GATEWAY_{}", key.replace('.', "_").to_uppercase()), value);
    }
    command
}

/// An HTTP client without proxies and redirects.
pub fn client() -> reqwest::Client {
    // Fails harmlessly if the provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .default_headers(canary::client_headers())
        .build()
        .unwrap()
}
