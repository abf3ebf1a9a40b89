//! Trusted documents: the documents in the operator's manifests, which requests name by an id.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::support::{
    ChangeKind, FinishedRun, Gateway, GatewayResponse, RawConnection, Socket, Upstream, handshake, id,
    manifests::{Manifests, apollo, ids_to_texts},
    persisted_query::{RequestTransport, by_hash, registering, rejection, sha256},
    program, served,
};

const NOT_FOUND: (&str, &str) = ("PERSISTED_QUERY_NOT_FOUND", "PersistedQueryNotFound");
const ID_REQUIRED: &str = "PERSISTED_QUERY_ID_REQUIRED";
const MISMATCH: &str = "PERSISTED_QUERY_HASH_MISMATCH";

/// A query for the appointment in the variable `id`.
fn by_id(name: &str) -> String {
    format!("query {name}($id: UUID!) {{ appointment(id: $id) {{ id reference status }} }}")
}

fn with_id(mut parameters: Value, number: usize) -> Value {
    parameters["variables"] = json!({ "id": id(number) });
    parameters
}

fn persisted(hash: &str) -> Value {
    json!({ "extensions": { "persistedQuery": { "version": 1, "sha256Hash": hash } } })
}

/// The parameters of a request that names a document in each of the forms that clients use.
fn naming(id: &str) -> Vec<Value> {
    let mut forms =
        vec![json!({ "documentId": id }), json!({ "doc_id": id }), json!({ "id": id }), persisted(id)];
    if id.len() == 64 {
        forms.push(json!({ "documentId": format!("sha256:{id}") }));
        forms.push(json!({ "documentId": id.to_uppercase() }));
    }
    // npm graphql-ws sends an empty text in place of none.
    forms.push(json!({ "documentId": id, "query": "" }));
    forms
}

/// A request for the document at `path`, with `parameters` in the body or in the query string.
fn at(gateway: &Gateway, method: Method, path: &str, parameters: &Value) -> RequestBuilder {
    let request = match method {
        Method::POST => gateway
            .request(method, path)
            .header("content-type", "application/json")
            .body(parameters.to_string()),
        _ => {
            let pairs = parameters.as_object().unwrap().iter();
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let pairs: Vec<_> = pairs.map(|(name, value)| (name, text(value))).collect();
            gateway.request(method, &format!("{path}?{}", serde_urlencoded::to_string(pairs).unwrap()))
        }
    };
    request.bearer_auth(gateway.secret("token"))
}

async fn send_to(gateway: &Gateway, method: Method, path: &str, parameters: &Value) -> GatewayResponse {
    let request = at(gateway, method, path, parameters).header("accept", "application/graphql-response+json");
    GatewayResponse::of(request).await
}

#[tokio::test]
async fn documents_of_every_format_run_by_every_form_of_their_id() {
    let texts: Vec<_> = ["Apollo", "Relay", "Pair", "Kotlin", "Plain", "Gql"].map(by_id).into();
    let [apollo_text, relay, pair, kotlin, plain, gql] = texts.as_slice() else { panic!() };
    let hash = sha256(apollo_text);
    let manifests = Manifests::with(&[
        ("apollo.json", apollo(&[(&hash, "Apollo", apollo_text)])),
        ("relay/relay.json", ids_to_texts(&[("5d41402abc4b2a76b9719d911017c592", relay)])),
        ("relay/old/pairs.json", json!([["app/1.0", pair]]).to_string()),
        ("kotlin.json", json!({ "k": { "name": "Kotlin", "source": kotlin, "type": "query" } }).to_string()),
        ("plain.graphql", plain.clone()),
        ("plain.gql", gql.clone()),
        // Neither is a manifest.
        ("README.md", "{".to_owned()),
        (".hidden.json", "{".to_owned()),
    ]);
    std::os::unix::fs::symlink("/nowhere", manifests.file("notes.txt")).unwrap();
    let documents = [
        (hash, "Apollo"),
        ("5d41402abc4b2a76b9719d911017c592".to_owned(), "Relay"),
        ("app/1.0".to_owned(), "Pair"),
        ("k".to_owned(), "Kotlin"),
        (sha256(plain), "Plain"),
        (sha256(gql), "Gql"),
    ];
    for mode in ["off", "log", "require"] {
        let upstream = Upstream::start().await;
        let gateway = manifests.gateway(upstream.url(), mode, &[]).await;
        let expected = json!({ "data": { "appointment": served(&id(1), "token", 1) } });
        for (document, name) in &documents {
            for parameters in naming(document) {
                for transport in RequestTransport::EACH {
                    let mut parameters = with_id(parameters.clone(), 1);
                    assert_eq!(
                        transport.send(&gateway, "token", &parameters).await,
                        expected,
                        "{mode} {transport:?} {parameters}"
                    );
                    parameters["operationName"] = (*name).into();
                    assert_eq!(
                        transport.send(&gateway, "token", &parameters).await,
                        expected,
                        "{mode} {transport:?} {parameters}"
                    );
                }
            }
        }
        assert_eq!(upstream.calls(), 1, "{mode}");
        assert_eq!(gateway.metrics().await["gateway_trusted_documents"], 6.0);
        assert_eq!(gateway.untrusted().await, (0.0, 0.0), "{mode}");
    }
}

#[tokio::test]
async fn a_single_file_may_have_any_name() {
    let text = by_id("Any");
    for (file, contents, document) in [
        ("manifest", ids_to_texts(&[("1", &text)]), "1".to_owned()),
        ("manifest.json", ids_to_texts(&[("1", &text)]), "1".to_owned()),
        ("query.graphql", text.clone(), sha256(&text)),
    ] {
        let manifests = Manifests::with(&[(file, contents)]);
        let gateway = Gateway::on_sandbox(&[("documents.path", &manifests.file(file))]).await;
        let reply =
            RequestTransport::Post.send(&gateway, "", &with_id(json!({ "documentId": document }), 1)).await;
        assert_eq!(reply["errors"][0]["extensions"]["code"], "UNAUTHENTICATED", "{file} {reply}");
    }
}

