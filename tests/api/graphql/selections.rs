//! Fragments, directives and merged fields, as in the GraphQL specification.

use serde_json::{Value, json};

use crate::support::{Call, Gateway, Upstream, UpstreamResponse, id, ids};

async fn text(gateway: &Gateway, query: &str, variables: Value) -> String {
    let request = gateway
        .request(reqwest::Method::POST, "/graphql")
        .header("content-type", "application/json")
        .bearer_auth("token")
        .body(json!({ "query": query, "variables": variables }).to_string());
    request.send().await.unwrap().text().await.unwrap()
}

#[tokio::test]
async fn a_change_that_is_selected_twice_is_sent_once() {
    let upstream = Upstream::answering(Call::changed).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let answer = text(
        &gateway,
        r#"mutation {
            createAppointment(input: { appointmentAt: "2031-03-01T09:00:00Z" }) { appointment { id } }
            ...More
            createAppointment(input: { appointmentAt: "2031-03-01T09:00:00Z" }) { userErrors { message } }
        }
        fragment More on Mutation {
            createAppointment(input: { appointmentAt: "2031-03-01T09:00:00Z" }) { appointment { status } }
        }"#,
        json!({}),
    )
    .await;
    let expected = r#"{"data":{"createAppointment":{"appointment":{"id":"00000000-0000-4000-8000-000000000c8a","status":"created"},"userErrors":[]}}}"#;
    assert_eq!(upstream.calls(), 1, "{answer}");
    let created = crate::support::CREATED;
    assert_eq!(answer, expected.replace("00000000-0000-4000-8000-000000000c8a", created));
}

#[tokio::test]
async fn behind_a_change_that_failed_nothing_is_sent() {
    let upstream = Upstream::answering(|call| {
        if call.method == "PATCH" { UpstreamResponse::status(409) } else { call.changed() }
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    for first in [
        format!(r#"updateAppointment(id: "{}", input: {{ status: "waiting" }})"#, id(1)),
        format!(r#"updateAppointment(id: "{}", input: {{ features: null }})"#, id(1)),
    ] {
        let before = upstream.seen(|seen| seen.calls.iter().filter(|call| call.method == "POST").count());
        let query = format!(
            r#"mutation {{
                sent: cancelAppointment(id: "{}") {{ userErrors {{ message }} }}
                failed: {first} {{ userErrors {{ message }} }}
                behind: createAppointment(input: {{ appointmentAt: "2031-03-01T09:00:00Z" }}) {{ userErrors {{ message }} }}
            }}"#,
            id(2)
        );
        let reply = gateway.query(Some("token"), &query).await;
        assert_eq!(reply.body["data"], Value::Null);
        assert_eq!(reply.body["errors"].as_array().map(Vec::len), Some(1), "{}", reply.body);
        assert_eq!(reply.body["errors"][0]["path"], json!(["failed"]));
        let posts = upstream.seen(|seen| seen.calls.iter().filter(|call| call.method == "POST").count());
        assert_eq!(posts, before + 1, "only what came before it");
    }
}

#[tokio::test]
async fn an_object_of_which_everything_is_skipped_is_empty_and_there() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let query = r"query ($id: UUID!, $no: Boolean!, $yes: Boolean!) {
        appointment(id: $id) { features { bandwidth @include(if: $no) } id @skip(if: $yes) }
        other: appointment(id: $id) { ...Nothing @include(if: $no) }
        gone: appointment(id: $id) @skip(if: $yes) { id }
    }
    fragment Nothing on Appointment { id }";
    let answer = text(&gateway, query, json!({ "id": id(1), "no": false, "yes": true })).await;
    assert_eq!(answer, r#"{"data":{"appointment":{"features":{}},"other":{}}}"#);
}

/// Also one that looks like the gateway's own: nothing is run and left out.
#[tokio::test]
async fn an_alias_is_the_clients_whatever_it_is() {
    let upstream = Upstream::answering(Call::changed).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    for alias in ["__nothing", "nothing", "__typename", "__", "_"] {
        let query = format!(
            r"query ($id: UUID!) {{
                {alias}: __typename
                appointment(id: $id) {{ {alias}: id features {{ {alias}: __typename }} }}
            }}"
        );
        let answer = text(&gateway, &query, json!({ "id": id(1) })).await;
        let expected = format!(
            r#"{{"data":{{"{alias}":"Query","appointment":{{"{alias}":"{}","features":{{"{alias}":"Features"}}}}}}}}"#,
            id(1)
        );
        assert_eq!(answer, expected);
        let answer = text(&gateway, &format!("{{ {alias}: __typename }}"), json!({})).await;
        assert_eq!(answer, format!(r#"{{"data":{{"{alias}":"Query"}}}}"#));

        let before = upstream.calls();
        let query = format!(
            r"mutation ($id: UUID!) {{ {alias}: cancelAppointment(id: $id) {{ {alias}: userErrors {{ message }} }} }}"
        );
        let answer = text(&gateway, &query, json!({ "id": id(1) })).await;
        assert_eq!(upstream.calls(), before + 1);
        assert_eq!(answer, format!(r#"{{"data":{{"{alias}":{{"{alias}":[]}}}}}}"#));
    }
}

#[tokio::test]
async fn fields_keep_the_order_of_the_query_at_every_depth() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    // More fields than the executor looks at in one go.
    let many = (0..45).map(|n| format!("f{n}: reference")).collect::<Vec<_>>();
    let query = format!(
        "query ($id: UUID!) {{ appointment(id: $id) {{ first: features {{ all {{ name }} }} {} last: id }} z: __typename }}",
        many.join(" ")
    );
    let answer = text(&gateway, &query, json!({ "id": id(1) })).await;
    let mut at = 0;
    for key in std::iter::once("first".to_owned())
        .chain((0..45).map(|n| format!("f{n}")))
        .chain(["last".into(), "z".into()])
    {
        let found = answer.find(&format!("\"{key}\":")).unwrap_or_else(|| panic!("{key} in {answer}"));
        assert!(found >= at, "{key} comes too early in {answer}");
        at = found;
    }
}

#[tokio::test]
async fn an_operation_is_judged_with_the_document_and_run_by_itself() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let two = format!(
        r#"query A($id: String) {{ a: __typename appointments(after: $id) {{ totalCount }} }}
        query B($id: UUID!) {{ appointment(id: $id) {{ id }} }} query C {{ appointment(id: "{}") {{ id }} }}"#,
        id(1)
    );
    let ask = async |query: String, name: &str| {
        let body = json!({ "query": query, "operationName": name }).to_string();
        let request = gateway
            .request(reqwest::Method::POST, "/graphql")
            .header("content-type", "application/json")
            .header("accept", "application/graphql-response+json")
            .bearer_auth("token")
            .body(body);
        crate::support::GatewayResponse::of(request).await
    };
    assert_eq!(ask(two.clone(), "C").await.body, json!({ "data": { "appointment": { "id": id(1) } } }));
    let reply = ask(two.clone(), "B").await;
    assert_eq!((reply.status, reply.codes()), (422, vec!["BAD_USER_INPUT"]));
    // Another operation's fault is the document's.
    let reply = ask(two.replace("totalCount", "bogus"), "C").await;
    assert_eq!((reply.status, reply.codes()), (422, vec!["GRAPHQL_VALIDATION_FAILED"]));
    // Unused definitions are validated too, though not executed.
    for query in [
        "query ($x: Int) { appointments(bogus: $x) { totalCount } }",
        r#"subscription ($x: Int) { appointmentChanged(id: "00000000-0000-4000-8000-000000000000", bogus: $x) { id } }"#,
    ] {
        assert_eq!(
            gateway.query(Some("token"), query).await.codes(),
            ["GRAPHQL_VALIDATION_FAILED"],
            "{query}"
        );
    }
}

#[tokio::test]
async fn a_subscription_has_exactly_one_field() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let field = |alias: &str| format!("{alias}: appointmentChanged(id: \"{}\") {{ id }}", id(1));
    for selection in
        [format!("{} {}", field("a"), field("b")), "__typename".to_owned(), format!("...F {}", field("b"))]
    {
        let mut query = format!("subscription {{ {selection} }}");
        if selection.contains("...F") {
            query += &format!(" fragment F on Subscription {{ {} }}", field("a"));
        }
        let reply = gateway.query(Some("sandbox-all"), &query).await;
        assert_eq!(reply.codes(), ["GRAPHQL_VALIDATION_FAILED"], "{query}");
    }
}

