//! Introspection and suggestions of names, each of which can be disabled.

use serde_json::json;

use crate::support::{Events, Gateway, RawConnection, Socket, raw};

#[tokio::test]
async fn disabled_introspection_rejects_every_form_of_it() {
    let gateway = Gateway::on_sandbox(&[("graphql.introspection", "false")]).await;
    for query in [
        "{ __schema { queryType { name } } }",
        r#"{ __type(name: "Query") { name } }"#,
        "{ a: __schema { queryType { name } } }",
        "{ __typename ... { __schema { queryType { name } } } }",
        "{ ...F } fragment F on Query { ...G } fragment G on Query { __schema { queryType { name } } }",
        "{ ...__type } fragment __type on Query { __schema { queryType { name } } }",
        "{ __schema @skip(if: true) { queryType { name } } }",
        "mutation { __schema { queryType { name } } }",
        "{ __schema }",
        "{ __type }",
        "{ __typename } fragment F on Query { __schema { queryType { name } } }",
        include_str!("../../fixtures/introspection.graphql"),
    ] {
        let reply = gateway.query(None, query).await;
        let message = reply.rejected(422, "GRAPHQL_VALIDATION_FAILED");
        assert!(message.contains("Introspection is disabled"), "{query}: {message}");
        assert!(reply.body["errors"][0]["locations"][0]["line"].is_u64(), "{reply:?}");
        assert!(!reply.body.to_string().contains("Query"), "{reply:?}");
    }
    // An operation that is not the one to be run asks in vain, too.
    let body = json!({
        "query": "query A { __typename } query B { __schema { queryType { name } } }", "operationName": "A"
    });
    let reply = RawConnection::once(&gateway, raw::post("", &body.to_string())).await.parsed();
    reply.rejected(422, "GRAPHQL_VALIDATION_FAILED");
    let id = gateway.sandbox_ids().await.remove(0);
    let reply = gateway
        .query(Some("sandbox-all"), &format!(r#"{{ __typename appointment(id: "{id}") {{ __typename }} }}"#))
        .await;
    assert_eq!(
        reply.body,
        json!({ "data": { "__typename": "Query", "appointment": { "__typename": "Appointment" } } })
    );
}

#[tokio::test]
async fn it_is_disabled_on_the_other_transports_too() {
    let gateway = Gateway::on_sandbox(&[("graphql.introspection", "false")]).await;
    let query = "{ __schema { queryType { name } } }";
    let mut socket = Socket::connect(&gateway, "a").await;
    socket.subscribe("1", query).await;
    let error = socket.receive().await;
    assert_eq!(error["payload"][0]["extensions"]["code"], json!("GRAPHQL_VALIDATION_FAILED"));
    let mut events = Events::open(&gateway, "a", query).await;
    assert_eq!(events.next().await["errors"][0]["extensions"]["code"], json!("GRAPHQL_VALIDATION_FAILED"));
}

/// The messages for misspelt names, with or without suggestions.
#[tokio::test]
async fn suggestions_are_made_or_not() {
    for (suggestions, is_made) in [("true", true), ("false", false)] {
        let gateway = Gateway::on_sandbox(&[("graphql.suggestions", suggestions)]).await;
        let mut made = 0;
        for query in [
            "{ apointment }",
            r#"{ appointment(id: "x") { claiman } }"#,
            r#"{ appointment(ids: "9a0f170e-0aa0-47db-ab14-4ddcdcbad061") { id } }"#,
            "{ __typename @skip(iff: true) }",
            "{ __typename @skp(if: true) }",
            "{ ... on Apointment { id } }",
            "query ($a: UID) { __typename }",
            "mutation { createAppointment(input: { durationInMinute: 1 }) { appointment { id } } }",
        ] {
            let reply = gateway.query(None, query).await;
            assert!(reply.body.get("data").is_none(), "{query}: {reply:?}");
            made += usize::from(reply.body.to_string().contains("Did you mean"));
        }
        assert_eq!(made > 0, is_made, "graphql.suggestions={suggestions}: {made}");
    }
}
