//! `examples/fleet/run`: three gateways behind HAProxy or nginx, with one command.

use std::{collections::BTreeSet, path::Path, process::Stdio, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _, future::join_all};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

use super::support::{GatewayResponse, TIMEOUT, client, eventually, free_ports};

const TOKEN: &str = "sandbox-all";

const WATCH: &str = "subscription ($id: UUID!) { appointmentChanged(id: $id) { id status } }";

/// The running example.
struct Example {
    child: Child,
    port: u16,
}

impl Example {
    async fn start(balancer: &str) -> Self {
        let port = free_ports(6);
        let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/fleet/run");
        let mut child = Command::new(run)
            .arg(balancer)
            .env("FLEET_PORT", port.to_string())
            .env("GATEWAY", env!("CARGO_BIN_EXE_appointments-gateway"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let is_ready = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line.contains("The fleet is ready") {
                    return true;
                }
            }
            false
        };
        assert!(timeout(2 * TIMEOUT, is_ready).await.expect("the fleet starts in time"), "it does not start");
        // The rest of its output has room in the pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let example = Self { child, port };
        for number in 1..=3 {
            eventually("each gateway joins", async || {
                let metrics =
                    client().get(format!("http://127.0.0.1:{}/metrics", port + number)).send().await;
                metrics.unwrap().text().await.unwrap().lines().any(|line| line == "gateway_shared_joined 1")
            })
            .await;
        }
        example
    }

    /// A query through the load balancer.
    async fn query(&self, query: &str, variables: Value) -> GatewayResponse {
        let request = client()
            .post(format!("http://127.0.0.1:{}/graphql", self.port))
            .header("content-type", "application/json")
            .header("accept", "application/graphql-response+json")
            .bearer_auth(TOKEN)
            .body(json!({ "query": query, "variables": variables }).to_string());
        GatewayResponse::of(request).await
    }

    async fn status(&self, id: &str) -> (String, String) {
        let query = "query ($id: UUID!) { appointment(id: $id) { status } }";
        let reply = self.query(query, json!({ "id": id })).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let replica = reply.headers["x-replica"].to_str().unwrap().to_owned();
        (reply.body["data"]["appointment"]["status"].as_str().unwrap().to_owned(), replica)
    }