#[tokio::test]
async fn only_trusted_documents_run_in_require() {
    let upstream = Upstream::start().await;
    let text = by_id("Known");
    let manifests = Manifests::of(&[(&sha256(&text), &text), ("other", &by_id("Other"))]);
    let gateway = manifests.gateway(upstream.url(), "require", &[]).await;
    let free = by_id("Free");
    let (mut texts, mut ids) = (0.0, 0.0);
    for transport in RequestTransport::EACH {
        for query in [
            free.as_str(),
            // The text alone is not enough.
            &text,
            "{ __typename }",
            "{ __schema { queryType { name } } }",
            "query IntrospectionQuery { __schema { types { name } } }",
            "{ _service { sdl } }",
            "not GraphQL",
            "",
        ] {
            let document = transport.send(&gateway, "token", &with_id(json!({ "query": query }), 1)).await;
            let (code, message) = rejection(&document);
            assert_eq!(code, ID_REQUIRED, "{transport:?} {query}");
            assert!(message.contains("documentId"), "{message}");
            texts += 1.0;
        }
        for unknown in [sha256(&free), "1".to_owned(), "x".repeat(1000), String::new(), "OTHER".to_owned()] {
            for parameters in naming(&unknown) {
                let document = transport.send(&gateway, "token", &with_id(parameters.clone(), 1)).await;
                assert_eq!(rejection(&document), NOT_FOUND, "{transport:?} {parameters}");
                ids += 1.0;
            }
        }
    }
    assert_eq!(upstream.calls(), 0);
    assert_eq!(gateway.untrusted().await, (texts, ids));
}

#[tokio::test]
async fn nothing_can_be_registered_in_require() {
    let upstream = Upstream::start().await;
    let manifests = Manifests::of(&[("1", &by_id("Known"))]);
    let gateway = manifests.gateway(upstream.url(), "require", &[]).await;
    let text = by_id("Free");
    for transport in RequestTransport::EACH {
        for parameters in [registering(&text), by_hash(&text), registering(&text)] {
            let document = transport.send(&gateway, "token", &with_id(parameters, 1)).await;
            assert_eq!(rejection(&document), NOT_FOUND, "{transport:?}");
        }
    }
    assert!(!gateway.knows("token", &text).await);
    assert_eq!(upstream.calls(), 0);
}

#[tokio::test]
async fn subscriptions_and_changes_run_by_id_in_require() {
    let upstream =
        Upstream::answering(|call| if call.is_change() { call.changed() } else { call.appointment() }).await;
    let cancel = "mutation Cancel($id: UUID!) { cancelAppointment(id: $id) { appointment { id status } } }";
    let watch = "subscription Watch($id: UUID!) { appointmentChanged(id: $id) { id status } }";
    let manifests = Manifests::of(&[("cancel", cancel), ("watch", watch)]);
    let gateway = manifests.gateway(upstream.url(), "require", &[]).await;
    for transport in [RequestTransport::Post, RequestTransport::EventStream, RequestTransport::WebSocket] {
        let before = upstream.calls();
        let document =
            transport.send(&gateway, "token", &with_id(json!({ "documentId": "cancel" }), 1)).await;
        assert_eq!(document["data"]["cancelAppointment"]["appointment"]["status"], "cancelled", "{document}");
        assert_eq!(upstream.calls(), before + 1, "{transport:?}");
    }
    let before = upstream.calls();
    for path in ["/graphql/cancel", "/graphql"] {
        let parameters = with_id(if path == "/graphql" { json!({ "id": "cancel" }) } else { json!({}) }, 1);
        let reply = send_to(&gateway, Method::GET, path, &parameters).await;
        reply.rejected(405, "BAD_REQUEST");
        assert_eq!(reply.headers["allow"], "POST");
    }
    assert_eq!(upstream.calls(), before, "a change is never made by GET");
    for transport in
        [RequestTransport::EventStream, RequestTransport::EventStreamGet, RequestTransport::WebSocket]
    {
        let document = transport.send(&gateway, "token", &with_id(json!({ "doc_id": "watch" }), 2)).await;
        assert_eq!(document["data"]["appointmentChanged"]["id"], id(2), "{transport:?} {document}");
        let document = transport.send(&gateway, "token", &with_id(json!({ "query": watch }), 2)).await;
        assert_eq!(rejection(&document).0, ID_REQUIRED, "{transport:?}");
    }
    let kind = ChangeKind::Cancel;
    assert_eq!(kind.make(&gateway).await.codes(), [ID_REQUIRED], "{kind:?}");
}

#[tokio::test]
async fn introspection_runs_only_if_it_is_trusted() {
    let manifests = Manifests::of(&[("schema", "{ __schema { queryType { name } } }")]);
    let gateway = manifests.gateway("http://127.0.0.1:9", "require", &[]).await;
    let document = RequestTransport::Post.send(&gateway, "", &json!({ "documentId": "schema" })).await;
    assert_eq!(document["data"]["__schema"]["queryType"]["name"], "Query");
}

