//! The messages of the sub-protocol `graphql-transport-ws`.

use axum::body::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::{Map, Value};

use crate::metrics::metrics;
use crate::{
    graphql::{api::Api, execute::response::GraphqlResponse},
    http::graphql::request::Parameters,
};

/// The maximum length of an operation id, in bytes. It is held while the operation runs; clients use UUIDs.
const MAX_ID: usize = 128;

type Payload = Option<Map<String, Value>>;

/// A message from a client.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ClientMessage {
    /// Opens the session. The payload may carry the credential.
    ConnectionInit { payload: Payload },
    /// Requests a pong.
    Ping { payload: Payload },
    /// Responds to a ping.
    Pong {
        #[expect(dead_code, reason = "parsed to check that it is an object")]
        payload: Payload,
    },
    /// Starts an operation.
    Subscribe {
        id: String,
        #[serde(deserialize_with = "parameters")]
        payload: Box<Parameters>,
    },
    /// Cancels an operation.
    Complete { id: String },
}

/// A message to a client.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ServerMessage<'a> {
    /// Acknowledges `connection_init`.
    ConnectionAck,
    /// Responds to a ping.
    Pong {
        #[serde(skip_serializing_if = "Option::is_none")]
        payload: Payload,
    },
    /// A response of an operation. More may follow.
    Next {
        id: &'a str,
        #[serde(skip)]
        payload: GraphqlResponse,
    },
    /// The errors of an operation that was not executed. No more messages follow.
    Error {
        id: &'a str,
        #[serde(serialize_with = "errors_only")]
        payload: GraphqlResponse,
    },
    /// The end of an operation.
    Complete { id: &'a str },
}

fn errors_only<S: Serializer>(response: &GraphqlResponse, serializer: S) -> Result<S::Ok, S::Error> {
    response.errors.serialize(serializer)
}

impl ClientMessage {
    /// Parses a message, or returns none if it is not one of the protocol.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        // serde would also accept an array of the members.
        if !text.trim_start().starts_with('{') {
            return None;
        }
        // The error of serde_json is dropped, since it may repeat parts of the message.
        let message = serde_json::from_str(text).ok()?;
        match &message {
            Self::Subscribe { id, .. } | Self::Complete { id } if id.is_empty() || id.len() > MAX_ID => None,
            _ => Some(message),
        }
    }
}

/// Deserialises parameters from an object only. As above, serde would also accept an array.
fn parameters<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<Parameters>, D::Error> {
    let object = Map::deserialize(deserializer)?;
    Parameters::deserialize(Value::Object(object)).map(Box::new).map_err(D::Error::custom)
}

impl ServerMessage<'_> {
    /// Encodes the message as JSON. `api` encodes responses.
    pub(crate) fn encode(self, api: &Api) -> Bytes {
        // Serialising strings, numbers and errors cannot fail.
        let mut json = serde_json::to_vec(&self).unwrap_or_default();
        match self {
            Self::Next { payload, .. } => {
                // The response is encoded separately, as the last member of the object.
                json.pop();
                json.extend_from_slice(b",\"payload\":");
                return api.encode_between(&json, payload, b"}");
            }
            Self::Error { payload, .. } => metrics().count_errors(&payload.errors),
            Self::ConnectionAck | Self::Pong { .. } | Self::Complete { .. } => {}
        }
        json.into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_messages_of_the_protocol_are_parsed() {
        for text in [
            r#"{"type":"connection_init"}"#,
            r#"{"type":"connection_init","payload":null}"#,
            r#"{"payload":{"a":[1]},"type":"connection_init"}"#,
            r#"{"type":"ping","more":1}"#,
            r#"{"type":"pong","payload":{}}"#,
            r#"{"type":"subscribe","id":"1","payload":{"query":"{ a }"}}"#,
            r#"{"type":"complete","id":"1"}"#,
        ] {
            assert!(ClientMessage::parse(text).is_some(), "{text}");
        }
        for text in [
            "",
            "null",
            "[]",
            "{}",
            "connection_init",
            r#"{"type":"connection_ack"}"#,
            r#"{"type":"start","id":"1"}"#,
            r#"["ping",null]"#,
            r#"["subscribe","1",{"query":"{ a }"}]"#,
            r#"{"type":"subscribe","id":"1","payload":["{ a }"]}"#,
            r#"{"type":"connection_init","payload":"Bearer a"}"#,
            r#"{"type":"ping","payload":1}"#,
            r#"{"type":"subscribe","payload":{"query":"{ a }"}}"#,
            r#"{"type":"subscribe","id":"","payload":{"query":"{ a }"}}"#,
            r#"{"type":"subscribe","id":1,"payload":{"query":"{ a }"}}"#,
            r#"{"type":"subscribe","id":"1"}"#,
            r#"{"type":"subscribe","id":"1","payload":"{ a }"}"#,
            r#"{"type":"complete"}"#,
        ] {
            assert!(ClientMessage::parse(text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text: String, payload: String) {
            let _ = ClientMessage::parse(&text);
            let _ = ClientMessage::parse(&format!(r#"{{"type":"subscribe","id":{text:?},"payload":{payload}}}"#));
        }
    }
}
