//! Execution as in the GraphQL specification, from the document to the form of the response.

use serde_json::{Value, json};

use crate::support::{Gateway, GatewayResponse};

async fn named(gateway: &Gateway, query: &str, name: Value) -> GatewayResponse {
    let request = gateway
        .request(reqwest::Method::POST, "/graphql")
        .header("content-type", "application/json")
        .header("accept", "application/graphql-response+json")
        .body(json!({ "query": query, "operationName": name }).to_string());
    GatewayResponse::of(request).await
}

#[tokio::test]
async fn operation_name_says_which_operation_is_run() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let two = "query A { a: __typename } query B { b: __typename }";
    assert_eq!(named(&gateway, two, json!("B")).await.body, json!({ "data": { "b": "Query" } }));
    assert_eq!(named(&gateway, two, json!("A")).await.body, json!({ "data": { "a": "Query" } }));
    for name in [json!(null), json!("private"), json!("")] {
        let reply = named(&gateway, two, name).await;
        assert!(!reply.rejected(422, "BAD_USER_INPUT").contains("private"));
    }
    // GraphiQL and Apollo send an empty name for none.
    for name in [json!(null), json!("")] {
        assert_eq!(named(&gateway, "{ __typename }", name).await.status, 200);
    }
    named(&gateway, "{ __typename }", json!("A")).await.rejected(422, "BAD_USER_INPUT");
}

/// The text is compared, since a JSON value does not know the order of its members.
#[tokio::test]
async fn root_fields_keep_the_order_of_the_query() {
    // Slow enough that all immediate results come first.
    let gateway = Gateway::on_sandbox(&[("sandbox.latency", "50ms")]).await;
    let ids = gateway.sandbox_ids().await;
    let query = format!(
        r#"query {{ z: __typename b: appointment(id: "{}") {{ id }} y: __typename ...F a: appointment(id: "{}") {{ id }} }}
           fragment F on Query {{ x: __typename c: appointmentsByIds(ids: ["{}"]) {{ id }} z: __typename }}"#,
        ids[0], ids[1], ids[2]
    );
    let request = gateway
        .request(reqwest::Method::POST, "/graphql")
        .header("content-type", "application/json")
        .bearer_auth("sandbox-all")
        .body(json!({ "query": query }).to_string());
    let text = request.send().await.unwrap().text().await.unwrap();
    assert_eq!(
        text,
        format!(
            r#"{{"data":{{"z":"Query","b":{{"id":"{}"}},"y":"Query","x":"Query","c":[{{"id":"{}"}}],"a":{{"id":"{}"}}}}}}"#,
            ids[0], ids[2], ids[1]
        )
    );
}

#[tokio::test]
async fn fully_skipped_operations_return_empty_data() {
    let gateway = Gateway::on_sandbox(&[]).await;
    for query in [
        "{ __typename @skip(if: true) }",
        "query ($no: Boolean = false) { appointmentsByIds(ids: []) @include(if: $no) { id } }",
        "query ($no: Boolean = false) { ... @include(if: $no) { __typename } }",
        "{ ... @skip(if: true) { __typename } }",
        "{ ...F @include(if: false) } fragment F on Query { __typename }",
    ] {
        let reply = gateway.query(None, query).await;
        assert_eq!((reply.status, reply.body), (200, json!({ "data": {} })), "{query}");
    }
}

#[tokio::test]
async fn a_field_selected_twice_is_one_field() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let id = gateway.sandbox_ids().await.remove(0);
    let query = format!(
        r#"{{ appointment(id: "{id}") {{ id }} appointment(id: "{id}") {{ phase }} ...F }}
           fragment F on Query {{ appointment(id: "{id}") {{ id features {{ all(enabled: true) {{ enabled }} }} }} }}"#
    );
    let reply = gateway.query(Some("sandbox-all"), &query).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let appointment = &reply.body["data"]["appointment"];
    assert_eq!(appointment["id"], json!(id));
    assert_eq!(appointment["phase"], json!("SCHEDULED"));
    assert!(appointment["features"]["all"].is_array());

    // So an error in it is reported once.
    let reply = gateway.query(Some("nobody"), &query).await;
    assert_eq!(reply.status, 294);
    assert_eq!(reply.body["data"], json!({ "appointment": null }));
    assert_eq!(reply.codes(), ["UNAUTHENTICATED"]);
    assert_eq!(reply.body["errors"][0]["path"], json!(["appointment"]));
    assert_eq!(reply.body["errors"][0]["locations"][0], json!({ "line": 1, "column": 3 }));
}