#[tokio::test]
async fn a_text_beside_an_id_must_be_that_of_the_document() {
    let upstream = Upstream::start().await;
    let (text, other) = (by_id("Known"), by_id("Other"));
    let manifests = Manifests::of(&[(&sha256(&text), &text), ("other", &other)]);
    for mode in ["off", "log", "require"] {
        let gateway = manifests.gateway(upstream.url(), mode, &[]).await;
        for transport in RequestTransport::EACH {
            for (document, query, is_same) in [
                (sha256(&text), text.clone(), true),
                (sha256(&text), other.clone(), false),
                (sha256(&text), format!("{text} "), false),
                ("other".to_owned(), other.clone(), true),
                ("other".to_owned(), text.clone(), false),
            ] {
                for parameters in naming(&document) {
                    let mut parameters = with_id(parameters, 1);
                    parameters["query"] = query.clone().into();
                    let reply = transport.send(&gateway, "token", &parameters).await;
                    if is_same {
                        assert_eq!(
                            reply["data"]["appointment"]["id"],
                            id(1),
                            "{mode} {transport:?} {parameters} {reply}"
                        );
                    } else {
                        assert_eq!(rejection(&reply).0, MISMATCH, "{mode} {transport:?} {parameters}");
                    }
                }
            }
        }
        assert_eq!(gateway.untrusted().await, (0.0, 0.0));
    }
    assert_eq!(upstream.calls(), 3, "one for each gateway");
}

/// Without `require`, an unknown id beside a text is none of a trusted document, so the text runs.
#[tokio::test]
async fn other_documents_run_in_off_and_log() {
    let upstream = Upstream::start().await;
    let manifests = Manifests::of(&[("known", &by_id("Known"))]);
    for mode in ["off", "log"] {
        let gateway = manifests.gateway(upstream.url(), mode, &[]).await;
        let text = by_id("Free");
        for transport in RequestTransport::EACH {
            for parameters in [
                json!({ "query": text }),
                json!({ "query": text, "documentId": "unknown" }),
                json!({ "query": text, "id": "7" }),
                json!({ "query": text, "id": "7", "documentId": "unknown" }),
            ] {
                let reply = transport.send(&gateway, "token", &with_id(parameters.clone(), 1)).await;
                assert_eq!(
                    reply["data"]["appointment"]["id"],
                    id(1),
                    "{mode} {transport:?} {parameters} {reply}"
                );
            }
            let unknown = with_id(json!({ "documentId": "unknown" }), 1);
            assert_eq!(
                rejection(&transport.send(&gateway, "token", &unknown).await),
                NOT_FOUND,
                "{mode} {transport:?}"
            );
        }
        // A number that is no id of a document.
        let numbered = with_id(json!({ "query": text, "id": 7 }), 1);
        assert_eq!(
            RequestTransport::Post.send(&gateway, "token", &numbered).await["data"]["appointment"]["id"],
            id(1)
        );
        // Automatic persisted queries work as before, also by the other names of an id.
        RequestTransport::Post.send(&gateway, "token", &with_id(registering(&text), 1)).await;
        for parameters in naming(&sha256(&text)) {
            let reply = RequestTransport::Post.send(&gateway, "token", &with_id(parameters, 1)).await;
            assert_eq!(reply["data"]["appointment"]["id"], id(1), "{mode} {reply}");
        }
    }
}

#[tokio::test]
async fn log_counts_what_require_would_refuse() {
    let upstream = Upstream::start().await;
    let (known, free) = (by_id("Known"), by_id("Free"));
    let manifests = Manifests::of(&[("known", &known)]);
    let gateway = manifests.gateway(upstream.url(), "log", &[]).await;
    let (mut texts, mut ids) = (0.0, 0.0);
    // The second time, the response cache answers.
    for _ in 0..2 {
        for transport in RequestTransport::EACH {
            transport.send(&gateway, "token", &with_id(json!({ "documentId": "known" }), 1)).await;
            transport
                .send(&gateway, "token", &with_id(json!({ "query": known, "documentId": "known" }), 1))
                .await;
            assert_eq!(gateway.untrusted().await, (texts, ids), "{transport:?}");
            transport.send(&gateway, "token", &with_id(json!({ "query": free }), 1)).await;
            texts += 1.0;
            transport.send(&gateway, "token", &with_id(json!({ "documentId": "unknown" }), 1)).await;
            transport.send(&gateway, "token", &with_id(registering(&free), 1)).await;
            transport.send(&gateway, "token", &with_id(by_hash(&free), 1)).await;
            ids += 3.0;
            assert_eq!(gateway.untrusted().await, (texts, ids), "{transport:?}");
        }
        let array = json!([
            with_id(json!({ "query": free }), 1),
            with_id(json!({ "query": known }), 1),
            with_id(by_hash(&free), 1),
        ]);
        let reply = send_to(&gateway, Method::POST, "/graphql", &array).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        (texts, ids) = (texts + 2.0, ids + 1.0);
        assert_eq!(gateway.untrusted().await, (texts, ids));
    }
    let (hits, _) = gateway.response_cache_lookups().await;
    assert!(hits >= 9.0, "{hits}");
    let off = manifests.gateway(upstream.url(), "off", &[]).await;
    RequestTransport::Post.send(&off, "token", &with_id(json!({ "query": free }), 1)).await;
    RequestTransport::Post.send(&off, "token", &with_id(json!({ "id": "unknown" }), 1)).await;
    assert_eq!(off.untrusted().await, (0.0, 0.0));
}

#[tokio::test]
async fn arrays_run_trusted_documents_by_their_hash_only() {
    let upstream = Upstream::start().await;
    let text = by_id("Known");
    let manifests = Manifests::of(&[(&sha256(&text), &text)]);
    let gateway = manifests.gateway(upstream.url(), "require", &[]).await;
    let array = json!([
        with_id(by_hash(&text), 1),
        with_id(json!({ "query": text }), 2),
        with_id(registering(&text), 3),
        with_id(by_hash(&by_id("Unknown")), 4),
        with_id(json!({ "documentId": sha256(&text) }), 5),
        with_id(json!({ "id": sha256(&text) }), 6),
    ]);
    let reply = send_to(&gateway, Method::POST, "/graphql", &array).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let results = reply.body.as_array().unwrap();
    for index in [0, 2] {
        assert_eq!(results[index]["data"]["appointment"]["id"], id(index + 1), "{reply:?}");
    }
    for (index, code) in [(1, ID_REQUIRED), (3, NOT_FOUND.0), (4, "BAD_REQUEST"), (5, "BAD_REQUEST")] {
        assert_eq!(rejection(&results[index]).0, code, "{index} {reply:?}");
    }
    assert_eq!(upstream.calls(), 2);
    // A path names one document.
    let path = format!("/graphql/{}", sha256(&text));
    let reply = send_to(&gateway, Method::POST, &path, &json!([with_id(json!({}), 7)])).await;
    reply.rejected(422, "BAD_REQUEST");
    assert_eq!(upstream.calls(), 2);
}

