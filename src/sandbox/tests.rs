//! Tests of the sandbox over a real socket, against the upstream's documentation.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::{
    access::{TOKEN_ALL, TOKEN_SOME},
    example_ids, serve,
};
use crate::config::sandbox::{CLIENT_ID, CLIENT_SECRET, FaultConfig};

/// A sandbox that runs until it is dropped.
struct TestSandbox {
    address: std::net::SocketAddr,
    client: reqwest::Client,
    _stop: oneshot::Sender<()>,
}

async fn sandbox(faults: FaultConfig) -> TestSandbox {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(serve(listener, faults, async { _ = stopped.await }));
    // Fails if a crypto provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    TestSandbox { address, client, _stop: stop }
}

impl TestSandbox {
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    /// Sends a request with the token for all appointments.
    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let mut request = self.request(method, path).bearer_auth(TOKEN_ALL);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        read(request.send().await.unwrap()).await
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.ask(Method::GET, path, None).await
    }
}

async fn read(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    (status, serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default())
}

fn example_path(example: usize) -> String {
    format!("/api/v1/appointments/{}", example_ids()[example])
}

const LIST: &str = "/api/v1/appointments";

#[tokio::test]
async fn token_is_required_and_determines_the_visibility() {
    let sandbox = sandbox(FaultConfig::default()).await;
    let ask = async |token: Option<&str>, path: &str| {
        let mut request = sandbox.request(Method::GET, path);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        read(request.send().await.unwrap()).await
    };
    let unauthenticated = (StatusCode::UNAUTHORIZED, json!({"message": "Unauthenticated."}));
    assert_eq!(ask(None, &example_path(0)).await, unauthenticated);
    assert_eq!(ask(Some("guess"), &example_path(7)).await, unauthenticated);
    assert_eq!(ask(Some(TOKEN_ALL), &example_path(2)).await.0, StatusCode::OK);
    assert_eq!(ask(Some(TOKEN_SOME), &example_path(0)).await.0, StatusCode::OK);
    let forbidden = (StatusCode::FORBIDDEN, json!({"message": "This action is unauthorized."}));
    assert_eq!(ask(Some(TOKEN_SOME), &example_path(2)).await, forbidden);

    let all = ask(Some(TOKEN_ALL), LIST).await.1;
    let some = ask(Some(TOKEN_SOME), LIST).await.1;
    assert_eq!(all["meta"]["total"], 244);
    assert!(some["meta"]["total"].as_u64().is_some_and(|total| total < 120));
}

