//! Arrays of operations in one request: results, order, limits and isolation, and the number of upstream calls.

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestCaseError, TestRunner},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    Gateway, GatewayResponse, Upstream, UpstreamResponse, id,
    persisted_query::{by_hash, registering},
    served,
};

const GRAPHQL: &str = "application/graphql-response+json";
const JSON: &str = "application/json";

/// Sends an array of operations as `token`, and accepts `accept`.
async fn send(gateway: &Gateway, token: Option<&str>, accept: &str, array: &Value) -> GatewayResponse {
    let mut request = gateway
        .request(Method::POST, "/graphql")
        .header("content-type", JSON)
        .header("accept", accept)
        .body(array.to_string());
    if let Some(token) = token {
        request = request.bearer_auth(gateway.secret(token));
    }
    GatewayResponse::of(request).await
}

/// An upstream that does not return a cancelled appointment.
async fn with_cancellations() -> Upstream {
    let upstream = Upstream::start().await;
    upstream.on("cancel", |_| UpstreamResponse::text(204, "text/plain", ""));
    upstream
}

fn one(n: usize) -> Value {
    json!({
        "query": "query One($id: UUID!) { appointment(id: $id) { id reference status } }",
        "operationName": "One", "variables": { "id": id(n) },
    })
}

fn typename() -> Value {
    json!({ "query": "{ __typename }" })
}

fn cancel(n: usize) -> Value {
    json!({
        "query": "mutation ($id: UUID!) { cancelAppointment(id: $id) { appointment { id } userErrors { message } } }",
        "variables": { "id": id(n) },
    })
}

/// The codes of each result.
fn codes(reply: &GatewayResponse) -> Vec<Vec<&str>> {
    let results = reply.body.as_array().unwrap_or_else(|| panic!("an array: {reply:?}"));
    let errors = results.iter().map(|it| it["errors"].as_array().map_or(&[][..], Vec::as_slice));
    errors.map(|it| it.iter().map(|it| it["extensions"]["code"].as_str().unwrap()).collect()).collect()
}

#[track_caller]
fn assert_array(reply: &GatewayResponse) {
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.headers["content-type"], "application/json; charset=utf-8");
}

#[tokio::test]
async fn queries_share_one_loader_and_keep_their_order() {
    let upstream = Upstream::start().await;
    // Without the cache, so that nothing but the loader can make one call of two.
    let gateway = Gateway::before(upstream.url(), &[("cache.ttl", "0")]).await;
    for accept in [JSON, GRAPHQL, "*/*"] {
        let before = upstream.calls();
        let reply =
            send(&gateway, Some("token"), accept, &json!([one(3), one(1), typename(), one(3), one(2)])).await;
        assert_array(&reply);
        let results = reply.body.as_array().unwrap();
        let ids: Vec<_> = results.iter().map(|it| it["data"]["appointment"]["id"].clone()).collect();
        assert_eq!(ids, [json!(id(3)), json!(id(1)), Value::Null, json!(id(3)), json!(id(2))]);
        assert_eq!(results[2], json!({ "data": { "__typename": "Query" } }));
        assert_eq!(results[0], results[3], "an id has one outcome");
        assert_eq!(upstream.calls() - before, 3, "one call for each distinct id");
    }
}

