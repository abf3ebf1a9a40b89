//! The command in `examples/rust-client`, whose types are generated from `schema.graphql` when it is compiled.

use std::{
    process::{Output, Stdio},
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Response, StatusCode},
    response::IntoResponse as _,
};
use serde_json::json;
use tokio::{net::TcpListener, process::Command, task::JoinSet, time::timeout};

use crate::support::{Call, Gateway, GatewayResponse, TIMEOUT, Upstream, UpstreamResponse, id};

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

/// A reverse proxy that loses the gateway's first answer to a mutation and sends a page in its place. Dropping it stops
/// it.
struct LossyProxy {
    url: String,
    shared: Arc<LossyProxyShared>,
    _serving: JoinSet<()>,
}

struct LossyProxyShared {
    client: reqwest::Client,
    gateway: String,
    /// The status of the page.
    status: StatusCode,
    /// The keys of all mutations.
    keys: Mutex<Vec<String>>,
}

impl LossyProxy {
    async fn before(gateway: &Gateway, status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/graphql", listener.local_addr().unwrap());
        let shared = Arc::new(LossyProxyShared {
            client: gateway.client().clone(),
            gateway: format!("{}/graphql", gateway.base()),
            status: StatusCode::from_u16(status).unwrap(),
            keys: Mutex::default(),
        });
        let routes = Router::new().fallback(forward).with_state(shared.clone());
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let _ = axum::serve(listener, routes).await;
        });
        Self { url, shared, _serving: serving }
    }

    fn keys(&self) -> Vec<String> {
        self.shared.keys.lock().unwrap().clone()
    }
}

async fn forward(
    State(proxy): State<Arc<LossyProxyShared>>,
    mut headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    for own in ["host", "connection", "content-length"] {
        headers.remove(own);
    }
    let key = headers.get("idempotency-key").map(|key| key.to_str().unwrap().to_owned());
    let response = proxy.client.post(&proxy.gateway).headers(headers).body(body).send().await.unwrap();
    if let Some(key) = key {
        let mut keys = proxy.keys.lock().unwrap();
        keys.push(key);
        if keys.len() == 1 {
            return (proxy.status, [("content-type", "text/html")], "<h1>Error</h1>").into_response();
        }
    }
    Response::<reqwest::Body>::from(response).map(Body::new)
}

/// An upstream whose appointments take 30 minutes, and 35 after a change.
fn extended(call: &Call) -> UpstreamResponse {
    let appointment = |minutes: u32| json!({ "data": { "id": call.id, "duration_in_minutes": minutes } });
    match call.id.as_str() {
        _ if call.is_change() => UpstreamResponse::json(200, &appointment(35)),
        "appointments" => UpstreamResponse::json(200, &json!({ "data": [], "meta": { "total": 0 } })),
        _ => UpstreamResponse::json(200, &appointment(30)),
    }
}

#[tokio::test]
async fn the_rust_client_repeats_a_change_with_its_key_after_a_proxy_page() {
    for (status, is_repeated) in [(502, true), (503, true), (504, true), (500, false), (404, false)] {
        let upstream = Upstream::answering(extended).await;
        let gateway = Gateway::before(upstream.url(), &[]).await;
        let proxy = LossyProxy::before(&gateway, status).await;
        let output = run(&[&proxy.url, "agent", &id(1)]).await;
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        let keys = proxy.keys();
        assert_eq!(keys.len(), if is_repeated { 2 } else { 1 }, "{status}: {stdout}{stderr}");
        assert!(keys.iter().all(|key| key.len() == 36 && *key == keys[0]), "{keys:?}");
        assert_eq!(output.status.success(), is_repeated, "{status}: {stdout}{stderr}");
        assert_eq!(
            stdout.contains("The appointment now takes 35 minutes."),
            is_repeated,
            "{status}: {stdout}"
        );
        assert_eq!(stderr.contains("without a GraphQL response"), !is_repeated, "{status}: {stderr}");
        let changes = upstream.seen(|seen| seen.calls.iter().filter(|call| call.is_change()).count());
        assert_eq!(changes, 1, "{status}: the change is made once");
    }
}
