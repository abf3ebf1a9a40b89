//! The subgraph of a federated graph: its description, and its entities.

use std::time::Duration;

use async_graphql::parser::parse_schema;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    FinishedRun, Gateway, GatewayResponse, RequestForm, Upstream, UpstreamResponse, id, ids, program, served,
};

const ON: (&str, &str) = ("graphql.federation", "true");

const ENTITIES: &str = "query ($representations: [_Any!]!) {
    _entities(representations: $representations) { ... on Appointment { id reference status } }
}";

fn key(id: &str) -> Value {
    json!({ "__typename": "Appointment", "id": id })
}

impl Gateway {
    async fn entities(&self, token: Option<&str>, representations: &[Value]) -> GatewayResponse {
        self.query_with(token, ENTITIES, json!({ "representations": representations })).await
    }
}

/// The entities in a response without errors.
#[track_caller]
fn entities(reply: &GatewayResponse) -> &Value {
    assert_eq!((reply.status, reply.body.get("errors")), (200, None));
    &reply.body["data"]["_entities"]
}

#[tokio::test]
async fn the_subgraph_file_matches_the_printed_and_served_sdl() {
    let printed = FinishedRun::of(program(&["schema", "--federation"], &[])).await;
    assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""));
    let file = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/subgraph.graphql")).unwrap();
    assert!(
        printed.stdout == file,
        "subgraph.graphql is outdated; rewrite it with: cargo run -- schema --federation > subgraph.graphql"
    );
    let gateway = Gateway::on_sandbox(&[ON]).await;
    let reply = gateway.query(None, "{ _service { sdl } }").await;
    assert_eq!(reply.body, json!({ "data": { "_service": { "sdl": file.trim_end() } } }));
}

#[tokio::test]
async fn the_subgraph_has_keys_tags_and_shareable_types() {
    let sdl = FinishedRun::of(program(&["schema", "--federation"], &[])).await.stdout;
    parse_schema(&sdl).unwrap();
    for line in [
        "extend schema @link(",
        "\turl: \"https://specs.apollo.dev/federation/v2.5\",",
        "type Appointment @key(fields: \"id\") {",
        "type PageInfo @shareable {",
        "type Claimant @tag(name: \"personal-data\") {",
        "type ClaimantField @tag(name: \"personal-data\") {",
        "input ClaimantInput @tag(name: \"personal-data\") {",
        "\tclaimant: Claimant @tag(name: \"personal-data\")",
        "\tclaimant: ClaimantInput @tag(name: \"personal-data\")",
        "\tcancellationReason: String @tag(name: \"personal-data\")",
        "\tname: String @tag(name: \"personal-data\")",
        "\tphoneNumber: String @tag(name: \"personal-data\")",
        "\temail: String @tag(name: \"personal-data\")",
        "\tdateOfBirth: Date @tag(name: \"personal-data\")",
        "\tvalue: String @tag(name: \"personal-data\")",
        "type Subscription {",
    ] {
        assert!(sdl.lines().any(|it| it == line), "{line} in\n{sdl}");
    }
    for name in ["_entities", "_service", "_Any", "_Entity", "_Service"] {
        assert!(!sdl.contains(name), "{name}");
    }
}

#[tokio::test]
async fn a_disabled_subgraph_is_invisible() {
    let gateway = Gateway::on_sandbox(&[]).await;
    for query in [
        "{ _service { sdl } }",
        "{ _entities(representations: []) { __typename } }",
        "query ($it: [_Any!]!) { _entities(representations: $it) { __typename } }",
        "{ __typename ... on _Service { sdl } }",
        "{ __typename ... on _Entity { __typename } }",
    ] {
        let reply = gateway.query_with(Some("sandbox-all"), query, json!({ "it": [] })).await;
        let message = reply.rejected(422, "GRAPHQL_VALIDATION_FAILED");
        assert!(!message.contains("Did you mean"), "{message}");
    }
    let names = "{ __schema { types { name } directives { name } queryType { fields { name } } } }";
    let introspection = gateway.query(None, names).await.body.to_string();
    for name in ["_service", "_entities", "_Any", "_Entity", "_Service", "\"key\"", "\"tag\"", "\"link\""] {
        assert!(!introspection.contains(name), "{name}");
    }
    let suggested = gateway.query(None, "{ _entity(representations: []) { __typename } }").await;
    assert!(!suggested.body.to_string().contains("_entities"), "{suggested:?}");
}

