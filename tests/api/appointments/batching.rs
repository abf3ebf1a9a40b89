//! Batching: one upstream call per distinct id of an operation, and a result for every field.

use serde_json::{Value, json};

use crate::support::{Gateway, Upstream, UpstreamResponse, id, ids, served};

#[tokio::test]
async fn fifteen_aliases_over_three_ids_are_three_calls() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let fields = |n: usize| format!("a{n}: appointment(id: \"{}\") {{ id reference status }}", id(n % 3));
    let query = format!("{{ {} }}", (0..15).map(fields).collect::<Vec<_>>().join("\n"));

    let reply = gateway.query(Some("token"), &query).await;

    let expected = (0..15).map(|n| (format!("a{n}"), served(&id(n % 3), "token", 1)));
    assert_eq!(reply.body, json!({ "data": expected.collect::<serde_json::Map<_, _>>() }));
    assert_eq!(upstream.calls(), 3);
}

#[tokio::test]
async fn both_fields_of_the_schema_share_one_batch() {
    let upstream = Upstream::start().await;
    // Without the cache, so that nothing but the batch can make one call of two.
    let gateway = Gateway::before(upstream.url(), &[("cache.ttl", "0")]).await;
    let (one, two) = (id(1), id(2));
    let query = format!(
        r#"{{ one: appointment(id: "{one}") {{ id }} both: appointmentsByIds(ids: ["{one}", "{two}"]) {{ id }} }}"#
    );
    let reply = gateway.query(Some("token"), &query).await;
    let expected = json!({ "one": { "id": one }, "both": [{ "id": one }, { "id": two }] });
    assert_eq!(reply.body, json!({ "data": expected }));
    assert_eq!(upstream.calls(), 2);
}

#[tokio::test]
async fn ids_keep_their_order_with_null_for_unknown_ones() {
    let upstream = Upstream::start().await;
    upstream.on(&id(2), |_| UpstreamResponse::status(404));
    let gateway = Gateway::before(upstream.url(), &[]).await;

    let reply = gateway.appointments("token", &[3, 1, 2, 3, 1, 4].map(id)).await;

    let expected = [3, 1, 0, 3, 1, 4].map(|n| match n {
        0 => Value::Null,
        n => served(&id(n), "token", 1),
    });
    assert_eq!(reply.body, json!({ "data": { "appointmentsByIds": expected } }));
    assert_eq!(upstream.calls(), 4);
}

#[tokio::test]
async fn no_ids_are_no_calls() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let reply = gateway.appointments("token", &[]).await;
    assert_eq!(reply.body, json!({ "data": { "appointmentsByIds": [] } }));
    assert_eq!(upstream.calls(), 0);
}

#[tokio::test]
async fn the_id_limit_of_an_operation_is_exact() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[("limits.ids", "7")]).await;

    let reply = gateway.appointments("token", &ids(0..7)).await;
    assert_eq!(reply.body["data"]["appointmentsByIds"].as_array().map(Vec::len), Some(7));
    assert_eq!(upstream.calls(), 7);

    let reply = gateway.appointments("token", &ids(10..18)).await;
    assert_eq!(reply.paths_and_codes(), [(r#"["appointmentsByIds"]"#.to_owned(), "BAD_USER_INPUT")]);
    let message = reply.body["errors"][0]["message"].as_str().unwrap();
    assert!(message.contains("limits.ids") && message.contains('8') && message.contains('7'), "{message}");
    assert_eq!(upstream.calls(), 7, "nothing is asked for an operation that is refused");
}

#[tokio::test]
async fn a_rejected_list_becomes_null_at_its_nullable_parent() {
    // GraphQL, section 6.4.4: the list is non-null, so its error makes the whole of `data` null.
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[("limits.ids", "1")]).await;
    let list = format!("appointmentsByIds(ids: {:?}) {{ id }}", ids(0..2));
    let one = format!("appointment(id: {:?}) {{ id }}", id(0));
    for query in [format!("{{ {list} }}"), format!("{{ {one} {list} }}"), format!("{{ {list} {one} }}")] {
        let reply = gateway.query(Some("token"), &query).await;
        assert_eq!(reply.paths_and_codes(), [(r#"["appointmentsByIds"]"#.to_owned(), "BAD_USER_INPUT")]);
        assert_eq!(reply.body.get("data"), Some(&Value::Null), "{query}");
    }
}

#[tokio::test]
async fn an_id_may_be_a_literal_or_a_variable_in_capitals_or_not() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let lower = "9a0f170e-0aa0-47db-ab14-4ddcdcbad061";
    let upper = lower.to_uppercase();
    let expected = json!({ "data": { "appointment": { "id": lower } } });

    for id in [lower, &upper] {
        let literal = format!(r#"{{ appointment(id: "{id}") {{ id }} }}"#);
        assert_eq!(gateway.query(Some("token"), &literal).await.body, expected);
        let variable = "query ($id: UUID!) { appointment(id: $id) { id } }";
        let reply = gateway.query_with(Some("token"), variable, json!({ "id": id })).await;
        assert_eq!(reply.body, expected);
    }
    // One id in two notations is one id: in the batch, in the cache, and upstream.
    let both = gateway.appointments("token", &[upper, lower.to_owned()]).await;
    assert_eq!(
        both.body["data"]["appointmentsByIds"],
        json!([served(lower, "token", 1), served(lower, "token", 1)])
    );
    assert_eq!(upstream.seen(|seen| seen.calls.iter().map(|it| it.id.clone()).collect::<Vec<_>>()), [lower]);
}

#[tokio::test]
async fn malformed_uuids_are_rejected_without_a_call() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let good = id(1);
    for bad in [
        json!("9a0f170e"),
        json!(""),
        json!("9a0f170e0aa047dbab144ddcdcbad061"),
        json!("{9a0f170e-0aa0-47db-ab14-4ddcdcbad061}"),
        json!("../../../etc/passwd"),
        json!(1),
        json!(null),
        json!({}),
    ] {
        let one = "query ($id: UUID!) { appointment(id: $id) { id } }";
        let reply = gateway.query_with(Some("token"), one, json!({ "id": bad })).await;
        assert_eq!((reply.status, reply.codes()), (422, vec!["BAD_USER_INPUT"]), "{bad}");
        assert_eq!(reply.body.get("data"), None, "{bad}");

        let many = "query ($ids: [UUID!]!) { appointmentsByIds(ids: $ids) { id } }";
        let reply = gateway.query_with(Some("token"), many, json!({ "ids": [good, bad] })).await;
        assert_eq!((reply.status, reply.codes()), (422, vec!["BAD_USER_INPUT"]), "{bad}");
        assert_eq!(reply.body.get("data"), None, "{bad}");

        let literal = format!("{{ appointment(id: {bad}) {{ id }} }}");
        let reply = gateway.query(Some("token"), &literal).await;
        assert_eq!(reply.status, 422, "{literal}");
        assert_eq!(reply.body.get("data"), None, "{literal}");
    }
    assert_eq!(upstream.calls(), 0);
}
