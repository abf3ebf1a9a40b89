//! `websocket.*`: bounds and timeouts of WebSockets.

use std::time::Duration;

use bytesize::ByteSize;

/// `websocket.*`: limits of WebSockets and their messages.
#[derive(Debug, Clone, Default)]
pub struct WebSocketConfig {
    /// `websocket.init_timeout`
    pub init_timeout: Duration,
    /// `websocket.max_connections`
    pub max_connections: usize,
    /// `websocket.max_subscriptions`
    pub max_subscriptions: usize,
    /// `websocket.max_message`
    pub max_message: ByteSize,
    /// `websocket.init_max_message`
    pub init_max_message: ByteSize,
    /// `websocket.message_timeout`
    pub message_timeout: Duration,
    /// `websocket.messages_per_second`
    pub messages_per_second: u32,
    /// `websocket.max_partial`
    pub max_partial: ByteSize,
}
