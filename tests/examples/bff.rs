//! The backend for frontends in `examples/bff`, generated from `schema.graphql` and compiled once per run.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    sync::OnceCell,
    time::timeout,
};

use crate::support::{Gateway, GatewayResponse, TIMEOUT, Upstream, UpstreamResponse, client, id};

/// A running BFF.
struct Bff {
    base: String,
    _child: Child,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/bff")
}

/// Generates the types and compiles the program, with the scripts of its package.
async fn build() {
    static BUILT: OnceCell<()> = OnceCell::const_new();
    BUILT
        .get_or_init(|| async {
            assert!(
                directory().join("node_modules").is_dir(),
                "examples/bff/node_modules is missing. Run `npm ci --prefix examples/bff`. tests/run installs it where it \
                 can."
            );
            for script in ["generate", "build"] {
                let output =
                    Command::new("npm").args(["run", script]).current_dir(directory()).stdin(Stdio::null()).output();
                let output = timeout(8 * TIMEOUT, output)
                    .await
                    .unwrap_or_else(|_| panic!("npm run {script} did not finish"))
                    .unwrap_or_else(|error| panic!("Node.js 20 or later with npm is missing ({error})."));
                let [stdout, stderr] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
                assert!(output.status.success(), "npm run {script}:\n{stdout}{stderr}");
            }
        })
        .await;
}

impl Bff {
    async fn before(gateway: &Gateway) -> Self {
        build().await;
        let mut child = Command::new("node")
            .arg("dist/server.js")
            .current_dir(directory())
            .env("GATEWAY_URL", format!("{}/graphql", gateway.base()))
            .env("PORT", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let line =
            timeout(TIMEOUT, stdout.next_line()).await.expect("the BFF starts in time").unwrap().unwrap();
        let base = line.strip_prefix("Listening on ").unwrap_or_else(|| panic!("{line}")).to_owned();
        Self { base, _child: child }
    }

    /// The page of `ids`, as `token`.
    async fn day(&self, token: Option<&str>, ids: &[String], accept: &str) -> GatewayResponse {
        let query = ids.iter().map(|id| format!("id={id}")).collect::<Vec<_>>().join("&");
        let mut request =
            client().request(Method::GET, format!("{}/day?{query}", self.base)).header("accept", accept);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        GatewayResponse::of(request).await
    }
}

/// The appointment with `id`, in the form of the page, from the gateway.
async fn expected(gateway: &Gateway, id: &str) -> Value {
    let query = format!(
        "{{ appointment(id: \"{id}\") {{ reference appointmentAt endsAt phase department {{ name }} \
         claimant {{ name phoneNumber }} interpreterLanguage }} }}"
    );
    let request = gateway
        .request(Method::POST, "/graphql")
        .bearer_auth("sandbox-all")
        .header("content-type", "application/json")
        .body(json!({ "query": query }).to_string());
    let appointment = &GatewayResponse::of(request).await.body["data"]["appointment"];
    assert!(appointment.is_object(), "{id}");
    json!({
        "id": id,
        "reference": appointment["reference"],
        "start": appointment["appointmentAt"],
        "end": appointment["endsAt"],
        "phase": appointment["phase"],
        "department": appointment["department"]["name"],
        "claimant": appointment["claimant"]["name"],
        "phone": appointment["claimant"]["phoneNumber"],
        "interpreter": appointment["interpreterLanguage"],
        "incomplete": [],
    })
}

#[tokio::test]
async fn the_bff_serves_the_appointments_of_the_sandbox() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let bff = Bff::before(&gateway).await;
    let ids = gateway.sandbox_ids().await;
    let unknown = ids.last().unwrap();

    // Appointments whose phase does not change during the test, and one that does not exist.
    let shown = [&ids[0], &ids[3], unknown, &ids[4]].map(Clone::clone);
    let page = bff.day(Some("sandbox-all"), &shown, "application/json").await;
    assert_eq!(
        (page.status, &page.headers["cache-control"]),
        (200, &"no-store".parse().unwrap()),
        "{page:?}"
    );
    let expected = json!({ "appointments": [
        expected(&gateway, &ids[0]).await,
        expected(&gateway, &ids[3]).await,
        { "id": unknown, "problem": "UNKNOWN" },
        expected(&gateway, &ids[4]).await,
    ] });
    assert_eq!(page.body, expected);
    assert_eq!(page.body["appointments"][0]["reference"], "6ZziPsu1ZsoD5Mz");

