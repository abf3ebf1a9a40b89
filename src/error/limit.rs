//! The limits of the gateway, and the error of a request that exceeds one.

use std::{borrow::Cow, time::Duration};

use super::code::{ErrorCode, named};

named! {
    /// A limit. Its public name is its configuration key, without `limits.` for keys of that section. `first` and
    /// `system_resources` have no key. Exceeded limits are counted even when the closed connection leaves nobody to inform.
    #[allow(missing_docs, reason = "each variant is documented under its configuration key")]
    Limit {
        Body => "body",
        Headers => "headers",
        HeaderCount => "header_count",
        Uri => "uri",
        Token => "token",
        Batch => "batch",
        Query => "query",
        Tokens => "tokens",
        Depth => "depth",
        Fields => "fields",
        RootFields => "root_fields",
        Aliases => "aliases",
        Directives => "directives",
        Cost => "cost",
        Errors => "errors",
        Ids => "ids",
        First => "first",
        Items => "items",
        ResponseSize => "answer",
        Operations => "operations",
        RequestRate => "rate_limit.per_second",
        TokenVerifications => "callers.verifications_per_second",
        UpstreamQueue => "upstream.max_waiting",
        SystemResources => "system_resources",
        WatchedAppointments => "live.max_watched",
        Subscribers => "live.max_subscribers",
        Subscriptions => "live.max_subscriptions",
        Connections => "http.max_connections",
        AdminConnections => "admin.listen",
        MetricsConnections => "metrics.listen",
        EventStreams => "live.max_event_streams",
        WebSocketInitTimeout => "websocket.init_timeout",
        WebSocketConnections => "websocket.max_connections",
        WebSocketSubscriptions => "websocket.max_subscriptions",
        WebSocketMessage => "websocket.max_message",
        WebSocketInitMessage => "websocket.init_max_message",
        WebSocketMessageTimeout => "websocket.message_timeout",
        WebSocketMessageRate => "websocket.messages_per_second",
        WebSocketPartialMessages => "websocket.max_partial",
        Deadline => "http.deadline",
        BodyTimeout => "http.body_timeout",
        HeaderTimeout => "http.header_timeout",
        WriteTimeout => "http.write_timeout",
        SendTimeout => "http.send_timeout",
        ResponseMemory => "http.max_response_memory",
        IdempotencyRecords => "changes.idempotency_size",
    }
}

/// The public names of all limits.
pub const LIMITS: &[&str] = Limit::NAMES;

/// An exceeded limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitExceeded {
    /// The limit.
    pub limit: Limit,
    /// The allowed maximum, unless the limit is a duration.
    pub maximum: Option<u64>,
    /// The actual value, if it was counted to the end.
    pub value: Option<u64>,
    /// The code of the error.
    pub code: ErrorCode,
    /// The problem and its remedy.
    pub message: Cow<'static, str>,
    /// When to retry, if a retry can help.
    pub retry_after: Option<Duration>,
}