#[tokio::test]
async fn a_failing_operation_leaves_the_others_alone() {
    let upstream = Upstream::start().await;
    upstream.on(&id(2), |_| UpstreamResponse::status(403));
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let failing = [
        (json!({ "query": "{ a " }), "GRAPHQL_PARSE_FAILED"),
        (json!({ "query": "{ unknown }" }), "GRAPHQL_VALIDATION_FAILED"),
        (json!({ "query": "query ($id: UUID!) { appointment(id: $id) { id } }" }), "BAD_USER_INPUT"),
        (one(2), "FORBIDDEN"),
        (json!({}), "BAD_REQUEST"),
        (json!({ "query": null }), "BAD_REQUEST"),
        (json!({ "query": 5 }), "BAD_REQUEST"),
        (json!({ "query": "{ __typename }", "operationName": 5 }), "BAD_REQUEST"),
        (json!({ "query": "{ __typename }", "variables": [] }), "BAD_REQUEST"),
        (json!({ "query": "{ __typename }", "extensions": 5 }), "BAD_REQUEST"),
        (json!(5), "BAD_REQUEST"),
        (json!(null), "BAD_REQUEST"),
        (json!([typename()]), "BAD_REQUEST"),
        (json!({ "documentId": "sha256:1" }), "BAD_REQUEST"),
        (json!({ "doc_id": "1" }), "BAD_REQUEST"),
        (json!({ "id": "1" }), "BAD_REQUEST"),
        (
            json!({ "query": format!("subscription {{ appointmentChanged(id: \"{}\") {{ id }} }}", id(1)) }),
            "BAD_REQUEST",
        ),
    ];
    for (operation, code) in failing {
        for array in [json!([one(1), operation, one(3)]), json!([operation, one(1), one(3)])] {
            let reply = send(&gateway, Some("token"), GRAPHQL, &array).await;
            assert_array(&reply);
            let place = usize::from(array[0] == one(1));
            let mut expected = vec![Vec::new(); 3];
            expected[place] = vec![code];
            assert_eq!(codes(&reply), expected, "{operation}");
            assert_eq!(reply.body[2]["data"]["appointment"], served(&id(3), "token", 1));
        }
    }
    let reply = send(
        &gateway,
        Some("token"),
        GRAPHQL,
        &json!([typename(), { "query": "{ __typename }",
        "id": "7", "operationName": null, "variables": null, "extensions": null, "other": [] }]),
    )
    .await;
    assert_eq!(codes(&reply), [[""; 0]; 2], "unknown and null parameters are ignored");
}

#[tokio::test]
async fn rejected_document_ids_are_named() {
    let gateway = Gateway::on_sandbox(&[]).await;
    for name in ["documentId", "doc_id", "id"] {
        let reply = send(&gateway, None, JSON, &json!([typename(), { name: "1" }])).await;
        let message = reply.body[1]["errors"][0]["message"].as_str().unwrap();
        assert!(message.contains(&format!("\"{name}\"")), "{message}");
    }
}

#[tokio::test]
async fn limits_reject_the_whole_array() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[("limits.batch", "3"), ("limits.cost", "100")]).await;
    let costly = |n: usize| {
        let ids: Vec<_> = (0..n).map(id).collect();
        json!({ "query": "query ($ids: [UUID!]!) { appointmentsByIds(ids: $ids) { id } }", "variables": { "ids": ids } })
    };
    for (array, code, limit) in [
        (json!([]), "BAD_REQUEST", Value::Null),
        (json!([one(1), one(2), one(3), one(4)]), "BAD_REQUEST", json!("batch")),
        (json!([costly(5), costly(4)]), "QUERY_TOO_COMPLEX", json!("cost")),
    ] {
        for (accept, status) in [(GRAPHQL, 422), (JSON, 400)] {
            let reply = send(&gateway, Some("token"), accept, &array).await;
            reply.rejected(status, code);
            assert_eq!(reply.headers["content-type"], "application/json; charset=utf-8");
            assert_eq!(reply.body["errors"][0]["extensions"]["limit"], limit, "{array}");
        }
    }
    assert_eq!(upstream.calls(), 0);
    let reply = send(&gateway, Some("token"), GRAPHQL, &json!([costly(10), costly(4)])).await;
    assert_array(&reply);
    assert_eq!(
        codes(&reply),
        [vec!["QUERY_TOO_COMPLEX"], vec![]],
        "an operation that will not run does not count"
    );
    assert_eq!(upstream.calls(), 4);

    let off = Gateway::before(upstream.url(), &[("limits.batch", "0")]).await;
    let reply = send(&off, Some("token"), GRAPHQL, &json!([typename()])).await;
    assert!(reply.rejected(422, "BAD_REQUEST").contains("limits.batch"));
}

#[tokio::test]
async fn each_limit_counts_the_sum() {
    let operation = "{ a: __typename @skip(if: false) b: __typename @skip(if: false) }";
    for (limit, maximum) in [
        ("query", "100B"),
        ("tokens", "40"),
        ("fields", "3"),
        ("root_fields", "3"),
        ("aliases", "3"),
        ("directives", "3"),
        ("cost", "3"),
    ] {
        let gateway = Gateway::on_sandbox(&[(&format!("limits.{limit}"), maximum)]).await;
        // The second round finds the documents in the cache.
        for _ in 0..2 {
            let reply = send(&gateway, None, GRAPHQL, &json!([{ "query": operation }])).await;
            assert_array(&reply);
            assert_eq!(codes(&reply), [[""; 0]], "{limit}");
            let reply =
                send(&gateway, None, GRAPHQL, &json!([{ "query": operation }, { "query": operation }])).await;
            reply.rejected(422, "QUERY_TOO_COMPLEX");
            assert_eq!(reply.body["errors"][0]["extensions"]["limit"], limit);
        }
    }
}

