//! The subcommands besides `serve`, and the output at the start.

use std::net::TcpListener;

use reqwest::Method;
use serde_json::Value;

use crate::support::{FinishedRun, Gateway, GatewayResponse, TIMEOUT, TempFile, client, program};

async fn check(settings: &[(&str, &str)]) -> FinishedRun {
    FinishedRun::of(program(&["check"], settings)).await
}

#[tokio::test]
async fn start_up_lines_name_addresses_and_the_made_up_data() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let sandbox = gateway.sandbox();
    let lines = gateway.stdout();
    for part in [&format!("{}/graphql", gateway.base()), &format!("{}/\n", gateway.base()), &sandbox] {
        assert!(lines.contains(part.as_str()), "{part} in {lines}");
    }
    for part in ["made up", "sandbox-all", "sandbox-some"] {
        assert!(lines.contains(part), "{part} in {lines}");
    }

    let real = Gateway::before("http://127.0.0.1:9/base", &[]).await;
    let lines = real.stdout();
    assert!(lines.contains("http://127.0.0.1:9/base"), "{lines}");
    assert!(!lines.contains("made up") && !lines.contains("sandbox"), "{lines}");
}

#[tokio::test]
async fn check_validates_configuration_and_upstream() {
    let ended = check(&[]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("sandbox"), "{ended:?}");

    assert!(!ended.stdout.contains("http.deadline"), "{ended:?}");
    let doubtful = check(&[("upstream.timeout", "10s"), ("http.deadline", "10s")]).await;
    assert_eq!(doubtful.code, Some(0), "{doubtful:?}");
    assert!(doubtful.stdout.contains("upstream.timeout is not below http.deadline"), "{doubtful:?}");

    let gateway = Gateway::on_sandbox(&[]).await;
    let ended = check(&[("upstream.url", &gateway.sandbox())]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("is reachable"), "{ended:?}");

    let wrong = check(&[("upstream.url", gateway.base())]).await;
    assert_eq!(wrong.code, Some(1), "{wrong:?}");
    assert!(wrong.stderr.contains("404") && wrong.stderr.contains("check upstream.url"), "{wrong:?}");

    // Bound but not accepting: the port is reserved and never responds.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let ended = check(&[("upstream.url", &url), ("upstream.timeout", "200ms")]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("is not reachable"), "{ended:?}");

    // The discard port, which is closed.
    let dead = check(&[("upstream.url", "http://127.0.0.1:9")]).await;
    assert_eq!(dead.code, Some(1), "{dead:?}");
    assert!(dead.stderr.contains("is not reachable"), "{dead:?}");

    let ended = check(&[("upstream.url", "http://127.0.0.1:9"), ("cache.ttl", "soon")]).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{ended:?}");
}

#[tokio::test]
async fn key_prints_a_new_line_for_the_key_file() {
    let mut lines = Vec::new();
    for _ in 0..2 {
        let ended = FinishedRun::of(program(&["key"], &[])).await;
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
        let line = ended.stdout.strip_suffix('\n').expect("one line");
        assert!(line.len() == 64 && line.bytes().all(|digit| b"0123456789abcdef".contains(&digit)), "{line}");
        lines.push(line.to_owned());
    }
    assert_ne!(lines[0], lines[1]);
    let keys = TempFile::with(&lines.join("\n"));
    // The discard port, which is closed.
    let settings = [("shared.url", "redis://127.0.0.1:9"), ("shared.key_file", keys.path())];
    let ended = check(&settings).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.contains("configuration valid"), "{ended:?}");
    assert!(ended.stderr.contains("the shared Redis (redis://127.0.0.1:9) is not available"), "{ended:?}");
}

#[tokio::test]
async fn the_sandbox_runs_alone_with_faults_on_request() {
    let mut command = program(&["sandbox", "--sandbox-error-percent", "100"], &[]);
    let mut child = command.spawn().unwrap();
    let stdout = child.stdout.take().unwrap();
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(stdout));
    let reading = async {
        let mut text = String::new();
        while !text.contains("Tokens") {
            text += &lines.next_line().await.unwrap().expect("start-up lines");
            text += "\n";
        }
        text
    };
    let text = tokio::time::timeout(TIMEOUT, reading).await.unwrap();
    assert!(text.contains("made up"), "{text}");
    let url = text.split_whitespace().find(|word| word.starts_with("http://")).unwrap();
    assert!(url.ends_with("/api/v1/appointments"), "{text}");
    let reply = GatewayResponse::of(client().request(Method::GET, url).bearer_auth("sandbox-all")).await;
    assert!(reply.status >= 500, "{reply:?}");

    // A gateway before it is one before any upstream that fails.
    let gateway = Gateway::before(url.trim_end_matches("/api/v1/appointments"), &[]).await;
    let query = r#"{ appointment(id: "9a0f170e-0aa0-47db-ab14-4ddcdcbad061") { id } }"#;
    let reply = gateway.query(Some("sandbox-all"), query).await;
    assert_eq!(
        (reply.codes(), &reply.body["data"]["appointment"]),
        (vec!["UPSTREAM_UNAVAILABLE"], &Value::Null)
    );
}