#[tokio::test]
async fn a_path_names_a_document() {
    let upstream = Upstream::start().await;
    let hash = sha256(&by_id("Known"));
    let manifests = Manifests::of(&[(&hash, &by_id("Known")), ("app/1 é", &by_id("Spaced"))]);
    let gateway = manifests.gateway(upstream.url(), "require", &[("log.level", "debug")]).await;
    let expected = json!({ "data": { "appointment": served(&id(1), "token", 1) } });
    let variables = with_id(json!({}), 1);
    for path in [
        format!("/graphql/{hash}"),
        format!("/graphql/{hash}/"),
        format!("/graphql/sha256:{hash}"),
        format!("/graphql/sha256%3A{}", hash.to_uppercase()),
        "/graphql/app%2F1%20%C3%A9".to_owned(),
        "/graphql/app%2f1%20%c3%a9/".to_owned(),
    ] {
        for method in [Method::GET, Method::POST] {
            let reply = send_to(&gateway, method.clone(), &path, &variables).await;
            assert_eq!((reply.status, &reply.body), (200, &expected), "{method} {path}");
            let stream =
                at(&gateway, method.clone(), &path, &variables).header("accept", "text/event-stream");
            let events = GatewayResponse::of(stream).await;
            assert!(events.body.as_str().unwrap().contains(&id(1)), "{method} {path} {events:?}");
        }
        let head = send_to(&gateway, Method::HEAD, &path, &variables).await;
        assert_eq!((head.status, head.body), (200, json!("")), "{path}");
        assert!(head.headers["etag"].len() > 8, "{path}");
    }
    for path in [
        "/graphql/unknown",
        "/graphql/app/",
        "/graphql/app%2F1",
        "/graphql/%FF",
        "/graphql/%",
        "/graphql/%00",
        &format!("/graphql/{}", "x".repeat(3000)),
    ] {
        for method in [Method::GET, Method::POST] {
            let reply = send_to(&gateway, method.clone(), path, &variables).await;
            assert_eq!(reply.rejected(422, NOT_FOUND.0), NOT_FOUND.1, "{method} {path}");
            assert_eq!(reply.headers["cache-control"], "no-store", "{method} {path}");
        }
    }
    for path in ["/graphql/a/b", "/graphql//a", "/graphql/a//", "/graphqla"] {
        let reply = send_to(&gateway, Method::POST, path, &variables).await;
        reply.rejected(404, "BAD_REQUEST");
    }
    // Neither the id, which anyone may choose, nor the rest of the path is logged.
    let log = gateway.stderr();
    assert!(log.contains("http.route=\"/graphql/{id}\""), "{log}");
    assert!(!log.contains(&hash) && !log.contains("unknown"), "{log}");
}

#[tokio::test]
async fn paths_of_documents_follow_the_rules_of_the_endpoint() {
    let upstream = Upstream::start().await;
    let manifests = Manifests::of(&[("1", &by_id("Known"))]);
    let origin = ("http.origins", "https://app.example");
    let gateway = manifests.gateway(upstream.url(), "require", &[origin]).await;
    // Methods.
    for method in [Method::PUT, Method::DELETE, Method::PATCH] {
        let reply = GatewayResponse::of(gateway.request(method.clone(), "/graphql/1")).await;
        reply.rejected(405, "BAD_REQUEST");
        assert_eq!(reply.headers["allow"], "GET, HEAD, POST", "{method}");
    }
    // A page of another site cannot send this GET without a preflight.
    let path = format!("/graphql/1?variables=%7B%22id%22%3A%22{}%22%7D", id(1));
    let simple = gateway.request(Method::GET, &path).header("accept", "*/*");
    GatewayResponse::of(simple).await.rejected(403, "BAD_REQUEST");
    let simple = gateway.request(Method::POST, "/graphql/1").header("content-type", "text/plain").body("{}");
    GatewayResponse::of(simple).await.rejected(415, "BAD_REQUEST");
    // CORS.
    let preflight = gateway
        .request(Method::OPTIONS, "/graphql/1")
        .header("origin", "https://app.example")
        .header("access-control-request-method", "GET")
        .header("access-control-request-headers", "authorization");
    let preflight = GatewayResponse::of(preflight).await;
    assert_eq!(preflight.headers["access-control-allow-origin"], "https://app.example");
    let read =
        at(&gateway, Method::GET, "/graphql/1", &with_id(json!({}), 1)).header("accept", "application/json");
    let read = GatewayResponse::of(read.header("origin", "https://app.example")).await;
    assert_eq!(read.headers["access-control-allow-origin"], "https://app.example", "{read:?}");
    assert_eq!(read.headers["vary"], "Authorization, Accept, Accept-Encoding, Origin", "{read:?}");
    // WebSockets are opened at the endpoint.
    let upgrade = handshake("GET", "").replace("GET /graphql ", "GET /graphql/1 ");
    assert_eq!(RawConnection::once(&gateway, upgrade).await.status, 404);
    // A root field needs a credential.
    let anonymous = gateway.request(Method::GET, &path).header("accept", "application/graphql-response+json");
    GatewayResponse::of(anonymous).await.rejected(401, "UNAUTHENTICATED");
}