#[tokio::test]
async fn ids_and_items_count_over_the_whole_array() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[("limits.ids", "2")]).await;
    let reply =
        send(&gateway, Some("token"), GRAPHQL, &json!([one(1), one(2), one(1), one(3), one(2)])).await;
    assert_array(&reply);
    assert_eq!(codes(&reply), [vec![], vec![], vec![], vec!["BAD_USER_INPUT"], vec![]]);
    assert_eq!(reply.body[3]["errors"][0]["extensions"]["limit"], "ids");
    assert_eq!(upstream.calls(), 2);

    let gateway = Gateway::before(upstream.url(), &[("limits.items", "2")]).await;
    let reply = send(&gateway, Some("token"), GRAPHQL, &json!([one(1), one(1), one(1)])).await;
    assert_eq!(codes(&reply), [vec![], vec![], vec!["QUERY_TOO_COMPLEX"]]);
}

#[tokio::test]
async fn the_response_size_counts_the_sum() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[("limits.answer", "1KiB"), ("limits.batch", "20")]).await;
    let array = Value::Array((0..12).map(|n| one(n % 3)).collect());
    let reply = send(&gateway, Some("token"), GRAPHQL, &array).await;
    assert_array(&reply);
    let codes = codes(&reply);
    assert!(codes[0].is_empty() && codes[11] == ["QUERY_TOO_COMPLEX"], "{codes:?}");
    assert_eq!(reply.body[11]["errors"][0]["extensions"]["limit"], "answer");
}

#[tokio::test]
async fn every_operation_takes_a_token_of_the_rate() {
    let upstream = Upstream::start().await;
    let settings = [("rate_limit.per_second", "1"), ("rate_limit.burst", "5")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let array = json!([one(1), one(2), one(1), one(2)]);
    assert_array(&send(&gateway, Some("token"), GRAPHQL, &array).await);
    // From the response cache.
    let refused = send(&gateway, Some("token"), GRAPHQL, &array).await;
    refused.rejected(429, "RATE_LIMITED");
    let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((2..=4).contains(&wait), "until there are four: {wait}");
    assert_array(&send(&gateway, Some("other"), GRAPHQL, &array).await);
    let larger = json!([one(1), one(1), one(1), one(1), one(1), one(1)]);
    let refused = send(&gateway, Some("third"), GRAPHQL, &larger).await;
    assert!(refused.rejected(400, "BAD_REQUEST").contains("rate_limit.burst"), "it would never be admitted");
    assert_eq!(upstream.calls(), 4);
}

#[tokio::test]
async fn an_array_with_a_mutation_runs_in_order() {
    let upstream = with_cancellations().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let array = json!([one(1), cancel(1), one(1), { "query": "{" }, cancel(2), one(2)]);
    let reply = send(&gateway, Some("token"), GRAPHQL, &array).await;
    assert_array(&reply);
    assert_eq!(codes(&reply), [vec![], vec![], vec![], vec!["GRAPHQL_PARSE_FAILED"], vec![], vec![]]);
    let calls = upstream.seen(|seen| {
        let calls = seen.calls.iter().filter(|call| call.method != "GET");
        calls.map(|call| call.path.clone()).collect::<Vec<_>>()
    });
    assert!(calls[0].contains(&id(1)) && calls[1].contains(&id(2)), "{calls:?}");
    assert_eq!(calls.len(), 2);
    let first = &reply.body[0]["data"]["appointment"];
    assert_eq!(first, &served(&id(1), "token", 1), "a read before the change");
    // Sent again, it is executed again.
    send(&gateway, Some("token"), GRAPHQL, &array).await;
    assert_eq!(upstream.seen(|seen| seen.calls.iter().filter(|call| call.method != "GET").count()), 4);
}

#[tokio::test]
async fn reads_after_a_change_see_it() {
    let upstream = with_cancellations().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let reply = send(&gateway, Some("token"), GRAPHQL, &json!([one(1), cancel(1), one(1)])).await;
    assert_array(&reply);
    let status = |n: usize| reply.body[n]["data"]["appointment"]["status"].clone();
    assert_eq!(upstream.seen(|seen| seen.calls.iter().filter(|call| call.method == "GET").count()), 2);
    assert_eq!((status(0), status(2)), (json!("call 1"), json!("call 2")));
}

#[tokio::test]
async fn a_repeated_array_is_served_from_the_response_cache() {
    let upstream = with_cancellations().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let array = json!([one(1), typename(), one(2)]);
    let first = send(&gateway, Some("token"), GRAPHQL, &array).await;
    let second = send(&gateway, Some("token"), JSON, &array).await;
    assert_array(&second);
    assert_eq!(first.body, second.body);
    let metrics = gateway.metrics().await;
    assert_eq!(metrics["gateway_answer_lookups_total{outcome=\"hit\"}"], 1.0);
    assert_eq!(metrics["gateway_operations_total{kind=\"query\"}"], 6.0);
    assert_eq!(metrics["gateway_batches_total{from=\"cache\"}"], 1.0);
    assert_eq!(metrics["gateway_batches_total{from=\"execution\"}"], 1.0);
    assert_eq!(upstream.calls(), 2);

    // A change of one part ends the copy.
    gateway.cancel("token", &id(2)).await;
    let third = send(&gateway, Some("token"), GRAPHQL, &array).await;
    assert_eq!(third.body[0], first.body[0]);
    assert_eq!(gateway.metrics().await["gateway_answer_lookups_total{outcome=\"hit\"}"], 1.0);
}

#[tokio::test]
async fn no_caller_receives_the_array_of_another() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let array = json!([one(1), one(2)]);
    for _ in 0..2 {
        for token in ["one", "other"] {
            let reply = send(&gateway, Some(token), GRAPHQL, &array).await;
            for n in 0..2 {
                assert_eq!(reply.body[n]["data"]["appointment"]["reference"], token);
            }
        }
    }
    assert_eq!(upstream.calls(), 4);
    let reply = send(&gateway, None, JSON, &array).await;
    assert_eq!(codes(&reply), [["UNAUTHENTICATED"]; 2]);
    assert_eq!(upstream.calls(), 4);
}

