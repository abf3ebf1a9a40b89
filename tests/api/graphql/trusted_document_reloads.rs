//! Requests in progress while the manifests of trusted documents are replaced.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{
    Gate, Gateway, RawConnection, RawResponse, Upstream, id,
    manifests::{Manifests, ids_to_texts},
    persisted_query::rejection,
    raw, served,
};

const SHORT: &str = "query ($id: UUID!) { appointment(id: $id) { id } }";
const LONG: &str = "query ($id: UUID!) { appointment(id: $id) { id reference status } }";

/// No timeout ends a request before its test does.
const PATIENT: [(&str, &str); 3] =
    [("http.deadline", "1h"), ("http.body_timeout", "1h"), ("upstream.timeout", "1h")];

/// An id in the form of a hash, the only form in an array.
fn hash_like(digit: char) -> String {
    digit.to_string().repeat(64)
}

/// A POST for a document and an appointment: the path, and the body.
#[derive(Debug)]
struct Post {
    path: String,
    body: String,
}

impl Post {
    /// The request in each form that a document can be named in.
    fn each(document: &str, appointment: &str) -> [Self; 3] {
        let variables = json!({ "id": appointment });
        let hash = json!({ "persistedQuery": { "version": 1, "sha256Hash": document } });
        let post = |path: &str, body: Value| Self { path: path.to_owned(), body: body.to_string() };
        [
            post("/graphql", json!({ "documentId": document, "variables": variables })),
            post(&format!("/graphql/{document}"), json!({ "variables": variables })),
            post("/graphql", json!([{ "extensions": hash, "variables": variables }])),
        ]
    }

    fn text(&self, gateway: &Gateway, headers: &str) -> String {
        let headers = format!("Authorization: Bearer {}\r\n{headers}", gateway.secret("token"));
        let line = format!("POST {} HTTP/1.1", self.path);
        raw::post(&headers, &self.body).replace("POST /graphql HTTP/1.1", &line)
    }

    async fn send(&self, gateway: &Gateway) -> Value {
        result(RawConnection::once(gateway, self.text(gateway, "")).await)
    }

    /// Sends the head and a part of the body. The gateway asks for the body, so it has handled the head.
    async fn begin(&self, gateway: &Gateway) -> BegunPost {
        let text = self.text(gateway, "Expect: 100-continue\r\n");
        let (head, body) = text.split_at(text.len() - self.body.len());
        let (first, rest) = body.split_at(body.len() / 2);
        let mut connection = RawConnection::connect(gateway).await;
        connection.send(head).await.unwrap();
        assert_eq!(connection.reply().await.status, 100, "{self:?}");
        connection.send(first).await.unwrap();
        BegunPost { connection, rest: rest.to_owned() }
    }
}

/// A request that waits for the rest of its body.
struct BegunPost {
    connection: RawConnection,
    rest: String,
}

impl BegunPost {
    async fn finish(mut self) -> Value {
        result(self.connection.exchange(self.rest).await)
    }
}

/// The response to the only operation.
fn result(response: RawResponse) -> Value {
    match response.parsed().body {
        Value::Array(mut results) if results.len() == 1 => results.remove(0),
        body => body,
    }
}

fn brief(appointment: &str) -> Value {
    json!({ "data": { "appointment": { "id": appointment } } })
}

fn full(appointment: &str) -> Value {
    json!({ "data": { "appointment": served(appointment, "token", 1) } })
}

/// The response cache has the responses to equal requests under the previous documents.
#[tokio::test]
async fn a_slow_body_is_judged_by_the_documents_at_its_end() {
    let upstream = Upstream::start().await;
    let [changed, removed, added] = ['c', 'd', 'a'].map(hash_like);
    let manifests = Manifests::of(&[(&changed, SHORT), (&removed, SHORT)]);
    let gateway = manifests.gateway(upstream.url(), "require", &PATIENT).await;
    for post in Post::each(&changed, &id(1)).iter().chain(&Post::each(&removed, &id(1))) {
        let (hits, _) = gateway.response_cache_lookups().await;
        for _ in 0..2 {
            assert_eq!(post.send(&gateway).await, brief(&id(1)), "{post:?}");
        }
        assert_eq!(gateway.response_cache_lookups().await.0, hits + 1.0, "{post:?}");
    }
    let mut begun = Vec::new();
    for document in [&changed, &removed, &added] {
        for post in Post::each(document, &id(1)) {
            begun.push((document, post.begin(&gateway).await));
        }
    }
    manifests.write("app.json", &ids_to_texts(&[(&changed, LONG), (&added, LONG)]));
    gateway.until_loaded("ok", 2.0).await;
    for (document, post) in begun {
        let response = post.finish().await;
        if *document == removed {
            assert_eq!(rejection(&response).0, "PERSISTED_QUERY_NOT_FOUND");
        } else {
            assert_eq!(response, full(&id(1)));
        }
    }
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn a_response_under_earlier_documents_is_not_served_later() {
    let upstream = Upstream::start().await;
    let changed = hash_like('c');
    let manifests = Manifests::of(&[(&changed, SHORT)]);
    let gateway = manifests.gateway(upstream.url(), "require", &PATIENT).await;
    // An appointment for each form, so that each request shows at the upstream.
    let of_form = |form: usize| (Post::each(&changed, &id(form)).into_iter().nth(form).unwrap(), id(form));
    let posts: Vec<_> = (0..3).map(of_form).collect();
    let gate = Gate::shut();
    for (_, id) in &posts {
        let gate = gate.clone();
        upstream.on(id, move |call| call.appointment().once(&gate));
    }
    let replace = async {
        upstream.until_called(posts.len()).await;
        manifests.write("app.json", &ids_to_texts(&[(&changed, LONG)]));
        gateway.until_loaded("ok", 2.0).await;
        gate.open();
    };
    let (responses, ()) = tokio::join!(join_all(posts.iter().map(|(post, _)| post.send(&gateway))), replace);
    for ((post, id), response) in posts.iter().zip(responses) {
        assert_eq!(response, brief(id), "{post:?} was executed under the earlier documents");
    }
    // From the new document, and then from the response cache.
    for _ in 0..2 {
        for (post, id) in &posts {
            assert_eq!(post.send(&gateway).await, full(id), "{post:?}");
        }
    }
    assert_eq!(gateway.response_cache_lookups().await.0, posts.len() as f64);
    assert_eq!(upstream.calls(), posts.len());
}