/// GraphQL, section 5.3.2: conflicting fields under one response name are rejected, in any arrangement.
#[tokio::test]
async fn conflicting_aliases_are_rejected() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let ids = gateway.sandbox_ids().await;
    let one = format!(r#"a: appointment(id: "{}") {{ id }}"#, ids[0]);
    let two = format!(r#"a: appointment(id: "{}") {{ id }}"#, ids[1]);
    let nested = format!(r#"appointment(id: "{}")"#, ids[0]);
    for query in [
        format!("{{ {one} a: appointmentsByIds(ids: []) {{ id }} }}"),
        format!("{{ {one} {two} }}"),
        format!("{{ {one} ... {{ {two} }} }}"),
        format!("{{ {one} ... on Query {{ {two} }} }}"),
        format!("{{ {one} ...F }} fragment F on Query {{ {two} }}"),
        format!("{{ {nested} {{ a: reference }} {nested} {{ a: status }} }}"),
        format!("{{ {nested} {{ a: reference }} ...F }} fragment F on Query {{ {nested} {{ a: status }} }}"),
    ] {
        let reply = gateway.query(Some("sandbox-all"), &query).await;
        reply.rejected(422, "GRAPHQL_VALIDATION_FAILED");
    }
}

#[tokio::test]
async fn ids_are_taken_in_capitals_and_a_single_one_for_a_list() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let id = gateway.sandbox_ids().await.remove(0);
    let token = Some("sandbox-all");
    let literal = format!(r#"{{ appointmentsByIds(ids: "{}") {{ id }} }}"#, id.to_uppercase());
    let variable = "query ($ids: [UUID!]!) { appointmentsByIds(ids: $ids) { id } }";
    let expected = json!({ "data": { "appointmentsByIds": [{ "id": id }] } });
    assert_eq!(gateway.query(token, &literal).await.body, expected);
    assert_eq!(gateway.query_with(token, variable, json!({ "ids": id.to_uppercase() })).await.body, expected);
    let none = gateway.query_with(token, variable, json!({ "ids": [] })).await;
    assert_eq!(none.body, json!({ "data": { "appointmentsByIds": [] } }));
}

#[tokio::test]
async fn invalid_literals_are_rejected_without_an_echo() {
    let gateway = Gateway::on_sandbox(&[]).await;
    for literal in [r#""private""#, "17", "true", "null", r#"{ a: "private" }"#, "PRIVATE", r#"["private"]"#]
    {
        let reply =
            gateway.query(Some("sandbox-all"), &format!("{{ appointment(id: {literal}) {{ id }} }}")).await;
        assert!(reply.body["data"]["appointment"].is_null(), "{reply:?}");
        assert_eq!(reply.codes().len(), 1, "{reply:?}");
        reply.rejected(422, "GRAPHQL_VALIDATION_FAILED");
        let message = reply.body["errors"][0]["message"].as_str().unwrap();
        assert!(!message.to_lowercase().contains("private"), "{message}");
    }
}

#[tokio::test]
async fn a_variable_may_be_used_by_a_directive_on_typename_alone() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let query =
        "query ($no: Boolean!) { __typename @skip(if: $no) ...F } fragment F on Query { a: __typename }";
    let reply = gateway.query_with(None, query, json!({ "no": false })).await;
    assert_eq!(reply.body, json!({ "data": { "__typename": "Query", "a": "Query" } }));
}

#[tokio::test]
async fn variables_of_wrong_type_are_rejected_with_their_position() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let query = "query ($id: String) { appointment(id: $id) { id } }";
    let reply = gateway.query_with(Some("sandbox-all"), query, json!({ "id": "private" })).await;
    reply.rejected(422, "GRAPHQL_VALIDATION_FAILED");
    let error = &reply.body["errors"][0];
    assert_eq!(error["locations"], json!([{ "line": 1, "column": 39 }]));
    let message = "The variable \"$id\" has type String, but the argument \"id\" requires type UUID!.";
    assert_eq!(error["message"], message);
}