    async fn change(&self, id: &str, status: &str) {
        let query = "mutation ($id: UUID!, $input: UpdateAppointmentInput!) {
            updateAppointment(id: $id, input: $input) { appointment { status } userErrors { message } }
        }";
        let reply = self.query(query, json!({ "id": id, "input": { "status": status } })).await;
        assert_eq!(reply.body["data"]["updateAppointment"]["appointment"]["status"], status, "{reply:?}");
    }

    /// Ends it, and waits until nothing is left of it.
    async fn end(mut self) {
        // Not SIGINT, which background jobs of a shell ignore.
        kill(Pid::from_raw(self.child.id().unwrap() as i32), Signal::SIGTERM).unwrap();
        // Its processes end one after the other.
        let status = timeout(6 * TIMEOUT, self.child.wait()).await.expect("it ends in time").unwrap();
        assert!(status.success(), "{status}");
        for port in self.port..self.port + 6 {
            assert!(
                TcpStream::connect(("127.0.0.1", port)).await.is_err(),
                "something still listens on {port}"
            );
        }
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // SIGKILL would leave its processes behind.
        if let Some(pid) = self.child.id() {
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGTERM);
            for _ in 0..1000 {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// A subscription over server-sent events.
struct EventStream {
    response: reqwest::Response,
    text: String,
}

impl EventStream {
    async fn open(example: &Example, id: &str) -> Self {
        let request = client()
            .post(format!("http://127.0.0.1:{}/graphql", example.port))
            .header("content-type", "application/json")
            .header("accept", "text/event-stream")
            .bearer_auth(TOKEN)
            .body(json!({ "query": WATCH, "variables": { "id": id } }).to_string());
        let response = timeout(TIMEOUT, request.send()).await.expect("a response in time").unwrap();
        assert_eq!(response.status(), 200);
        Self { response, text: String::new() }
    }

    async fn until_status(&mut self, status: &str) {
        let expected = json!(status).to_string();
        timeout(TIMEOUT, async {
            while !self.text.contains(&expected) {
                let chunk = self.response.chunk().await.unwrap().expect("the stream goes on");
                self.text.push_str(std::str::from_utf8(&chunk).unwrap());
            }
        })
        .await
        .unwrap_or_else(|_| panic!("no event with {status}: {}", self.text));
    }
}

#[tokio::test]
async fn haproxy_serves_queries_websockets_and_event_streams() {
    serves_everything(Example::start("haproxy").await).await;
}

#[tokio::test]
async fn nginx_serves_queries_websockets_and_event_streams() {
    serves_everything(Example::start("nginx").await).await;
}

async fn serves_everything(example: Example) {
    let list = example.query("{ appointments(first: 1) { nodes { id } } }", Value::Null).await;
    let id = list.body["data"]["appointments"]["nodes"][0]["id"].as_str().unwrap().to_owned();

    let mut stream = EventStream::open(&example, &id).await;
    let mut request = format!("ws://127.0.0.1:{}/graphql", example.port).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "graphql-transport-ws".parse().unwrap());
    let connection = TcpStream::connect(("127.0.0.1", example.port)).await.unwrap();
    let (mut socket, _) = timeout(TIMEOUT, client_async(request, connection)).await.unwrap().unwrap();
    for message in [
        json!({ "type": "connection_init", "payload": { "Authorization": format!("Bearer {TOKEN}") } }),
        json!({ "type": "subscribe", "id": "1", "payload": { "query": WATCH, "variables": { "id": id } } }),
    ] {
        socket.send(Message::text(message.to_string())).await.unwrap();
    }

    let mut replicas = BTreeSet::new();
    for round in 0..5 {
        let expected = format!("round {round}");
        // At the same time, so that no replica can take them all.
        let all = async || join_all((0..12).map(|_| example.status(&id))).await;
        replicas.extend(all().await.into_iter().map(|(_, replica)| replica));
        example.change(&id, &expected).await;
        for (status, replica) in all().await {
            assert_eq!(status, expected, "through {replica}");
            replicas.insert(replica);
        }
        stream.until_status(&expected).await;
        timeout(TIMEOUT, async {
            loop {
                let message = socket.next().await.expect("the socket stays open").unwrap();
                let Message::Text(text) = message else { continue };
                let message: Value = serde_json::from_str(&text).unwrap();
                if message["payload"]["data"]["appointmentChanged"]["status"] == expected.as_str() {
                    return;
                }
            }
        })
        .await
        .expect("an event in time");
    }
    assert_eq!(replicas.len(), 3, "all were used: {replicas:?}");
    drop((stream, socket));
    example.end().await;
}

/// HAProxy learns from `/readyz` that a replica shuts down, so no request meets a closed port.
#[tokio::test]
async fn a_replica_stops_without_errors() {
    let example = Example::start("haproxy").await;
    let list = example.query("{ appointments(first: 1) { nodes { id } } }", Value::Null).await;
    let id = list.body["data"]["appointments"]["nodes"][0]["id"].as_str().unwrap().to_owned();
    example.change(&id, "before").await;
    let gateways = children(example.child.id().unwrap(), "serve");
    assert_eq!(gateways.len(), 3, "{gateways:?}");
    kill(Pid::from_raw(gateways[0]), Signal::SIGTERM).unwrap();
    let mut served = 0;
    while is_alive(gateways[0]) {
        assert_eq!(example.status(&id).await.0, "before");
        served += 1;
        sleep(Duration::from_millis(5)).await;
    }
    assert!(served > 10, "{served}");
    // A change waits for no replica that has left, and is read through those that stay.
    example.change(&id, "after").await;
    let mut replicas = BTreeSet::new();
    for (status, replica) in join_all((0..12).map(|_| example.status(&id))).await {
        assert_eq!(status, "after");
        replicas.insert(replica);
    }
    assert_eq!(replicas.len(), 2, "{replicas:?}");
}

/// The processes that `parent` has started with a word in their command line.
fn children(parent: u32, word: &str) -> Vec<i32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let all = std::fs::read_to_string(path).unwrap();
    let all = all.split_whitespace().map(|pid| pid.parse().unwrap());
    all.filter(|pid: &i32| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).split('\0').any(|it| it == word))
    })
    .collect()
}

/// Whether the process has not ended, even if nobody has waited for it.
fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}
