//! Close codes of WebSockets: RFC 6455, section 7.4.1, and the protocol `graphql-transport-ws` (4400 and up).

/// A close code that the gateway sends. Clients reconnect after 1001, 1013 and 4408.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseCode {
    /// The gateway shuts down.
    GoingAway = 1001,
    /// A frame violates RFC 6455.
    ProtocolError = 1002,
    /// A text message is not valid UTF-8.
    InvalidUtf8 = 1007,
    /// A message exceeds `websocket.max_message` or `websocket.init_max_message`.
    MessageTooBig = 1009,
    /// All connections together hold too many bytes of unfinished messages.
    TryAgainLater = 1013,
    /// A message is not a message of the protocol.
    InvalidMessage = 4400,
    /// An operation before `connection_init`.
    Unauthorized = 4401,
    /// A malformed credential in `connection_init`.
    Forbidden = 4403,
    /// `connection_init` did not arrive within `websocket.init_timeout` ([`session`](super::session)), or a message was
    /// unfinished after `websocket.message_timeout` ([`message_limits`](super::message_limits)).
    Timeout = 4408,
    /// The id of an operation is in use.
    SubscriberExists = 4409,
    /// A second `connection_init`.
    TooManyInitRequests = 4429,
}
