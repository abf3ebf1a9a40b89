//! Automatic persisted queries: a client sends the SHA-256 hash of a text, and the text itself only if the hash is
//! unknown.

use serde_json::{Value, json};

use crate::support::{
    ChangeKind, Event, Events, Gateway, GatewayResponse, KeyFile, List, Pagination, Socket, Upstream,
    UpstreamResponse, id,
    persisted_query::{RequestTransport, by_hash, registering, rejection, sha256},
    served,
};

const NOT_FOUND: (&str, &str) = ("PERSISTED_QUERY_NOT_FOUND", "PersistedQueryNotFound");
const NOT_SUPPORTED: (&str, &str) = ("PERSISTED_QUERY_NOT_SUPPORTED", "PersistedQueryNotSupported");
const LIST: &str = "{ appointments(first: 1) { nodes { id } } }";

/// A query for the appointment in the variable `id`, with a hash of its own for each `name`.
fn by_id(name: &str) -> String {
    format!("query {name}($id: UUID!) {{ appointment(id: $id) {{ id reference status }} }}")
}

fn with_id(mut parameters: Value, number: usize) -> Value {
    parameters["variables"] = json!({ "id": id(number) });
    parameters
}

#[tokio::test]
async fn a_registered_text_runs_by_its_hash_over_every_transport() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let expected = json!({ "data": { "appointment": served(&id(1), "token", 1) } });
    for transport in RequestTransport::EACH {
        let text = by_id(&format!("By{transport:?}"));
        let hash = with_id(by_hash(&text), 1);
        for miss in RequestTransport::EACH {
            assert_eq!(
                rejection(&miss.send(&gateway, "token", &hash).await),
                NOT_FOUND,
                "{transport:?} {miss:?}"
            );
        }
        let registered = transport.send(&gateway, "token", &with_id(registering(&text), 1)).await;
        assert_eq!(registered, expected, "{transport:?}");
        for hit in RequestTransport::EACH {
            assert_eq!(hit.send(&gateway, "token", &hash).await, expected, "{transport:?} {hit:?}");
        }
    }
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn subscriptions_are_registered_with_their_first_event() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    for transport in [RequestTransport::EventStream, RequestTransport::WebSocket] {
        let text = format!(
            "subscription By{transport:?}($id: UUID!) {{ appointmentChanged(id: $id) {{ id reference status }} }}"
        );
        let hash = with_id(by_hash(&text), 1);
        assert_eq!(rejection(&transport.send(&gateway, "token", &hash).await), NOT_FOUND);
        for parameters in [with_id(registering(&text), 1), hash] {
            let event = transport.send(&gateway, "token", &parameters).await;
            assert_eq!(event["data"]["appointmentChanged"]["id"], id(1), "{transport:?} {event}");
        }
    }
}

#[tokio::test]
async fn a_miss_over_a_websocket_leaves_it_open() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let mut socket = Socket::connect(&gateway, "sandbox-all").await;
    for (id, parameters, kind) in [
        ("1", by_hash("{ __typename }"), "error"),
        ("2", json!({ "query": "{ a }", "extensions": by_hash("{ b }")["extensions"] }), "error"),
        ("3", registering("{ __typename }"), "next"),
    ] {
        socket.send_message(json!({ "type": "subscribe", "id": id, "payload": parameters })).await;
        let message = socket.receive().await;
        assert_eq!((&message["id"], &message["type"]), (&json!(id), &json!(kind)), "{message}");
    }
}

/// npm `graphql-ws` wants a text, so apps send an empty one.
#[tokio::test]
async fn an_empty_text_stands_for_none() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let text = by_id("Empty");
    let mut hash = with_id(by_hash(&text), 1);
    hash["query"] = "".into();
    for transport in RequestTransport::EACH {
        assert_eq!(rejection(&transport.send(&gateway, "token", &hash).await), NOT_FOUND, "{transport:?}");
    }
    RequestTransport::Post.send(&gateway, "token", &with_id(registering(&text), 1)).await;
    for transport in RequestTransport::EACH {
        assert_eq!(
            transport.send(&gateway, "token", &hash).await["data"]["appointment"]["id"],
            id(1),
            "{transport:?}"
        );
    }
}