#[tokio::test]
async fn paths_of_documents_move_with_the_endpoint() {
    let upstream = Upstream::start().await;
    let manifests = Manifests::of(&[("1", &by_id("Known")), ("livez", &by_id("Shadowed"))]);
    for (configured, path) in [("/api/gql", "/api/gql/1"), ("/", "/1")] {
        let settings = [
            ("upstream.url", upstream.url()),
            ("documents.path", manifests.path()),
            ("documents.mode", "require"),
            ("graphiql.enabled", "false"),
            ("http.path", configured),
        ];
        let gateway = Gateway::with_path(program(&["serve"], &settings), configured).await;
        let base = gateway.base().trim_end_matches(configured).to_owned();
        let reply = gateway.client().get(format!("{base}{path}?variables=%7B%22id%22%3A%22{}%22%7D", id(1)));
        let reply = reply.header("accept", "application/json").bearer_auth(gateway.secret("token"));
        let reply = GatewayResponse::of(reply).await;
        assert_eq!(reply.body["data"]["appointment"]["id"], id(1), "{configured} {reply:?}");
        let live = GatewayResponse::of(gateway.client().get(format!("{base}/livez"))).await;
        assert_eq!(live.body, json!("live\n"), "{configured}");
    }
}

#[tokio::test]
async fn the_path_is_part_of_the_key_of_the_response_cache() {
    let upstream = Upstream::start().await;
    let (one, two) = ("query ($id: UUID!) { appointment(id: $id) { id } }", by_id("Two"));
    let manifests = Manifests::of(&[("1", one), ("2", &two)]);
    let gateway = manifests.gateway(upstream.url(), "require", &[]).await;
    let variables = with_id(json!({}), 1);
    for round in 0..3 {
        for method in [Method::GET, Method::POST] {
            let first = send_to(&gateway, method.clone(), "/graphql/1", &variables).await;
            assert_eq!(first.body, json!({ "data": { "appointment": { "id": id(1) } } }), "{round} {method}");
            let second = send_to(&gateway, method.clone(), "/graphql/2", &variables).await;
            let expected = json!({ "data": { "appointment": served(&id(1), "token", 1) } });
            assert_eq!(second.body, expected, "{round} {method}");
        }
        // The same request without a path is another one.
        send_to(&gateway, Method::GET, "/graphql", &variables).await.rejected(422, "BAD_REQUEST");
    }
    assert_eq!(upstream.calls(), 1);
    assert_eq!(gateway.response_cache_lookups().await.0, 8.0);
}

#[tokio::test]
async fn ids_that_differ_are_refused() {
    let upstream = Upstream::start().await;
    let (text, other) = (by_id("Known"), by_id("Other"));
    let hash = sha256(&text);
    let manifests = Manifests::of(&[(&hash, &text), ("other", &other)]);
    for mode in ["off", "require"] {
        let gateway = manifests.gateway(upstream.url(), mode, &[]).await;
        for (path, parameters, is_consistent) in [
            ("/graphql", json!({ "documentId": hash, "doc_id": "other" }), false),
            ("/graphql", json!({ "documentId": hash, "id": "other" }), false),
            ("/graphql", json!({ "doc_id": hash, "id": "other" }), false),
            (
                "/graphql",
                json!({ "documentId": "other", "extensions": persisted(&hash)["extensions"] }),
                false,
            ),
            ("/graphql", json!({ "id": "other", "extensions": persisted(&hash)["extensions"] }), false),
            ("/graphql/other", json!({ "documentId": hash }), false),
            ("/graphql/other", persisted(&hash), false),
            ("/graphql", json!({ "documentId": format!("sha256:{hash}"), "id": hash.to_uppercase() }), true),
            ("/graphql", json!({ "documentId": hash, "extensions": persisted(&hash)["extensions"] }), true),
            ("/graphql/other", json!({ "documentId": "other", "doc_id": "other", "id": "other" }), true),
        ] {
            for method in [Method::GET, Method::POST] {
                let reply = send_to(&gateway, method.clone(), path, &with_id(parameters.clone(), 1)).await;
                if is_consistent {
                    assert_eq!(
                        reply.body["data"]["appointment"]["id"],
                        id(1),
                        "{path} {parameters} {reply:?}"
                    );
                } else {
                    let message = reply.rejected(422, "BAD_REQUEST");
                    assert!(message.contains("differ"), "{message}");
                }
            }
            if path == "/graphql" && !is_consistent {
                let mut socket = Socket::connect(&gateway, "token").await;
                let payload = with_id(parameters, 1);
                socket.send_message(json!({ "type": "subscribe", "id": "1", "payload": payload })).await;
                assert_eq!(socket.closed().await.0, 4400);
            }
        }
    }
}

#[tokio::test]
async fn ids_are_strings() {
    let upstream = Upstream::start().await;
    let manifests = Manifests::of(&[("1", &by_id("Known"))]);
    let gateway = manifests.gateway(upstream.url(), "off", &[]).await;
    for name in ["documentId", "doc_id", "id"] {
        for value in [json!(1), json!(true), json!([]), json!({})] {
            let parameters = with_id(json!({ name: value }), 1);
            let reply = send_to(&gateway, Method::POST, "/graphql", &parameters).await;
            assert!(reply.rejected(422, "BAD_REQUEST").contains(name), "{reply:?}");
        }
        let twice = format!("{{\"{name}\": \"1\", \"{name}\": \"1\"}}");
        let request = at(&gateway, Method::POST, "/graphql", &json!({})).body(twice);
        let request = request.header("accept", "application/graphql-response+json");
        GatewayResponse::of(request).await.rejected(422, "BAD_REQUEST");
        let request = gateway.request(Method::GET, &format!("/graphql?{name}=1&{name}=1"));
        let request = request.header("accept", "application/graphql-response+json");
        GatewayResponse::of(request).await.rejected(422, "BAD_REQUEST");
    }
    let beside_null =
        with_id(json!({ "doc_id": "1", "documentId": null, "query": null, "extensions": null }), 1);
    let reply = send_to(&gateway, Method::POST, "/graphql", &beside_null).await;
    assert_eq!(reply.body["data"]["appointment"]["id"], id(1), "{reply:?}");
    let reply = send_to(&gateway, Method::POST, "/graphql", &json!({ "documentId": null, "id": null })).await;
    assert!(reply.rejected(422, "BAD_REQUEST").contains("\"query\" is missing"));
}

