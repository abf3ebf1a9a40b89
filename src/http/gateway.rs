//! The state shared by all handlers, and the request type that they receive.

use std::{sync::Arc, time::Duration};

use axum::http;
use hyper::body::Incoming;
use serde::Serialize;
use uuid::Uuid;

use super::{
    concurrency::{AdmissionQueue, ConcurrencyLimit},
    graphql::{
        accept::Negotiation, entity_tag::EntityTagKey, response_cache::ResponseCache,
        websocket::message_limits::PartialMessages,
    },
    rate_limit::RateLimit,
    request_id::RequestId,
};
use crate::{
    appointments::shared::Shared,
    auth::identity::Authenticator,
    config::{http::HttpConfig, limits::Limits, websocket::WebSocketConfig},
    graceful_shutdown::GracefulShutdown,
    graphql::api::Api,
};

/// The components of the gateway and their configuration.
#[derive(Debug)]
pub struct Gateway {
    /// Parses and executes GraphQL operations.
    pub api: Api,
    /// Reads and changes appointments.
    pub appointments: Shared,
    /// Encoded responses, reused for equal requests.
    pub response_cache: ResponseCache,
    /// The key of the entity tags of responses.
    pub entity_tags: EntityTagKey,
    /// Identifies callers.
    pub identity: Authenticator,
    /// HTTP timeouts, origins and compression.
    pub http: HttpConfig,
    /// Limits on requests and operations.
    pub limits: Limits,
    /// Timeouts and limits of WebSockets.
    pub websocket: WebSocketConfig,
    /// The rate limit of each caller.
    pub rate_limit: RateLimit,
    /// The concurrency limit of operations, with its queue.
    pub operations: AdmissionQueue,
    /// The concurrency limit of WebSockets.
    pub websockets: ConcurrencyLimit,
    /// The memory limit of unfinished WebSocket messages.
    pub partial_messages: Arc<PartialMessages>,
    /// The concurrency limit of subscriptions over event streams.
    pub event_streams: ConcurrencyLimit,
    /// The keep-alive interval of event streams and WebSockets.
    pub keep_alive: Duration,
    /// The settings of GraphiQL, if it is served.
    pub graphiql: Option<GraphiqlSettings>,
    /// Whether `/metrics` is served at `listen`.
    pub serves_metrics: bool,
    /// Signals the shutdown to connections, and waits for them.
    pub shutdown: GracefulShutdown,
}

/// The request id, the negotiated media types, and the body, borrowed so that the router can discard the rest of the body after the handler.
#[derive(Debug)]
pub(crate) struct RequestContext<'r> {
    pub(crate) id: &'r RequestId,
    pub(crate) body: &'r mut Incoming,
    pub(crate) negotiation: Negotiation,
}

pub(crate) type Request<'r> = http::Request<RequestContext<'r>>;

/// The initial state of the GraphiQL page.
#[derive(Debug, Clone, Default, Serialize)]
pub struct GraphiqlSettings {
    /// Whether the data is the sandbox's. The page then says so.
    pub sandbox: bool,
    /// A token to fill in. It is only ever the public one of the sandbox.
    pub token: Option<&'static str>,
    /// Ids for the example queries.
    pub ids: Vec<Uuid>,
    /// The path of the GraphQL endpoint, relative to the page.
    pub endpoint: String,
}