#[tokio::test]
async fn an_enabled_subgraph_is_introspectable() {
    let gateway = Gateway::on_sandbox(&[ON]).await;
    let query = r#"{
        union: __type(name: "_Entity") { kind possibleTypes { name } }
        any: __type(name: "_Any") { kind }
        query: __type(name: "Query") { fields { name args { name type { kind ofType { kind ofType { kind ofType { name } } } } } } }
    }"#;
    let reply = gateway.query(None, query).await;
    let data = &reply.body["data"];
    assert_eq!(data["union"], json!({ "kind": "UNION", "possibleTypes": [{ "name": "Appointment" }] }));
    assert_eq!(data["any"], json!({ "kind": "SCALAR" }));
    let fields = data["query"]["fields"].as_array().unwrap();
    let names = fields.iter().map(|field| field["name"].as_str().unwrap()).collect::<Vec<_>>();
    for name in ["appointment", "appointmentsByIds", "appointments", "_service", "_entities"] {
        assert!(names.contains(&name), "{names:?}");
    }
}

#[tokio::test]
async fn a_hundred_representations_are_one_batch_of_distinct_ids() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[ON]).await;
    let keys = (0..100).map(|n| key(&id(n % 40))).collect::<Vec<_>>();
    for _ in 0..2 {
        let reply = gateway.entities(Some("token"), &keys).await;
        let expected = (0..100).map(|n| served(&id(n % 40), "token", 1)).collect::<Value>();
        assert_eq!(*entities(&reply), expected);
        assert_eq!(upstream.calls(), 40);
    }
}

#[tokio::test]
async fn entities_and_other_fields_share_one_batch() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[ON, ("cache.ttl", "0")]).await;
    let query = format!(
        r#"{{
            one: appointment(id: "{one}") {{ id }}
            many: appointmentsByIds(ids: ["{one}", "{two}"]) {{ id }}
            a: _entities(representations: [{{__typename: "Appointment", id: "{two}"}}]) {{ ... on Appointment {{ id }} }}
            b: _entities(representations: {{__typename: "Appointment", id: "{one}"}}) {{ ... on Appointment {{ id }} }}
        }}"#,
        one = id(1),
        two = id(2).to_uppercase(),
    );
    let reply = gateway.query(Some("token"), &query).await;
    let (one, two) = (json!({ "id": id(1) }), json!({ "id": id(2) }));
    assert_eq!(reply.body, json!({ "data": { "one": one, "many": [one, two], "a": [two], "b": [one] } }));
    assert_eq!(upstream.calls(), 2);
}

#[tokio::test]
async fn each_failing_entity_is_null_with_an_error_at_its_index() {
    let upstream = Upstream::start().await;
    upstream.on(&id(1), |_| UpstreamResponse::status(404));
    upstream.on(&id(2), |_| UpstreamResponse::status(403));
    upstream.on(&id(3), |_| UpstreamResponse::status(500));
    let gateway = Gateway::before(upstream.url(), &[ON]).await;
    let representations = [
        (key(&id(0)), None),
        (key(&id(1)), Some("NOT_FOUND")),
        (key(&id(2)), Some("FORBIDDEN")),
        (key(&id(3)), Some("UPSTREAM_UNAVAILABLE")),
        (json!({ "__typename": "Claimant", "id": id(4) }), Some("BAD_USER_INPUT")),
        (json!({ "__typename": "appointment", "id": id(4) }), Some("BAD_USER_INPUT")),
        (json!({ "__typename": null, "id": id(4) }), Some("BAD_USER_INPUT")),
        (json!({ "__typename": ["Appointment"], "id": id(4) }), Some("BAD_USER_INPUT")),
        (json!({ "id": id(4) }), Some("BAD_USER_INPUT")),
        (json!({ "__typename": "Appointment" }), Some("BAD_USER_INPUT")),
        (json!({ "__typename": "Appointment", "id": null }), Some("BAD_USER_INPUT")),
        (json!({ "__typename": "Appointment", "id": 7 }), Some("BAD_USER_INPUT")),
        (json!({ "__typename": "Appointment", "id": { "a": [id(4)] } }), Some("BAD_USER_INPUT")),
        (json!({ "__typename": "Appointment", "id": "Canarybird" }), Some("BAD_USER_INPUT")),
        (json!({ "__typename": "Appointment", "id": id(4).replace('-', "") }), Some("BAD_USER_INPUT")),
        (json!("Appointment"), Some("BAD_USER_INPUT")),
        (json!(1.5), Some("BAD_USER_INPUT")),
        (json!(false), Some("BAD_USER_INPUT")),
        (json!([]), Some("BAD_USER_INPUT")),
        (json!({}), Some("BAD_USER_INPUT")),
        // A router may send more fields than the key.
        (json!({ "__typename": "Appointment", "id": id(5), "status": { "any": [1, null] } }), None),
        (key(&id(0)), None),
    ];
    let keys = representations.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();

    let reply = gateway.entities(Some("token"), &keys).await;

    assert_eq!(reply.status, 294);
    let data = representations.iter().map(|(key, code)| match code {
        None => served(key["id"].as_str().unwrap(), "token", 1),
        Some(_) => Value::Null,
    });
    assert_eq!(reply.body["data"], json!({ "_entities": data.collect::<Vec<_>>() }));
    let errors = representations.iter().enumerate();
    let mut errors = errors
        .filter_map(|(index, (_, code))| Some((json!(["_entities", index]).to_string(), (*code)?)))
        .collect::<Vec<_>>();
    errors.sort();
    assert_eq!(reply.paths_and_codes(), errors);
    assert_eq!(upstream.calls(), 5);
}

