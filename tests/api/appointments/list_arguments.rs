//! The arguments `first` and `after` of `appointments`, and rejections without an upstream call.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::support::{Gateway, GatewayResponse, List, Pagination, RequestForm, Upstream, id};

async fn list_of(length: usize) -> (Upstream, Gateway) {
    let upstream = Upstream::answering(move |call| List::of(length, Pagination::Meta).page(call)).await;
    let gateway = Gateway::before(upstream.url(), &[("cache.list_ttl", "0")]).await;
    (upstream, gateway)
}

#[track_caller]
fn assert_refused(reply: &GatewayResponse, what: &str) {
    assert_eq!(reply.paths_and_codes(), [(r#"["appointments"]"#.to_owned(), "BAD_USER_INPUT")], "{what}");
    assert_eq!((reply.status, &reply.body["data"]), (294, &Value::Null), "{what}");
}

#[tokio::test]
async fn lengths_out_of_bounds_are_rejected_without_a_call() {
    let (upstream, gateway) = list_of(10).await;
    for first in [0, 101, -1, i32::MAX, i32::MIN] {
        assert_refused(&gateway.list("token", json!({ "first": first })).await, "a variable");
        let query = format!("{{ appointments(first: {first}) {{ totalCount }} }}");
        assert_refused(&gateway.query(Some("token"), &query).await, "a literal");
    }
    assert_eq!(upstream.calls(), 0);
}

#[tokio::test]
async fn lengths_at_the_bounds_are_taken() {
    let (upstream, gateway) = list_of(200).await;
    for first in [1, 100] {
        let reply = gateway.list("token", json!({ "first": first })).await;
        assert_eq!(reply.list()["edges"].as_array().unwrap().len(), first);
        let last = upstream.seen(|seen| seen.calls.last().unwrap().clone());
        assert_eq!(
            (last.method.as_str(), last.number("page"), last.number("per_page")),
            ("GET", Some(1), Some(first))
        );
        assert_eq!(last.token(), "token");
    }
}

#[tokio::test]
async fn a_length_left_out_or_null_is_25() {
    let (upstream, gateway) = list_of(200).await;
    let fields = "{ edges { node { id } } }";
    let declared = "query ($first: Int) { appointments(first: $first)";
    for (query, variables) in [
        ("{ appointments", json!({})),
        ("{ appointments(first: null, after: null)", json!({})),
        (declared, json!({})),
        (declared, json!({ "first": null })),
        ("query ($first: Int = null) { appointments(first: $first)", json!({})),
        ("query ($after: String) { appointments(after: $after)", json!({})),
    ] {
        let reply =
            gateway.query_with(Some("token"), &format!("{query} {fields} }}"), variables.clone()).await;
        assert_eq!(reply.list()["edges"].as_array().unwrap().len(), 25, "{query} with {variables}");
        let last = upstream.seen(|seen| seen.calls.last().unwrap().clone());
        assert_eq!(last.path, "/api/v1/appointments?page=1&per_page=25", "{query} with {variables}");
    }
    let query = format!("query ($first: Int = 3) {{ appointments(first: $first) {fields} }}");
    let reply = gateway.query(Some("token"), &query).await;
    assert_eq!(reply.list()["edges"].as_array().unwrap().len(), 3, "a default of the operation's own");
}

#[tokio::test]
async fn invalid_cursors_are_rejected_without_a_call() {
    let (upstream, gateway) = list_of(100).await;
    let genuine = gateway.list("token", json!({ "first": 5 })).await;
    let genuine = genuine.list()["pageInfo"]["endCursor"].as_str().unwrap().to_owned();
    let encoded = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let before = upstream.calls();
    for after in [
        String::new(),
        " ".to_owned(),
        "garbage".to_owned(),
        "\u{0}".to_owned(),
        "ünïcödé 🦀".to_owned(),
        "../../etc/passwd".to_owned(),
        "appointments:4".to_owned(),
        "4".to_owned(),
        id(1),
        "A".repeat(10_000),
        format!("{genuine}="),
        format!("{genuine} "),
        genuine[1..].to_owned(),
        encoded("claimants:4"),
        encoded("arrayconnection:4"),
        encoded("appointments:"),
        encoded("appointments:-1"),
        encoded("appointments:+4"),
        encoded("appointments:4.0"),
        encoded("appointments:4294967296"),
        encoded("appointments:18446744073709551615"),
        encoded("appointments:99999999999999999999999999"),
        encoded("appointments:4:0"),
        encoded("appointments:4:101"),
        encoded("appointments:4:5:6"),
    ] {
        assert_refused(&gateway.list("token", json!({ "after": after })).await, &after);
    }
    assert_eq!(upstream.calls(), before);
    gateway.list("token", json!({ "after": genuine })).await.list();
}

#[tokio::test]
async fn no_token_no_call() {
    let (upstream, gateway) = list_of(10).await;
    let query = "{ appointments { totalCount } }";
    gateway.query(None, query).await.rejected(401, "UNAUTHENTICATED");
    let form = RequestForm::POST.accepting("application/json");
    let reply = GatewayResponse::of(form.request(&gateway, None, query)).await;
    assert_eq!(reply.paths_and_codes(), [(r#"["appointments"]"#.to_owned(), "UNAUTHENTICATED")]);
    assert_eq!(reply.body["data"], Value::Null);
    assert_eq!(upstream.calls(), 0);
}
