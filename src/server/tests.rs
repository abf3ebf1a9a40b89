//! What becomes of a panic, wherever it happens: `INTERNAL` for who waited for what was lost with it, and for nobody else;
//! its place in the log, and its text nowhere.
//!
//! There is no known way to have the program panic. So a second process serves one with faults: resolvers that panic where
//! a query says so, and bounds and clocks that no configuration may have. It is this test program itself, asked to run
//! [`a_gateway_with_faults`]; from there on it is looked at from outside.

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

/// How long anything that is expected may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is said in every panic, and in every appointment.
const SECRET: &str = "Philomena Canarybird";

/// An id whose answer makes whoever reads it panic.
const BAD: &str = "00000bad-0000-4000-8000-00000000cafe";
const GOOD: &str = "0000600d-0000-4000-8000-00000000cafe";

/// Panics in the resolver of every field whose alias is `boom`, and in the validation of an operation of that name.
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
#[ignore = "the tests below run it, as a process of its own"]
async fn a_gateway_with_faults() {
    let mut config = Config::default();
    config.log.level = LogLevel::Trace;
    config.cache.ttl = Duration::ZERO;
    // Room is made for as many bytes as an answer says that it has: here for more than there can be.
    config.upstream.max_response = ByteSize(u64::MAX);
    // No pause is between these.
    (config.live.fast_interval, config.live.slow_interval) = (Duration::from_secs(2), Duration::from_secs(1));
    logging::watch_panics();
    logging::start(&config.log).unwrap();

    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}", upstream.local_addr().unwrap())).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = upstream.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    let mut server = Server::new(&config, &url, false).unwrap();
    let memory = server.gateway.api.memory().clone();
    Arc::get_mut(&mut server.gateway).unwrap().api =
        Api::with_fault(config.limits.clone(), &config.graphql, memory, Boom);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    std::io::Write::write_all(&mut io::stdout(), format!("\nserving {address}\n").as_bytes()).unwrap();
    server.serve(listener, None, std::future::pending()).await;
}

/// One call upstream.
async fn answer(stream: TcpStream) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    let is_bad = line.contains(BAD);
    let mut header = String::new();
    while stream.read_line(&mut header).await.unwrap() > 2 {
        header.clear();
    }
    // All who ask at once are there by then.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let body = json!({
        "data": { "id": GOOD, "appointment_at": "2999-01-01T00:00:00Z", "claimant": { "name": SECRET } }
    })
    .to_string();
    let length = if is_bad { 1 << 63 } else { body.len() as u64 };
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    let _ = stream.write_all(answer.as_bytes()).await;
}

/// That process, and what it has written once it is over.
struct Faulty {
    process: Child,
    address: String,
    stdout: BufReader<tokio::process::ChildStdout>,
}

impl Faulty {
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
        let address = timeout(PATIENCE, async {
            loop {
                let mut line = String::new();
                assert!(stdout.read_line(&mut line).await.unwrap() > 0, "it serves before it ends");
                if let Some(address) = line.trim().strip_prefix("serving ") {
                    return address.to_owned();
                }
            }
        });
        Self { address: address.await.unwrap(), process, stdout }
    }

    /// Ends it. Panics where it has not panicked `count` times, each time with its place and no word more.
    async fn panicked(mut self, count: usize) {
        let metrics = reqwest::get(format!("http://{}/metrics", self.address)).await.unwrap();
        let metrics = metrics.text().await.unwrap();
        let (mut stdout, mut log) = (String::new(), String::new());
        let mut stderr = BufReader::new(self.process.stderr.take().unwrap());
        // The log is written by a thread, and has what was logged a moment later.
        let written = async {
            while log.matches("panicked place=\"").count() < count {
                assert!(stderr.read_line(&mut log).await.unwrap() > 0, "{log}");
            }
        };
        timeout(PATIENCE, written).await.expect("each panic is logged");
        self.process.start_kill().unwrap();
        self.stdout.read_to_string(&mut stdout).await.unwrap();
        stderr.read_to_string(&mut log).await.unwrap();
        let lines = log.lines().filter(|line| line.contains("panicked place=\"")).collect::<Vec<_>>();
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

    /// The answer to an operation, and the id by which it is to be asked about.
    async fn ask(&self, http: &reqwest::Client, query: &str) -> (u16, String, Value) {
        let request = http
            .post(format!("http://{}/graphql", self.address))
            .bearer_auth("token")
            .header("content-type", "application/json")
            .header("accept", "application/graphql-response+json")
            .body(parameters(query).to_string());
        let response = timeout(PATIENCE, request.send()).await.unwrap().unwrap();
        let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        let status = response.status().as_u16();
        (status, id, serde_json::from_str(&response.text().await.unwrap()).unwrap())
    }

    /// The events that answer an operation.
    async fn events(&self, query: &str) -> String {
        let request = client()
            .post(format!("http://{}/graphql", self.address))
            .bearer_auth("token")
            .header("content-type", "application/json")
            .header("accept", "text/event-stream")
            .body(parameters(query).to_string());
        let response = timeout(PATIENCE, request.send()).await.unwrap().unwrap();
        timeout(PATIENCE, response.text()).await.unwrap().unwrap()
    }
}

