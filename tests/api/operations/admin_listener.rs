//! `admin.listen`: probes and metrics that no load of the API can starve.

use reqwest::Method;
use serde_json::json;
use tokio::net::TcpStream;

use crate::support::{
    FinishedRun, Gate, Gateway, GatewayResponse, RawConnection, Upstream, id, program, raw,
};

const ADMIN: (&str, &str) = ("admin.listen", "127.0.0.1:0");

/// The address of the listener, from the start-up lines.
fn address(gateway: &Gateway) -> String {
    let stdout = gateway.stdout();
    let line = stdout.lines().find_map(|line| line.trim().strip_prefix("Admin")).expect("a line for it");
    line.split_whitespace().next().unwrap().trim_end_matches('/').to_owned()
}

async fn get(gateway: &Gateway, path: &str) -> GatewayResponse {
    // A connection of its own, as probes have.
    let request = gateway.client().get(format!("{}{path}", address(gateway))).header("connection", "close");
    GatewayResponse::of(request).await
}

#[tokio::test]
async fn it_serves_probes_and_metrics_and_nothing_else() {
    for metrics in ["true", "false"] {
        let gateway = Gateway::on_sandbox(&[ADMIN, ("metrics.enabled", metrics)]).await;
        for (path, text) in [("/livez", "live\n"), ("/readyz", "ready\n")] {
            let reply = get(&gateway, path).await;
            assert_eq!((reply.status, reply.body), (200, json!(text)));
            // The public listener keeps them.
            assert_eq!(GatewayResponse::of(gateway.request(Method::GET, path)).await.status, 200);
        }
        let reply = get(&gateway, "/metrics").await;
        assert!(reply.body.as_str().unwrap().contains("gateway_requests_total"), "{reply:?}");
        for path in ["/", "/graphql", "/graphiql.json", "/assets/x.js"] {
            let reply = get(&gateway, path).await;
            assert!(!reply.rejected(404, "BAD_REQUEST").contains("/graphql"));
        }
    }
}

#[tokio::test]
async fn it_responds_while_the_public_listener_refuses() {
    let settings =
        [ADMIN, ("http.max_connections", "1"), ("limits.operations", "1"), ("http.idle_timeout", "1h")];
    let (upstream, gate) = (Upstream::start().await, Gate::shut());
    upstream.on(&id(1), {
        let gate = gate.clone();
        move |call| call.appointment().once(&gate)
    });
    let gateway = Gateway::before(upstream.url(), &settings).await;
    // The only connection, and the only operation.
    let mut only = RawConnection::connect(&gateway).await;
    let query = format!(r#"{{ appointment(id: "{}") {{ id }} }}"#, id(1));
    only.send(raw::post("Authorization: Bearer token\r\n", &raw::query(&query))).await.unwrap();
    upstream.until_called(1).await;
    assert_eq!(RawConnection::connect(&gateway).await.reply().await.status, 503);
    for _ in 0..100 {
        for path in ["/livez", "/readyz", "/metrics"] {
            assert_eq!(get(&gateway, path).await.status, 200);
        }
    }
    gate.open();
    assert_eq!(only.reply().await.status, 200);
}

#[tokio::test]
async fn it_stays_until_the_last_request_is_answered() {
    let (upstream, gate) = (Upstream::start().await, Gate::shut());
    upstream.on(&id(1), {
        let gate = gate.clone();
        move |call| call.appointment().once(&gate)
    });
    let mut gateway = Gateway::before(upstream.url(), &[ADMIN]).await;
    let slow = async { gateway.appointment("token", &id(1)).await };
    let probing = async {
        upstream.until_called(1).await;
        gateway.terminate();
        while TcpStream::connect(gateway.address()).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(get(&gateway, "/livez").await.status, 200);
        let ready = get(&gateway, "/readyz").await;
        assert_eq!((ready.status, ready.body), (503, json!("draining\n")));
        assert_eq!(get(&gateway, "/metrics").await.status, 200);
        gate.open();
    };
    let (reply, ()) = tokio::join!(slow, probing);
    assert_eq!(reply.codes(), [""; 0]);
    assert_eq!(gateway.ended().await.code(), Some(0));
}

#[tokio::test]
async fn an_address_in_use_is_reported_with_its_key() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = FinishedRun::of(program(&["serve"], &[("admin.listen", &address)])).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains(&format!("--admin-listen: cannot listen on {address}")), "{ended:?}");
}