#[tokio::test]
async fn refusals_have_the_statuses_of_persisted_queries() {
    let manifests = Manifests::of(&[("1", &by_id("Known"))]);
    for (statuses, expected) in [("2026", 422), ("2025", 400)] {
        let gateway =
            manifests.gateway("http://127.0.0.1:9", "require", &[("http.statuses", statuses)]).await;
        for (parameters, code) in [
            (json!({ "query": by_id("Free") }), ID_REQUIRED),
            (json!({ "documentId": "unknown" }), NOT_FOUND.0),
            (json!({ "documentId": "1", "query": "{ a }" }), MISMATCH),
        ] {
            for method in [Method::GET, Method::POST] {
                let reply = send_to(&gateway, method.clone(), "/graphql", &parameters).await;
                reply.rejected(expected, code);
                let transport =
                    if method == Method::GET { RequestTransport::Get } else { RequestTransport::Post };
                let request = transport.request_without_accept(&gateway, "token", &parameters);
                let reply = GatewayResponse::of(request.header("accept", "application/json")).await;
                assert_eq!((reply.status, reply.codes()), (200, vec![code]), "{statuses} {method}");
            }
        }
    }
}

#[tokio::test]
async fn limits_apply_to_trusted_documents_at_run_time() {
    let upstream = Upstream::start().await;
    let text = "query Many($ids: [UUID!]!) { appointmentsByIds(ids: $ids) { id } }";
    let manifests = Manifests::of(&[("many", text)]);
    let settings = [("limits.cost", "30")];
    let gateway = manifests.gateway(upstream.url(), "require", &settings).await;
    for (count, code) in [(2, None), (3, Some("QUERY_TOO_COMPLEX"))] {
        let variables = json!({ "ids": (0..count).map(id).collect::<Vec<_>>() });
        let reply = RequestTransport::Post
            .send(&gateway, "token", &json!({ "id": "many", "variables": variables }))
            .await;
        assert_eq!(reply["errors"][0]["extensions"]["code"].as_str(), code, "{reply}");
    }
    let reply = RequestTransport::Post.send(&gateway, "token", &json!({ "id": "many" })).await;
    assert_eq!(rejection(&reply).0, "BAD_USER_INPUT", "variables are checked");
}

#[tokio::test]
async fn several_operations_of_a_file_are_selected_by_name() {
    let upstream = Upstream::start().await;
    let fragment = "fragment Parts on Appointment { id }";
    let text = format!(
        "query A($id: UUID!) {{ appointment(id: $id) {{ ...Parts }} }}\n{fragment}\nquery B($id: UUID!) {{ b: appointment(id: $id) {{ ...Parts }} }}\n"
    );
    let manifests = Manifests::with(&[("both.graphql", text.clone())]);
    let gateway = manifests.gateway(upstream.url(), "require", &[]).await;
    for (name, field) in [("A", "appointment"), ("B", "b")] {
        let parameters = with_id(json!({ "documentId": sha256(&text), "operationName": name }), 1);
        for transport in RequestTransport::EACH {
            assert_eq!(
                transport.send(&gateway, "token", &parameters).await["data"][field]["id"],
                id(1),
                "{transport:?} {name}"
            );
        }
    }
    for name in [json!(null), json!("C")] {
        let parameters = with_id(json!({ "documentId": sha256(&text), "operationName": name }), 1);
        let reply = RequestTransport::Post.send(&gateway, "token", &parameters).await;
        assert_eq!(rejection(&reply).0, "BAD_USER_INPUT", "{name}");
    }
}

/// Validated at start, and never evicted by the documents of callers.
#[tokio::test]
async fn trusted_documents_are_warm_and_stay_so() {
    let upstream = Upstream::start().await;
    let text = by_id("Known");
    let manifests = Manifests::of(&[("1", &text)]);
    let settings = [("graphql.documents_size", "16KiB"), ("cache.answers_size", "0")];
    let gateway = manifests.gateway(upstream.url(), "off", &settings).await;
    let lookups =
        async |from: &str| gateway.metrics().await[&format!("gateway_documents_total{{from=\"{from}\"}}")];
    for round in 1..4 {
        for name in [json!(null), json!("Known")] {
            let parameters = with_id(json!({ "documentId": "1", "operationName": name }), 1);
            assert_eq!(
                RequestTransport::Post.send(&gateway, "token", &parameters).await["data"]["appointment"]["id"],
                id(1)
            );
        }
        assert_eq!(lookups("cache").await, f64::from(2 * round), "{round}");
        for number in 0..40 {
            gateway
                .register("token", &format!("{{ n{round}x{number}: appointment(id: {:?}) {{ id }} }}", id(1)))
                .await;
        }
        assert_eq!(lookups("text").await, f64::from(40 * round), "{round}");
    }
}