#[tokio::test]
async fn a_null_representation_is_a_request_error() {
    let gateway = Gateway::on_sandbox(&[ON]).await;
    let reply = gateway.entities(Some("sandbox-all"), &[Value::Null]).await;
    reply.rejected(422, "BAD_USER_INPUT");
}

#[tokio::test]
async fn any_selection_of_the_union_is_projected() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[ON]).await;
    let query = r#"
        query ($id: String!, $no: Boolean!, $on: Boolean) {
            _entities(representations: [{__typename: "Appointment", id: $id}]) {
                kind: __typename
                ... { __typename }
                ... on _Entity { again: __typename }
                ... on Appointment { id features { all(enabled: $on) { name } } skipped: id @skip(if: $no) }
                ...F
                ... on Appointment @include(if: $no) { department { name } }
            }
        }
        fragment F on _Entity { ... on Appointment { id reference features { bandwidth __typename } } }"#;
    let variables = json!({ "id": id(1), "no": true, "on": true });
    let reply = gateway.query_with(Some("token"), query, variables).await;
    let entity = json!({
        "kind": "Appointment", "__typename": "Appointment", "again": "Appointment", "id": id(1),
        "features": { "all": [], "bandwidth": null, "__typename": "Features" },
        "reference": "token", "department": null,
    });
    assert_eq!(*entities(&reply), json!([entity]));
    let empty = r#"query ($id: String!) {
        _entities(representations: [{__typename: "Appointment", id: $id}]) { ... on Appointment @skip(if: true) { id } }
    }"#;
    let reply = gateway.query_with(Some("token"), empty, json!({ "id": id(1) })).await;
    assert_eq!(reply.body, json!({ "data": { "_entities": [{}] } }));
}

#[tokio::test]
async fn invalid_selections_and_arguments_are_rejected() {
    let gateway = Gateway::on_sandbox(&[ON]).await;
    for query in [
        "{ _entities(representations: []) }",
        "{ _entities(representations: []) { id } }",
        "{ _entities(representations: []) { ... on _Entity { id } } }",
        "{ _entities(representations: []) { ... on Claimant { name } } }",
        "{ _entities(representations: []) { ... on Appointment { nothing } } }",
        "{ _entities(representations: []) { __typename(x: 1) } }",
        "{ _entities(representations: []) { a: __typename ... on Appointment { a: id } } }",
        "{ _entities { __typename } }",
        "{ _entities(representations: null) { __typename } }",
        "{ _entities(representations: [null]) { __typename } }",
        r#"{ _entities(representations: [{__typename: "Appointment", id: $id}]) { __typename } }"#,
        "query ($it: [_Any]) { _entities(representations: $it) { __typename } }",
        "query ($it: [String!]!) { _entities(representations: $it) { __typename } }",
        "{ _service }",
        "{ _service { sdl { length } } }",
        "subscription { _service { sdl } }",
        "mutation { _entities(representations: []) { __typename } }",
    ] {
        let reply = gateway.query(Some("sandbox-all"), query).await;
        reply.rejected(422, "GRAPHQL_VALIDATION_FAILED");
    }
}

