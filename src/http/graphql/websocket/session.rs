//! The session of one WebSocket, from the handshake to the close: the protocol `graphql-transport-ws`.
//!
//! A session is a single task. While it sends, it neither reads messages nor polls operations. So a slow reader gets
//! back-pressure, and afterwards the latest state of its subscriptions instead of a queue.

use std::{
    borrow::Cow,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Bytes;
use futures_util::{SinkExt as _, Stream, StreamExt as _, stream};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval_at, sleep, timeout},
};
use tokio_stream::{StreamMap, StreamNotifyClose};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        error::ProtocolError,
        protocol::{
            CloseFrame, Role, WebSocketConfig,
            frame::{
                Frame,
                coding::{Data, OpCode},
            },
        },
    },
};
use tracing::Instrument as _;

use super::{
    close_code::CloseCode,
    message::{ClientMessage, ServerMessage},
    message_limits::{LimitViolation, MeteredStream, READ_BUFFER},
};
use crate::{
    auth::bearer::{BearerToken, bearer, identify},
    caller::Caller,
    error::{
        ApiError,
        echo::MAX_ECHO,
        limit::{Limit, LimitExceeded},
    },
    graceful_shutdown::ShutdownGuard,
    graphql::execute::response::GraphqlResponse,
    http::{
        gateway::Gateway,
        graphql::{
            request::Parameters,
            run::{access, responses},
        },
    },
    metrics::metrics,
};

/// The timeout of the closing handshake. Until then, messages of the client are read and discarded: unread ones would
/// make the system reset the connection before the client has read the close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The maximum number of bytes to discard while closing. Reading a flood costs more than resetting its connection.
const MAX_DISCARDED: u64 = 32 * 1024 * 1024;

/// The maximum length of a protocol `ping` in bytes, since its payload is sent back.
const MAX_PING: usize = 512;

/// The maximum length of written frames. tungstenite buffers a frame until the client has read it, and its buffer never
/// shrinks. Longer messages are sent in fragments (RFC 6455, section 5.4).
const MAX_FRAME: usize = 64 * 1024;

/// An open WebSocket.
pub(crate) struct Session {
    gateway: Arc<Gateway>,
    socket: WebSocketStream<MeteredStream<TokioIo<Upgraded>>>,
    /// The credential of `connection_init`, or else of the handshake. Each operation verifies it again, since it may
    /// expire during the session.
    token: Result<Option<BearerToken>, ApiError>,
    /// The id of the handshake request.
    request_id: Box<str>,
    shutdown: ShutdownGuard,
    operations: StreamMap<String, RunningOperation>,
    is_acknowledged: bool,
    is_shutting_down: bool,
    /// The time of the last frame from the client, moved forward by times in which the session did not read.
    last_received: Instant,
}

/// The end of a session.
enum SessionEnd {
    /// The connection is closed or lost.
    Disconnected,
    /// The gateway closes the WebSocket, with a code and a reason.
    Close(CloseCode, Cow<'static, str>),
}

/// An operation in progress.
struct RunningOperation {
    is_subscription: bool,
    responses: StreamNotifyClose<Pin<Box<dyn Stream<Item = GraphqlResponse> + Send>>>,
}

/// An operation with a single response, in a task of its own, so that a slow reader does not make it hold its slot of
/// the concurrency limit. `websocket.max_subscriptions` bounds the number of responses that wait to be sent.
struct ExecutionTask(JoinHandle<GraphqlResponse>);

impl ExecutionTask {
    async fn response(mut self) -> GraphqlResponse {
        // The task handles panics itself, so this is a shutdown of the runtime.
        (&mut self.0).await.unwrap_or_else(|_| GraphqlResponse::rejected(vec![ApiError::Internal]))
    }
}

impl Drop for ExecutionTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Stream for RunningOperation {
    type Item = Option<GraphqlResponse>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.responses.poll_next_unpin(context)
    }
}

impl Session {
    /// A session on an `upgraded` connection, with the credential and the id of the handshake.
    pub(crate) async fn new(
        gateway: Arc<Gateway>,
        token: Result<Option<BearerToken>, ApiError>,
        request_id: Box<str>,
        shutdown: ShutdownGuard,
        upgraded: Upgraded,
    ) -> Self {
        // `MeteredStream` enforces the limits on messages before tungstenite sees them.
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(None)
            .max_frame_size(None);
        let metered =
            MeteredStream::new(TokioIo::new(upgraded), &gateway.websocket, gateway.partial_messages.clone());
        Self {
            gateway,
            socket: WebSocketStream::from_raw_socket(metered, Role::Server, Some(config)).await,
            token,
            request_id,
            shutdown,
            operations: StreamMap::new(),
            is_acknowledged: false,
            is_shutting_down: false,
            last_received: Instant::now(),
        }
    }

