//! An item of a list counts as a complete appointment only if it has every documented member, at least as null. Other
//! items appear in the list, and are not cached as appointments.

use appointments_gateway::sandbox::sample;
use serde_json::{Value, json};

use crate::support::{Call, Gateway, List, Pagination, Upstream, UpstreamResponse, id, served, whole};

const LONG: [(&str, &str); 2] = [("cache.ttl", "10m"), ("cache.list_ttl", "10m")];

/// An item with every documented member.
fn complete(n: usize, token: &str) -> Value {
    let mut item = Value::from(sample().clone());
    (item["id"], item["reference"], item["status"]) = (id(n).into(), token.into(), "listed".into());
    item
}

/// An upstream with a list of one item, and single appointments.
async fn listing(item: impl Fn(&Call) -> Value + Send + Sync + 'static) -> Upstream {
    Upstream::answering(move |call| {
        if call.id != "appointments" {
            return call.appointment();
        }
        let body = List::of(1, Pagination::Meta).body_of(call, |_| item(call));
        // As it is: nothing is planted in it.
        UpstreamResponse::text(200, "application/json", &body.to_string())
    })
    .await
}

async fn list(gateway: &Gateway) -> Value {
    let query = "{ appointments(first: 5) { nodes { id reference status } } }";
    gateway.query(Some("token"), query).await.list()["nodes"][0].clone()
}

fn listed() -> Value {
    json!({ "id": id(1), "reference": "token", "status": "listed" })
}

#[tokio::test]
async fn an_item_that_lacks_a_member_does_not_become_an_appointment() {
    let members: Vec<_> = complete(1, "token").as_object().unwrap().keys().cloned().collect();
    for missing in members.into_iter().filter(|name| !["id", "reference", "status"].contains(&&**name)) {
        let upstream = listing({
            let missing = missing.clone();
            move |call| {
                let mut item = complete(1, call.token());
                item.as_object_mut().unwrap().remove(&missing);
                item
            }
        })
        .await;
        let gateway = Gateway::before(upstream.url(), &LONG).await;
        assert_eq!(list(&gateway).await, listed(), "{missing}");
        assert_eq!(list(&gateway).await, listed(), "{missing}");
        assert_eq!(upstream.calls(), 1, "{missing}: the page is cached");
        assert_eq!(*gateway.appointment("token", &id(1)).await.appointment(), served(&id(1), "token", 1));
        assert_eq!(upstream.calls(), 2, "{missing}");
    }
}

#[tokio::test]
async fn an_item_that_lacks_members_does_not_replace_an_appointment() {
    let upstream =
        listing(|call| json!({ "id": id(1), "reference": call.token(), "status": "listed" })).await;
    let gateway = Gateway::before(upstream.url(), &LONG).await;
    assert_eq!(*gateway.appointment("token", &id(1)).await.appointment(), served(&id(1), "token", 1));
    assert_eq!(list(&gateway).await, listed());
    assert_eq!(*gateway.appointment("token", &id(1)).await.appointment(), served(&id(1), "token", 1));
    assert_eq!(upstream.calls(), 2);
    // Both in one operation.
    let query = format!(
        "{{ appointments(first: 5) {{ nodes {{ status }} }} appointment(id: {:?}) {{ status }} }}",
        id(1)
    );
    let reply = gateway.query(Some("token"), &query).await;
    let expected = json!({ "appointments": { "nodes": [{ "status": "listed" }] }, "appointment": { "status": "call 1" } });
    assert_eq!(reply.body, json!({ "data": expected }));
}

#[tokio::test]
async fn an_item_with_every_member_serves_as_an_appointment() {
    let nulls = |call: &Call| {
        let mut item = whole(json!({ "id": id(1), "reference": call.token(), "status": "listed" }));
        item["claimant"] = Value::Null;
        item["meeting"] = Value::Null;
        item
    };
    let items: [fn(&Call) -> Value; 2] = [|call| complete(1, call.token()), nulls];
    for item in items {
        let upstream = listing(item).await;
        let gateway = Gateway::before(upstream.url(), &LONG).await;
        assert_eq!(list(&gateway).await, listed());
        assert_eq!(*gateway.appointment("token", &id(1)).await.appointment(), listed());
        assert_eq!(upstream.calls(), 1);
    }
}

/// PHP writes a list with gaps as an object, and texts that are not UTF-8 as they are.
#[tokio::test]
async fn odd_notations_cost_no_item_and_no_page() {
    let items = ["\"status\": \"a\"", "\"status\": \"caf\u{e9}\"", "\"status\": \"b\", \"department\": []"];
    let items =
        items.iter().enumerate().map(|(n, item)| format!(r#""{}": {{"id": "{}", {item}}}"#, 2 * n, id(n)));
    let body = format!(
        "\u{feff}{{\"data\": {{{}}}, \"meta\": {{\"per_page\": 5, \"total\": 3}}, \"links\": []}}",
        items.collect::<Vec<_>>().join(", ")
    );
    // In Latin-1, only the text that is not ASCII changes.
    let body = body.bytes().collect::<Vec<_>>();
    let at = body.windows(2).position(|it| it == "\u{e9}".as_bytes()).unwrap();
    let body = [&body[..at], b"\xe9", &body[at + 2..]].concat();
    let upstream = Upstream::answering(move |_| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        UpstreamResponse::raw([head.as_bytes(), &body].concat())
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let query = "{ appointments(first: 5) { totalCount nodes { id status department { name } } } }";
    let reply = gateway.query(Some("token"), query).await;
    let expected = json!([
        { "id": id(0), "status": "a", "department": null },
        { "id": id(1), "status": null, "department": null },
        { "id": id(2), "status": "b", "department": { "name": null } },
    ]);
    assert_eq!(reply.body["data"]["appointments"], json!({ "totalCount": 3, "nodes": expected }));
    let path = r#"["appointments","nodes",1,"status"]"#.to_owned();
    assert_eq!(reply.paths_and_codes(), [(path, "UPSTREAM_INVALID_RESPONSE")]);
}

#[tokio::test]
async fn an_empty_list_may_be_an_empty_object() {
    for data in ["[]", "{}"] {
        let upstream = Upstream::answering(move |_| {
            UpstreamResponse::text(200, "application/json", &format!(r#"{{"data": {data}, "meta": []}}"#))
        })
        .await;
        let gateway = Gateway::before(upstream.url(), &[]).await;
        let reply = gateway.query(Some("token"), "{ appointments(first: 5) { nodes { id } } }").await;
        assert_eq!(reply.body, json!({ "data": { "appointments": { "nodes": [] } } }), "{data}");
    }
}