#[tokio::test]
async fn a_request_for_entities_alone_without_a_credential_is_a_401() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[ON]).await;
    let keys = [key(&id(1)), json!({ "__typename": "Claimant" })];
    gateway.entities(None, &keys).await.rejected(401, "UNAUTHENTICATED");
    let both = json!({ "representations": keys });
    let query = ENTITIES.replace("_entities(", "_service { sdl } _entities(");
    gateway.query_with(None, &query, both.clone()).await.rejected(401, "UNAUTHENTICATED");
    let request = gateway.request(Method::POST, "/graphql").header("content-type", "application/json");
    let body = json!({ "query": query, "variables": both }).to_string();
    let reply = GatewayResponse::of(request.body(body)).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.body["data"]["_entities"], json!([null, null]));
    assert!(reply.body["data"]["_service"]["sdl"].is_string());
    let expected = [0, 1].map(|index| (json!(["_entities", index]).to_string(), "UNAUTHENTICATED"));
    assert_eq!(reply.paths_and_codes(), expected);
    assert_eq!(upstream.calls(), 0);
}

#[tokio::test]
async fn the_description_needs_neither_credential_nor_introspection() {
    let gateway = Gateway::on_sandbox(&[ON, ("graphql.introspection", "false")]).await;
    for token in [None, Some("made-up")] {
        let reply = gateway.query(token, "{ _service { sdl __typename } __typename }").await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.body["data"]["_service"]["__typename"], "_Service");
    }
    gateway
        .query(None, "{ __schema { queryType { name } } }")
        .await
        .rejected(422, "GRAPHQL_VALIDATION_FAILED");
}

#[tokio::test]
async fn a_token_that_the_upstream_rejects_fails_each_entity() {
    let upstream = Upstream::answering(|_| UpstreamResponse::status(401)).await;
    let gateway = Gateway::before(upstream.url(), &[ON]).await;
    let reply = gateway.entities(Some("token"), &[key(&id(1)), key(&id(2))]).await;
    assert_eq!((reply.status, &reply.body["data"]["_entities"]), (294, &json!([null, null])));
    assert_eq!(reply.codes(), ["UNAUTHENTICATED", "UNAUTHENTICATED"]);
}

#[tokio::test]
async fn callers_receive_their_own_entities() {
    let upstream = Upstream::answering(|call| match call.token() {
        "stranger" => UpstreamResponse::status(403),
        _ => call.appointment(),
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[ON]).await;
    let ids = ids(0..10);
    let keys = ids.iter().map(|id| key(id)).collect::<Vec<_>>();
    let tokens = ["alice", "bob", "stranger"];
    for _ in 0..3 {
        let replies = join_all(tokens.iter().map(|token| gateway.entities(Some(token), &keys))).await;
        for (token, reply) in tokens.iter().zip(replies) {
            if *token == "stranger" {
                assert_eq!(reply.body["data"]["_entities"], json!(vec![Value::Null; 10]));
                assert_eq!(reply.codes(), ["FORBIDDEN"; 10]);
                continue;
            }
            for (entity, id) in entities(&reply).as_array().unwrap().iter().zip(&ids) {
                assert_eq!((&entity["id"], &entity["reference"]), (&json!(id), &json!(token)));
            }
        }
    }
    let representations =
        keys.iter().map(|key| format!("{{__typename: \"Appointment\", id: {}}}", key["id"]));
    let query = format!(
        "{{ _entities(representations: [{}]) {{ ... on Appointment {{ id reference }} }} }}",
        representations.collect::<Vec<_>>().join(", ")
    );
    for _ in 0..3 {
        for form in RequestForm::EACH {
            for token in ["alice", "bob"] {
                let reply = form.ask(&gateway, token, &query).await;
                let expected = ids.iter().map(|id| json!({ "id": id, "reference": token }));
                assert_eq!(*entities(&reply), expected.collect::<Value>(), "{form:?}");
            }
        }
    }
    for token in ["alice", "bob"] {
        assert_eq!(upstream.seen(|seen| seen.calls.iter().filter(|it| it.token() == token).count()), 10);
    }
}

#[tokio::test]
async fn the_limit_of_ids_counts_distinct_entities() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[ON, ("limits.ids", "3")]).await;
    let keys = |range: std::ops::Range<usize>| range.map(|n| key(&id(n))).collect::<Vec<_>>();
    let reply = gateway.entities(Some("token"), &keys(0..4)).await;
    assert_eq!(reply.body["data"], Value::Null);
    let error = &reply.body["errors"][0];
    assert_eq!(error["path"], json!(["_entities"]));
    assert_eq!(
        [&error["extensions"]["code"], &error["extensions"]["limit"], &error["extensions"]["maximum"]],
        [&json!("BAD_USER_INPUT"), &json!("ids"), &json!(3)]
    );
    assert_eq!(error["extensions"]["value"], 4);
    assert_eq!(upstream.calls(), 0);
    // A router sends a representation for each object that refers to an entity.
    let repeated = [keys(0..3), keys(0..3), vec![json!({})]].concat();
    let reply = gateway.entities(Some("token"), &repeated).await;
    assert_eq!(reply.paths_and_codes(), [("[\"_entities\",6]".to_owned(), "BAD_USER_INPUT")]);
    let ids = reply.body["data"]["_entities"].as_array().unwrap().iter().map(|it| it["id"].clone());
    let expected = (0..6).map(|n| json!(id(n % 3))).chain([Value::Null]);
    assert_eq!(ids.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    assert_eq!(upstream.calls(), 3);
    // The limit applies to the distinct ids of the operation.
    let variables = json!({ "a": keys(0..3), "b": keys(1..4) });
    let query = "query ($a: [_Any!]!, $b: [_Any!]!) {
        a: _entities(representations: $a) { __typename } b: _entities(representations: $b) { __typename }
    }";
    let reply = gateway.query_with(Some("token"), query, variables).await;
    assert_eq!(reply.codes(), ["BAD_USER_INPUT"]);
    assert_eq!(gateway.entities(Some("token"), &keys(0..3)).await.status, 200);
}