#[tokio::test]
async fn without_a_credential_nothing_is_fetched() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    for (array, accept, expected) in [
        (json!([one(1), one(2)]), GRAPHQL, None),
        (json!([one(1), { "query": "{" }]), GRAPHQL, None),
        (json!([one(1), one(2)]), JSON, Some([vec!["UNAUTHENTICATED"], vec!["UNAUTHENTICATED"]])),
        (json!([one(1), typename()]), GRAPHQL, Some([vec!["UNAUTHENTICATED"], vec![]])),
    ] {
        let reply = send(&gateway, None, accept, &array).await;
        match expected {
            None => {
                reply.rejected(401, "UNAUTHENTICATED");
                assert_eq!(reply.headers["www-authenticate"], "Bearer");
            }
            Some(expected) => {
                assert_array(&reply);
                assert_eq!(codes(&reply), expected, "{array}");
            }
        }
    }
    assert_eq!(upstream.calls(), 0);
}

#[tokio::test]
async fn an_array_that_does_not_run_has_the_status_of_its_first_operation() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let (syntax, unknown, malformed) =
        (json!({ "query": "{" }), json!({ "query": "{ unknown }" }), json!({ "query": 5 }));
    for (first, other, status) in
        [(&syntax, &unknown, 200), (&unknown, &syntax, 200), (&malformed, &syntax, 400)]
    {
        for accept in [GRAPHQL, JSON] {
            let reply = send(&gateway, None, accept, &json!([first, other])).await;
            assert_eq!(reply.status, status, "{first} {accept}");
            assert_eq!(reply.headers["content-type"], "application/json; charset=utf-8");
            assert!(codes(&reply).iter().all(|codes| codes.len() == 1));
        }
    }
}

#[tokio::test]
async fn an_array_of_unknown_hashes_asks_for_their_texts() {
    let hash = |text: &str| {
        let mut parameters = by_hash(text);
        // A number that some clients give each operation.
        parameters["id"] = json!("0");
        parameters
    };
    let array = json!([hash("{ __typename }"), hash("{ __schema { queryType { name } } }")]);
    for statuses in ["2026", "2025"] {
        let gateway = Gateway::on_sandbox(&[("http.statuses", statuses)]).await;
        for accept in [GRAPHQL, JSON, "application/graphql-response+json,application/json;q=0.9"] {
            let reply = send(&gateway, Some("token"), accept, &array).await;
            assert_array(&reply);
            assert_eq!(codes(&reply), [["PERSISTED_QUERY_NOT_FOUND"], ["PERSISTED_QUERY_NOT_FOUND"]]);
        }
    }
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let text = format!("{{ appointment(id: {:?}) {{ id reference status }} }}", id(1));
    for parameters in [registering(&text), hash(&text)] {
        let reply = send(&gateway, Some("token"), GRAPHQL, &json!([parameters])).await;
        assert_eq!(reply.body, json!([{ "data": { "appointment": served(&id(1), "token", 1) } }]));
    }
}

