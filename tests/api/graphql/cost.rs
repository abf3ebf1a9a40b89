//! The cost of operations, by the rule in `docs/api.md`. Operations above the limit are not executed.

use serde_json::{Value, json};

use crate::support::{Gateway, Socket, Upstream, everything, id};

/// The example of `docs/api.md`.
#[tokio::test]
async fn limits_cost_bounds_the_cost_of_an_operation() {
    let query =
        r#"query ($ids: [UUID!]!) { appointmentsByIds(ids: $ids) { id claimant { name data { value } } } }"#;
    let variables = json!({ "ids": [id(1), id(2)] });
    for (limit, is_served) in [(49, true), (48, false)] {
        let upstream = Upstream::start().await;
        let gateway = Gateway::before(upstream.url(), &[("limits.cost", &limit.to_string())]).await;
        let reply = gateway.query_with(Some("token"), query, variables.clone()).await;
        if is_served {
            assert_eq!((reply.status, reply.body.get("errors"), upstream.calls()), (200, None, 2));
            continue;
        }
        reply.rejected(422, "QUERY_TOO_COMPLEX");
        let extensions = json!({ "code": "QUERY_TOO_COMPLEX", "limit": "cost", "maximum": 48, "value": 49 });
        assert_eq!(reply.body["errors"][0]["extensions"], extensions);
        assert_eq!((gateway.rejections("cost").await, upstream.calls()), (1.0, 0));
        // Skipped and repeated fields cost nothing; values of variables count.
        let cheaper = query.replace("data", "data @skip(if: true)").replace("id claimant", "id id claimant");
        let reply = gateway.query_with(Some("token"), &cheaper, variables.clone()).await;
        assert_eq!((reply.status, reply.body.get("errors")), (200, None), "{reply:?}");
    }
}

