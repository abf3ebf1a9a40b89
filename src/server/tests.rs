//! Panic isolation: only requests that depend on the panicking code fail, with `INTERNAL`. The log has the location of
//! the panic, and its message appears nowhere.
//!
//! No request is known to make the program panic. So a child process serves a gateway with injected faults: resolvers
//! that panic on demand, and limits that no configuration allows. The child is this test program, which runs
//! [`a_gateway_with_faults`]. The tests observe it from outside.

use std::{process::Stdio, time::Duration};

use async_graphql::{
    Request, ServerResult, Value as GraphqlValue, async_trait,
    extensions::{
        Extension, ExtensionContext, ExtensionFactory, NextPrepareRequest, NextResolve, ResolveInfo,
    },
};
use bytesize::ByteSize;
use futures_util::{SinkExt as _, StreamExt as _, future::join};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest as _};

use super::*;
use crate::{config::log::LogLevel, logging};

/// The timeout of everything that is expected to happen.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Personal data in every panic message and in every appointment.
const SECRET: &str = "Philomena Canarybird";

/// An id whose upstream response makes its reader panic.
const BAD: &str = "00000bad-0000-4000-8000-00000000cafe";
const GOOD: &str = "0000600d-0000-4000-8000-00000000cafe";

/// Panics in the resolvers of fields with the alias `boom`, and in the validation of operations with that name.
#[derive(Clone, Copy)]
struct Boom;

impl ExtensionFactory for Boom {
    fn create(&self) -> Arc<dyn Extension> {
        Arc::new(Self)
    }
}

#[async_trait::async_trait]
impl Extension for Boom {
    async fn prepare_request(
        &self,
        ctx: &ExtensionContext<'_>,
        request: Request,
        next: NextPrepareRequest<'_>,
    ) -> ServerResult<Request> {
        assert!(request.operation_name.as_deref() != Some("boom"), "{SECRET}");
        next.run(ctx, request).await
    }

    async fn resolve(
        &self,
        ctx: &ExtensionContext<'_>,
        info: ResolveInfo<'_>,
        next: NextResolve<'_>,
    ) -> ServerResult<Option<GraphqlValue>> {
        assert!(info.alias != Some("boom"), "{SECRET}");
        next.run(ctx, info).await
    }
}

#[tokio::test]
#[ignore = "run by the tests below, in a process of its own"]
async fn a_gateway_with_faults() {
    let mut config = Config::default();
    config.log.level = LogLevel::Trace;
    config.cache.ttl = Duration::ZERO;
    // The reader allocates the announced length of a response, which is more here than any allocation allows.
    config.upstream.max_response = ByteSize(u64::MAX);
    // An empty range, so that clamping a polling interval to it panics.
    (config.live.fast_interval, config.live.slow_interval) = (Duration::from_secs(2), Duration::from_secs(1));
    logging::install_panic_hook();
    logging::start(&config.log).unwrap();

    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}", upstream.local_addr().unwrap())).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = upstream.accept().await {
            tokio::spawn(respond(stream));
        }
    });
    let mut server = Server::new(&config, &url, false).unwrap();
    let memory = server.gateway.api.memory().clone();
    Arc::get_mut(&mut server.gateway).unwrap().api =
        Api::with_fault(config.limits.clone(), &config.graphql, 5, memory, Boom);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    std::io::Write::write_all(&mut io::stdout(), format!("\nserving {address}\n").as_bytes()).unwrap();
    let listeners = Listeners { api: listener, metrics: None, admin: None };
    server.serve(listeners, std::future::pending()).await;
}

/// Responds to one upstream call.
async fn respond(stream: TcpStream) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    let is_bad = line.contains(BAD);
    let mut header = String::new();
    while stream.read_line(&mut header).await.unwrap() > 2 {
        header.clear();
    }
    // Concurrent requests join the call meanwhile.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let body = json!({
        "data": { "id": GOOD, "appointment_at": "2999-01-01T00:00:00Z", "claimant": { "name": SECRET } }
    })
    .to_string();
    let length = if is_bad { 1 << 63 } else { body.len() as u64 };
    let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    let _ = stream.write_all(response.as_bytes()).await;
}

/// The child process, with its captured output.
struct FaultyGateway {
    process: Child,
    address: String,
    stdout: BufReader<tokio::process::ChildStdout>,
}

