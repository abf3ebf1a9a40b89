//! A subscription to one appointment, over either transport.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Gateway, Socket, SubscriptionEvent, event_stream_subscription::EventStreamSubscription};

/// The transports of subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    EventStream,
    WebSocket,
}

impl Transport {
    pub const EACH: [Self; 2] = [Self::EventStream, Self::WebSocket];
}

/// A subscription. Dropping it ends it.
pub enum Subscription {
    EventStream(EventStreamSubscription),
    WebSocket(Socket),
}

impl Gateway {
    /// Subscribes to the appointment `id` as `token`.
    pub async fn subscribe(&self, transport: Transport, token: &str, id: &str) -> Subscription {
        match transport {
            Transport::EventStream => Subscription::EventStream(self.watch(token, id).await),
            Transport::WebSocket => {
                let mut socket = Socket::connect(self, token).await;
                let query =
                    format!("subscription {{ appointmentChanged(id: {id:?}) {{ id reference status }} }}");
                socket.subscribe("1", &query).await;
                Subscription::WebSocket(socket)
            }
        }
    }
}

impl Subscription {
    /// The next event. An `error` message of the WebSocket protocol becomes a response with errors only.
    pub async fn event(&mut self) -> SubscriptionEvent {
        match self {
            Self::EventStream(events) => events.event().await,
            Self::WebSocket(socket) => {
                let mut message = socket.receive().await;
                match message["type"].as_str() {
                    Some("next") => SubscriptionEvent::Next(message["payload"].take()),
                    Some("error") => SubscriptionEvent::Next(json!({ "errors": message["payload"] })),
                    Some("complete") => SubscriptionEvent::Complete,
                    _ => panic!("expected an event, got {message}"),
                }
            }
        }
    }

    /// The status of the appointment in the next event.
    pub async fn status(&mut self) -> String {
        let SubscriptionEvent::Next(answer) = self.event().await else { panic!("the subscription goes on") };
        assert_eq!(answer.get("errors"), None);
        answer["data"]["appointmentChanged"]["status"].as_str().expect("a status").to_owned()
    }

    /// The error that comes next and ends the subscription.
    pub async fn error(&mut self) -> Value {
        let SubscriptionEvent::Next(mut answer) = self.event().await else {
            panic!("an error comes before the end")
        };
        assert_eq!(answer.get("data").unwrap_or(&Value::Null), &Value::Null, "{answer}");
        assert_eq!(answer["errors"].as_array().map(Vec::len), Some(1), "{answer}");
        answer["errors"][0].take()
    }

    /// The code of the error that comes next and ends the subscription.
    pub async fn end(&mut self) -> String {
        self.error().await["extensions"]["code"].as_str().expect("a code").to_owned()
    }

    /// Asserts that no appointment arrives for a while.
    pub async fn shows_nothing(&mut self, pause: Duration) {
        if let Ok(SubscriptionEvent::Next(answer)) = timeout(pause, self.event()).await {
            assert!(answer["data"]["appointmentChanged"].is_null(), "{answer}");
        }
    }
}