#[tokio::test]
async fn the_id_limit_counts_all_fields_of_an_operation() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[("limits.ids", "5")]).await;
    let query = "query ($a: [UUID!]!, $b: [UUID!]!) { a: appointmentsByIds(ids: $a) { id } b: appointmentsByIds(ids: $b) { id } }";
    let reply = gateway.query_with(Some("token"), query, json!({ "a": ids(0..4), "b": ids(1..5) })).await;
    assert_eq!(reply.codes(), [] as [&str; 0], "five distinct ones are five");
    assert_eq!(upstream.calls(), 5);
    let reply = gateway.query_with(Some("token"), query, json!({ "a": ids(10..14), "b": ids(12..16) })).await;
    assert_eq!(reply.codes(), ["BAD_USER_INPUT"]);
    assert_eq!(upstream.calls(), 9, "what is over the limit is not asked for");
}

#[tokio::test]
async fn lists_and_ids_of_an_operation_count_together() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[("limits.items", "10")]).await;
    let query = "{ a: appointments(first: 6) { totalCount } b: appointments(first: 6) { totalCount } }";
    let reply = gateway.query(Some("token"), query).await;
    let errors = reply.body["errors"].as_array().unwrap();
    let refused = errors.iter().find(|error| error["extensions"]["code"] == "QUERY_TOO_COMPLEX");
    assert_eq!(refused.map(|error| &error["extensions"]["limit"]), Some(&json!("items")));
    assert_eq!(gateway.rejections("items").await, 1.0);
    assert_eq!(reply.body["data"], Value::Null);
    assert_eq!(upstream.calls(), 1, "what is over the limit is not asked for");
}