    // A token with access to the first one only.
    let page = bff.day(Some("sandbox-some"), &shown, "application/json").await;
    assert_eq!(page.status, 200, "{page:?}");
    assert_eq!(page.body["appointments"][0], expected["appointments"][0]);
    assert_eq!(page.body["appointments"][1], json!({ "id": ids[3], "problem": "FORBIDDEN" }));

    let page = bff.day(Some("sandbox-all"), &shown, "text/html,*/*;q=0.8").await;
    assert_eq!(
        (page.status, &page.headers["content-type"]),
        (200, &"text/html; charset=utf-8".parse().unwrap())
    );
    assert!(page.body.as_str().unwrap().contains("<td>6ZziPsu1ZsoD5Mz</td>"), "{page:?}");
}

#[tokio::test]
async fn the_bff_reports_failures_of_the_whole_page() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let bff = Bff::before(&gateway).await;
    let ids = &gateway.sandbox_ids().await[..2];
    for (token, ids, status, code) in [
        (None, ids, 401, "UNAUTHENTICATED"),
        (Some("revoked"), ids, 401, "UNAUTHENTICATED"),
        (Some("sandbox-all"), &[][..], 400, "BAD_USER_INPUT"),
        (Some("sandbox-all"), &["nonsense".to_owned()], 400, "BAD_USER_INPUT"),
    ] {
        let page = bff.day(token, ids, "application/json").await;
        assert_eq!((page.status, &page.body), (status, &json!({ "error": code })), "{page:?}");
        assert_eq!(page.headers.contains_key("www-authenticate"), status == 401, "{page:?}");
    }
    drop(gateway);
    let page = bff.day(Some("sandbox-all"), ids, "application/json").await;
    assert_eq!((page.status, page.body), (502, json!({ "error": "GATEWAY_UNREACHABLE" })));
}

/// One forbidden appointment, one that does not arrive within `x-request-timeout`, and one with a malformed field.
#[tokio::test]
async fn the_bff_shows_partial_data_from_one_call_per_appointment() {
    let upstream = Upstream::start().await;
    upstream.on(&id(2), |_| UpstreamResponse::status(403));
    upstream.on(&id(3), |_| UpstreamResponse::never());
    upstream.on(&id(4), |call| {
        let appointment = json!({ "id": call.id, "reference": "four", "appointment_at": { "day": 1 } });
        UpstreamResponse::json(200, &json!({ "data": appointment }))
    });
    // Only the header of the BFF ends the call for `id(3)`.
    let gateway =
        Gateway::before(upstream.url(), &[("http.deadline", "1h"), ("upstream.timeout", "1h")]).await;
    let bff = Bff::before(&gateway).await;
    let ids = [1, 2, 3, 4, 1].map(id);
    let page = bff.day(Some("agent"), &ids, "application/json").await;
    assert_eq!(page.status, 200, "{page:?}");
    let shown = &page.body["appointments"];
    assert_eq!((&shown[0]["reference"], &shown[0]["incomplete"]), (&json!("agent"), &json!([])), "{page:?}");
    assert_eq!(shown[1], json!({ "id": id(2), "problem": "FORBIDDEN" }));
    assert_eq!(shown[2], json!({ "id": id(3), "problem": "UPSTREAM_TIMEOUT" }));
    assert_eq!((&shown[3]["reference"], &shown[3]["start"]), (&json!("four"), &Value::Null), "{page:?}");
    assert!(shown[3]["incomplete"].as_array().unwrap().contains(&json!("appointmentAt")), "{page:?}");
    assert_eq!(shown[4], shown[0]);
    for number in 1..=4 {
        // Failures are not cached, so each of the two queries may ask again.
        let calls = upstream.calls_for(&id(number));
        assert!(
            if matches!(number, 1 | 4) { calls == 1 } else { (1..=2).contains(&calls) },
            "{number}: {calls}"
        );
    }
    upstream.seen(|seen| assert!(seen.calls.iter().all(|call| call.token() == "agent")));
}

#[tokio::test]
async fn the_bff_passes_on_retry_after() {
    let upstream = Upstream::answering(|_| UpstreamResponse::status(429).with("Retry-After", "7")).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let page = Bff::before(&gateway).await.day(Some("agent"), &[id(1)], "application/json").await;
    assert_eq!((page.status, &page.body), (429, &json!({ "error": "RATE_LIMITED" })), "{page:?}");
    // The second of its two queries may come later.
    let pause: u64 = page.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=7).contains(&pause), "{page:?}");
}