#[tokio::test]
async fn cost_counts_list_lengths_and_upstream_calls() {
    let gateway = Gateway::on_sandbox(&[("limits.cost", "1")]).await;
    let one = id(1);
    let appointment = format!(r#"appointment(id: "{one}")"#);
    let by_ids = |count: usize| format!("appointmentsByIds(ids: {:?})", vec![&one; count]);
    for (query, variables, cost) in [
        ("{ a: __typename b: __typename }".to_owned(), json!({}), 2),
        (format!("{{ {appointment} {{ id }} }}"), json!({}), 12),
        (format!("{{ {appointment} {{ claimant {{ data {{ id name }} }} }} }}"), json!({}), 33),
        (format!("{{ a: {appointment} {{ id }} b: {appointment} {{ id phase }} }}"), json!({}), 25),
        (format!("{{ {} {{ id }} }}", by_ids(7)), json!({}), 78),
        (format!("{{ __typename {} {{ id }} }}", by_ids(0)), json!({}), 1 + 1),
        // A value in place of a list is a list of one.
        (format!(r#"{{ appointmentsByIds(ids: "{one}") {{ id }} }}"#), json!({}), 12),
        (
            "query ($ids: [UUID!]!) { appointmentsByIds(ids: $ids) { id } }".to_owned(),
            json!({ "ids": vec![&one; 9] }),
            100,
        ),
        (
            format!("query ($id: UUID!) {{ appointmentsByIds(ids: [$id, {one:?}]) {{ id }} }}"),
            json!({ "id": one }),
            23,
        ),
        ("{ appointments { totalCount nodes { id } } }".to_owned(), json!({}), 21 + 1 + 1 + 25),
        (
            "{ appointments(first: 3) { nodes { id phase } edges { cursor node { id } } } }".to_owned(),
            json!({}),
            21 + 7 + 10,
        ),
        (
            "query ($n: Int) { appointments(first: $n) { nodes { id } } }".to_owned(),
            json!({ "n": 40 }),
            21 + 41,
        ),
        ("query ($n: Int) { appointments(first: $n) { nodes { id } } }".to_owned(), json!({}), 21 + 26),
        ("query ($n: Int = 5) { appointments(first: $n) { nodes { id } } }".to_owned(), json!({}), 21 + 6),
        (
            "query ($n: Int) { appointments(first: $n) { nodes { id } } }".to_owned(),
            json!({ "n": null }),
            21 + 26,
        ),
        // Invalid values fail with their own error.
        ("{ appointments(first: 2147483647) { nodes { id } } }".to_owned(), json!({}), 21 + 101),
        ("{ appointments(first: -5) { nodes { id } } }".to_owned(), json!({}), 21 + 1),
        (
            format!("mutation {{ cancelAppointment(id: {one:?}) {{ userErrors {{ message }} }} }}"),
            json!({}),
            11 + 11,
        ),
        ("{ __schema { types { fields { name } } } }".to_owned(), json!({}), 1 + 1 + 10 * (1 + 10)),
        (
            format!(
                "{{ ...F ...F }} fragment F on Query {{ {appointment} {{ id }} ... {{ {appointment} {{ id }} }} }}"
            ),
            json!({}),
            12,
        ),
    ] {
        let reply = gateway.query_with(Some("sandbox-all"), &query, variables).await;
        reply.rejected(422, "QUERY_TOO_COMPLEX");
        let extensions = &reply.body["errors"][0]["extensions"];
        assert_eq!((&extensions["limit"], &extensions["value"]), (&json!("cost"), &json!(cost)), "{query}");
    }
}

/// Also over the transports of subscriptions.
#[tokio::test]
async fn a_subscription_has_a_cost_as_well() {
    let gateway = Gateway::on_sandbox(&[("limits.cost", "11")]).await;
    let mut socket = Socket::connect(&gateway, "sandbox-all").await;
    socket.subscribe("1", &format!("subscription {{ appointmentChanged(id: {:?}) {{ id }} }}", id(1))).await;
    let error = socket.receive().await;
    assert_eq!(error["type"], json!("error"));
    assert_eq!(error["payload"][0]["extensions"]["value"], json!(12));
    socket.subscribe("1", "{ __typename }").await;
    assert_eq!(socket.receive().await["payload"]["data"], json!({ "__typename": "Query" }));
}

/// Any operation above the limit is rejected with its cost, in negligible time.
#[tokio::test]
async fn a_cost_beyond_all_numbers_is_a_number() {
    let gateway = Gateway::on_sandbox(&[("limits.depth", "50"), ("limits.cost", "1000000000")]).await;
    let nested = format!("{}name{}", "{ fields { type ".repeat(11), "} }".repeat(11));
    let types = |inner: &str| format!("{{ __schema {{ types {inner} }} }}");
    let deep = types(&nested.replace("type name", "type { name }"));
    let reply = gateway.query(None, &deep).await;
    assert_eq!(reply.codes(), ["QUERY_TOO_COMPLEX"], "{reply:?}");
    let value = &reply.body["errors"][0]["extensions"]["value"];
    assert!(value.as_u64().is_some_and(|value| value > 1_000_000_000_000), "{value:?}");
    assert_ne!(reply.body.get("data"), Some(&Value::Null));
}

#[tokio::test]
async fn the_costs_in_the_documents_are_right() {
    let gateway = Gateway::on_sandbox(&[("limits.cost", "1")]).await;
    let reply = gateway.query(None, include_str!("../../fixtures/introspection.graphql")).await;
    assert_eq!(reply.body["errors"][0]["extensions"]["value"], json!(51_853), "{reply:?}");
    let all = format!("query ($ids: [UUID!]!) {{ appointmentsByIds(ids: $ids) {} }}", everything());
    let reply = gateway.query_with(None, &all, json!({ "ids": vec![id(1); 100] })).await;
    let value = reply.body["errors"][0]["extensions"]["value"].as_u64().unwrap();
    assert!((12_000..13_000).contains(&value), "adapt the cost in docs/api.md: {value}");
}