fn client() -> reqwest::Client {
    // The TLS library's; a second call finds it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // One connection at most, so that what is asked next shows whether it is still of use.
    reqwest::Client::builder().no_proxy().pool_max_idle_per_host(1).build().unwrap()
}

/// A request for the one operation in `query`; by its name, if it has that one.
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

/// The only thing that is ever told of it.
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
async fn a_panic_in_a_resolver_is_the_answer_and_the_connection_goes_on() {
    let faulty = Faulty::start().await;
    let http = client();
    let (status, id, answer) = faulty.ask(&http, &boom()).await;
    assert_eq!((status, &answer["data"]), (200, &Value::Null));
    assert!(!id.is_empty());
    assert_internal(&answer);
    let (_, _, next) = faulty.ask(&http, &appointment(GOOD)).await;
    assert_eq!(next, json!({ "data": { "appointment": { "claimant": { "name": SECRET } } } }));
    let (status, _, answer) = faulty.ask(&http, NAMED_BOOM).await;
    assert_eq!((status, &answer["data"]), (200, &Value::Null));
    assert_internal(&answer);
    faulty.panicked(2).await;
}

#[tokio::test]
async fn a_panic_is_one_operations_and_not_its_websockets() {
    let faulty = Faulty::start().await;
    let mut request = format!("ws://{}/graphql", faulty.address).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "graphql-transport-ws".parse().unwrap());
    let stream = TcpStream::connect(&faulty.address).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    let mut exchange = async |message: Value| {
        socket.send(Message::text(message.to_string())).await.unwrap();
        loop {
            let frame = timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
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
        let mut told = exchange(subscribe(id, query)).await;
        // Of what is watched, the first answer may be seen before its poller is lost.
        while told["type"] == "next" && told["payload"].get("errors").is_none() {
            told = exchange(json!({ "type": "pong" })).await;
        }
        assert_eq!(told["id"], id.to_string());
        assert_internal(&told["payload"]);
        if told["type"] == "next" {
            assert_eq!(exchange(json!({ "type": "pong" })).await["type"], "complete");
        }
    }
    let next = exchange(subscribe(9, "{ __typename }")).await;
    assert_eq!(next["payload"], json!({ "data": { "__typename": "Query" } }));
    // Where watching is to panic, what it watches does too: its poller.
    faulty.panicked(5).await;
}

#[tokio::test]
async fn a_panic_ends_an_event_stream_with_an_error_and_not_in_the_middle() {
    let faulty = Faulty::start().await;
    for query in [boom(), watch("boom", GOOD), watch("a", GOOD)] {
        let events = faulty.events(&query).await;
        let last = events.trim_end().rsplit("\n\n").nth(1).unwrap_or_default();
        assert_internal(&serde_json::from_str(last.strip_prefix("event: next\ndata: ").unwrap()).unwrap());
        assert!(events.ends_with("event: complete\ndata:\n\n"), "{events}");
    }
    // As above.
    faulty.panicked(4).await;
}

#[tokio::test]
async fn all_who_wait_for_a_call_that_panics_are_told_and_who_comes_after_asks_anew() {
    let faulty = Faulty::start().await;
    let (one, other) = (client(), client());
    let query = appointment(BAD);
    for _ in 0..2 {
        let ((_, _, first), (_, _, second)) =
            join(faulty.ask(&one, &query), faulty.ask(&other, &query)).await;
        for answer in [first, second] {
            assert_eq!(answer["data"], json!({ "appointment": null }));
            assert_eq!(answer["errors"][0]["path"], json!(["appointment"]));
            assert_internal(&answer);
        }
    }
    let (_, _, next) = faulty.ask(&one, &appointment(GOOD)).await;
    assert_eq!(next["data"]["appointment"]["claimant"]["name"], SECRET);
    faulty.panicked(2).await;
}

#[tokio::test]
async fn a_change_whose_task_panics_may_have_happened() {
    let faulty = Faulty::start().await;
    let query = format!("mutation {{ cancelAppointment(id: \"{BAD}\") {{ appointment {{ id }} }} }}");
    let (_, _, answer) = faulty.ask(&client(), &query).await;
    assert_eq!(answer["errors"][0]["extensions"], json!({ "code": "OUTCOME_UNKNOWN" }));
    assert_eq!(answer["data"], Value::Null);
    faulty.panicked(1).await;
}
