//! Pass-through mode: each caller sees what the upstream shows for its token. The sandbox distinguishes callers.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Gateway, GatewayResponse, RawConnection, RequestForm, raw};

const BY_IDS: &str = "query ($ids: [UUID!]!) { appointmentsByIds(ids: $ids) { id } }";

/// `sandbox-some` sees examples one, two, six and seven. The eighth does not exist.
#[tokio::test]
async fn callers_see_their_data_and_forbidden_ids_fail_alone() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let ids = gateway.sandbox_ids().await;
    let seen = |hidden: &[usize]| {
        let seen = ids.iter().enumerate().map(|(index, id)| match hidden.contains(&index) || index == 7 {
            true => Value::Null,
            false => json!({ "id": id }),
        });
        json!({ "appointmentsByIds": seen.collect::<Vec<_>>() })
    };
    // Twice, the second time from the cache: cached data of one caller never serves another.
    for _ in 0..2 {
        let all = gateway.query_with(Some("sandbox-all"), BY_IDS, json!({ "ids": ids })).await;
        assert_eq!(all.body, json!({ "data": seen(&[]) }));

        let some = gateway.query_with(Some("sandbox-some"), BY_IDS, json!({ "ids": ids })).await;
        assert_eq!(some.status, 294);
        assert_eq!(some.body["data"], seen(&[2, 3, 4]));
        assert_eq!(some.codes(), ["FORBIDDEN"; 3]);
        let mut paths: Vec<_> =
            some.body["errors"].as_array().unwrap().iter().map(|error| error["path"].clone()).collect();
        paths.sort_by_key(|path| path[1].as_u64());
        let expected = [2, 3, 4].map(|index| json!(["appointmentsByIds", index]));
        assert_eq!(paths, expected);
    }
    // The same holds for byte-equal requests and cached responses.
    let query = format!("{{ appointmentsByIds(ids: {ids:?}) {{ id }} }}");
    for way in RequestForm::EACH {
        for _ in 0..3 {
            assert_eq!(
                way.ask(&gateway, "sandbox-all", &query).await.body,
                json!({ "data": seen(&[]) }),
                "{way:?}"
            );
            let some = way.ask(&gateway, "sandbox-some", &query).await;
            assert_eq!(
                (&some.body["data"], some.codes()),
                (&seen(&[2, 3, 4]), vec!["FORBIDDEN"; 3]),
                "{way:?}"
            );
        }
    }
    assert!(gateway.response_cache_lookups().await.0 >= 2.0 * RequestForm::EACH.len() as f64);
}

#[tokio::test]
async fn unknown_tokens_are_reported_at_each_field() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let ids = gateway.sandbox_ids().await;
    let query = format!(r#"{{ a: appointment(id: "{}") {{ id }} t: __typename }}"#, ids[0]);
    let reply = gateway.query(Some("nobody-has-this-token"), &query).await;
    assert_eq!(reply.status, 294);
    assert_eq!(reply.body["data"], json!({ "a": null, "t": "Query" }));
    assert_eq!(reply.codes(), ["UNAUTHENTICATED"]);
    assert_eq!(reply.body["errors"][0]["path"], json!(["a"]));
    assert!(!reply.body.to_string().contains("nobody-has-this-token"));
}

#[tokio::test]
async fn without_a_valid_header_nothing_is_fetched() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let id = gateway.sandbox_ids().await.remove(0);
    let body = raw::query(&format!(r#"{{ appointment(id: "{id}") {{ id }} }}"#));
    for header in [
        "",
        "Authorization: Basic dTpw\r\n",
        "Authorization: Bearer\r\n",
        "Authorization: sandbox-all\r\n",
        "Authorization: Bearer sandbox-all\r\nAuthorization: Bearer sandbox-all\r\n",
        "Authorization: Bearer sandbox-all, Bearer sandbox-all\r\n",
        "Authorization: Bearer sandbox-all\tx\r\n",
        "Authorization: Bearer sandbox-all\u{e9}\r\n",
    ] {
        let reply = RawConnection::once(&gateway, raw::post(header, &body)).await.parsed();
        let message = reply.rejected(401, "UNAUTHENTICATED");
        assert!(message.contains("Bearer <token>") && !message.contains("sandbox-all"), "{message}");
    }
    let spaced = raw::post("authorization:   bearer    sandbox-all  \r\n", &body);
    assert_eq!(
        RawConnection::once(&gateway, spaced).await.parsed().body["data"]["appointment"]["id"],
        json!(id)
    );
}

/// A header that no header may be never gets as far as GraphQL.
#[tokio::test]
async fn header_values_with_control_bytes_are_rejected() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let body = raw::query("{ __typename }");
    for header in [
        "Authorization: Bearer a\0b\r\n",
        "Authorization: Bearer a\u{7f}b\r\n",
        "Author ization: Bearer a\r\n",
    ] {
        let reply = RawConnection::once(&gateway, raw::post(header, &body)).await.parsed();
        reply.rejected(400, "BAD_REQUEST");
    }
}

#[tokio::test]
async fn the_schema_is_there_for_everybody() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let reply = gateway
        .query(None, r#"{ __typename __schema { queryType { name } } __type(name: "Meeting") { name } }"#)
        .await;
    assert_eq!(
        reply.body,
        json!({ "data": {
            "__typename": "Query", "__schema": { "queryType": { "name": "Query" } }, "__type": { "name": "Meeting" }
        } })
    );
    assert_eq!(GatewayResponse::of(gateway.request(Method::GET, "/livez")).await.status, 200);
}