#[tokio::test]
async fn unknown_paths_give_404_and_wrong_methods_405() {
    let sandbox = sandbox(FaultConfig::default()).await;
    let (status, body) = sandbox.get(&example_path(7)).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let message = format!("No query results for model [App\\Models\\Appointment] {}", example_ids()[7]);
    assert_eq!(body["message"], message.as_str());
    let unusual = example_ids()[0].simple().to_string();
    for path in ["/api/v1/appointments/12", "/api/v1/appointments/%ff", "/elsewhere"] {
        assert_eq!(sandbox.get(path).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(sandbox.get(&format!("{LIST}/{unusual}")).await.0, StatusCode::NOT_FOUND);
    assert_eq!(sandbox.ask(Method::DELETE, LIST, None).await.0, StatusCode::METHOD_NOT_ALLOWED);
    let (status, body) = sandbox.get(&format!("{}/cancel", example_path(0))).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(body["message"].is_string());
}

#[tokio::test]
async fn matching_etags_give_304() {
    let sandbox = sandbox(FaultConfig::default()).await;
    let request = || sandbox.request(Method::GET, &example_path(0)).bearer_auth(TOKEN_ALL);
    let first = request().send().await.unwrap();
    assert_eq!(first.headers()["cache-control"], "no-cache, private");
    assert_eq!(first.headers()["content-type"], "application/json");
    let tag = first.headers()["etag"].clone();
    let second = request().header("if-none-match", &tag).send().await.unwrap();
    assert_eq!(second.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(second.headers()["etag"], tag);
    let other = request().header("if-none-match", "\"other\"").send().await.unwrap();
    assert_eq!(other.status(), StatusCode::OK);
}

#[tokio::test]
async fn pages_have_links_and_meta() {
    let sandbox = sandbox(FaultConfig::default()).await;
    let page = sandbox.get(&format!("{LIST}?page=2&per_page=10")).await.1;
    assert_eq!(page["data"].as_array().unwrap().len(), 10);
    let path = format!("http://{}{LIST}", sandbox.address);
    let links = json!({
        "first": format!("{path}?page=1"), "last": format!("{path}?page=25"),
        "prev": format!("{path}?page=1"), "next": format!("{path}?page=3"),
    });
    assert_eq!(page["links"], links);
    let meta = json!({
        "current_page": 2, "from": 11, "to": 20, "last_page": 25, "path": path, "per_page": 10, "total": 244,
    });
    assert_eq!(page["meta"], meta);

    assert_eq!(sandbox.get(LIST).await.1["meta"]["per_page"], 15);
    assert_eq!(sandbox.get(&format!("{LIST}?per_page=500")).await.1["meta"]["per_page"], 100);
    let beyond = sandbox.get(&format!("{LIST}?page=18446744073709551615&per_page=3")).await.1;
    assert_eq!(beyond["data"], json!([]));
    assert_eq!(beyond["meta"]["from"], Value::Null);
    let (status, body) = sandbox.get(&format!("{LIST}?page=0&per_page=many")).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(body["message"], "The page must be at least 1. (and 1 more error)");
    assert_eq!(body["errors"]["per_page"], json!(["The per page must be an integer."]));
}

#[tokio::test]
async fn appointments_are_created_changed_and_cancelled() {
    let sandbox = sandbox(FaultConfig::default()).await;
    let body = json!({
        "appointment_at": "2030-01-02T10:00:00", "department_id": "3", "claimant": { "name": "Ada Lanternby" },
    });
    let (status, made) = sandbox.ask(Method::POST, LIST, Some(body)).await;
    assert_eq!(status, StatusCode::CREATED);
    let made = &made["data"];
    assert_eq!(made["appointment_at"], "2030-01-02T10:00:00.000000Z");
    assert_eq!(made["department"], json!({ "id": 3, "name": "Family Liaison" }));
    assert_eq!(made["claimant"]["data"], json!([]));
    assert_eq!(made["status"], "scheduled");

    let path = format!("{LIST}/{}", made["id"].as_str().unwrap());
    let change =
        json!({ "claimant": { "email": "ada@example.com" }, "interpreter_language": null, "status": "held" });
    let (status, changed) = sandbox.ask(Method::PATCH, &path, Some(change)).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(changed["data"]["claimant"]["name"], "Ada Lanternby");
    assert_eq!(changed["data"]["claimant"]["email"], "ada@example.com");
    assert_eq!(changed["data"]["status"], "held");

    let cancel = format!("{path}/cancel");
    let reason = json!({ "cancellation_reason": "Settled." });
    let (status, cancelled) = sandbox.ask(Method::POST, &cancel, Some(reason)).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(cancelled["data"]["status"], "cancelled");
    assert_eq!(cancelled["data"]["cancellation_reason"], "Settled.");
    assert!(cancelled["data"]["cancelled_at"].is_string());
    assert_eq!(sandbox.ask(Method::POST, &cancel, None).await.0, StatusCode::CONFLICT);
    assert_eq!(sandbox.get(&path).await.1, cancelled);
}

#[tokio::test]
async fn invalid_bodies_are_reported_by_field() {
    let sandbox = sandbox(FaultConfig::default()).await;
    let (status, body) =
        sandbox.ask(Method::POST, LIST, Some(json!({ "claimant": { "email": "ada" } }))).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let expected = json!({
        "message": "The appointment at field is required. (and 1 more error)",
        "errors": {
            "appointment_at": ["The appointment at field is required."],
            "claimant.email": ["The claimant.email must be a valid email address."],
        },
    });
    assert_eq!(body, expected);

    let before = sandbox.get(&example_path(0)).await;
    let body =
        json!({ "duration_in_minutes": 5, "features_bandwidth": "ultra", "is_interpreter_needed": "yes" });
    let (status, body) = sandbox.ask(Method::PATCH, &example_path(0), Some(body)).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(body["errors"].as_object().unwrap().len(), 2);
    assert_eq!(sandbox.get(&example_path(0)).await, before, "an invalid change is not applied");
}

#[tokio::test]
async fn media_type_and_size_of_bodies_are_checked() {
    let sandbox = sandbox(FaultConfig::default()).await;
    let send = async |path: &str, media_type: &str, body: String| {
        let request = sandbox.request(Method::PATCH, path).bearer_auth(TOKEN_ALL);
        request.header("content-type", media_type).body(body).send().await.unwrap().status()
    };
    assert_eq!(
        send(&example_path(0), "text/plain", "{}".to_owned()).await,
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    );
    assert_eq!(
        send(&example_path(0), "application/json", "[1]".to_owned()).await,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    assert_eq!(
        send(&example_path(0), "application/json", "{".to_owned()).await,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    assert_eq!(
        send(&example_path(0), "application/json", " ".repeat(65_537)).await,
        StatusCode::PAYLOAD_TOO_LARGE
    );
    // The id is checked first.
    assert_eq!(send(&example_path(7), "application/json", "{".to_owned()).await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn client_credentials_get_a_token_for_an_hour() {
    let sandbox = sandbox(FaultConfig::default()).await;
    let ask = async |secret: &str, form: &'static str| {
        let request = sandbox.request(Method::POST, "/oauth2/token").basic_auth(CLIENT_ID, Some(secret));
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(form);
        read(request.send().await.unwrap()).await
    };
    let (status, answer) = ask(CLIENT_SECRET, "grant_type=client_credentials").await;
    assert_eq!(
        (status, &answer["expires_in"], &answer["token_type"]),
        (StatusCode::OK, &json!(3600), &json!("Bearer"))
    );
    let token = answer["access_token"].as_str().unwrap();
    assert!(token.starts_with("eyJ") && token.split('.').count() == 3);
    let hidden_from_some =
        sandbox.request(Method::GET, &example_path(2)).bearer_auth(token).send().await.unwrap();
    assert_eq!(hidden_from_some.status(), StatusCode::OK);

    let invalid_client = (StatusCode::UNAUTHORIZED, json!({"error": "invalid_client"}));
    assert_eq!(ask("guess", "grant_type=client_credentials").await, invalid_client);
    let unsupported = (StatusCode::BAD_REQUEST, json!({"error": "unsupported_grant_type"}));
    assert_eq!(ask(CLIENT_SECRET, "grant_type=password").await, unsupported);
    assert_eq!(ask(CLIENT_SECRET, "").await.1, json!({"error": "invalid_request"}));
}

#[tokio::test]
async fn requests_above_the_rate_limit_get_429() {
    let sandbox = sandbox(FaultConfig { rate_limit: 2, ..FaultConfig::default() }).await;
    let ask =
        async || sandbox.request(Method::GET, &example_path(0)).bearer_auth(TOKEN_ALL).send().await.unwrap();
    let first = ask().await;
    assert_eq!(
        (&first.headers()["x-ratelimit-limit"], &first.headers()["x-ratelimit-remaining"]),
        (&"2".parse().unwrap(), &"1".parse().unwrap())
    );
    ask().await;
    let third = ask().await;
    assert_eq!(third.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(third.headers()["x-ratelimit-remaining"], "0");
    let seconds: u64 = third.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds));
    assert_eq!(read(third).await.1, json!({"message": "Too Many Attempts."}));
}

#[tokio::test]
async fn errors_and_garbage_are_not_json() {
    let failing = sandbox(FaultConfig { error_percent: 100, ..FaultConfig::default() }).await;
    for _ in 0..20 {
        let (status, body) = failing.get(&example_path(0)).await;
        assert!(matches!(status.as_u16(), 500 | 502 | 503), "{status}");
        assert_eq!(body, Value::Null);
    }
    let garbling = sandbox(FaultConfig { garbage_percent: 100, ..FaultConfig::default() }).await;
    for _ in 0..20 {
        assert_eq!(garbling.get(&example_path(0)).await, (StatusCode::OK, Value::Null));
    }
}

#[tokio::test]
async fn latency_is_added() {
    let slow = sandbox(FaultConfig { latency: Duration::from_millis(80), ..FaultConfig::default() }).await;
    let asked = Instant::now();
    assert_eq!(slow.get(&example_path(0)).await.0, StatusCode::OK);
    assert!(asked.elapsed() >= Duration::from_millis(80));
}

#[tokio::test]
async fn truncated_responses_break_in_the_body() {
    let cutting = sandbox(FaultConfig { cut_percent: 100, ..FaultConfig::default() }).await;
    for path in [example_path(0), format!("{LIST}?per_page=100")] {
        let answer = cutting.request(Method::GET, &path).bearer_auth(TOKEN_ALL).send().await;
        // The head is complete, the body is not.
        let answer = answer.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert!(answer.text().await.is_err());
    }

    let (address, path) = (cutting.address, example_path(0));
    let received = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN_ALL}\r\n\r\n")
            .unwrap();
        let mut received = String::new();
        // The connection ends or is reset, depending on the network stack.
        let _ = stream.read_to_string(&mut received);
        received
    });
    let received = received.await.unwrap();
    let (head, body) = received.split_once("\r\n\r\n").unwrap();
    let promised = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let promised: usize = promised.parse().unwrap();
    assert_eq!(body.len(), promised - promised / 2);
}

#[tokio::test]
async fn stop_signal_ends_the_sandbox() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(serve(listener, FaultConfig::default(), async { _ = stopped.await }));
    stop.send(()).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(5), served).await;
    assert!(ended.unwrap().unwrap().is_ok());
}