    /// Serves the session until it ends.
    pub(crate) async fn serve(mut self) {
        match self.run().await {
            SessionEnd::Disconnected => tracing::debug!("WebSocket disconnected"),
            SessionEnd::Close(code, reason) => {
                // Not the reason, which may repeat an operation id chosen by the client.
                tracing::debug!(websocket.code = code as u16, "WebSocket closed");
                // Operations end before the closing handshake.
                self.operations = StreamMap::new();
                let _ = timeout(CLOSE_TIMEOUT, self.close_gracefully(code, reason)).await;
            }
        }
    }

    async fn run(&mut self) -> SessionEnd {
        let keep_alive = self.gateway.keep_alive;
        let mut pings = interval_at(Instant::now() + keep_alive, keep_alive);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut init_timeout = std::pin::pin!(sleep(self.gateway.websocket.init_timeout));
        loop {
            let step = tokio::select! {
                // Frames before pings, so that a pong that has arrived counts before the next ping is due.
                biased;
                () = &mut init_timeout, if !self.is_acknowledged => {
                    metrics().limited.count(Limit::WebSocketInitTimeout.as_str());
                    Err(SessionEnd::Close(CloseCode::Timeout, "Connection initialisation timeout".into()))
                }
                () = self.shutdown.signalled(), if !self.is_shutting_down => {
                    self.end_subscriptions();
                    Ok(())
                }
                frame = self.socket.next() => self.receive(frame).await,
                _ = pings.tick() => self.send_ping().await,
                Some((id, response)) = self.operations.next(), if !self.operations.is_empty() => {
                    self.send_response(&id, response).await
                }
            };
            match step {
                Err(end) => return end,
                // Operations with a single response have been completed, as requests are.
                Ok(()) if self.is_shutting_down && self.operations.is_empty() => return going_away(),
                Ok(()) => {}
            }
        }
    }

    async fn receive(&mut self, frame: Option<Result<Message, Error>>) -> Result<(), SessionEnd> {
        let close = |code, reason: &'static str| Err(SessionEnd::Close(code, reason.into()));
        self.last_received = Instant::now();
        match frame {
            Some(Ok(Message::Text(text))) => match ClientMessage::parse(&text) {
                Some(ClientMessage::Ping { .. }) if text.len() > MAX_PING => {
                    close(CloseCode::InvalidMessage, "Invalid message: ping exceeds 512 bytes")
                }
                Some(message) => self.on_message(message).await,
                None => close(CloseCode::InvalidMessage, "Invalid message"),
            },
            Some(Ok(Message::Binary(_))) => {
                close(CloseCode::InvalidMessage, "Invalid message: binary frames are not supported")
            }
            // tungstenite responds to pings.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(()),
            Some(Ok(Message::Close(_))) => {
                // Sends the close frame that tungstenite has queued in response.
                let _ = timeout(CLOSE_TIMEOUT, self.socket.flush()).await;
                Err(SessionEnd::Disconnected)
            }
            Some(Err(Error::Io(error))) => Err(match LimitViolation::from_error(&error) {
                Some(violation) => {
                    metrics().limited.count(violation.limit().as_str());
                    SessionEnd::Close(violation.code(), violation.to_string().into())
                }
                None => SessionEnd::Disconnected,
            }),
            Some(Err(Error::Utf8(_))) => close(CloseCode::InvalidUtf8, "Message is not valid UTF-8"),
            Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => {
                Err(SessionEnd::Disconnected)
            }
            Some(Err(Error::Protocol(_))) => close(CloseCode::ProtocolError, "WebSocket protocol error"),
            Some(Err(_)) | None => Err(SessionEnd::Disconnected),
        }
    }

