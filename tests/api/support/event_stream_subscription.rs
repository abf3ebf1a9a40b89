//! A subscription to one appointment, over server-sent events.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Gateway, TIMEOUT, canary};

/// A subscription. Dropping it ends it.
pub struct EventStreamSubscription {
    response: reqwest::Response,
    /// Unprocessed text.
    text: String,
}

/// An event of a subscription, over either transport.
#[derive(Debug, PartialEq)]
pub enum SubscriptionEvent {
    Next(Value),
    Complete,
}

impl Gateway {
    /// Subscribes to an appointment as `token`.
    pub async fn watch(&self, token: &str, id: &str) -> EventStreamSubscription {
        let query = "subscription ($id: UUID!) { appointmentChanged(id: $id) { id reference status } }";
        let mut request = self
            .request(reqwest::Method::POST, "/graphql")
            .header("content-type", "application/json")
            .header("accept", "text/event-stream")
            .body(
                json!({ "query": query, "variables": canary::with_variable(json!({ "id": id })) })
                    .to_string(),
            );
        if !token.is_empty() {
            request = request.bearer_auth(self.secret(token));
        }
        let response = timeout(TIMEOUT, request.send()).await.expect("a response in time").unwrap();
        assert_eq!(response.status(), 200);
        EventStreamSubscription { response, text: String::new() }
    }
}

impl EventStreamSubscription {
    /// The next event.
    pub async fn event(&mut self) -> SubscriptionEvent {
        timeout(TIMEOUT, self.read()).await.expect("an event in time")
    }

    /// The appointment in the next event.
    pub async fn next(&mut self) -> Value {
        match self.event().await {
            SubscriptionEvent::Next(mut answer) => {
                assert_eq!(answer.get("errors"), None);
                answer["data"]["appointmentChanged"].take()
            }
            SubscriptionEvent::Complete => panic!("the subscription goes on"),
        }
    }

    /// The status of the appointment in the next event.
    pub async fn status(&mut self) -> String {
        self.next().await["status"].as_str().unwrap().to_owned()
    }

    /// Asserts that no event arrives for a while.
    pub async fn nothing(&mut self, pause: Duration) {
        let event = timeout(pause, self.read()).await;
        assert!(event.is_err(), "{event:?}");
    }

    /// Asserts that the subscription ends with one error, and returns its code.
    pub async fn end(&mut self) -> String {
        let SubscriptionEvent::Next(answer) = self.event().await else {
            panic!("an error comes before the end")
        };
        assert_eq!(answer["errors"].as_array().map(Vec::len), Some(1), "{answer}");
        assert_eq!(answer.get("data").unwrap_or(&Value::Null), &Value::Null, "{answer}");
        assert_eq!(self.event().await, SubscriptionEvent::Complete);
        answer["errors"][0]["extensions"]["code"].as_str().unwrap().to_owned()
    }

    async fn read(&mut self) -> SubscriptionEvent {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let field = |name| block.lines().find_map(|line| line.strip_prefix(name));
                let event = match field("event: ") {
                    Some("next") => {
                        let answer = serde_json::from_str(field("data: ").unwrap()).unwrap();
                        canary::assert_no_leak_in(&answer);
                        Some(SubscriptionEvent::Next(answer))
                    }
                    Some("complete") => Some(SubscriptionEvent::Complete),
                    Some(other) => panic!("an event of unknown type: {other}"),
                    // A keep-alive.
                    None => None,
                };
                self.text = rest.to_owned();
                if let Some(event) = event {
                    return event;
                }
            }
            let chunk = self.response.chunk().await.unwrap().expect("the stream says when it is complete");
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}
