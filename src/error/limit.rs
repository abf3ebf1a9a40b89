//! What a limit refuses: an error that names the limit, with the code of what it is a case of.

use std::{borrow::Cow, time::Duration};

/// The name of every limit: its key in the configuration, without `limits.` where that is its section. `first` and
/// `system_resources` have no key. Where nobody can be told, because the connection is closed, it is counted all the same.
pub const LIMITS: &[&str] = &[
    "body",
    "headers",
    "header_count",
    "uri",
    "token",
    "query",
    "tokens",
    "depth",
    "fields",
    "root_fields",
    "aliases",
    "directives",
    "cost",
    "errors",
    "ids",
    "first",
    "items",
    "answer",
    "operations",
    "rate_limit.per_second",
    "callers.verifications_per_second",
    "upstream.max_waiting",
    "system_resources",
    "live.max_watched",
    "live.max_subscribers",
    "live.max_subscriptions",
    "live.max_event_streams",
    "websocket.init_timeout",
    "websocket.max_connections",
    "websocket.max_subscriptions",
    "websocket.max_message",
    "websocket.init_max_message",
    "websocket.message_timeout",
    "websocket.messages_per_second",
    "websocket.max_partial",
    "http.deadline",
    "http.body_timeout",
    "http.header_timeout",
    "http.write_timeout",
    "http.send_timeout",
    "http.max_response_memory",
];

/// A limit, and what it refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverLimit {
    /// One of [`LIMITS`].
    pub limit: &'static str,
    /// What the limit allows, unless that is a time.
    pub maximum: Option<u64>,
    /// What there was, where it has been counted to the end.
    pub value: Option<u64>,
    /// What it is a case of: one of [`CODES`](crate::error::CODES).
    pub code: &'static str,
    /// What happened and what to do about it.
    pub message: Cow<'static, str>,
    /// When to come back, where that helps.
    pub retry_after: Option<Duration>,
}
