//! An event stream from the gateway, one event at a time.

use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Gateway, PATIENCE, canary};

/// The body of an answer that is an event stream.
pub struct Events {
    response: Response,
    text: String,
}

/// What is between two empty lines.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// An answer.
    Next(Value),
    /// No more is to come.
    Complete,
    /// A sign of life.
    Comment,
    /// The end of the body.
    End,
}

impl Events {
    /// A POST of `query` as `token` that accepts an event stream and nothing else.
    pub fn request(gateway: &Gateway, token: &str, query: &str) -> RequestBuilder {
        gateway
            .request(Method::POST, "/graphql")
            .bearer_auth(gateway.secret(token))
            .header("content-type", "application/json")
            .header("accept", "text/event-stream")
            .body(json!({ "query": query, "variables": canary::with_variable(Value::Null) }).to_string())
    }

    /// The event stream that answers [`Events::request`].
    pub async fn open(gateway: &Gateway, token: &str, query: &str) -> Self {
        Self::of(Self::request(gateway, token, query)).await
    }

    /// The event stream that `request` is answered with.
    pub async fn of(request: RequestBuilder) -> Self {
        let response = timeout(PATIENCE, request.send()).await.expect("an answer in time").unwrap();
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
            match timeout(PATIENCE, self.response.chunk()).await.expect("an event in time") {
                Ok(Some(chunk)) => self.text.push_str(std::str::from_utf8(&chunk).unwrap()),
                Ok(None) => {
                    assert_eq!(self.text, "", "it ends between events");
                    return Event::End;
                }
                Err(error) => panic!("the stream breaks: {error}"),
            }
        }
    }

    /// The next that is no comment.
    pub async fn event(&mut self) -> Event {
        loop {
            let event = self.any().await;
            if event != Event::Comment {
                return event;
            }
        }
    }

    /// The next answer.
    pub async fn next(&mut self) -> Value {
        match self.event().await {
            Event::Next(answer) => answer,
            other => panic!("an answer was expected, not {other:?}"),
        }
    }

    /// That there is nothing more.
    pub async fn completed(&mut self) {
        assert_eq!((self.event().await, self.event().await), (Event::Complete, Event::End));
    }
}

fn read(block: &str) -> Event {
    match block.lines().collect::<Vec<_>>()[..] {
        ["event: next", data] => {
            let answer = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            canary::assert_discreet(&answer);
            Event::Next(answer)
        }
        ["event: complete", "data:"] => Event::Complete,
        [":"] => Event::Comment,
        _ => panic!("not an event of the protocol: {block:?}"),
    }
}