impl FaultyGateway {
    async fn start() -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "server::tests::a_gateway_with_faults", "--ignored", "--nocapture"])
            .env("RUST_BACKTRACE", "full")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let address = timeout(TIMEOUT, async {
            loop {
                let mut line = String::new();
                assert!(stdout.read_line(&mut line).await.unwrap() > 0, "it serves before it exits");
                if let Some(address) = line.trim().strip_prefix("serving ") {
                    return address.to_owned();
                }
            }
        });
        Self { address: address.await.unwrap(), process, stdout }
    }

    /// Stops it, and asserts that it panicked `count` times and logged the location of each panic, but no message.
    async fn assert_panics(mut self, count: usize) {
        let metrics = reqwest::get(format!("http://{}/metrics", self.address)).await.unwrap();
        let metrics = metrics.text().await.unwrap();
        let (mut stdout, mut log) = (String::new(), String::new());
        let mut stderr = BufReader::new(self.process.stderr.take().unwrap());
        // A separate thread writes the log a moment later.
        let written = async {
            while log.matches("panicked location=\"").count() < count {
                assert!(stderr.read_line(&mut log).await.unwrap() > 0, "{log}");
            }
        };
        timeout(TIMEOUT, written).await.expect("each panic is logged");
        self.process.start_kill().unwrap();
        self.stdout.read_to_string(&mut stdout).await.unwrap();
        stderr.read_to_string(&mut log).await.unwrap();
        let lines = log.lines().filter(|line| line.contains("panicked location=\"")).collect::<Vec<_>>();
        assert_eq!(lines.len(), count, "{log}");
        assert!(metrics.contains(&format!("gateway_panics_total {count}\n")), "{metrics}");
        assert!(lines.iter().all(|line| line.contains(".rs:")), "{lines:#?}");
        let mut resolvers = lines.iter().filter(|line| line.contains("server/tests.rs"));
        assert!(resolvers.all(|line| line.contains("request{id=")), "{lines:#?}");
        for text in [&stdout, &log, &metrics] {
            assert!(!text.contains(SECRET) && !text.contains("capacity"), "{text}");
            assert!(!text.contains("backtrace") && !text.contains("   0: "), "{text}");
        }
    }

    /// The status, request id and document of the response to an operation.
    async fn execute(&self, http: &reqwest::Client, query: &str) -> (u16, String, Value) {
        let request = http
            .post(format!("http://{}/graphql", self.address))
            .bearer_auth("token")
            .header("content-type", "application/json")
            .header("accept", "application/graphql-response+json")
            .body(parameters(query).to_string());
        let response = timeout(TIMEOUT, request.send()).await.unwrap().unwrap();
        let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        let status = response.status().as_u16();
        (status, id, serde_json::from_str(&response.text().await.unwrap()).unwrap())
    }

    /// The event stream of an operation.
    async fn events(&self, query: &str) -> String {
        let request = client()
            .post(format!("http://{}/graphql", self.address))
            .bearer_auth("token")
            .header("content-type", "application/json")
            .header("accept", "text/event-stream")
            .body(parameters(query).to_string());
        let response = timeout(TIMEOUT, request.send()).await.unwrap().unwrap();
        timeout(TIMEOUT, response.text()).await.unwrap().unwrap()
    }
}

fn client() -> reqwest::Client {
    // It fails if a provider is installed already, and any will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // One connection, so that the next request shows whether it survived.
    reqwest::Client::builder().no_proxy().pool_max_idle_per_host(1).build().unwrap()
}

/// The parameters of a request for `query`, with the operation name if that is `boom`.
fn parameters(query: &str) -> Value {
    json!({ "query": query, "operationName": query.starts_with("query boom").then_some("boom") })
}

fn appointment(id: &str) -> String {
    format!("{{ appointment(id: \"{id}\") {{ claimant {{ name }} }} }}")
}

fn boom() -> String {
    format!("{{ boom: appointment(id: \"{GOOD}\") {{ id }} other: appointment(id: \"{GOOD}\") {{ id }} }}")
}

fn watch(alias: &str, id: &str) -> String {
    format!("subscription {{ {alias}: appointmentChanged(id: \"{id}\") {{ id }} }}")
}

const NAMED_BOOM: &str = "query boom { __typename }";

/// Asserts the one error that clients see of a panic.
fn assert_internal(answer: &Value) {
    let errors = answer["errors"].as_array().or_else(|| answer.as_array()).unwrap();
    assert_eq!(errors.len(), 1, "{answer}");
    assert_eq!(errors[0]["extensions"], json!({ "code": "INTERNAL" }));
    assert_eq!(
        errors[0]["message"],
        "Internal gateway error. Report the x-request-id of this response to the operator."
    );
}