#[tokio::test]
async fn a_miss_is_never_cacheable() {
    let gateway = Gateway::on_sandbox(&[]).await;
    for transport in [RequestTransport::Get, RequestTransport::Post] {
        for parameters in
            [by_hash(LIST), json!({ "query": LIST, "extensions": by_hash("{ a }")["extensions"] })]
        {
            let reply = GatewayResponse::of(transport.request(&gateway, "sandbox-all", &parameters)).await;
            assert_eq!(reply.status, 422, "{reply:?}");
            assert_eq!(reply.headers["cache-control"], "no-store", "{reply:?}");
            for name in ["etag", "expires", "last-modified", "age"] {
                assert_eq!(reply.headers.get(name), None, "{reply:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_text_with_another_hash_is_rejected() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let (text, other, known) = (by_id("A"), by_id("B"), by_id("Known"));
    RequestTransport::Post.send(&gateway, "token", &with_id(registering(&known), 1)).await;
    for hash in [
        sha256(&other),
        // The known hash of another text.
        sha256(&known),
        sha256(&format!("{text} ")),
        sha256(&text)[1..].to_owned(),
        format!("{}0", sha256(&text)),
        format!("sha256:{}", sha256(&text)),
        String::new(),
        "x".repeat(64),
    ] {
        let calls = upstream.calls();
        let extensions = json!({ "persistedQuery": { "version": 1, "sha256Hash": hash } });
        let parameters = with_id(json!({ "query": text, "extensions": extensions }), 1);
        for transport in RequestTransport::EACH {
            let document = transport.send(&gateway, "token", &parameters).await;
            let (code, message) = rejection(&document);
            assert_eq!(code, "PERSISTED_QUERY_HASH_MISMATCH", "{hash} {transport:?}");
            assert!(message.contains("sha256Hash") && !message.contains(&text), "{message}");
        }
        assert_eq!(upstream.calls(), calls, "nothing runs");
        if hash != sha256(&known) {
            let parameters = json!({ "extensions": extensions });
            assert_eq!(
                rejection(&RequestTransport::Post.send(&gateway, "token", &parameters).await),
                NOT_FOUND,
                "{hash}"
            );
        }
    }
    assert!(!gateway.knows("token", &text).await && !gateway.knows("token", &other).await);
    let document = RequestTransport::Post.send(&gateway, "token", &with_id(by_hash(&known), 1)).await;
    assert_eq!(document["data"]["appointment"]["id"], id(1), "the hash still names its own text");
}

#[tokio::test]
async fn hashes_may_have_upper_case_digits() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let text = by_id("Capitals");
    let mut parameters = with_id(registering(&text), 1);
    parameters["extensions"]["persistedQuery"]["sha256Hash"] = sha256(&text).to_uppercase().into();
    for _ in 0..2 {
        let document = RequestTransport::Post.send(&gateway, "token", &parameters).await;
        assert_eq!(document["data"]["appointment"]["id"], id(1));
        parameters.as_object_mut().unwrap().remove("query");
    }
    assert!(gateway.knows("token", &text).await);
}

/// A text is registered if and only if the upstream has answered its caller with data.
#[tokio::test]
async fn texts_are_registered_only_with_data() {
    let list = List { length: 0, pagination: Pagination::Meta, cap: usize::MAX };
    let upstream = Upstream::answering(move |call| match (call.token(), call.method.as_str()) {
        ("unknown", _) => UpstreamResponse::status(401),
        ("served", "GET") if call.path.contains("per_page") => list.page(call),
        ("served", "GET") => match u16::from_str_radix(&call.id[..8], 16).unwrap() {
            status @ 400.. => UpstreamResponse::status(status),
            _ => call.appointment(),
        },
        ("refused", _) if call.is_change() => {
            UpstreamResponse::json(422, &json!({ "message": "No.", "errors": { "status": ["No."] } }))
        }
        _ if call.is_change() => call.changed(),
        _ => UpstreamResponse::status(500),
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[("limits.depth", "6")]).await;
    let one = |number: usize| format!("{{ appointment(id: \"{}\") {{ id reference }} }}", id(number));
    let two = |first: usize, second: usize| {
        format!(
            "{{ a: {0} b: {1} }}",
            &one(first)[2..one(first).len() - 2],
            &one(second)[2..one(second).len() - 2]
        )
    };
    let deep = "{ appointments { nodes { features { all { name } } } } }".to_owned();
    let cancel =
        "mutation ($id: UUID!) { cancelAppointment(id: $id) { appointment { id } userErrors { field } } }";
    for (token, text, is_registered) in [
        ("served", one(1), true),
        // From the cache this time.
        ("served", format!("{} ", one(1)), true),
        ("served", "{ appointments(first: 1) { totalCount } }".to_owned(), true),
        ("served", two(1, 403), true),
        ("served", deep.clone(), true),
        ("served", cancel.to_owned(), true),
        ("served", one(401), false),
        ("served", one(403), false),
        ("served", one(404), false),
        ("served", one(500), false),
        ("served", two(404, 500), false),
        ("served", "{ __typename }".to_owned(), false),
        ("served", "{ __schema { queryType { name } } }".to_owned(), false),
        // Invalid documents, and documents beyond a limit.
        ("served", "{ appointments { nothing } }".to_owned(), false),
        ("served", format!("{{ {}", one(1)), false),
        ("served", "query A { __typename } query B { __typename }".to_owned(), false),
        ("served", deep.replace("all { name }", "all { name } ...F"), false),
        ("served", "{".repeat(7), false),
        ("refused", cancel.replace("($id", " C($id"), false),
        ("unknown", one(2), false),
        ("unknown", "{ appointments(first: 2) { totalCount } }".to_owned(), false),
        ("unknown", cancel.replace("($id", " D($id"), false),
        ("", one(3), false),
        ("", "{ appointments(first: 3) { totalCount } }".to_owned(), false),
    ] {
        let mut parameters = registering(&text);
        if text.contains("$id") {
            parameters["variables"] = json!({ "id": id(1) });
        }
        let document = RequestTransport::Post.send(&gateway, token, &parameters).await;
        let code = &document["errors"][0]["extensions"]["code"];
        assert!(
            !code.as_str().is_some_and(|code| code.starts_with("PERSISTED")),
            "{token} {text}: {document}"
        );
        let mut parameters = by_hash(&text);
        parameters["variables"] = json!({ "id": id(1) });
        let document = RequestTransport::Post.send(&gateway, token, &parameters).await;
        let is_known = document["errors"][0]["extensions"]["code"] != NOT_FOUND.0;
        assert_eq!(is_known, is_registered, "{token} {text}: {document}");
    }
}

#[tokio::test]
async fn another_caller_runs_a_shared_text_with_its_own_token() {
    let upstream = Upstream::answering(|call| match call.token() {
        "stranger" => UpstreamResponse::status(401),
        _ => call.appointment(),
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let text = by_id("Shared");
    let hash = with_id(by_hash(&text), 1);
    assert_eq!(
        RequestTransport::Post.send(&gateway, "one", &with_id(registering(&text), 1)).await["data"]["appointment"]
            ["reference"],
        "one"
    );
    for round in 0..3 {
        for transport in RequestTransport::EACH {
            for token in ["one", "other"] {
                let document = transport.send(&gateway, token, &hash).await;
                assert_eq!(
                    document["data"]["appointment"]["reference"], token,
                    "{round} {transport:?} {document}"
                );
            }
            for token in ["stranger", ""] {
                let document = transport.send(&gateway, token, &hash).await;
                assert!(document["data"]["appointment"].is_null(), "{round} {transport:?} {document}");
                assert_eq!(
                    document["errors"][0]["extensions"]["code"], "UNAUTHENTICATED",
                    "{transport:?} {document}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_text_with_strings_is_private_to_its_caller() {
    let list = List { length: 3, pagination: Pagination::Meta, cap: usize::MAX };
    let upstream = Upstream::answering(move |call| {
        if call.path.contains("per_page") { list.page(call) } else { call.appointment() }
    })
    .await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let id = id(1);
    for text in [
        format!("{{ appointment(id: \"{id}\") {{ id }} }}"),
        format!("query ($id: UUID! = \"{id}\") {{ appointment(id: $id) {{ id }} }}"),
        format!("{{ appointment(id: \"\"\"{id}\"\"\") {{ id }} }}"),
        "{ appointments(first: 1) { totalCount } } # of Philomena".to_owned(),
    ] {
        gateway.register("one", &text).await;
        assert!(gateway.knows("one", &text).await, "{text}");
        for token in ["other", "one1", ""] {
            assert!(!gateway.knows(token, &text).await, "{token:?} {text}");
        }
        // The other caller has to send it as well.
        gateway.register("other", &text).await;
        assert!(gateway.knows("other", &text).await && gateway.knows("one", &text).await, "{text}");
        assert!(!gateway.knows("third", &text).await, "{text}");
    }
}

#[tokio::test]
async fn mutations_by_hash_are_sent_once_and_never_by_get() {
    let upstream =
        Upstream::answering(|call| if call.is_change() { call.changed() } else { call.appointment() }).await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let text = "mutation Cancel($id: UUID!) { cancelAppointment(id: $id) { appointment { id status } } }";
    for parameters in [with_id(registering(text), 1), with_id(by_hash(text), 1)] {
        let before = upstream.calls();
        let document = RequestTransport::Post.send(&gateway, "token", &parameters).await;
        assert_eq!(document["data"]["cancelAppointment"]["appointment"]["status"], "cancelled", "{document}");
        assert_eq!(upstream.calls(), before + 1);
        let reply = GatewayResponse::of(RequestTransport::Get.request(&gateway, "token", &parameters)).await;
        reply.rejected(405, "BAD_REQUEST");
        assert_eq!(reply.headers["allow"], "POST");
        assert_eq!(upstream.calls(), before + 1);
    }
    let by_kind = ChangeKind::Cancel.make(&gateway).await;
    assert_eq!(by_kind.changed()["status"], "cancelled");
}

#[tokio::test]
async fn the_operation_is_selected_by_name_as_in_any_text() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let text = format!("{} {}", by_id("A"), by_id("B").replace("appointment(", "b: appointment("));
    let named = |parameters: Value, name: &str| {
        let mut parameters = with_id(parameters, 1);
        parameters["operationName"] = name.into();
        parameters
    };
    let document = RequestTransport::Post.send(&gateway, "token", &named(registering(&text), "A")).await;
    assert_eq!(document["data"]["appointment"]["id"], id(1));
    let document = RequestTransport::Get.send(&gateway, "token", &named(by_hash(&text), "B")).await;
    assert_eq!(document["data"]["b"]["id"], id(1));
    let document = RequestTransport::Get.send(&gateway, "token", &named(by_hash(&text), "C")).await;
    assert_eq!(rejection(&document).0, "BAD_USER_INPUT");
}

#[tokio::test]
async fn without_a_document_cache_hashes_are_not_supported() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[("graphql.documents_size", "0")]).await;
    let text = by_id("Unsupported");
    for transport in RequestTransport::EACH {
        let document = transport.send(&gateway, "token", &with_id(by_hash(&text), 1)).await;
        assert_eq!(rejection(&document), NOT_SUPPORTED, "{transport:?}");
        // A text runs, also with its hash.
        let document = transport.send(&gateway, "token", &with_id(registering(&text), 1)).await;
        assert_eq!(document["data"]["appointment"]["id"], id(1), "{transport:?}");
    }
}

#[tokio::test]
async fn malformed_persisted_queries_are_named_but_not_echoed() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let hash = sha256("{ __typename }");
    for (persisted, told) in [
        (json!("private"), "persistedQuery\" must be an object"),
        (json!([1]), "persistedQuery\" must be an object"),
        (json!({}), "version\" must be 1"),
        (json!({ "sha256Hash": hash }), "version\" must be 1"),
        (json!({ "version": 2, "sha256Hash": hash }), "version\" must be 1"),
        (json!({ "version": "1", "sha256Hash": hash }), "version\" must be 1"),
        (json!({ "version": 1 }), "sha256Hash\" must be a string"),
        (json!({ "version": 1, "sha256Hash": null }), "sha256Hash\" must be a string"),
        (json!({ "version": 1, "sha256Hash": ["private"] }), "sha256Hash\" must be a string"),
    ] {
        for query in [None, Some("{ __typename }")] {
            let mut parameters = json!({ "extensions": { "persistedQuery": persisted } });
            if let Some(query) = query {
                parameters["query"] = query.into();
            }
            for transport in [RequestTransport::Post, RequestTransport::Get] {
                let reply =
                    GatewayResponse::of(transport.request(&gateway, "sandbox-all", &parameters)).await;
                let message = reply.rejected(422, "BAD_REQUEST");
                assert!(message.contains(told) && !message.contains("private"), "{parameters}: {message}");
            }
        }
    }
    // Null stands for no persisted query. Other members are the client's own.
    for persisted in [Value::Null, json!({ "version": 1, "sha256Hash": hash, "miss": true })] {
        let parameters = json!({ "query": "{ __typename }", "extensions": { "persistedQuery": persisted } });
        let document = RequestTransport::Post.send(&gateway, "sandbox-all", &parameters).await;
        assert_eq!(document, json!({ "data": { "__typename": "Query" } }));
    }
}

#[tokio::test]
async fn repeated_hashes_are_served_from_the_response_cache() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let text = by_id("Hot");
    RequestTransport::Post.send(&gateway, "token", &with_id(registering(&text), 1)).await;
    for transport in [RequestTransport::Post, RequestTransport::Get] {
        let expected = transport.send(&gateway, "token", &with_id(by_hash(&text), 1)).await;
        let (hits, _) = gateway.response_cache_lookups().await;
        assert_eq!(transport.send(&gateway, "token", &with_id(by_hash(&text), 1)).await, expected);
        assert_eq!(gateway.response_cache_lookups().await.0, hits + 1.0, "{transport:?}");
    }
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn a_text_with_its_known_hash_is_served_from_the_response_cache() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let both = with_id(registering(&by_id("Both")), 1);
    let mut hits = Vec::new();
    for _ in 0..4 {
        RequestTransport::Get.send(&gateway, "token", &both).await;
        hits.push(gateway.response_cache_lookups().await.0);
    }
    // The first request registers the text, and the second one is stored.
    assert_eq!(hits, [0.0, 0.0, 1.0, 2.0]);
}

#[tokio::test]
async fn a_private_text_does_not_run_from_a_shared_response_cache() {
    let keys = KeyFile::of(&["alice", "bob"]);
    let upstream = Upstream::with_tokens().await;
    let settings = [("callers.share_cache", "true"), ("callers.api_keys_file", keys.path())];
    let gateway = Gateway::of_service(&upstream, &settings).await;
    let (alice, bob) = (keys.key(0), keys.key(1));
    let text = format!("{{ appointment(id: {:?}) {{ id reference status }} }}", id(1));
    gateway.register(alice, &text).await;
    for transport in [RequestTransport::Post, RequestTransport::Get] {
        for _ in 0..3 {
            let own = transport.send(&gateway, alice, &by_hash(&text)).await;
            assert_eq!(own["data"]["appointment"]["id"], id(1));
            assert_eq!(rejection(&transport.send(&gateway, bob, &by_hash(&text)).await), NOT_FOUND);
        }
    }
}

#[tokio::test]
async fn outcomes_are_counted() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let text = by_id("Counted");
    let mismatch = json!({ "query": LIST, "extensions": by_hash(&text)["extensions"] });
    for parameters in [by_hash(&text), mismatch, registering(&text), by_hash(&text), by_hash(&text)] {
        RequestTransport::Post.send(&gateway, "token", &with_id(parameters, 1)).await;
    }
    let metrics = gateway.metrics().await;
    let count = |outcome: &str| metrics[&format!("gateway_persisted_queries_total{{outcome=\"{outcome}\"}}")];
    // The last one is served from the response cache.
    assert_eq!(["miss", "mismatch", "registered", "hit"].map(count), [1.0, 1.0, 1.0, 1.0]);
}

/// Requests as Apollo Kotlin 4 sends them: `DefaultHttpRequestComposer`, with the parameters in its order.
#[tokio::test]
async fn apollo_kotlin_registers_and_uses_a_query() {
    const ACCEPT: &str =
        "multipart/mixed;deferSpec=20220824, application/graphql-response+json, application/json";
    let upstream = Upstream::start().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let text = "query One($id: UUID!) { appointment(id: $id) { __typename id reference } }";
    let extensions = format!(r#"{{"persistedQuery":{{"version":1,"sha256Hash":"{}"}}}}"#, sha256(text));
    let variables = format!(r#"{{"id":"{}"}}"#, id(1));
    let get = async |document: Option<&str>| {
        let mut query = vec![("operationName", "One"), ("variables", &variables)];
        query.extend(document.map(|text| ("query", text)));
        query.push(("extensions", &extensions));
        // It encodes spaces as %20.
        let query = serde_urlencoded::to_string(query).unwrap().replace('+', "%20");
        let request = gateway.request(reqwest::Method::GET, &format!("/graphql?{query}"));
        let request = request.header("apollo-require-preflight", "true").header("accept", ACCEPT);
        GatewayResponse::of(request.bearer_auth(gateway.secret("token"))).await
    };
    let post = async |document: bool| {
        let query = format!(r#""query":"{text}","#);
        let body = format!(
            r#"{{"operationName":"One","variables":{variables},{}"extensions":{extensions}}}"#,
            if document { &query } else { "" }
        );
        let request =
            gateway.request(reqwest::Method::POST, "/graphql").header("content-type", "application/json");
        let request = request.header("accept", ACCEPT).body(body);
        GatewayResponse::of(request.bearer_auth(gateway.secret("token"))).await
    };
    let expected = json!({ "data": { "appointment": { "__typename": "Appointment", "id": id(1), "reference": "token" } } });
    for reply in [get(None).await, post(false).await] {
        // Its interceptor compares the message.
        assert_eq!(rejection(&reply.body), NOT_FOUND);
    }
    assert_eq!(post(true).await.body, expected);
    for reply in [get(None).await, post(false).await, get(Some(text)).await] {
        assert_eq!((reply.status, reply.body), (200, expected.clone()));
    }
    assert_eq!(upstream.calls(), 1);
}

/// Requests as Apollo iOS 1 and 2 send them: `JSONRequest`, with sorted parameters. Its `ResponseCodeInterceptor` fails for
/// any status but 2xx before its `AutomaticPersistedQueryInterceptor` sees the error.
#[tokio::test]
async fn apollo_ios_registers_and_uses_a_query() {
    let upstream = Upstream::start().await;
    for (accept, edition) in [
        ("multipart/mixed;deferSpec=20220824,application/json", "2026"),
        ("multipart/mixed;deferSpec=20220824,application/graphql-response+json,application/json", "2026"),
        ("multipart/mixed;deferSpec=20220824,application/graphql-response+json,application/json", "2025"),
    ] {
        let gateway =
            Gateway::before(upstream.url(), &[("http.statuses", edition), ("cache.ttl", "0s")]).await;
        let text = "query One($id: UUID!) { appointment(id: $id) { __typename id reference } }";
        let persisted = json!({ "sha256Hash": sha256(text), "version": 1 });
        let send = async |is_get: bool, has_text: bool| {
            let mut body = json!({
                "extensions": { "persistedQuery": persisted },
                "operationName": "One",
                "variables": { "id": id(1) },
            });
            if has_text {
                body["query"] = text.into();
            }
            let transport = if is_get { RequestTransport::Get } else { RequestTransport::Post };
            let mut request = transport.request(&gateway, "token", &body).build().unwrap();
            let headers = request.headers_mut();
            headers.insert("accept", accept.parse().unwrap());
            headers.insert("x-apollo-operation-name", "One".parse().unwrap());
            headers.insert("x-apollo-operation-type", "query".parse().unwrap());
            headers.insert("x-apollo-operation-id", sha256(text).parse().unwrap());
            let request = reqwest::RequestBuilder::from_parts(gateway.client().clone(), request);
            GatewayResponse::of(request).await
        };
        let appointment = json!({ "__typename": "Appointment", "id": id(1), "reference": "token" });
        for is_get in [false, true] {
            let reply = send(is_get, false).await;
            assert_eq!((reply.status, rejection(&reply.body)), (200, NOT_FOUND), "{accept}");
        }
        for (is_get, has_text) in [(true, true), (true, false), (false, false), (false, true)] {
            let reply = send(is_get, has_text).await;
            assert_eq!((reply.status, &reply.body["data"]["appointment"]), (200, &appointment), "{accept}");
        }
    }
}

#[tokio::test]
async fn a_miss_uses_the_preferred_json_type() {
    let gateway = Gateway::on_sandbox(&[]).await;
    let unsupported = Gateway::on_sandbox(&[("graphql.documents_size", "0")]).await;
    for (accept, status, content_type) in [
        ("application/graphql-response+json", 422, "application/graphql-response+json; charset=utf-8"),
        (
            "application/graphql-response+json,application/json;q=0.9",
            422,
            "application/graphql-response+json; charset=utf-8",
        ),
        (
            "application/graphql-response+json, application/*;q=0.5",
            422,
            "application/graphql-response+json; charset=utf-8",
        ),
        ("application/json", 200, "application/json; charset=utf-8"),
        ("*/*", 200, "application/json; charset=utf-8"),
        // The client is served as well by either type. Not every client reads a response with another status than 200.
        ("application/graphql-response+json, application/json", 200, "application/json; charset=utf-8"),
        ("application/graphql-response+json,application/json", 200, "application/json; charset=utf-8"),
        ("application/graphql-response+json;q=0.5, */*", 200, "application/json; charset=utf-8"),
    ] {
        for gateway in [&gateway, &unsupported] {
            let mut request =
                RequestTransport::Post.request(gateway, "sandbox-all", &by_hash(LIST)).build().unwrap();
            request.headers_mut().insert("accept", accept.parse().unwrap());
            let request = reqwest::RequestBuilder::from_parts(gateway.client().clone(), request);
            let reply = GatewayResponse::of(request).await;
            assert_eq!(reply.status, status, "{accept}: {reply:?}");
            assert_eq!(reply.headers["content-type"], content_type, "{accept}");
        }
    }
    let mut events =
        Events::of(RequestTransport::EventStream.request(&gateway, "sandbox-all", &by_hash(LIST))).await;
    let Event::Next(document) = events.event().await else { panic!("an event with the error") };
    assert_eq!(rejection(&document), NOT_FOUND);
    events.completed().await;
}