#[tokio::test]
async fn the_cost_counts_each_representation() {
    let gateway = Gateway::on_sandbox(&[ON, ("limits.cost", "60")]).await;
    let keys = |count: usize| (0..count).map(|n| key(&id(n))).collect::<Vec<_>>();
    // 1 + 4 · (10 + 3) = 53, and one more is 66.
    assert_eq!(
        gateway.entities(Some("sandbox-all"), &keys(4)).await.body["data"]["_entities"],
        json!(vec![Value::Null; 4])
    );
    let reply = gateway.entities(Some("sandbox-all"), &keys(5)).await;
    reply.rejected(422, "QUERY_TOO_COMPLEX");
    let extensions = &reply.body["errors"][0]["extensions"];
    assert_eq!([&extensions["limit"], &extensions["value"]], [&json!("cost"), &json!(66)]);
    // The description costs its fields: it makes no call.
    let gateway = Gateway::on_sandbox(&[ON, ("limits.cost", "2")]).await;
    assert_eq!(gateway.query(None, "{ _service { sdl } }").await.status, 200);
}

#[tokio::test]
async fn malformed_fields_of_entities_have_errors_at_their_paths() {
    let upstream = Upstream::answering(|call| {
        UpstreamResponse::json(200, &json!({ "data": { "id": call.id, "duration_in_minutes": {} } }))
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[ON]).await;
    let query = ENTITIES.replace("reference status", "durationInMinutes");
    let keys = [key(&id(1)), key(&id(2))];
    let reply = gateway.query_with(Some("token"), &query, json!({ "representations": keys })).await;
    let expected = [1, 2].map(|n| json!({ "id": id(n), "durationInMinutes": null }));
    assert_eq!(reply.body["data"]["_entities"], json!(expected));
    let expected = [0, 1].map(|index| {
        (json!(["_entities", index, "durationInMinutes"]).to_string(), "UPSTREAM_INVALID_RESPONSE")
    });
    assert_eq!(reply.paths_and_codes(), expected);
}

#[tokio::test]
async fn stale_entities_are_marked_at_their_index() {
    let upstream = Upstream::start().await;
    let settings = [ON, ("cache.ttl", "1ms"), ("cache.stale_if_error", "1h")];
    let gateway = Gateway::before(upstream.url(), &settings).await;
    let keys = [key(&id(2)), key(&id(1)), json!({})];
    entities(&gateway.entities(Some("token"), &keys[..2]).await);
    upstream.on(&id(1), |_| UpstreamResponse::status(500));
    tokio::time::sleep(Duration::from_millis(5)).await;
    let reply = gateway.entities(Some("token"), &keys).await;
    let stale = reply.body["extensions"]["stale"].as_array().unwrap();
    let paths = stale.iter().map(|it| it["path"].clone()).collect::<Value>();
    assert_eq!(paths, json!([["_entities", 1]]));
    assert_eq!(reply.codes(), ["BAD_USER_INPUT"]);
}