#[tokio::test]
async fn responses_to_trusted_documents_are_cached() {
    let upstream = Upstream::start().await;
    let manifests = Manifests::of(&[("1", &by_id("Known"))]);
    let gateway = manifests.gateway(upstream.url(), "require", &[]).await;
    for (transport, hits) in [(RequestTransport::Post, 2.0), (RequestTransport::Get, 4.0)] {
        for _ in 0..3 {
            let reply = transport.send(&gateway, "token", &with_id(json!({ "documentId": "1" }), 1)).await;
            assert_eq!(reply["data"]["appointment"]["id"], id(1));
        }
        assert_eq!(gateway.response_cache_lookups().await.0, hits, "{transport:?}");
    }
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn a_changed_manifest_is_used_without_a_restart() {
    let upstream = Upstream::start().await;
    let short = "query ($id: UUID!) { appointment(id: $id) { id } }";
    let long = by_id("Long");
    let manifests = Manifests::of(&[("changed", short), ("removed", short), ("stays", short)]);
    let gateway = manifests.gateway(upstream.url(), "require", &[]).await;
    let ask = async |document: &str, transport: RequestTransport| {
        transport.send(&gateway, "token", &with_id(json!({ "documentId": document }), 1)).await
    };
    let brief = json!({ "data": { "appointment": { "id": id(1) } } });
    for transport in RequestTransport::EACH {
        for document in ["changed", "removed", "stays"] {
            assert_eq!(ask(document, transport).await, brief, "{transport:?} {document}");
        }
        assert_eq!(rejection(&ask("added", transport).await), NOT_FOUND);
    }
    manifests.write("app.json", &ids_to_texts(&[("changed", &long), ("stays", short)]));
    manifests.write("more/added.json", &ids_to_texts(&[("added", short)]));
    gateway.until_gauge("gateway_trusted_documents", 3.0).await;
    gateway.until_loaded("ok", 2.0).await;
    for transport in RequestTransport::EACH {
        // Also where the response cache had the response to the old document.
        let full = json!({ "data": { "appointment": served(&id(1), "token", 1) } });
        assert_eq!(ask("changed", transport).await, full, "{transport:?}");
        assert_eq!(rejection(&ask("removed", transport).await), NOT_FOUND, "{transport:?}");
        assert_eq!(ask("stays", transport).await, brief, "{transport:?}");
        assert_eq!(ask("added", transport).await, brief, "{transport:?}");
    }
    assert!(gateway.stderr().contains("trusted documents reloaded"), "{}", gateway.stderr());
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn a_faulty_manifest_leaves_the_documents_in_use() {
    let upstream = Upstream::start().await;
    let text = by_id("Known");
    let manifests = Manifests::of(&[("1", &text)]);
    let gateway = manifests.gateway(upstream.url(), "require", &[]).await;
    let ask = async |document: &str| {
        RequestTransport::Post.send(&gateway, "token", &with_id(json!({ "documentId": document }), 1)).await
    };
    let mut failures = 0.0;
    for (faulty, place) in [
        (ids_to_texts(&[("2", &text), ("3", "query Gone { gone }")]), "Gone (id 3)"),
        ("{\"1\"".to_owned(), "not valid JSON"),
        ("{}".to_owned(), "has no document"),
        (format!("{{\"2\": {:?}, \"2\": {:?}}}", text, by_id("Other")), "id of another document"),
    ] {
        manifests.write("app.json", &faulty);
        failures += 1.0;
        gateway.until_loaded("failed", failures).await;
        assert_eq!(ask("1").await["data"]["appointment"]["id"], id(1), "{place}");
        assert_eq!(rejection(&ask("2").await), NOT_FOUND, "{place}: no document of a faulty set is used");
        let log = gateway.stderr();
        assert!(
            log.contains("the previous documents stay in use") && log.contains(place),
            "{place} in {log}"
        );
        assert!(log.contains(&manifests.file("app.json")) || faulty == "{}", "{log}");
    }
    // Reported once, not with each read.
    let reports = gateway.stderr().matches("stay in use").count();
    assert_eq!(reports as f64, failures);
    manifests.remove("app.json");
    failures += 1.0;
    gateway.until_loaded("failed", failures).await;
    assert_eq!(ask("1").await["data"]["appointment"]["id"], id(1));
    manifests.write("app.json", &ids_to_texts(&[("2", &text)]));
    gateway.until_loaded("ok", 2.0).await;
    assert_eq!(ask("2").await["data"]["appointment"]["id"], id(1));
    assert_eq!(rejection(&ask("1").await), NOT_FOUND);
}

/// Files with faults, each with the parts of its message.
fn faults() -> Vec<(&'static str, String, Vec<&'static str>)> {
    let valid = by_id("Valid");
    let deep = format!("query Deep {}id{}", "{ appointment ".repeat(60), " }".repeat(60));
    vec![
        (
            "field.json",
            ids_to_texts(&[("7", "query GetGone { appointments { gone } }")]),
            vec!["GetGone (id 7)", "\"gone\"", "line 1"],
        ),
        ("apollo.json", apollo(&[("8", "Broken", "query Broken {")]), vec!["Broken (id 8)", "yntax"]),
        (
            "argument.graphql",
            "query Fine { __typename }\nquery Wrong { appointments(first: \"x\") { totalCount } }".to_owned(),
            vec!["Wrong (id ", "first", "line 2"],
        ),
        ("fragment.graphql", "fragment F on Appointment { id }".to_owned(), vec!["no operation"]),
        ("types.graphql", "type Query { a: Int }".to_owned(), vec!["types.graphql: id "]),
        ("deep.json", ids_to_texts(&[("9", &deep)]), vec!["id 9", "limits.depth"]),
        (
            "costly.json",
            ids_to_texts(&[(
                "12",
                "query Costly { appointments(first: 100) { nodes { id features { all { name } } } } }",
            )]),
            vec!["Costly (id 12)", "limits.cost"],
        ),
        ("array.json", json!([["10", valid], ["11"]]).to_string(), vec!["item 2", "pair"]),
        ("json.json", "{\n  \"1\": ".to_owned(), vec!["not valid JSON (line 2"]),
        (
            "twice.json",
            json!([["1", valid], ["1", "{ __typename }"]]).to_string(),
            vec!["id 1:", "id of another document", "twice.json"],
        ),
        ("empty.graphql", String::new(), vec!["empty.graphql: id "]),
    ]
}

#[tokio::test]
async fn a_faulty_manifest_prevents_the_start() {
    for (name, text, parts) in faults() {
        let manifests =
            Manifests::with(&[("valid.json", ids_to_texts(&[("0", &by_id("Other"))])), (name, text)]);
        let settings = [("documents.path", manifests.path()), ("limits.cost", "500")];
        let run = FinishedRun::of(program(&["serve"], &settings)).await;
        assert_eq!(run.code, Some(2), "{name} {run:?}");
        assert!(run.stderr.contains("documents.path has 1 fault:"), "{name} {run:?}");
        let file = manifests.file(name);
        assert!(
            [file.as_str()].iter().chain(&parts).all(|part| run.stderr.contains(part)),
            "{parts:?} {run:?}"
        );
    }
}

#[tokio::test]
async fn check_names_every_fault_of_every_document() {
    let files: Vec<_> = faults().into_iter().map(|(name, text, _)| (name, text)).collect();
    let manifests = Manifests::with(&files);
    let settings = [("documents.path", manifests.path()), ("limits.cost", "500")];
    let run = FinishedRun::of(program(&["check"], &settings)).await;
    assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{run:?}");
    for (name, _, parts) in faults() {
        let file = manifests.file(name);
        let is_fault = |line: &&str| line.contains(&file) && parts.iter().all(|part| line.contains(part));
        assert_eq!(run.stderr.lines().filter(is_fault).count(), 1, "{name} {run:?}");
    }
    // The same document in two versions of an app is a fault of both, and each error of a document is one.
    let faulty = "query Gone { gone also: gone }";
    let manifests = Manifests::with(&[
        ("1.0.json", ids_to_texts(&[("a", faulty)])),
        ("2.0.json", ids_to_texts(&[("a", faulty), ("b", &by_id("Valid"))])),
    ]);
    let run = FinishedRun::of(program(&["check"], &[("documents.path", manifests.path())])).await;
    assert!(run.stderr.contains("4 faults"), "{run:?}");
    manifests.remove("1.0.json");
    manifests.write("2.0.json", &ids_to_texts(&[("a", &by_id("A")), ("b", &by_id("B"))]));
    let run = FinishedRun::of(program(&["check"], &[("documents.path", manifests.path())])).await;
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stdout.contains("trusted documents valid (2 ids)"), "{run:?}");
    let run = FinishedRun::of(program(
        &["check"],
        &[("documents.path", manifests.path()), ("documents.size", "64B")],
    ))
    .await;
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stderr.contains("documents.size"), "{run:?}");
}

