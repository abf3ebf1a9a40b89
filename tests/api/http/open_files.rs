//! The open-file limit: connections leave descriptors for upstream calls, and a lack of descriptors does not open the
//! circuit breaker.

use std::{process::Stdio, time::Duration};

use reqwest::Method;
use serde_json::json;
use tokio::{
    net::TcpStream,
    process::Command,
    time::{sleep, timeout},
};

use crate::support::{
    FinishedRun, Gate, Gateway, GatewayResponse, RawConnection, TIMEOUT, Upstream, handshake, id, ids,
    program, raw,
};

const BREAKER: [(&str, &str); 2] = [("upstream.breaker_percent", "50"), ("upstream.breaker_calls", "5")];

const METRICS: &str = "GET /metrics HTTP/1.1\r\nHost: gateway\r\n\r\n";

/// The program after a shell has run `limit`, a call of `ulimit`.
fn limited_program(limit: &str, arguments: &[&str], settings: &[(&str, &str)]) -> Command {
    let plain = program(arguments, settings);
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("{limit} && exec \"$0\" \"$@\""))
        .arg(plain.as_std().get_program())
        .args(plain.as_std().get_args())
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    for (name, value) in plain.as_std().get_envs() {
        command.env(name, value.unwrap());
    }
    command
}

async fn assert_closed(gateway: &Gateway) {
    let metrics = gateway.metrics().await;
    assert_eq!(metrics["gateway_upstream_breaker{route=\"appointment\"}"], 0.0);
    assert_eq!(metrics["gateway_upstream_breaker_turns_total{to=\"open\"}"], 0.0);
}

#[tokio::test]
async fn a_flood_of_sockets_leaves_descriptors_for_calls_upstream() {
    let upstream = Upstream::start().await;
    let settings =
        [&BREAKER[..], &[("upstream.url", upstream.url()), ("upstream.max_concurrent", "8")]].concat();
    // 250 of them exceed the 196 descriptors outside the reserve.
    let settings = [&settings[..], &[("http.header_timeout", "60s"), ("cache.ttl", "0")]].concat();
    let gateway = Gateway::of(limited_program("ulimit -n 300", &["serve"], &settings)).await;
    let mut first = RawConnection::connect(&gateway).await;
    let probe = "GET /readyz HTTP/1.1\r\nHost: gateway\r\n\r\n";
    assert_eq!(first.exchange(probe).await.status, 200);

    let mut flood = Vec::new();
    for n in 0..400 {
        let stream = TcpStream::connect(gateway.address()).await.unwrap();
        if n % 2 == 0 {
            stream.writable().await.unwrap();
            // WebSockets leave their place among the connections, and take descriptors all the same.
            // Connections beyond the limit are closed.
            let _ = stream.try_write(handshake("GET", "").as_bytes());
        }
        flood.push(stream);
    }
    let body = |ids: &[String]| raw::query(&format!("{{ appointmentsByIds(ids: {}) {{ id }} }}", json!(ids)));
    for round in 0..3 {
        let ids = ids(round * 20..round * 20 + 20);
        let reply = first.exchange(raw::post("Authorization: Bearer token\r\n", &body(&ids))).await.parsed();
        assert_eq!((reply.status, reply.codes()), (200, vec![]), "{reply:?}");
        assert_eq!(first.exchange(probe).await.status, 200);
    }
    let metrics = first.exchange(METRICS).await;
    let metrics = String::from_utf8(metrics.body).unwrap();
    assert!(metrics.contains("gateway_upstream_breaker{route=\"appointment\"} 0\n"), "{metrics}");
    assert!(metrics.contains("gateway_upstream_calls_total{outcome=\"unreachable\"} 0\n"), "{metrics}");

    drop(flood);
    assert_eq!(GatewayResponse::of(gateway.request(Method::GET, "/readyz")).await.status, 200);
    assert_eq!(gateway.appointment("token", &id(100)).await.codes(), [""; 0]);
    assert_closed(&gateway).await;
}

#[tokio::test]
async fn running_out_of_descriptors_opens_no_breaker() {
    let upstream = Upstream::start().await;
    let gate = Gate::shut();
    for n in 0..60 {
        let gate = gate.clone();
        upstream.on(&id(n), move |call| call.appointment().once(&gate));
    }
    let settings = [&BREAKER[..], &[("upstream.url", upstream.url()), ("upstream.retries", "2")]].concat();
    // Fewer than one operation takes for its calls.
    let gateway = Gateway::of(limited_program("ulimit -n 40", &["serve"], &settings)).await;
    let query = format!("{{ appointmentsByIds(ids: {}) {{ id }} }}", json!(ids(0..60)));
    let mut other = RawConnection::connect(&gateway).await;
    assert_eq!(other.exchange(METRICS).await.status, 200);
    let failing = async {
        // Calls that found a descriptor hold it until the others have failed.
        while failed_calls(&mut other).await < 20 {
            sleep(Duration::from_millis(10)).await;
        }
        gate.open();
    };
    let failing = async { timeout(TIMEOUT, failing).await.expect("calls fail for want of descriptors") };
    let (reply, ()) = tokio::join!(gateway.query(Some("token"), &query), failing);
    let codes = reply.codes();
    assert!(codes.len() >= 20 && codes.iter().all(|code| *code == "OVERLOADED"), "{codes:?}");
    let extensions = &reply.body["errors"][0]["extensions"];
    assert_eq!(
        (&extensions["limit"], &extensions["retryAfterSeconds"]),
        (&json!("system_resources"), &json!(1))
    );
    assert!(gateway.rejections("system_resources").await >= 20.0);
    assert_closed(&gateway).await;
    assert_eq!(gateway.appointment("token", &id(100)).await.codes(), [""; 0], "service is back at once");
}

/// How many calls failed before anything was sent.
async fn failed_calls(connection: &mut RawConnection) -> u32 {
    let metrics = String::from_utf8(connection.exchange(METRICS).await.body).unwrap();
    let series = "gateway_upstream_calls_total{outcome=\"abandoned\"} ";
    metrics.lines().find_map(|line| line.strip_prefix(series)?.parse().ok()).unwrap()
}

#[tokio::test]
async fn check_and_the_log_say_that_the_limit_is_low() {
    let told = "the limit on open files (1024) allows only";
    let few = [("http.max_connections", "100"), ("websocket.max_connections", "100")];
    for (settings, is_told) in [(&[][..], true), (&few[..], false)] {
        let ended = FinishedRun::of(limited_program("ulimit -n 1024", &["check"], settings)).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(ended.stdout.contains(told), is_told, "{ended:?}");
        let gateway = Gateway::of(limited_program("ulimit -n 1024", &["serve"], settings)).await;
        // Requests are served after the start-up output.
        gateway.query(None, "{ __typename }").await;
        assert_eq!(gateway.stderr().contains(told), is_told);
    }
}

#[tokio::test]
async fn the_soft_limit_is_raised_to_the_hard_one() {
    let command = limited_program("ulimit -Sn 64 && ulimit -Hn 2000", &["serve"], &[]);
    let gateway = Gateway::of(command).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", gateway.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["2000", "2000"]);
}