#[tokio::test]
async fn a_panic_in_a_resolver_leaves_the_connection_usable() {
    let faulty = FaultyGateway::start().await;
    let http = client();
    let (status, id, answer) = faulty.execute(&http, &boom()).await;
    assert_eq!((status, &answer["data"]), (294, &Value::Null));
    assert!(!id.is_empty());
    assert_internal(&answer);
    let (_, _, next) = faulty.execute(&http, &appointment(GOOD)).await;
    assert_eq!(next, json!({ "data": { "appointment": { "claimant": { "name": SECRET } } } }));
    let (status, _, answer) = faulty.execute(&http, NAMED_BOOM).await;
    assert_eq!((status, &answer["data"]), (294, &Value::Null));
    assert_internal(&answer);
    faulty.assert_panics(2).await;
}

#[tokio::test]
async fn a_panic_fails_one_operation_of_a_websocket() {
    let faulty = FaultyGateway::start().await;
    let mut request = format!("ws://{}/graphql", faulty.address).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "graphql-transport-ws".parse().unwrap());
    let stream = TcpStream::connect(&faulty.address).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    let mut exchange = async |message: Value| {
        socket.send(Message::text(message.to_string())).await.unwrap();
        loop {
            let frame = timeout(TIMEOUT, socket.next()).await.unwrap().unwrap().unwrap();
            if let Ok(answer) = serde_json::from_str::<Value>(frame.to_text().unwrap_or_default()) {
                return answer;
            }
        }
    };
    let subscribe = |id: usize, query: &str| json!({ "type": "subscribe", "id": id.to_string(), "payload": parameters(query) });
    let begin = json!({ "type": "connection_init", "payload": { "Authorization": "Bearer token" } });
    assert_eq!(exchange(begin).await["type"], "connection_ack");
    for (id, query) in
        [boom(), watch("boom", GOOD), watch("a", GOOD), NAMED_BOOM.to_owned()].iter().enumerate()
    {
        let mut message = exchange(subscribe(id, query)).await;
        // A subscription may receive its first result before its poller panics.
        while message["type"] == "next" && message["payload"].get("errors").is_none() {
            message = exchange(json!({ "type": "pong" })).await;
        }
        assert_eq!(message["id"], id.to_string());
        assert_internal(&message["payload"]);
        if message["type"] == "next" {
            assert_eq!(exchange(json!({ "type": "pong" })).await["type"], "complete");
        }
    }
    let next = exchange(subscribe(9, "{ __typename }")).await;
    assert_eq!(next["payload"], json!({ "data": { "__typename": "Query" } }));
    // The three faulty operations, and the poller of each of the two subscriptions.
    faulty.assert_panics(5).await;
}

#[tokio::test]
async fn a_panic_ends_an_event_stream_with_an_error_event() {
    let faulty = FaultyGateway::start().await;
    for query in [boom(), watch("boom", GOOD), watch("a", GOOD)] {
        let events = faulty.events(&query).await;
        let last = events.trim_end().rsplit("\n\n").nth(1).unwrap_or_default();
        assert_internal(&serde_json::from_str(last.strip_prefix("event: next\ndata: ").unwrap()).unwrap());
        assert!(events.ends_with("event: complete\ndata:\n\n"), "{events}");
    }
    // The two faulty operations, and the two pollers.
    faulty.assert_panics(4).await;
}

#[tokio::test]
async fn a_panic_in_a_shared_call_fails_its_waiters_only() {
    let faulty = FaultyGateway::start().await;
    let (one, other) = (client(), client());
    let query = appointment(BAD);
    for _ in 0..2 {
        let ((_, _, first), (_, _, second)) =
            join(faulty.execute(&one, &query), faulty.execute(&other, &query)).await;
        for answer in [first, second] {
            assert_eq!(answer["data"], json!({ "appointment": null }));
            assert_eq!(answer["errors"][0]["path"], json!(["appointment"]));
            assert_internal(&answer);
        }
    }
    let (_, _, next) = faulty.execute(&one, &appointment(GOOD)).await;
    assert_eq!(next["data"]["appointment"]["claimant"]["name"], SECRET);
    faulty.assert_panics(2).await;
}

#[tokio::test]
async fn a_panic_during_a_change_is_outcome_unknown() {
    let faulty = FaultyGateway::start().await;
    let query = format!("mutation {{ cancelAppointment(id: \"{BAD}\") {{ appointment {{ id }} }} }}");
    let (_, _, answer) = faulty.execute(&client(), &query).await;
    assert_eq!(answer["errors"][0]["extensions"], json!({ "code": "OUTCOME_UNKNOWN" }));
    assert_eq!(answer["data"], Value::Null);
    faulty.assert_panics(1).await;
}