/// A schema change that breaks a released app, such as disabled federation, is found before deployment.
#[tokio::test]
async fn check_depends_on_the_schema_and_the_limits() {
    let manifests = Manifests::of(&[
        ("sdl", "query Sdl { _service { sdl } }"),
        ("schema", "query Schema { __schema { queryType { name } } }"),
    ]);
    for (settings, faults) in [
        (vec![("graphql.federation", "true")], vec![]),
        (vec![], vec!["Sdl"]),
        (vec![("graphql.federation", "true"), ("graphql.introspection", "false")], vec!["Schema"]),
        (vec![("graphql.federation", "true"), ("limits.tokens", "8")], vec!["id schema"]),
    ] {
        let settings = [vec![("documents.path", manifests.path())], settings].concat();
        let run = FinishedRun::of(program(&["check"], &settings)).await;
        assert_eq!(run.code, Some(if faults.is_empty() { 0 } else { 2 }), "{settings:?} {run:?}");
        let lines = run.stderr.lines().filter(|line| line.contains("app.json")).collect::<Vec<_>>();
        assert_eq!(lines.len(), faults.len(), "{settings:?} {run:?}");
        assert!(lines.iter().zip(&faults).all(|(line, fault)| line.contains(fault)), "{settings:?} {run:?}");
    }
}

#[tokio::test]
async fn contradictory_settings_are_reported() {
    let run = FinishedRun::of(program(&["check"], &[("documents.mode", "require")])).await;
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stderr.contains("documents.mode") && run.stderr.contains("documents.path"), "{run:?}");
    let manifests = Manifests::of(&[("1", "{ __typename }")]);
    let settings = [("documents.path", manifests.path()), ("documents.mode", "require")];
    let run = FinishedRun::of(program(&["check"], &settings)).await;
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stdout.contains("warning: documents.mode is require"), "{run:?}");
    assert!(run.stdout.contains("graphiql.enabled") && !run.stdout.contains("graphql.federation"), "{run:?}");
    let missing = FinishedRun::of(program(&["check"], &[("documents.path", "/nowhere/manifest.json")])).await;
    assert_eq!(missing.code, Some(2), "{missing:?}");
}

#[tokio::test]
async fn trusted_documents_need_no_memory_for_registered_texts() {
    let upstream = Upstream::start().await;
    let manifests = Manifests::of(&[("1", &by_id("Known"))]);
    for (mode, unknown) in [("off", "PERSISTED_QUERY_NOT_SUPPORTED"), ("require", NOT_FOUND.0)] {
        let gateway = manifests.gateway(upstream.url(), mode, &[("graphql.documents_size", "0")]).await;
        let reply =
            RequestTransport::Post.send(&gateway, "token", &with_id(json!({ "documentId": "1" }), 1)).await;
        assert_eq!(reply["data"]["appointment"]["id"], id(1), "{mode}");
        let reply = RequestTransport::Post.send(&gateway, "token", &by_hash(&by_id("Unknown"))).await;
        assert_eq!(rejection(&reply).0, unknown, "{mode}");
    }
}
