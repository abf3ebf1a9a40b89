//! Subscribing, over server-sent events.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Gateway, PATIENCE, canary};

/// A subscription. Dropping it is leaving.
pub struct Watching {
    response: reqwest::Response,
    /// What has come and has not been looked at.
    text: String,
}

/// What comes.
#[derive(Debug, PartialEq)]
pub enum Told {
    Next(Value),
    Complete,
}

impl Gateway {
    /// Watches an appointment as `token`.
    pub async fn watch(&self, token: &str, id: &str) -> Watching {
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
        let response = timeout(PATIENCE, request.send()).await.expect("an answer in time").unwrap();
        assert_eq!(response.status(), 200);
        Watching { response, text: String::new() }
    }
}

impl Watching {
    /// The next event.
    pub async fn event(&mut self) -> Told {
        timeout(PATIENCE, self.read()).await.expect("an event in time")
    }

    /// The appointment that comes next.
    pub async fn next(&mut self) -> Value {
        match self.event().await {
            Told::Next(mut answer) => {
                assert_eq!(answer.get("errors"), None);
                answer["data"]["appointmentChanged"].take()
            }
            Told::Complete => panic!("the subscription goes on"),
        }
    }

    /// The status of the appointment that comes next.
    pub async fn status(&mut self) -> String {
        self.next().await["status"].as_str().unwrap().to_owned()
    }

    /// That nothing comes for a while.
    pub async fn nothing(&mut self, pause: Duration) {
        let event = timeout(pause, self.read()).await;
        assert!(event.is_err(), "{event:?}");
    }

    /// That the subscription ends with an error; its code.
    pub async fn end(&mut self) -> String {
        let Told::Next(answer) = self.event().await else { panic!("an error comes before the end") };
        assert_eq!(answer["errors"].as_array().map(Vec::len), Some(1), "{answer}");
        assert_eq!(answer.get("data").unwrap_or(&Value::Null), &Value::Null, "{answer}");
        assert_eq!(self.event().await, Told::Complete);
        answer["errors"][0]["extensions"]["code"].as_str().unwrap().to_owned()
    }

    async fn read(&mut self) -> Told {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let field = |name| block.lines().find_map(|line| line.strip_prefix(name));
                let event = match field("event: ") {
                    Some("next") => {
                        let answer = serde_json::from_str(field("data: ").unwrap()).unwrap();
                        canary::assert_discreet(&answer);
                        Some(Told::Next(answer))
                    }
                    Some("complete") => Some(Told::Complete),
                    Some(other) => panic!("an event of a kind that there is not: {other}"),
                    // A sign of life.
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
