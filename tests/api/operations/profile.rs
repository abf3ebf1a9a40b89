//! `profile = "production"`: strict by default, and sufficient for the intended clients.

use appointments_gateway::sandbox::sample;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    FinishedRun, Gateway, GatewayResponse, RawConnection, TempFile, Upstream, UpstreamResponse, everything,
    ids, program, raw,
};

const PRODUCTION: (&str, &str) = ("profile", "production");

/// In production the sandbox must be enabled explicitly.
const SANDBOX: (&str, &str) = ("sandbox.enabled", "true");
const INTROSPECTION: &str = include_str!("../../fixtures/introspection.graphql");

#[tokio::test]
async fn it_shows_nothing_that_a_client_does_not_need() {
    let gateway = Gateway::on_sandbox(&[PRODUCTION, SANDBOX]).await;
    for path in ["/", "/graphiql.json", "/metrics", "/assets/index.js"] {
        GatewayResponse::of(gateway.request(Method::GET, path)).await.rejected(404, "BAD_REQUEST");
    }
    for query in ["{ __schema { types { name } } }", INTROSPECTION] {
        assert!(gateway.query(None, query).await.body.get("data").is_none(), "{query}");
    }
    let typo = gateway.query(None, "{ apointment }").await;
    assert!(!typo.rejected(422, "GRAPHQL_VALIDATION_FAILED").contains("Did you mean"));
    assert!(!gateway.stdout().contains("GraphiQL") && !gateway.stdout().contains("Metrics"));
    assert!(
        gateway.stdout().lines().next().unwrap().ends_with(", profile production"),
        "{}",
        gateway.stdout()
    );
    // Lines are objects.
    let log = loop {
        let log = gateway.stderr();
        if log.contains("serving") {
            break log;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    let line: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert_eq!(line["profile"], json!("production"), "{line}");
    for path in ["/livez", "/readyz"] {
        assert_eq!(GatewayResponse::of(gateway.request(Method::GET, path)).await.status, 200);
    }
}

#[tokio::test]
async fn metrics_are_shown_at_their_own_address_all_the_same() {
    let gateway = Gateway::on_sandbox(&[PRODUCTION, SANDBOX, ("metrics.listen", "127.0.0.1:0")]).await;
    let stdout = gateway.stdout();
    let address =
        stdout.lines().find_map(|line| line.trim().strip_prefix("Metrics")).unwrap().trim().to_owned();
    let metrics = GatewayResponse::of(gateway.client().get(address)).await;
    assert!(metrics.body.as_str().unwrap().contains("gateway_limited_total"));
}

#[tokio::test]
async fn typical_client_requests_are_within_its_limits() {
    let upstream = Upstream::answering(|call| {
        if call.id == "appointments" {
            let all = (0..100).map(|_| sample().clone().into()).collect::<Vec<Value>>();
            let meta = json!({ "current_page": 1, "per_page": 100, "total": 100, "last_page": 1 });
            return UpstreamResponse::json(200, &json!({ "data": all, "meta": meta }));
        }
        let mut appointment = sample().clone();
        appointment["id"] = json!(call.id);
        UpstreamResponse::json(200, &json!({ "data": appointment }))
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[PRODUCTION]).await;
    let ids = ids(0..100);
    let by_name = |id: &String| format!("a{}: appointment(id: {id:?}) ", id.replace('-', ""));
    let everything = everything();
    let spelled_out = ids[..20].iter().map(|id| by_name(id) + &everything).collect::<Vec<_>>().join("\n");
    let with_fragment = ids[..20].iter().map(|id| by_name(id) + "{ ...F }").collect::<String>();
    let fragment = format!("fragment F on Appointment {everything}");
    for (query, variables) in [
        (format!("{{ {spelled_out} }}"), json!({})),
        (format!("{{ {with_fragment} }} {fragment}"), json!({})),
        (
            format!("query ($ids: [UUID!]!) {{ appointmentsByIds(ids: $ids) {everything} }}"),
            json!({ "ids": ids }),
        ),
        (
            format!("{{ appointments(first: 100) {{ nodes {everything} pageInfo {{ endCursor }} }} }}"),
            json!({}),
        ),
        (
            format!(
                "query ($id: UUID!) {{ appointments(first: 50) {{ edges {{ cursor node {{ ...F }} }} }} \
                     appointment(id: $id) {{ ...F }} }} {fragment}"
            ),
            json!({ "id": ids[0] }),
        ),
    ] {
        let reply = gateway.query_with(Some("token"), &query, variables).await;
        assert_eq!((reply.status, reply.body.get("errors")), (200, None), "{query}");
    }
}

#[tokio::test]
async fn requests_beyond_its_limits_are_rejected() {
    let gateway = Gateway::on_sandbox(&[PRODUCTION, SANDBOX]).await;
    let aliases = (0..26).map(|n| format!("a{n}: __typename ")).collect::<String>();
    let depth = format!("{}__typename{}", "... { ".repeat(15), "}".repeat(15));
    let directives = "__typename @skip(if: false) ".repeat(21);
    let all = everything();
    let cost = format!("appointments(first: 100) {{ edges {{ node {all} }} nodes {all} }}");
    for (query, limit) in
        [(&*aliases, "root_fields"), (&depth, "depth"), (&directives, "directives"), (&cost, "cost")]
    {
        let query = format!("{{ __typename {query} }}");
        let reply = gateway.query(Some("sandbox-all"), &query).await;
        reply.rejected(422, "QUERY_TOO_COMPLEX");
        assert_eq!(reply.body["errors"][0]["extensions"]["limit"], json!(limit), "{reply:?}");
    }
    // More at once than a burst is, and than come back meanwhile.
    let mut raw = RawConnection::connect(&gateway).await;
    let request = raw::post("Authorization: Bearer one\r\n", &raw::query("{ __typename }"));
    let mut statuses = std::collections::BTreeMap::<u16, usize>::new();
    for _ in 0..20 {
        raw.send(request.repeat(200)).await.unwrap();
        for _ in 0..200 {
            *statuses.entry(raw.reply().await.status).or_default() += 1;
        }
        if statuses.contains_key(&429) {
            break;
        }
    }
    assert!(statuses[&200] >= 200 && statuses.contains_key(&429) && statuses.len() == 2, "{statuses:?}");
}

#[tokio::test]
async fn any_layer_may_choose_it_and_an_explicit_key_beats_it() {
    let file = TempFile::with("profile = \"production\"\n[graphql]\nintrospection = true\n");
    let introspects = async |gateway: &Gateway| {
        gateway.query(None, "{ __schema { queryType { name } } }").await.body.get("data").is_some()
    };
    let page = async |gateway: &Gateway| GatewayResponse::of(gateway.request(Method::GET, "/")).await.status;
    let of_file = Gateway::of(program(&["serve", "--config", file.path()], &[SANDBOX])).await;
    assert_eq!((introspects(&of_file).await, page(&of_file).await), (true, 404));
    let flag = Gateway::of(program(&["serve", "--profile", "production", "--graphiql"], &[SANDBOX])).await;
    assert_eq!((introspects(&flag).await, page(&flag).await), (false, 200));
    assert!(flag.stdout().contains("graphql.introspection is off"), "{}", flag.stdout());
    // A key that is set in a lower layer than the profile beats it, too.
    let mixed = program(&["serve", "--profile", "production"], &[SANDBOX, ("graphql.introspection", "true")]);
    assert!(introspects(&Gateway::of(mixed).await).await);
    let back = program(&["serve", "--config", file.path(), "--profile", "development"], &[]);
    assert_eq!(page(&Gateway::of(back).await).await, 200);
    let wrong = FinishedRun::of(program(&["serve", "--profile", "staging"], &[])).await;
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    let wrong = FinishedRun::of(program(&["serve"], &[("profile", "staging")])).await;
    assert!(wrong.code == Some(2) && wrong.stderr.contains("development, production"), "{wrong:?}");
}

#[tokio::test]
async fn check_says_which_it_is() {
    for profile in ["development", "production"] {
        let ended = FinishedRun::of(program(&["check"], &[("profile", profile), SANDBOX])).await;
        assert!(ended.stdout.contains(&format!("profile {profile}")), "{ended:?}");
    }
    let ended = FinishedRun::of(program(&["check"], &[])).await;
    assert!(ended.stdout.contains("profile development"), "{ended:?}");
    let ended = FinishedRun::of(program(&["serve"], &[PRODUCTION])).await;
    assert!(
        ended.code == Some(2) && ended.stderr.contains("upstream.url: is not set in production"),
        "{ended:?}"
    );
}
