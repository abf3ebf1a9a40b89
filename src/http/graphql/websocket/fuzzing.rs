//! Entry point and assertions of the fuzz target in `fuzz` that parses WebSocket messages.

use serde_json::{Map, Value};

use super::message::{ClientMessage, ServerMessage};
use crate::{
    graphql::api::GraphqlRequest,
    http::graphql::fuzzing::{assert_error_document, assert_is_sent, assert_round_trip},
};

/// Parses `text` as a WebSocket message.
pub fn message(text: &str) {
    let Some(message) = ClientMessage::parse(text) else { return };
    // `Value` rejects some JSON that the message parser accepts, such as huge numbers in ignored members.
    let sent: Option<Value> = serde_json::from_str(text).ok();
    if let Some(sent) = &sent {
        assert!(sent.is_object() && (sent["payload"].is_null() || sent["payload"].is_object()));
    }
    match message {
        ClientMessage::ConnectionInit { .. }
        | ClientMessage::Pong { .. }
        | ClientMessage::Complete { .. } => {}
        ClientMessage::Ping { payload } => {
            let pong = json(&ServerMessage::Pong { payload: payload.clone() });
            let names = |payload: &Map<String, Value>| payload.keys().cloned().collect::<Vec<_>>();
            assert_eq!(pong["type"], "pong");
            assert_eq!(
                pong.get("payload").and_then(Value::as_object).map(names),
                payload.as_ref().map(names)
            );
        }
        ClientMessage::Subscribe { id, payload } => {
            assert!(!id.is_empty());
            assert_eq!(json(&ServerMessage::Complete { id: &id })["id"], id.as_str());
            match GraphqlRequest::try_from(*payload) {
                Ok(request) => {
                    if let Some(sent) = sent {
                        assert_is_sent(&request.document, &sent["payload"]);
                    }
                    assert_round_trip(&request);
                }
                Err(refusal) => assert_error_document(refusal),
            }
        }
    }
}

fn json(message: &ServerMessage<'_>) -> Value {
    serde_json::to_value(message).expect("server messages are JSON")
}