    async fn on_message(&mut self, message: ClientMessage) -> Result<(), SessionEnd> {
        match message {
            ClientMessage::ConnectionInit { .. } if self.is_acknowledged => Err(SessionEnd::Close(
                CloseCode::TooManyInitRequests,
                "Too many initialisation requests".into(),
            )),
            ClientMessage::ConnectionInit { payload } => {
                if let Some(token) = self.credential(payload)? {
                    self.token = Ok(Some(token));
                }
                self.is_acknowledged = true;
                self.send_message(ServerMessage::ConnectionAck).await?;
                // A valid credential raises the message limit. An invalid one is reported per operation.
                let _ = self.caller(Instant::now() + self.gateway.http.deadline).await;
                Ok(())
            }
            ClientMessage::Ping { payload } => self.send_message(ServerMessage::Pong { payload }).await,
            ClientMessage::Pong { .. } => Ok(()),
            ClientMessage::Subscribe { .. } if !self.is_acknowledged => {
                Err(SessionEnd::Close(CloseCode::Unauthorized, "Unauthorized".into()))
            }
            ClientMessage::Subscribe { id, payload } => self.subscribe(id, *payload).await,
            ClientMessage::Complete { id } => {
                self.operations.remove(&id);
                Ok(())
            }
        }
    }

    /// The credential in the payload of `connection_init`, if there is one.
    fn credential(&self, payload: Option<Map<String, Value>>) -> Result<Option<BearerToken>, SessionEnd> {
        let mut values = payload
            .iter()
            .flatten()
            .filter(|(name, value)| name.eq_ignore_ascii_case("authorization") && !value.is_null());
        let Some((_, value)) = values.next() else { return Ok(None) };
        let token = value
            .as_str()
            .filter(|_| values.next().is_none())
            .and_then(|value| bearer(value.as_bytes(), &self.gateway.limits).ok());
        let reason = "Forbidden: the payload's Authorization must be \"Bearer <token>\"";
        token.map(Some).ok_or(SessionEnd::Close(CloseCode::Forbidden, reason.into()))
    }

    /// Identifies the caller. A valid credential raises the message limit for the rest of the session.
    async fn caller(&mut self, deadline: Instant) -> Result<Caller, ApiError> {
        let caller = identify(&self.token, &self.gateway.identity, deadline).await;
        let caller = caller.map(|caller| caller.with_request_id(&self.request_id));
        if caller.is_ok() {
            self.socket.get_mut().raise_message_limit();
        }
        caller
    }

    async fn subscribe(&mut self, id: String, parameters: Parameters) -> Result<(), SessionEnd> {
        if self.operations.contains_key(&id) {
            // A close frame has room for 123 bytes (RFC 6455, section 5.5).
            let reason = match id.len() {
                ..=MAX_ECHO => format!("Subscriber for {id} already exists").into(),
                _ => "Subscriber already exists".into(),
            };
            return Err(SessionEnd::Close(CloseCode::SubscriberExists, reason));
        }
        if self.is_shutting_down {
            // Ignored, like a message that arrives after the close.
            return Ok(());
        }
        let deadline = Instant::now() + self.gateway.http.deadline;
        // This waits only if verification keys must be fetched first.
        let caller = self.caller(deadline).await;
        if let Err(error) = self.gateway.rate_limit.admit(&caller, &self.token) {
            let payload = GraphqlResponse::rejected(vec![error]);
            return self.send_message(ServerMessage::Error { id: &id, payload }).await;
        }
        let request = parameters.try_into().map_err(|_| {
            SessionEnd::Close(
                CloseCode::InvalidMessage,
                "Invalid message: payload is not a GraphQL request".into(),
            )
        })?;
        let maximum = self.gateway.websocket.max_subscriptions;
        if self.operations.len() >= maximum {
            let message = format!(
                "WebSocket exceeds the limit of {maximum} concurrent operations (websocket.max_subscriptions). Complete \
                 one first, or open another WebSocket."
            );
            let error = LimitExceeded::overloaded(Limit::WebSocketSubscriptions, maximum, message);
            return self
                .send_message(ServerMessage::Error {
                    id: &id,
                    payload: GraphqlResponse::rejected(vec![error]),
                })
                .await;
        }
        let api = &self.gateway.api;
        let parsed = api.parse(request, caller.as_ref().ok()).await;
        let operation = match async { api.prepare(parsed?).await }.await {
            Ok(operation) => operation,
            Err(response) => {
                return self.send_message(ServerMessage::Error { id: &id, payload: response }).await;
            }
        };
        let is_subscription = operation.is_subscription();
        let gateway = self.gateway.clone();
        let responses: Pin<Box<dyn Stream<Item = _> + Send>> = if is_subscription {
            let access = access(&gateway, caller, deadline);
            Box::pin(responses(&gateway, operation, access))
        } else {
            // The task waits for admission, so that the session does not.
            let execution = async move {
                match gateway.operations.admit(&caller, deadline).await {
                    Ok(_permit) => gateway.api.execute(operation, access(&gateway, caller, deadline)).await,
                    Err(error) => GraphqlResponse::rejected(vec![error]),
                }
            };
            let task = ExecutionTask(tokio::spawn(execution.in_current_span()));
            Box::pin(stream::once(task.response()))
        };
        let responses = StreamNotifyClose::new(responses);
        self.operations.insert(id, RunningOperation { is_subscription, responses });
        Ok(())
    }

