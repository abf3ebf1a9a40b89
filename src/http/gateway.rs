//! The state that all handlers share, and the request that they are given.

use std::{sync::Arc, time::Duration};

use axum::http;
use hyper::body::Incoming;

use super::{
    concurrency::{AdmissionQueue, ConcurrencyLimit},
    graphql::{response_cache::ResponseCache, websocket::message_limits::PartialMessages},
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
use serde::Serialize;
use uuid::Uuid;

/// What the routes share.
#[derive(Debug)]
pub struct Gateway {
    /// Parses and runs operations.
    pub api: Api,
    /// What operations read and change through.
    pub appointments: Shared,
    /// EncodedResponse answers, for equal requests.
    pub answers: ResponseCache,
    /// Tells who asks.
    pub identity: Authenticator,
    /// Clocks, and which pages may ask.
    pub http: HttpConfig,
    /// Bounds on what comes in.
    pub limits: Limits,
    /// Clocks and bounds of WebSockets.
    pub websocket: WebSocketConfig,
    /// How often each caller may ask.
    pub rate_limit: RateLimit,
    /// Admits operations.
    pub operations: AdmissionQueue,
    /// Bounds WebSockets.
    pub websockets: ConcurrencyLimit,
    /// Room for the messages that WebSockets have not finished.
    pub partial_messages: Arc<PartialMessages>,
    /// Bounds subscriptions over event streams.
    pub event_streams: ConcurrencyLimit,
    /// How often an event stream or a WebSocket gets a sign of life.
    pub keep_alive: Duration,
    /// What GraphiQL opens with; none where it is not served.
    pub graphiql: Option<GraphiqlSettings>,
    /// Whether `/metrics` is served beside `/graphql`.
    pub serves_metrics: bool,
    /// Everything that is open, and when it is to end.
    pub drain: GracefulShutdown,
}

/// What comes with a request beside its head, of which the one who hands it on sees what is left.
#[derive(Debug)]
pub(crate) struct Lent<'r> {
    pub(crate) id: &'r RequestId,
    pub(crate) body: &'r mut Incoming,
}

pub(crate) type Request<'r> = http::Request<Lent<'r>>;

/// What the page opens with.
#[derive(Debug, Clone, Default, Serialize)]
pub struct GraphiqlSettings {
    /// Whether the data is made up, which the page then says.
    pub sandbox: bool,
    /// A token to fill in: the sandbox's, which is no secret. Never another.
    pub token: Option<&'static str>,
    /// Ids for the examples.
    pub ids: Vec<Uuid>,
}
