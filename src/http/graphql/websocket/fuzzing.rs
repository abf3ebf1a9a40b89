//! What fuzzing feeds with foreign text here, and what has to hold whatever it is. The targets are under `fuzz`.

use serde_json::{Map, Value};

use super::message::{Incoming, Outgoing};
use crate::{
    graphql::api::GraphqlRequest,
    http::graphql::fuzzing::{comes_back, is_worded},
};

/// A message of a WebSocket.
pub fn message(text: &str) {
    let Some(message) = Incoming::read(text) else { return };
    // Some JSON is too wild for `Value`, which says nothing of it then.
    let sent: Option<Value> = serde_json::from_str(text).ok();
    if let Some(sent) = &sent {
        assert!(sent.is_object() && (sent["payload"].is_null() || sent["payload"].is_object()));
    }
    match message {
        Incoming::ConnectionInit { .. } | Incoming::Pong { .. } | Incoming::Complete { .. } => {}
        Incoming::Ping { payload } => {
            let pong = json(&Outgoing::Pong { payload: payload.clone() });
            let names = |payload: &Map<String, Value>| payload.keys().cloned().collect::<Vec<_>>();
            assert_eq!(pong["type"], "pong");
            assert_eq!(
                pong.get("payload").and_then(Value::as_object).map(names),
                payload.as_ref().map(names)
            );
        }
        Incoming::Subscribe { id, payload } => {
            assert!(!id.is_empty());
            assert_eq!(json(&Outgoing::Complete { id: &id })["id"], id.as_str());
            match GraphqlRequest::try_from(payload) {
                Ok(request) => {
                    assert!(sent.is_none_or(|sent| sent["payload"]["query"] == request.query.as_str()));
                    comes_back(&request);
                }
                Err(refusal) => is_worded(refusal),
            }
        }
    }
}

fn json(message: &Outgoing<'_>) -> Value {
    serde_json::to_value(message).expect("what the gateway says is JSON")
}
