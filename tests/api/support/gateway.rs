//! The program as its users run it: a process with an environment, a port that it chose, and an end.

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

/// How long anything that is expected may take before a test gives up. No test asserts that something took less.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long metrics are waited for when a gateway is dropped: not every test leaves it able to answer.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// A running gateway. Killed when dropped; the test fails then if it has told anything that was planted.
pub struct Gateway {
    child: Child,
    base: String,
    stdout: Output,
    stderr: Output,
    client: reqwest::Client,
    /// What the test sent that has no mark by which it would be found.
    secrets: Mutex<BTreeSet<String>>,
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Gateway {
    /// A gateway before the upstream at `upstream`, with `settings` (keys of the configuration with values).
    pub async fn before(upstream: &str, settings: &[(&str, &str)]) -> Self {
        let settings = [&[("upstream.url", upstream)], settings].concat();
        Self::start(&settings).await
    }

    /// A gateway on its built-in sandbox.
    pub async fn on_sandbox(settings: &[(&str, &str)]) -> Self {
        Self::start(settings).await
    }

    async fn start(settings: &[(&str, &str)]) -> Self {
        Self::of(program(&["serve"], settings)).await
    }

    /// The gateway that `command` starts.
    pub async fn of(command: Command) -> Self {
        Self::logging_to(Output::of, command).await
    }

    /// A gateway before the upstream at `upstream` whose log nobody reads until [`Gateway::read_log`].
    pub async fn with_unread_log(upstream: &str, settings: &[(&str, &str)]) -> Self {
        let settings = [&[("upstream.url", upstream)], settings].concat();
        Self::logging_to(Output::unread, program(&["serve"], &settings)).await
    }

    /// Reads the log to its end, from now on.
    pub fn read_log(&mut self) {
        self.stderr.read();
    }

    async fn logging_to(log: fn(OwnedFd) -> Output, mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = Output::of(child.stdout.take().unwrap().into_owned_fd().unwrap());
        let stderr = log(child.stderr.take().unwrap().into_owned_fd().unwrap());
        let base = timeout(PATIENCE, async {
            loop {
                let text = stdout.text();
                let base = text.lines().find_map(|line| {
                    line.trim().strip_prefix("GraphQL")?.trim().strip_suffix("/graphql").map(str::to_owned)
                });
                // The line on the upstream comes last, but for that on the sandbox's tokens.
                let is_all = text.contains("  Tokens ") || text.contains("  Upstream  http");
                if let Some(base) = base.filter(|_| is_all) {
                    return base;
                }
                if let Some(status) = child.try_wait().unwrap() {
                    panic!("the gateway ended with {status}: {}", stderr.text());
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("the gateway says where it listens");
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

    /// The address of the sandbox that it is on.
    pub fn sandbox(&self) -> String {
        let stdout = self.stdout();
        let line = stdout.lines().find(|line| line.contains("built-in sandbox at ")).unwrap();
        line.split_whitespace().find_map(|word| word.strip_suffix("/:")).unwrap().to_owned()
    }

    /// A request to be filled in, to `path`.
    pub fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    /// Sends a query as `token`.
    pub async fn query(&self, token: Option<&str>, query: &str) -> Reply {
        self.query_with(token, query, Value::Null).await
    }

    /// Sends a query with variables as `token`.
    pub async fn query_with(&self, token: Option<&str>, query: &str, variables: Value) -> Reply {
        let mut request = self
            .request(reqwest::Method::POST, "/graphql")
            .header("content-type", "application/json")
            .header("accept", "application/graphql-response+json")
            .body(json!({ "query": query, "variables": canary::with_variable(variables) }).to_string());
        if let Some(token) = token {
            request = request.bearer_auth(self.secret(token));
        }
        Reply::of(request).await
    }

    /// `token` as it is to be sent, so that it is found if the gateway tells it to anybody.
    pub fn secret(&self, token: &str) -> String {
        let token = canary::marked(token);
        self.secrets.lock().unwrap().insert(token.clone());
        token
    }

    /// What it has counted so far: the value of each series, by its name and labels.
    pub async fn metrics(&self) -> BTreeMap<String, f64> {
        let reply = Reply::of(self.request(reqwest::Method::GET, "/metrics")).await;
        let text = reply.body.as_str().expect("metrics are text").to_owned();
        let series =
            text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        series.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
    }

    /// The ids that the page of a gateway on the sandbox opens with.
    pub async fn sandbox_ids(&self) -> Vec<String> {
        let settings = Reply::of(self.request(reqwest::Method::GET, "/graphiql.json")).await;
        serde_json::from_value(settings.body["ids"].clone()).unwrap()
    }

    /// The ids of the first hundred appointments that the sandbox lists to `token`.
    pub async fn listed_ids(&self, token: &str) -> Vec<String> {
        let url = format!("{}/api/v1/appointments?per_page=100", self.sandbox());
        let list = Reply::of(self.client.get(url).bearer_auth(token)).await;
        let ids =
            list.body["data"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap().to_owned());
        ids.collect()
    }

    /// A client of whatever is not the gateway.
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// The id of the process.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Asks the process to stop (SIGTERM).
    pub fn terminate(&self) {
        kill(Pid::from_raw(self.pid() as i32), Signal::SIGTERM).unwrap();
    }

    /// Waits for the process to end, and for the last of what it wrote.
    pub async fn ended(&mut self) -> ExitStatus {
        let status = timeout(PATIENCE, self.child.wait()).await.expect("the gateway ends").unwrap();
        self.stdout.finish();
        self.stderr.finish();
        status
    }

    /// What the process has written to standard output.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What the process has logged.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }
}

impl Gateway {
    /// Its metrics, where it still shows any.
    fn last_metrics(&self) -> Option<String> {
        let stdout = self.stdout();
        let url = stdout.lines().find_map(|line| line.trim().strip_prefix("Metrics"))?.trim();
        let address: SocketAddr = url.strip_prefix("http://")?.strip_suffix("/metrics")?.parse().ok()?;
        let mut stream = TcpStream::connect_timeout(&address, LAST_LOOK).ok()?;
        stream.set_read_timeout(Some(LAST_LOOK)).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let metrics = self.last_metrics().unwrap_or_default();
        // It may have ended by itself.
        let _ = self.child.start_kill();
        self.stdout.finish();
        self.stderr.finish();
        let secrets = self.secrets.lock().unwrap();
        for (place, text) in
            [("the metrics", metrics), ("standard output", self.stdout()), ("the log", self.stderr())]
        {
            canary::assert_untold(place, &text, &secrets);
        }
    }
}

impl Reply {
    /// Sends `request` and reads the answer, as it was before it was compressed; a body that is no JSON becomes a string.
    pub async fn of(request: reqwest::RequestBuilder) -> Self {
        let response = timeout(PATIENCE, request.send()).await.expect("an answer in time").unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = timeout(PATIENCE, response.bytes()).await.expect("a body in time").unwrap();
        let text = String::from_utf8(decoded(&headers, &body)).unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        canary::assert_discreet(&body);
        canary::assert_untold("the headers of an answer", &format!("{headers:?}"), &BTreeSet::new());
        Self { status, headers, body }
    }

    /// The first message of a request that was refused with `status` and `code`, in the shape that every
    /// refusal has: a JSON document of errors, without data, with a request id.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) -> &str {
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

/// A body as it was before it was compressed.
pub fn decoded(headers: &reqwest::header::HeaderMap, body: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match headers.get("content-encoding").map(|coding| coding.to_str().unwrap()) {
        None => plain.extend_from_slice(body),
        Some("gzip") => drop(GzDecoder::new(body).read_to_end(&mut plain).unwrap()),
        Some("br") => brotli::BrotliDecompress(&mut &*body, &mut plain).unwrap(),
        Some(other) => panic!("{other:?} is no coding that was asked for"),
    }
    plain
}

/// What lies between a question and a call is switched off, so that tests of anything else can count calls: each is sent
/// once, whatever came of it and of those before, and no caller is kept from anything. Tests of it switch it on.
const EACH_CALL_ONCE: [(&str, &str); 5] = [
    ("upstream.retries", "0"),
    ("upstream.breaker_percent", "0"),
    ("upstream.caller_share", "100"),
    ("limits.caller_share", "100"),
    ("upstream.max_paused", "0"),
];

/// Few enough connections for the limit on open files of any machine, so that no gateway warns of it.
const CONNECTIONS: [(&str, &str); 2] =
    [("http.max_connections", "1000"), ("websocket.max_connections", "1000")];

/// The program with nothing but [`EACH_CALL_ONCE`], [`CONNECTIONS`] and `settings` in its environment, on a free port. It says all that it
/// would ever say, unless a setting says otherwise: each test is also one of what it tells.
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
    for (key, value) in EACH_CALL_ONCE.iter().chain(&CONNECTIONS).chain(settings) {
        command.env(format!("GATEWAY_{}", key.replace('.', "_").to_uppercase()), value);
    }
    command
}

/// A client that speaks to loopback and follows nothing.
pub fn client() -> reqwest::Client {
    // The TLS library's; a second call finds it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .default_headers(canary::client_headers())
        .build()
        .unwrap()
}