    /// Sends the next response of an operation, or its end.
    async fn send_response(&mut self, id: &str, response: Option<GraphqlResponse>) -> Result<(), SessionEnd> {
        match response {
            Some(response @ GraphqlResponse { data: Some(_), .. }) => {
                self.send_message(ServerMessage::Next { id, payload: response }).await
            }
            Some(response) => {
                self.operations.remove(id);
                self.send_message(ServerMessage::Error { id, payload: response }).await
            }
            None => {
                self.operations.remove(id);
                self.send_message(ServerMessage::Complete { id }).await
            }
        }
    }

    /// Ends subscriptions without `complete`, so that their clients subscribe again elsewhere.
    fn end_subscriptions(&mut self) {
        self.is_shutting_down = true;
        let subscriptions = self.operations.iter().filter(|(_, operation)| operation.is_subscription);
        for id in subscriptions.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.operations.remove(&id);
        }
    }

    /// Sends a ping, or ends the session if the client has not responded to the previous one.
    async fn send_ping(&mut self) -> Result<(), SessionEnd> {
        if self.last_received.elapsed() > self.gateway.keep_alive.mul_f32(1.5) {
            return Err(SessionEnd::Disconnected);
        }
        // A WebSocket ping, not one of the sub-protocol: every client responds to it.
        self.send([Message::Ping(Vec::new().into())]).await
    }

    async fn send_message(&mut self, message: ServerMessage<'_>) -> Result<(), SessionEnd> {
        let message = message.encode(&self.gateway.api);
        self.send(fragments(message)).await
    }

    /// Sends the `frames` of a message. The client has `http.send_timeout` to read them.
    async fn send(&mut self, frames: impl IntoIterator<Item = Message>) -> Result<(), SessionEnd> {
        let started = Instant::now();
        let sending = async {
            for frame in frames {
                self.socket.send(frame).await?;
            }
            Ok::<_, Error>(())
        };
        let sent = tokio::select! {
            biased;
            sent = timeout(self.gateway.http.send_timeout, sending) => match sent {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(SessionEnd::Disconnected),
                Err(_) => {
                    metrics().limited.count(Limit::SendTimeout.as_str());
                    Err(SessionEnd::Disconnected)
                }
            },
            () = self.shutdown.signalled(), if !self.is_shutting_down => Err(going_away()),
        };
        let unread_time = started.elapsed();
        self.last_received += unread_time;
        self.socket.get_mut().extend_timeout(unread_time);
        sent
    }

    async fn close_gracefully(&mut self, code: CloseCode, reason: Cow<'static, str>) {
        let frame = CloseFrame { code: (code as u16).into(), reason: reason.into_owned().into() };
        if self.socket.close(Some(frame)).await.is_err() {
            return;
        }
        let stream = self.socket.get_mut().stream();
        let _ = stream.shutdown().await;
        let mut rest = stream.take(MAX_DISCARDED);
        let mut buffer = vec![0; 2 * READ_BUFFER];
        while rest.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
    }
}

/// Splits a text message into frames, lazily. The frames share its memory.
fn fragments(mut message: Bytes) -> impl Iterator<Item = Message> {
    let mut next = Some(Data::Text);
    std::iter::from_fn(move || {
        let kind = OpCode::Data(next.take()?);
        let payload = message.split_to(message.len().min(MAX_FRAME));
        next = (!message.is_empty()).then_some(Data::Continue);
        Some(Message::Frame(Frame::message(payload, kind, next.is_none())))
    })
}

fn going_away() -> SessionEnd {
    SessionEnd::Close(CloseCode::GoingAway, "Going away".into())
}
