//! The messages of `graphql-transport-ws`.

use axum::body::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::{Map, Value};

use crate::metrics::metrics;
use crate::{
    graphql::{api::Api, execute::response::GraphqlResponse},
    http::graphql::request::Parameters,
};

/// The longest id of an operation, in bytes. It is held and sent back for as long as the operation runs; clients use UUIDs.
const LONGEST_ID: usize = 128;

type Payload = Option<Map<String, Value>>;

/// What a client says.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Incoming {
    /// The beginning, with who it is.
    ConnectionInit { payload: Payload },
    /// Are you there?
    Ping { payload: Payload },
    /// I am here.
    Pong {
        #[expect(dead_code, reason = "read only to be an object")]
        payload: Payload,
    },
    /// Run this.
    Subscribe {
        id: String,
        #[serde(deserialize_with = "parameters")]
        payload: Parameters,
    },
    /// No more of that.
    Complete { id: String },
}

/// What the gateway says.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Outgoing<'a> {
    /// The beginning is heard.
    ConnectionAck,
    /// I am here.
    Pong {
        #[serde(skip_serializing_if = "Option::is_none")]
        payload: Payload,
    },
    /// An answer, perhaps with more to come.
    Next {
        id: &'a str,
        #[serde(skip)]
        payload: GraphqlResponse,
    },
    /// It was not run; no more is to come. The protocol has the errors alone here.
    Error {
        id: &'a str,
        #[serde(serialize_with = "errors_alone")]
        payload: GraphqlResponse,
    },
    /// No more is to come.
    Complete { id: &'a str },
}

fn errors_alone<S: Serializer>(answer: &GraphqlResponse, serializer: S) -> Result<S::Ok, S::Error> {
    answer.errors.serialize(serializer)
}

impl Incoming {
    /// None where the protocol has no such message.
    pub(crate) fn read(text: &str) -> Option<Self> {
        // The library reads the members of an object from a list, too.
        if !text.trim_start().starts_with('{') {
            return None;
        }
        // The library's own error may repeat what it found, so it goes no further.
        let message = serde_json::from_str(text).ok()?;
        match &message {
            Self::Subscribe { id, .. } | Self::Complete { id } if id.is_empty() || id.len() > LONGEST_ID => {
                None
            }
            _ => Some(message),
        }
    }
}

/// Parameters from an object and, as with the message itself, from nothing else.
fn parameters<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Parameters, D::Error> {
    let object = Map::deserialize(deserializer)?;
    Parameters::deserialize(Value::Object(object)).map_err(D::Error::custom)
}

impl Outgoing<'_> {
    /// As JSON, with answers as `api` encodes them.
    pub(crate) fn write(self, api: &Api) -> Bytes {
        // Strings, numbers and errors are always JSON.
        let mut json = serde_json::to_vec(&self).unwrap_or_default();
        match self {
            Self::Next { payload, .. } => {
                // An answer writes itself, as the last member of the object.
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
    fn a_message_is_of_the_protocol_or_none_at_all() {
        for text in [
            r#"{"type":"connection_init"}"#,
            r#"{"type":"connection_init","payload":null}"#,
            r#"{"payload":{"a":[1]},"type":"connection_init"}"#,
            r#"{"type":"ping","more":1}"#,
            r#"{"type":"pong","payload":{}}"#,
            r#"{"type":"subscribe","id":"1","payload":{"query":"{ a }"}}"#,
            r#"{"type":"complete","id":"1"}"#,
        ] {
            assert!(Incoming::read(text).is_some(), "{text}");
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
            assert!(Incoming::read(text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text: String, payload: String) {
            let _ = Incoming::read(&text);
            let _ = Incoming::read(&format!(r#"{{"type":"subscribe","id":{text:?},"payload":{payload}}}"#));
        }
    }
}
