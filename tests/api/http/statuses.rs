//! Statuses and media types of responses: GraphQL over HTTP, edition September 2026 (the default), and the drafts up to
//! 2025 (`http.statuses`).

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::support::{
    Events, FinishedRun, Gate, Gateway, GatewayResponse, Issuer, KeyFile, RawConnection, RequestForm,
    Upstream, UpstreamResponse, forged, id, program, raw,
};

const GRAPHQL: &str = "application/graphql-response+json";
const JSON: &str = "application/json";
const TYPENAME: &str = "{ __typename }";

/// A kind of response, with its statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `data` without `errors`.
    Success,
    /// `data`, even null, with `errors`.
    Partial,
    /// The JSON of the request cannot be parsed.
    NoJson,
    /// The document cannot be parsed.
    NoDocument,
    /// Not a well-formed request.
    Malformed,
    /// Validation, the operation, a variable or a limit.
    Invalid,
    /// Without a valid credential: the whole request in the edition 2026, its fields otherwise.
    Unauthenticated,
    /// An unsupported method, or a mutation by GET.
    Method,
}

impl Kind {
    /// The statuses as `application/graphql-response+json` in the edition 2026 and in the drafts, and as
    /// `application/json`.
    fn statuses(self) -> [u16; 3] {
        match self {
            Self::Success => [200, 200, 200],
            Self::Partial => [294, 200, 200],
            Self::NoJson => [400, 400, 400],
            Self::NoDocument => [400, 400, 200],
            Self::Malformed => [422, 400, 400],
            Self::Invalid => [422, 400, 200],
            Self::Unauthenticated => [401, 200, 200],
            Self::Method => [405, 405, 405],
        }
    }

    fn has_data(self, status: u16) -> bool {
        match self {
            Self::Success | Self::Partial => true,
            Self::Unauthenticated => status == 200,
            _ => false,
        }
    }
}

/// A request, in a form that is sent for each media type.
#[derive(Debug, Clone)]
struct Sent {
    method: Method,
    query: Vec<(&'static str, String)>,
    body: Option<String>,
    authorization: Option<String>,
}

impl Sent {
    fn body(body: impl Into<String>) -> Self {
        let authorization = Some("Bearer token".to_owned());
        Self { method: Method::POST, query: Vec::new(), body: Some(body.into()), authorization }
    }

    fn query(text: &str) -> Self {
        Self::body(raw::query(text))
    }

