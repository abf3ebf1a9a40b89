//! A client for server-sent events.

use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Gateway, TIMEOUT, canary};

/// An event stream.
pub struct Events {
    response: Response,
    text: String,
}

/// An event of the `graphql-sse` protocol.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A GraphQL response.
    Next(Value),
    /// The end of the operation.
    Complete,
    /// A keep-alive.
    Comment,
    /// The end of the body.
    End,
}

impl Events {
    /// A POST of `query` as `token` that accepts event streams only.
    pub fn request(gateway: &Gateway, token: &str, query: &str) -> RequestBuilder {
        gateway
            .request(Method::POST, "/graphql")
            .bearer_auth(gateway.secret(token))
            .header("content-type", "application/json")
            .header("accept", "text/event-stream")
            .body(json!({ "query": query, "variables": canary::with_variable(Value::Null) }).to_string())
    }

    /// Sends [`Events::request`] and opens the event stream.
    pub async fn open(gateway: &Gateway, token: &str, query: &str) -> Self {
        Self::of(Self::request(gateway, token, query)).await
    }

    /// Sends `request` and opens the event stream.
    pub async fn of(request: RequestBuilder) -> Self {
        let response = timeout(TIMEOUT, request.send()).await.expect("a response in time").unwrap();
        assert_eq!(response.status(), 200);
        let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap());
        assert_eq!(header("content-type"), Some("text/event-stream; charset=utf-8"));
        assert_eq!(header("cache-control"), Some("no-store"));
        assert_eq!(header("x-accel-buffering"), Some("no"));
        Self { response, text: String::new() }
    }

    /// The next event or comment.
    pub async fn any(&mut self) -> Event {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let event = read(block);
                self.text = rest.to_owned();
                return event;
            }
            match timeout(TIMEOUT, self.response.chunk()).await.expect("an event in time") {
                Ok(Some(chunk)) => self.text.push_str(std::str::from_utf8(&chunk).unwrap()),
                Ok(None) => {
                    assert_eq!(self.text, "", "the stream ends between events");
                    return Event::End;
                }
                Err(error) => panic!("the stream breaks: {error}"),
            }
        }
    }

    /// The next event, without keep-alives.
    pub async fn event(&mut self) -> Event {
        loop {
            let event = self.any().await;
            if event != Event::Comment {
                return event;
            }
        }
    }

    /// The next GraphQL response.
    pub async fn next(&mut self) -> Value {
        match self.event().await {
            Event::Next(answer) => answer,
            other => panic!("expected a response, got {other:?}"),
        }
    }

    /// Asserts that the stream ends.
    pub async fn completed(&mut self) {
        assert_eq!((self.event().await, self.event().await), (Event::Complete, Event::End));
    }
}

fn read(block: &str) -> Event {
    match block.lines().collect::<Vec<_>>()[..] {
        ["event: next", data] => {
            let answer = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            canary::assert_no_leak_in(&answer);
            Event::Next(answer)
        }
        ["event: complete", "data:"] => Event::Complete,
        [":"] => Event::Comment,
        _ => panic!("not an event of the protocol: {block:?}"),
    }
}