#[tokio::test]
async fn other_transports_and_idempotency_keys_are_refused() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let array = json!([typename()]).to_string();
    let post = async |name: &str, value: &str| {
        let request = gateway.request(Method::POST, "/graphql").header("content-type", JSON);
        GatewayResponse::of(request.header(name, value).body(array.clone())).await
    };
    assert!(post("idempotency-key", "1").await.rejected(400, "BAD_REQUEST").contains("Idempotency-Key"));
    assert!(
        post("accept", "text/event-stream").await.rejected(406, "BAD_REQUEST").contains("server-sent events")
    );
    let multipart = gateway.request(Method::POST, "/graphql").bearer_auth("token");
    let multipart = multipart.header("content-type", "multipart/form-data; boundary=x").body(array.clone());
    GatewayResponse::of(multipart).await.rejected(415, "BAD_REQUEST");
}

#[tokio::test]
async fn json_that_cannot_be_read_is_refused_with_its_position() {
    let gateway = Gateway::on_sandbox(&[]).await;
    for body in [
        "[",
        "[{}",
        "[{}] private",
        "[{\"query\": \"{ __typename }\"},]",
        "[{\"query\": \"private\\ud800\"}]",
        "[{\"query\": \"{ a }\", \"variables\": {\"private\": 1e999}}]",
    ] {
        let request = gateway.request(Method::POST, "/graphql").header("content-type", JSON).body(body);
        let reply = GatewayResponse::of(request).await;
        let message = reply.rejected(400, "BAD_REQUEST");
        assert!(message.contains("line 1") && !message.contains("private"), "{body}: {message}");
    }
}

/// For any operations, an array has the results that they have in requests of their own.
#[test]
fn an_array_has_the_results_of_its_operations() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (upstream, gateway) = runtime.block_on(async {
        let upstream = Upstream::answering(|call| match call.id.as_bytes().last() {
            Some(b'2') => UpstreamResponse::status(404),
            Some(b'3') => UpstreamResponse::status(403),
            _ => UpstreamResponse::json(200, &json!({ "data": { "id": call.id, "reference": "r" } })),
        })
        .await;
        let gateway = Gateway::before(upstream.url(), &[]).await;
        (upstream, gateway)
    });
    let key = |n: usize| {
        prop::sample::select(&["a", "b", "appointment"][..]).prop_map(move |key| format!("{key}{n}"))
    };
    let field = |n: usize| {
        (key(n), 0..6_usize, 0..5_usize).prop_map(|(key, n, kind)| match kind {
            0 => format!("{key}: __typename"),
            1 => format!("{key}: appointment(id: \"{}\") {{ id status }}", id(n)),
            2 => format!("{key}: appointmentsByIds(ids: [\"{}\", \"{}\"]) {{ reference }}", id(n), id(1)),
            3 => format!("{key}: appointment(id: $id) {{ id }}"),
            _ => format!("{key}: unknown{n}"),
        })
    };
    let operation = (vec((0..4_usize).prop_flat_map(field), 1..4), 0..6_usize, any::<bool>());
    let operation = operation.prop_map(|(fields, n, is_named)| {
        let (text, variables) = (fields.join(" "), json!({ "id": id(n) }));
        match (text.contains("$id"), is_named) {
            (true, _) => {
                json!({ "query": format!("query ($id: UUID!) {{ {text} }}"), "variables": variables })
            }
            (false, true) => json!({ "query": format!("query Q {{ {text} }}"), "operationName": "Q" }),
            (false, false) => json!({ "query": format!("{{ {text} }}") }),
        }
    });
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(100);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let result = runner.run(&vec(operation, 1..10), |operations| {
        runtime.block_on(async {
            let array = send(&gateway, Some("token"), JSON, &json!(operations)).await;
            let mut expected = Vec::new();
            for operation in &operations {
                let request = gateway.request(Method::POST, "/graphql").header("content-type", JSON);
                let request = request.bearer_auth(gateway.secret("token")).body(operation.to_string());
                expected.push(GatewayResponse::of(request).await.body);
            }
            prop_assert_eq!(array.status, 200);
            prop_assert_eq!(array.body, Value::Array(expected));
            Ok::<_, TestCaseError>(())
        })
    });
    drop((gateway, upstream));
    result.unwrap();
}