    fn get(query: &[(&'static str, &str)]) -> Self {
        let query = query.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self { method: Method::GET, query, body: None, ..Self::body("") }
    }

    fn with_variables(text: &str, variables: Value) -> Self {
        Self::body(json!({ "query": text, "variables": variables }).to_string())
    }

    fn with_method(self, method: Method) -> Self {
        Self { method, ..self }
    }

    fn authorized(self, authorization: Option<&str>) -> Self {
        Self { authorization: authorization.map(str::to_owned), ..self }
    }

    fn request(&self, gateway: &Gateway, accept: &str) -> RequestBuilder {
        let path = format!("/graphql?{}", serde_urlencoded::to_string(&self.query).unwrap());
        let mut request = gateway.request(self.method.clone(), &path).header("accept", accept);
        if let Some(body) = &self.body {
            request = request.header("content-type", JSON).body(body.clone());
        }
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        // So that a GET without a JSON media type passes the CSRF protection.
        request.header("graphql-require-preflight", "1")
    }
}

fn assert_media_type(reply: &GatewayResponse, media_type: &str, what: &str) {
    assert_eq!(reply.headers["content-type"], format!("{media_type}; charset=utf-8"), "{what}: {reply:?}");
}

/// Sends each request in both editions and for each media type, and checks status, media type and members. `edition` is
/// the gateway's.
async fn assert_kinds(gateway: &Gateway, edition: usize, cases: &[(Kind, &str, Sent)]) {
    for (kind, code, sent) in cases {
        let [newer, older, json] = kind.statuses();
        let graphql = if edition == 2026 { newer } else { older };
        for (accept, media_type, status) in [
            (GRAPHQL, GRAPHQL, graphql),
            ("application/graphql-response+json, application/json;q=0.9", GRAPHQL, graphql),
            ("application/graphql-response+json;q=0.5, text/html", GRAPHQL, graphql),
            (JSON, JSON, json),
            ("*/*", JSON, json),
            ("application/json, application/graphql-response+json", JSON, json),
        ] {
            let what = format!("{kind:?} in {edition} as {accept}: {sent:?}");
            let reply = GatewayResponse::of(sent.request(gateway, accept)).await;
            assert_eq!(reply.status, status, "{what}: {reply:?}");
            assert_media_type(&reply, media_type, &what);
            assert_eq!(reply.body.get("data").is_some(), kind.has_data(status), "{what}: {reply:?}");
            assert_eq!(reply.body.get("errors").is_some(), *kind != Kind::Success, "{what}: {reply:?}");
            let codes = reply.codes();
            assert!(codes.iter().all(|it| it == code), "{what}: {reply:?}");
            let challenge = reply.headers.get("www-authenticate").map(|it| it.to_str().unwrap());
            let expected = match sent.authorization {
                Some(_) => "Bearer error=\"invalid_token\"",
                None => "Bearer",
            };
            assert_eq!(challenge, (status == 401).then_some(expected), "{what}");
            assert_eq!(reply.headers.contains_key("allow"), status == 405, "{what}");
        }
    }
}

/// Gateways of both editions in front of `upstream`, with the edition. Their rate is not limited by default.
async fn both(upstream: &Upstream, settings: &[(&str, &str)]) -> [(usize, Gateway); 2] {
    let settings = &[&[("rate_limit.per_second", "0")], settings].concat();
    let older = [settings.as_slice(), &[("http.statuses", "2025")]].concat();
    [
        (2026, Gateway::before(upstream.url(), settings).await),
        (2025, Gateway::before(upstream.url(), &older).await),
    ]
}

/// An upstream with `id(1)`; `id(2)` has a malformed field, and any other id below 700 is a status.
async fn upstream() -> Upstream {
    Upstream::answering(|call| {
        // The id is not the last segment of the path of a cancellation.
        let id = call.path.split('/').find(|segment| segment.ends_with("-00000000cafe"));
        match id.and_then(|id| u16::from_str_radix(id.get(..8)?, 16).ok()) {
            Some(1) => call.appointment(),
            Some(2) => UpstreamResponse::json(
                200,
                &json!({ "data": { "id": call.id, "reference": { "number": 17 } } }),
            ),
            Some(status @ 200..700) => UpstreamResponse::status(status),
            _ => UpstreamResponse::status(500),
        }
    })
    .await
}

fn appointment(number: usize) -> String {
    format!("{{ appointment(id: \"{}\") {{ id reference }} }}", id(number))
}

fn cancellation(number: usize) -> String {
    format!("mutation {{ cancelAppointment(id: \"{}\") {{ appointment {{ id }} }} }}", id(number))
}

#[tokio::test]
async fn executed_operations_have_200_or_294() {
    use Kind::{Partial, Success};
    let upstream = upstream().await;
    let one = appointment(1);
    let both_fields = format!(
        "{{ a: appointment(id: \"{}\") {{ id }} b: appointment(id: \"{}\") {{ id }} }}",
        id(1),
        id(500)
    );
    let cases = [
        (Success, "", Sent::query(TYPENAME)),
        (Success, "", Sent::query("{ __typename @skip(if: true) }")),
        (Success, "", Sent::query(&one)),
        (Success, "", Sent::get(&[("query", &one)])),
        (Success, "", Sent::query(&appointment(404))),
        (Partial, "UPSTREAM_UNAVAILABLE", Sent::query(&appointment(500))),
        (Partial, "UPSTREAM_UNAVAILABLE", Sent::get(&[("query", &both_fields)])),
        (Partial, "UPSTREAM_UNAVAILABLE", Sent::query(&both_fields)),
        (Partial, "UNAUTHENTICATED", Sent::query(&appointment(401))),
        (Partial, "FORBIDDEN", Sent::query(&appointment(403))),
        (Partial, "RATE_LIMITED", Sent::query(&appointment(429))),
        (Partial, "UPSTREAM_INVALID_RESPONSE", Sent::query(&appointment(2))),
        (Partial, "BAD_USER_INPUT", Sent::query("{ appointments(first: 101) { totalCount } }")),
        // Data that is null.
        (Partial, "UNAUTHENTICATED", Sent::query(&cancellation(401))),
        (Partial, "FORBIDDEN", Sent::query(&cancellation(403))),
        (Partial, "NOT_FOUND", Sent::query(&cancellation(404))),
        (Partial, "UPSTREAM_UNAVAILABLE", Sent::query(&cancellation(500))),
    ];
    for (edition, gateway) in both(&upstream, &[]).await {
        assert_kinds(&gateway, edition, &cases).await;
    }
    for (edition, gateway) in both(&upstream, &[("limits.answer", "1KiB")]).await {
        let long = format!(
            "{{ {} }}",
            (0..40).map(|n| format!("{}{n}: __typename ", "a".repeat(40))).collect::<String>()
        );
        assert_kinds(&gateway, edition, &[(Partial, "QUERY_TOO_COMPLEX", Sent::query(&long))]).await;
    }
}

#[tokio::test]
async fn user_errors_are_not_graphql_errors() {
    let upstream = Upstream::answering(|_| {
        UpstreamResponse::json(422, &json!({ "message": "No.", "errors": { "status": ["No."] } }))
    })
    .await;
    for (edition, gateway) in both(&upstream, &[]).await {
        assert_kinds(&gateway, edition, &[(Kind::Success, "", Sent::query(&cancellation(1)))]).await;
    }
}

#[tokio::test]
async fn requests_that_cannot_be_parsed_have_400() {
    use Kind::{NoDocument, NoJson};
    let upstream = upstream().await;
    let mut cases = Vec::new();
    for body in [
        "",
        " ",
        "NONSENSE",
        "{",
        r#"{"query":"#,
        r#"{"query": "{ __typename }"} x"#,
        r#"{"query": "a", "query": "b""#,
        r#"{"query": 17, x}"#,
        "[",
        "[1,",
        "[1] x",
        "17 x",
        "\"text",
        "nul",
        "{\"query\":\"\\ud800\"}",
    ] {
        cases.push((NoJson, "BAD_REQUEST", Sent::body(body)));
    }
    for parameter in ["variables", "extensions"] {
        for text in ["{", "private", "{} x"] {
            let sent = Sent::get(&[("query", TYPENAME), (parameter, text)]);
            cases.push((NoJson, "BAD_REQUEST", sent));
        }
    }
    for document in ["", "{", "}", "# comment", "{ a(b: ) }", "query ($a) { a }", "nonsense", "{ \"a\" }"] {
        cases.push((NoDocument, "GRAPHQL_PARSE_FAILED", Sent::query(document)));
        cases.push((NoDocument, "GRAPHQL_PARSE_FAILED", Sent::get(&[("query", document)])));
    }
    for (edition, gateway) in both(&upstream, &[]).await {
        assert_kinds(&gateway, edition, &cases).await;
    }
    assert_eq!(upstream.calls(), 0);
}

#[tokio::test]
async fn requests_that_are_not_well_formed_have_422() {
    use Kind::Malformed;
    let upstream = upstream().await;
    let mut cases = Vec::new();
    for body in [
        "{}",
        "null",
        "true",
        "17",
        "\"text\"",
        r#"{"qeury": "{ __typename }"}"#,
        r#"{"query": null}"#,
        r#"{"query": 17}"#,
        r#"{"query": ["{ __typename }"]}"#,
        r#"{"query": "{ __typename }", "query": "{ __typename }"}"#,
        r#"{"query": "{ __typename }", "operationName": 17}"#,
        r#"{"query": "{ __typename }", "operationName": ["A"]}"#,
        r#"{"query": "{ __typename }", "variables": [7]}"#,
        r#"{"query": "{ __typename }", "variables": "{}"}"#,
        r#"{"query": "{ __typename }", "extensions": 17}"#,
        // Well-formedness comes before the document.
        r#"{"query": "{", "variables": 7}"#,
    ] {
        cases.push((Malformed, "BAD_REQUEST", Sent::body(body)));
    }
    for parameters in [
        &[][..],
        &[("variables", "{}")],
        &[("query", TYPENAME), ("query", TYPENAME)],
        &[("query", TYPENAME), ("variables", "[7]")],
        &[("query", TYPENAME), ("extensions", "17")],
    ] {
        cases.push((Malformed, "BAD_REQUEST", Sent::get(parameters)));
    }
    for persisted in ["17", "\"text\"", "{}", r#"{"version": 1}"#, r#"{"version": 1, "sha256Hash": 17}"#] {
        let extensions = format!(r#"{{"persistedQuery": {persisted}}}"#);
        cases.push((Malformed, "BAD_REQUEST", Sent::body(format!(r#"{{"extensions": {extensions}}}"#))));
        cases.push((
            Malformed,
            "BAD_REQUEST",
            Sent::get(&[("query", TYPENAME), ("extensions", &extensions)]),
        ));
    }
    for (edition, gateway) in both(&upstream, &[]).await {
        assert_kinds(&gateway, edition, &cases).await;
    }
}

#[tokio::test]
async fn operations_rejected_before_execution_have_422() {
    use Kind::Invalid;
    const VALIDATION: &str = "GRAPHQL_VALIDATION_FAILED";
    const INPUT: &str = "BAD_USER_INPUT";
    const LIMIT: &str = "QUERY_TOO_COMPLEX";
    let upstream = upstream().await;
    let mut cases = Vec::new();
    for document in [
        "{ nothing }",
        "{ appointment { id } }",
        "{ appointment(id: \"x\") { id } }",
        "{ ...missing }",
        "{ __typename } fragment F on Query { __typename }",
        "{ ...F } fragment F on Query { ...F }",
        "mutation { change }",
        "query A { __typename } query A { __typename }",
        "{ __typename } query A { __typename }",
        "{ ...F } fragment F on Query { __typename } fragment F on Query { __typename }",
        "fragment F on Query { __typename }",
        "{ __type(name: { a: 1, a: 1 }) { name } }",
        "query ($a: Int) { __typename }",
        "subscription { __typename }",
    ] {
        cases.push((Invalid, VALIDATION, Sent::query(document)));
        if !document.starts_with("mutation") {
            cases.push((Invalid, VALIDATION, Sent::get(&[("query", document)])));
        }
    }
    let two = "query A { __typename } query B { __typename }";
    for (document, name) in [(two, None), (two, Some("")), (two, Some("C")), (TYPENAME, Some("A"))] {
        let body = json!({ "query": document, "operationName": name }).to_string();
        cases.push((Invalid, INPUT, Sent::body(body)));
    }
    let by_id = "query ($id: UUID!) { appointment(id: $id) { id } }";
    for variables in [json!({}), json!({ "id": null }), json!({ "id": "x" }), json!({ "id": [id(1)] })] {
        cases.push((Invalid, INPUT, Sent::with_variables(by_id, variables)));
    }
    let fields = |count: usize, text: &str| text.repeat(count);
    for document in [
        format!("{{ {} }}", " ".repeat(70_000)),
        format!("{{ {} }}", fields(4_000, "id ")),
        format!("{{ {} }}", fields(51, "id ")),
        "{a".repeat(500),
        format!("{{ a {{ {} }} }}", fields(51, "b: id ")),
        format!("{{ a {{ {} }} }}", fields(51, "b @c ")),
        format!("{{ a {{ {} }} }}", fields(2_000, "id ")),
    ] {
        cases.push((Invalid, LIMIT, Sent::query(&document)));
    }
    for (edition, gateway) in both(&upstream, &[]).await {
        assert_kinds(&gateway, edition, &cases).await;
        // Twice: from the document cache as well.
        assert_kinds(&gateway, edition, &cases).await;
    }
    for (edition, gateway) in
        both(&upstream, &[("limits.cost", "10"), ("graphql.introspection", "false")]).await
    {
        let schema = Sent::query("{ __schema { queryType { name } } }");
        let cases = [(Invalid, LIMIT, Sent::query(&appointment(1))), (Invalid, VALIDATION, schema)];
        assert_kinds(&gateway, edition, &cases).await;
    }
    assert_eq!(upstream.calls(), 0);
}

#[tokio::test]
async fn persisted_queries_that_cannot_run_have_422() {
    use Kind::Invalid;
    let upstream = upstream().await;
    let extensions = json!({ "persistedQuery": { "version": 1, "sha256Hash": "0".repeat(64) } });
    let sent_hash = |code| {
        let by_get = Sent::get(&[("extensions", &extensions.to_string())]);
        [
            (Invalid, code, Sent::body(json!({ "extensions": extensions }).to_string())),
            (Invalid, code, by_get),
        ]
    };
    let with_text = json!({ "query": TYPENAME, "extensions": extensions }).to_string();
    let mismatch = "PERSISTED_QUERY_HASH_MISMATCH";
    let by_get = Sent::get(&[("query", TYPENAME), ("extensions", &extensions.to_string())]);
    for (edition, gateway) in both(&upstream, &[]).await {
        assert_kinds(&gateway, edition, &sent_hash("PERSISTED_QUERY_NOT_FOUND")).await;
        let cases = [(Invalid, mismatch, Sent::body(with_text.clone())), (Invalid, mismatch, by_get.clone())];
        assert_kinds(&gateway, edition, &cases).await;
    }
    for (edition, gateway) in both(&upstream, &[("graphql.documents_size", "0")]).await {
        assert_kinds(&gateway, edition, &sent_hash("PERSISTED_QUERY_NOT_SUPPORTED")).await;
    }
}

/// Values of `Authorization` without a usable token.
fn unusable() -> Vec<Option<String>> {
    let texts = ["", "Bearer", "Bearer ", "Basic dTpw", "token", "Bearera b", "Bearer a b", "Bearer a,b"];
    let long = format!("Bearer {}", "a".repeat(9_000));
    texts.into_iter().map(str::to_owned).chain([long]).map(Some).chain([None]).collect()
}

#[tokio::test]
async fn operations_without_a_credential_have_401() {
    use Kind::{Invalid, Method, NoDocument, Success, Unauthenticated};
    const CODE: &str = "UNAUTHENTICATED";
    let upstream = upstream().await;
    let one = appointment(1);
    let list = "{ appointments { totalCount } __typename }";
    let none = format!("{{ __typename ... on Query {{ ...F }} }} fragment F on Query {one}");
    let if_given = format!("query ($if: Boolean!) {{ __typename ... @include(if: $if) {one} }}");
    let unless_given = format!("query ($if: Boolean!) {{ __typename ... @skip(if: $if) {one} }}");
    let gateways = both(&upstream, &[]).await;
    for authorization in unusable() {
        let by = |sent: Sent| sent.authorized(authorization.as_deref());
        let cases = [
            (Unauthenticated, CODE, by(Sent::query(&one))),
            (Unauthenticated, CODE, by(Sent::get(&[("query", &one)]))),
            (Unauthenticated, CODE, by(Sent::query(list))),
            (Unauthenticated, CODE, by(Sent::query(&none))),
            (Unauthenticated, CODE, by(Sent::query("{ __typename: appointments { totalCount } }"))),
            (Unauthenticated, CODE, by(Sent::query(&cancellation(1)))),
            (Unauthenticated, CODE, by(Sent::with_variables(&if_given, json!({ "if": true })))),
            (Unauthenticated, CODE, by(Sent::with_variables(&unless_given, json!({ "if": false })))),
            // Introspection alone runs with any credential.
            (Success, "", by(Sent::query(TYPENAME))),
            (Success, "", by(Sent::query("{ appointments: __typename }"))),
            (
                Success,
                "",
                by(Sent::query("{ __schema { queryType { name } } __type(name: \"Query\") { name } }")),
            ),
            (Success, "", by(Sent::query(&format!("{{ __typename ... @skip(if: true) {one} }}")))),
            (Success, "", by(Sent::with_variables(&if_given, json!({ "if": false })))),
            (Success, "", by(Sent::with_variables(&unless_given, json!({ "if": true })))),
            (Success, "", by(Sent::query("mutation { __typename }"))),
            // The request itself is checked first.
            (NoDocument, "GRAPHQL_PARSE_FAILED", by(Sent::query("{"))),
            (Invalid, "GRAPHQL_VALIDATION_FAILED", by(Sent::query("{ appointments { nothing } }"))),
            (Method, "BAD_REQUEST", by(Sent::get(&[("query", &cancellation(1))]))),
        ];
        for (edition, gateway) in &gateways {
            // Each document repeatedly: the document cache has plans for both values of the variable.
            assert_kinds(gateway, *edition, &cases).await;
        }
        // The root fields decide, even if there is nothing to fetch.
        let nothing = by(Sent::query("{ appointmentsByIds(ids: []) { id } }"));
        let reply = GatewayResponse::of(nothing.request(&gateways[0].1, GRAPHQL)).await;
        reply.rejected(401, CODE);
    }
    assert_eq!(upstream.calls(), 0);
}

#[tokio::test]
async fn unverified_callers_have_401_in_service_mode() {
    use Kind::{Success, Unauthenticated};
    let issuer = Issuer::new("key-1");
    let upstream = Upstream::with_tokens().await;
    upstream.show_keys_of(&[&issuer]);
    let keys = KeyFile::of(&["alice"]);
    let expired = issuer.token_with("alice", json!({ "exp": 1 }));
    let others = issuer.token_with("alice", json!({ "aud": "others" }));
    let one = appointment(1);
    for (edition, statuses) in [(2026, "2026"), (2025, "2025")] {
        let settings = [
            ("http.statuses", statuses),
            ("rate_limit.per_second", "0"),
            ("callers.api_keys_file", keys.path()),
        ];
        let gateway = Gateway::for_issuer(&upstream, &settings).await;
        for token in [expired.as_str(), &others, &forged("alice"), "unknown-key", "a.b.c"] {
            let by = |text| Sent::query(text).authorized(Some(&format!("Bearer {token}")));
            let cases = [(Unauthenticated, "UNAUTHENTICATED", by(&one)), (Success, "", by(TYPENAME))];
            assert_kinds(&gateway, edition, &cases).await;
        }
        let missing = (Unauthenticated, "UNAUTHENTICATED", Sent::query(&one).authorized(None));
        let key = format!("Bearer {}", keys.key(0));
        let served = (Success, "", Sent::query(&one).authorized(Some(&key)));
        assert_kinds(&gateway, edition, &[missing, served]).await;
    }
}

/// Tokens that cannot be verified at the moment are not invalid.
#[tokio::test]
async fn unavailable_keys_are_not_a_fault_of_the_credential() {
    let issuer = Issuer::new("key-1");
    let upstream = Upstream::with_tokens().await;
    upstream.on("jwks", |_| UpstreamResponse::status(500));
    for (edition, statuses) in [(2026, "2026"), (2025, "2025")] {
        let gateway = Gateway::for_issuer(&upstream, &[("http.statuses", statuses)]).await;
        let token = format!("Bearer {}", issuer.token_with("alice", json!({})));
        let sent = Sent::query(&appointment(1)).authorized(Some(&token));
        assert_kinds(&gateway, edition, &[(Kind::Partial, "UPSTREAM_UNAVAILABLE", sent)]).await;
    }
}

#[tokio::test]
async fn unsupported_methods_have_405() {
    let upstream = upstream().await;
    let mut cases = vec![
        (Kind::Method, "BAD_REQUEST", Sent::get(&[("query", "mutation { x }")])),
        (
            Kind::Method,
            "BAD_REQUEST",
            Sent::get(&[("query", "query A { __typename } mutation B { x }"), ("operationName", "B")]),
        ),
    ];
    for method in [Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS] {
        cases.push((Kind::Method, "BAD_REQUEST", Sent::query(TYPENAME).with_method(method)));
    }
    for (edition, gateway) in both(&upstream, &[]).await {
        assert_kinds(&gateway, edition, &cases).await;
    }
}

/// `Accept` headers, with the media type of a refusal.
const REFUSAL_TYPES: [(&str, &str); 9] = [
    ("Accept: application/graphql-response+json\r\n", GRAPHQL),
    ("Accept: application/graphql-response+json;q=0.1, text/html\r\n", GRAPHQL),
    ("Accept: application/graphql-response+json, application/json\r\n", GRAPHQL),
    ("accept: text/event-stream\r\nACCEPT:application/graphql-response+json;q=0.5\r\n", GRAPHQL),
    ("Accept: application/json\r\n", JSON),
    ("Accept: application/json, application/graphql-response+json\r\n", JSON),
    ("Accept: */*\r\n", JSON),
    ("Accept: text/event-stream\r\n", JSON),
    ("", JSON),
];

/// Sends the request of `head`, one of [`REFUSAL_TYPES`] and `body`, and checks its refusal.
async fn assert_refused(gateway: &Gateway, status: u16, what: &str, head: &str, body: &str) {
    for (accept, media_type) in REFUSAL_TYPES {
        // With a JSON type, no page of another site can have sent the request.
        if status == 403 && accept.contains("json") {
            continue;
        }
        let what = format!("{what} with {accept:?}");
        let reply = RawConnection::once(gateway, format!("{head}{accept}\r\n{body}")).await.parsed();
        assert_eq!(reply.status, status, "{what}: {reply:?}");
        assert_media_type(&reply, media_type, &what);
        assert!(reply.body["errors"][0]["extensions"]["code"].is_string(), "{what}: {reply:?}");
        assert_eq!(reply.body.get("data"), None, "{what}: {reply:?}");
    }
}

/// The head of a request, without its last line.
fn head(line: &str, headers: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: g\r\n{headers}")
}

#[tokio::test]
async fn refusals_use_the_accepted_media_type() {
    let upstream = upstream().await;
    let settings = [
        ("limits.body", "1KiB"),
        ("limits.uri", "1KiB"),
        ("limits.headers", "2KiB"),
        ("http.body_timeout", "100ms"),
    ];
    let post = |headers: &str, body: &str| {
        let headers = format!("{headers}Content-Length: {}\r\n", body.len());
        (head("POST /graphql", &headers), body.to_owned())
    };
    let empty = |line: &str, headers: &str| (head(line, headers), String::new());
    let json = "Content-Type: application/json\r\n";
    let upgrade = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
    let query = raw::query(TYPENAME);
    let coding = (head("POST /graphql", "Transfer-Encoding: gzip, chunked\r\n"), "0\r\n\r\n".to_owned());
    let slow = (head("POST /graphql", &format!("{json}Content-Length: 9\r\n")), "{".to_owned());
    let refused = [
        (400, "no JSON", post(json, "NONSENSE")),
        (400, "single connection mode", post(&format!("{json}X-GraphQL-Event-Stream-Token: a\r\n"), &query)),
        (400, "incomplete handshake", empty("GET /graphql", upgrade)),
        (400, "transfer coding", coding),
        (400, "two lengths", empty("POST /graphql", "Content-Length: 0\r\nContent-Length: 0\r\n")),
        (403, "CSRF", empty("GET /graphql?query=%7B__typename%7D", "")),
        (404, "unknown path", empty("GET /nothing", "")),
        (405, "method", empty("DELETE /graphql", "")),
        (405, "method of another route", empty("DELETE /livez", "")),
        (405, "mutation", empty("GET /graphql?query=mutation%7Ba%7D", "Authorization: Bearer a\r\n")),
        (408, "slow body", slow),
        (413, "long body", post(json, &" ".repeat(1025))),
        (414, "long target", empty(&format!("GET /graphql?{}", "x".repeat(1025)), "")),
        (415, "content type", post("Content-Type: text/plain\r\n", &query)),
        (426, "WebSocket version", empty("GET /graphql", "Upgrade: websocket\r\n")),
        (431, "long header", empty("GET /graphql", &format!("X: {}\r\n", "x".repeat(2048)))),
    ];
    for (edition, gateway) in both(&upstream, &settings).await {
        for (status, what, (head, body)) in &refused {
            assert_refused(&gateway, *status, &format!("{what} in {edition}"), head, body).await;
        }
    }
}

#[tokio::test]
async fn shed_load_uses_the_accepted_media_type() {
    let settings = [("limits.operations", "1"), ("limits.operations_waiting", "0")];
    let gate = Gate::shut();
    let upstream = Upstream::answering({
        let gate = gate.clone();
        move |call| call.appointment().once(&gate)
    })
    .await;
    let body = raw::query(TYPENAME);
    let headers = format!(
        "Content-Type: application/json\r\nAuthorization: Bearer token\r\nContent-Length: {}\r\n",
        body.len()
    );
    let gateways = both(&upstream, &settings).await;
    let busy = gateways.iter().map(|(edition, gateway)| {
        let id = id(*edition);
        async move { gateway.appointment("token", &id).await }
    });
    let refusing = async {
        upstream.until_called(2).await;
        for (edition, gateway) in &gateways {
            let what = format!("load in {edition}");
            assert_refused(gateway, 503, &what, &head("POST /graphql", &headers), &body).await;
        }
        gate.open();
    };
    let (busy, ()) = tokio::join!(futures_util::future::join_all(busy), refusing);
    assert!(busy.iter().all(|reply| reply.status == 200), "{busy:?}");
}

#[tokio::test]
async fn an_unacceptable_media_type_has_406_as_json() {
    let upstream = upstream().await;
    for (_, gateway) in both(&upstream, &[]).await {
        for accept in
            ["text/html", "application/graphql-response+json; charset=utf-16", "application/json;q=0"]
        {
            let reply = GatewayResponse::of(Sent::query(TYPENAME).request(&gateway, accept)).await;
            reply.rejected(406, "BAD_REQUEST");
            assert_media_type(&reply, JSON, accept);
        }
    }
}

#[tokio::test]
async fn rate_limited_requests_use_the_accepted_media_type() {
    let upstream = upstream().await;
    let settings = [("rate_limit.per_second", "1"), ("rate_limit.burst", "1")];
    for (_, gateway) in both(&upstream, &settings).await {
        for (accept, media_type) in REFUSAL_TYPES {
            let mut connection = RawConnection::connect(&gateway).await;
            let request = raw::post("Authorization: Bearer token\r\n", &raw::query(TYPENAME));
            let request = request.replace("Accept: application/graphql-response+json\r\n", accept);
            for (authorization, status) in [("Bearer token", 429), ("Basic token", 401)] {
                let request = request.replace("Bearer token", authorization);
                let mut reply = connection.exchange(&request).await.parsed();
                while reply.status != status {
                    reply = connection.exchange(&request).await.parsed();
                }
                assert_media_type(&reply, media_type, accept);
                assert_eq!(reply.body.get("data"), None);
                let challenge = reply.headers.get("www-authenticate").map(|it| it.to_str().unwrap());
                assert_eq!(challenge, (status == 401).then_some("Bearer error=\"invalid_token\""));
            }
        }
    }
}

/// Heads that hyper rejects before any handler, with `Accept` before or after the fault.
#[tokio::test]
async fn unreadable_heads_use_the_accepted_media_type() {
    let upstream = upstream().await;
    let (_, gateway) = &both(&upstream, &[("limits.headers", "128KiB")]).await[0];
    for (accept, media_type) in REFUSAL_TYPES {
        let long_target = format!("GET /{} HTTP/1.1\r\n{accept}\r\n", "x".repeat(70_000));
        let faulty = "GET / HTTP/1.1\r\n";
        let before = format!("{faulty}{accept}Bad Name: x\r\n\r\n");
        let after = format!("{faulty}Bad Name: x\r\n{accept}\r\n");
        let many = "X: x\r\n".repeat(2_000);
        let many = format!("{faulty}{accept}{many}\r\n");
        for (status, request) in [(414, long_target), (400, before), (400, after), (431, many)] {
            let start = request.chars().take(80).collect::<String>();
            let reply = RawConnection::once(gateway, request).await.parsed();
            reply.rejected(status, "BAD_REQUEST");
            assert_media_type(&reply, media_type, &format!("{start} with {accept:?}"));
        }
        // The headers of an earlier request on the connection have no effect.
        let mut connection = RawConnection::connect(gateway).await;
        let livez = format!("GET /livez HTTP/1.1\r\nHost: g\r\n{accept}\r\n");
        assert_eq!(connection.exchange(livez).await.status, 200);
        let reply = connection.exchange("GET / HTTP/1.1\r\nBad Name: x\r\n\r\n").await.parsed();
        assert_media_type(&reply, JSON, "no Accept");
        // The response has the version of the last request that could be read.
        let mut connection = RawConnection::connect(gateway).await;
        let old = "GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
        assert_eq!(connection.exchange(old).await.status, 200);
        let reply =
            connection.exchange(format!("GET / HTTP/1.1\r\n{accept}Bad Name: x\r\n\r\n")).await.parsed();
        reply.rejected(400, "BAD_REQUEST");
        assert_media_type(&reply, media_type, accept);
    }
}

/// A complete response has 200 from the cache as well. A partial one is never cached, so the next one is judged anew.
#[tokio::test]
async fn repeated_requests_have_the_status_of_their_response() {
    let upstream = Upstream::start().await;
    for (edition, gateway) in both(&upstream, &[("cache.ttl", "1h"), ("cache.absence_ttl", "1h")]).await {
        let id = id(edition);
        let text = format!("{{ appointment(id: \"{id}\") {{ id }} }}");
        let partial = if edition == 2026 { 294 } else { 200 };
        for (n, form) in RequestForm::EACH.into_iter().enumerate() {
            let token = format!("token-{n}");
            upstream.on(&id, |_| UpstreamResponse::status(500));
            let failed = if form.accept == GRAPHQL { partial } else { 200 };
            for _ in 0..2 {
                let reply = form.ask(&gateway, &token, &text).await;
                assert_eq!((reply.status, reply.codes()), (failed, vec!["UPSTREAM_UNAVAILABLE"]), "{form:?}");
            }
            upstream.on(&id, |call| call.appointment());
            let (hits, _) = gateway.response_cache_lookups().await;
            for _ in 0..3 {
                let reply = form.ask(&gateway, &token, &text).await;
                assert_eq!((reply.status, reply.body.get("errors")), (200, None), "{form:?}");
            }
            assert_eq!(gateway.response_cache_lookups().await.0, hits + 2.0, "{form:?}");
            let reply = GatewayResponse::of(form.request(&gateway, None, &text)).await;
            let refused = if edition == 2026 && form.accept == GRAPHQL { 401 } else { 200 };
            assert_eq!((reply.status, reply.codes()), (refused, vec!["UNAUTHENTICATED"]), "{form:?}");
        }
    }
}

#[tokio::test]
async fn status_294_has_a_reason_phrase() {
    let upstream = upstream().await;
    let gateway = Gateway::before(upstream.url(), &[]).await;
    let request =
        raw::post("Authorization: Bearer token\r\nConnection: close\r\n", &raw::query(&appointment(500)));
    let mut connection = RawConnection::connect(&gateway).await;
    connection.send(request).await.unwrap();
    let text = String::from_utf8(connection.closed().await).unwrap();
    assert!(text.starts_with("HTTP/1.1 294 Partial Success\r\n"), "{text}");
}

/// Their protocol has no statuses: each response is an event of a stream with 200.
#[tokio::test]
async fn event_streams_are_the_same_in_both_editions() {
    let upstream = upstream().await;
    for (edition, gateway) in both(&upstream, &[("limits.token", "30B")]).await {
        for (text, token, code) in [
            (appointment(500), "token", "UPSTREAM_UNAVAILABLE"),
            (appointment(1), "a-token-of-more-than-thirty-bytes", "UNAUTHENTICATED"),
            ("{ nothing }".to_owned(), "token", "GRAPHQL_VALIDATION_FAILED"),
            ("{".to_owned(), "token", "GRAPHQL_PARSE_FAILED"),
        ] {
            let mut events = Events::open(&gateway, token, &text).await;
            let response = events.next().await;
            assert_eq!(response["errors"][0]["extensions"]["code"], code, "{edition}: {response}");
        }
    }
}

#[tokio::test]
async fn an_unknown_edition_is_rejected() {
    let run = FinishedRun::of(program(&["check"], &[("http.statuses", "2024")])).await;
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stderr.contains("GATEWAY_HTTP_STATUSES") && run.stderr.contains("2026, 2025"), "{run:?}");
}
