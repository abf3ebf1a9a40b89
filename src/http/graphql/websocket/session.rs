//! One WebSocket, from the handshake to the end: the protocol `graphql-transport-ws`.
//!
//! It is one task. While it sends, it neither reads nor asks for another answer: a client that reads slowly has its own
//! messages wait, and when it comes back finds the latest state of what it watches, not a queue.

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
    message::{Incoming, Outgoing},
    message_limits::{Excess, Metered, READ_BUFFER},
};
use crate::{
    auth::bearer::{Token, bearer, identify},
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
            run::{access, answers},
        },
    },
    metrics::metrics,
};

/// How long a client that is told to go is still listened to: what it has sent by then must not make the system drop the
/// connection before the client has read why.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How many bytes of it are passed over at most: reading a flood costs more than resetting its connection.
const MOST_PASSED_OVER: u64 = 32 * 1024 * 1024;

/// The longest protocol `ping`, as text: its payload is sent back.
const LONGEST_PING: usize = 512;

/// The longest frame that is written. The library holds a frame until the client has taken it, in a buffer that never
/// shrinks; a longer message is sent in fragments (RFC 6455, section 5.4).
const LONGEST_FRAME: usize = 64 * 1024;

/// A WebSocket that is open.
pub(crate) struct Session {
    gateway: Arc<Gateway>,
    socket: WebSocketStream<Metered<TokioIo<Upgraded>>>,
    /// What the client came with: of the handshake, unless the first message brings something. Each operation finds out
    /// anew whom it stands for, since that may end before the WebSocket does.
    token: Result<Option<Token>, ApiError>,
    open: ShutdownGuard,
    operations: StreamMap<String, Running>,
    is_acknowledged: bool,
    is_ending: bool,
    /// When the client was heard of last, leaving out the time in which nobody listened.
    heard: Instant,
}

/// Why a session is over.
enum End {
    /// The client is gone.
    Gone,
    /// The client is told to go.
    Close(u16, Cow<'static, str>),
}

/// An operation that is being run.
struct Running {
    is_subscription: bool,
    answers: StreamNotifyClose<Pin<Box<dyn Stream<Item = GraphqlResponse> + Send>>>,
}

/// What has one answer, in a task of its own: it goes on while the client is slow to read, so that it does not keep its
/// place among the operations until then. ResponseCache that wait to be sent are at most `websocket.max_subscriptions`.
struct Task(JoinHandle<GraphqlResponse>);

impl Task {
    async fn answer(mut self) -> GraphqlResponse {
        // What panics has been answered already, so this is the end of the process.
        (&mut self.0).await.unwrap_or_else(|_| GraphqlResponse::rejected(vec![ApiError::Internal]))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Stream for Running {
    type Item = Option<GraphqlResponse>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.answers.poll_next_unpin(context)
    }
}

impl Session {
    /// What has been `upgraded` for a client that came with `token`.
    pub(crate) async fn new(
        gateway: Arc<Gateway>,
        token: Result<Option<Token>, ApiError>,
        open: ShutdownGuard,
        upgraded: Upgraded,
    ) -> Self {
        // The meter bounds messages, before they get as far as this.
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(None)
            .max_frame_size(None);
        let metered =
            Metered::new(TokioIo::new(upgraded), &gateway.websocket, gateway.partial_messages.clone());
        Self {
            gateway,
            socket: WebSocketStream::from_raw_socket(metered, Role::Server, Some(config)).await,
            token,
            open,
            operations: StreamMap::new(),
            is_acknowledged: false,
            is_ending: false,
            heard: Instant::now(),
        }
    }

    /// Serves it to its end.
    pub(crate) async fn serve(mut self) {
        match self.converse().await {
            End::Gone => tracing::debug!("WebSocket gone"),
            End::Close(code, reason) => {
                // The reason may repeat an id of the client's.
                tracing::debug!(websocket.code = code, "WebSocket closed");
                // Nobody is to go on being polled for while the client takes its leave.
                self.operations = StreamMap::new();
                let _ = timeout(LAST_WORDS, self.take_leave(code, reason)).await;
            }
        }
    }

    async fn converse(&mut self) -> End {
        let keep_alive = self.gateway.keep_alive;
        let mut pings = interval_at(Instant::now() + keep_alive, keep_alive);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut init_timeout = std::pin::pin!(sleep(self.gateway.websocket.init_timeout));
        loop {
            let step = tokio::select! {
                // A frame before a ping: who has answered is not taken for silent because nobody looked.
                biased;
                () = &mut init_timeout, if !self.is_acknowledged => {
                    metrics().limited.count(Limit::WebSocketInitTimeout.as_str());
                    Err(End::Close(4408, "Connection initialisation timeout".into()))
                }
                () = self.open.told_to_end(), if !self.is_ending => {
                    self.end_subscriptions();
                    Ok(())
                }
                frame = self.socket.next() => self.receive(frame).await,
                _ = pings.tick() => self.ping().await,
                Some((id, answer)) = self.operations.next(), if !self.operations.is_empty() => {
                    self.answer(&id, answer).await
                }
            };
            match step {
                Err(end) => return end,
                // What has one answer has been waited for, as requests are.
                Ok(()) if self.is_ending && self.operations.is_empty() => return going_away(),
                Ok(()) => {}
            }
        }
    }

    async fn receive(&mut self, frame: Option<Result<Message, Error>>) -> Result<(), End> {
        let close = |code, reason: &'static str| Err(End::Close(code, reason.into()));
        self.heard = Instant::now();
        match frame {
            Some(Ok(Message::Text(text))) => match Incoming::read(&text) {
                Some(Incoming::Ping { .. }) if text.len() > LONGEST_PING => {
                    close(4400, "Invalid message: a ping has at most 512 bytes")
                }
                Some(message) => self.obey(message).await,
                None => close(4400, "Invalid message"),
            },
            Some(Ok(Message::Binary(_))) => close(4400, "Invalid message: it is binary"),
            // Pings are answered by the library.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(()),
            Some(Ok(Message::Close(_))) => {
                // The library has the answer to it ready.
                let _ = timeout(LAST_WORDS, self.socket.flush()).await;
                Err(End::Gone)
            }
            Some(Err(Error::Io(error))) => Err(match Excess::of(&error) {
                Some(excess) => {
                    metrics().limited.count(excess.limit().as_str());
                    End::Close(excess.code(), excess.to_string().into())
                }
                None => End::Gone,
            }),
            Some(Err(Error::Utf8(_))) => close(1007, "Message not in UTF-8"),
            Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => Err(End::Gone),
            Some(Err(Error::Protocol(_))) => close(1002, "Not WebSocket"),
            Some(Err(_)) | None => Err(End::Gone),
        }
    }

    async fn obey(&mut self, message: Incoming) -> Result<(), End> {
        match message {
            Incoming::ConnectionInit { .. } if self.is_acknowledged => {
                Err(End::Close(4429, "Too many initialisation requests".into()))
            }
            Incoming::ConnectionInit { payload } => {
                if let Some(token) = self.token_of(payload)? {
                    self.token = Ok(Some(token));
                }
                self.is_acknowledged = true;
                self.say(Outgoing::ConnectionAck).await?;
                // For the limits of what follows. Each operation is refused for itself.
                let _ = self.caller(Instant::now() + self.gateway.http.deadline).await;
                Ok(())
            }
            Incoming::Ping { payload } => self.say(Outgoing::Pong { payload }).await,
            Incoming::Pong { .. } => Ok(()),
            Incoming::Subscribe { .. } if !self.is_acknowledged => {
                Err(End::Close(4401, "Unauthorized".into()))
            }
            Incoming::Subscribe { id, payload } => self.run(id, payload).await,
            Incoming::Complete { id } => {
                self.operations.remove(&id);
                Ok(())
            }
        }
    }

    /// What the payload of the first message brings, if it does.
    fn token_of(&self, payload: Option<Map<String, Value>>) -> Result<Option<Token>, End> {
        let mut values = payload
            .iter()
            .flatten()
            .filter(|(name, value)| name.eq_ignore_ascii_case("authorization") && !value.is_null());
        let Some((_, value)) = values.next() else { return Ok(None) };
        let token = value
            .as_str()
            .filter(|_| values.next().is_none())
            .and_then(|value| bearer(value.as_bytes(), &self.gateway.limits).ok());
        let reason = "Forbidden: the payload's Authorization is not of the form \"Bearer <token>\"";
        token.map(Some).ok_or(End::Close(4403, reason.into()))
    }

    /// Identifies the caller. A valid token raises the limit on messages for the rest of the session.
    async fn caller(&mut self, deadline: Instant) -> Result<Caller, ApiError> {
        let caller = identify(&self.token, &self.gateway.identity, deadline).await;
        if caller.is_ok() {
            self.socket.get_mut().trust();
        }
        caller
    }

    async fn run(&mut self, id: String, parameters: Parameters) -> Result<(), End> {
        if self.operations.contains_key(&id) {
            // A close frame has room for 123 bytes (RFC 6455, section 5.5).
            let reason = match id.len() {
                ..=MAX_ECHO => format!("Subscriber for {id} already exists").into(),
                _ => "Subscriber already exists".into(),
            };
            return Err(End::Close(4409, reason));
        }
        if self.is_ending {
            // It ends with the connection, like one that is sent a moment later.
            return Ok(());
        }
        let deadline = Instant::now() + self.gateway.http.deadline;
        // There is next to nothing to wait for, unless the keys that tell have to be fetched first.
        let caller = self.caller(deadline).await;
        if let Err(refused) = self.gateway.rate_limit.admit(&caller, &self.token) {
            let payload = GraphqlResponse::rejected(vec![refused]);
            return self.say(Outgoing::Error { id: &id, payload }).await;
        }
        let request = parameters
            .try_into()
            .map_err(|_| End::Close(4400, "Invalid message: the payload is no GraphQL request".into()))?;
        let most = self.gateway.websocket.max_subscriptions;
        if self.operations.len() >= most {
            let message = format!(
                "This WebSocket runs {most} operations, and websocket.max_subscriptions allows no more. Complete one \
                 first, or open another WebSocket."
            );
            let error = LimitExceeded::overloaded(Limit::WebSocketSubscriptions, most, message);
            return self
                .say(Outgoing::Error { id: &id, payload: GraphqlResponse::rejected(vec![error]) })
                .await;
        }
        let api = &self.gateway.api;
        let operation = match async { api.prepare(api.parse(request)?).await }.await {
            Ok(operation) => operation,
            Err(answer) => return self.say(Outgoing::Error { id: &id, payload: answer }).await,
        };
        let is_subscription = operation.is_subscription();
        let gateway = self.gateway.clone();
        let answers: Pin<Box<dyn Stream<Item = _> + Send>> = if is_subscription {
            Box::pin(answers(&gateway, operation, caller, deadline))
        } else {
            // It waits for its turn there, so that nothing else waits with it.
            let answer = async move {
                match gateway.operations.admit(&caller).await {
                    Ok(_permit) => gateway.api.execute(operation, access(&gateway, caller, deadline)).await,
                    Err(error) => GraphqlResponse::rejected(vec![error]),
                }
            };
            let task = Task(tokio::spawn(answer.in_current_span()));
            Box::pin(stream::once(task.answer()))
        };
        let answers = StreamNotifyClose::new(answers);
        self.operations.insert(id, Running { is_subscription, answers });
        Ok(())
    }

    /// Hands on the next answer of an operation, or that there are no more.
    async fn answer(&mut self, id: &str, answer: Option<GraphqlResponse>) -> Result<(), End> {
        match answer {
            Some(answer @ GraphqlResponse { data: Some(_), .. }) => {
                self.say(Outgoing::Next { id, payload: answer }).await
            }
            Some(answer) => {
                self.operations.remove(id);
                self.say(Outgoing::Error { id, payload: answer }).await
            }
            None => {
                self.operations.remove(id);
                self.say(Outgoing::Complete { id }).await
            }
        }
    }

    /// Those who subscribe again elsewhere need no `complete`, which would tell them not to.
    fn end_subscriptions(&mut self) {
        self.is_ending = true;
        let subscriptions = self.operations.iter().filter(|(_, running)| running.is_subscription);
        for id in subscriptions.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.operations.remove(&id);
        }
    }

    /// Asks the client for a sign of life, unless it has left the last such question without an answer.
    async fn ping(&mut self) -> Result<(), End> {
        if self.heard.elapsed() > self.gateway.keep_alive.mul_f32(1.5) {
            return Err(End::Gone);
        }
        // A frame rather than a message: whatever speaks WebSocket answers it.
        self.send([Message::Ping(Vec::new().into())]).await
    }

    async fn say(&mut self, message: Outgoing<'_>) -> Result<(), End> {
        let message = message.write(&self.gateway.api);
        self.send(fragments(message)).await
    }

    /// Sends the `frames` of a message, and waits until the client has taken them, for at most `http.send_timeout`.
    async fn send(&mut self, frames: impl IntoIterator<Item = Message>) -> Result<(), End> {
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
                Ok(Err(_)) => Err(End::Gone),
                Err(_) => {
                    metrics().limited.count(Limit::SendTimeout.as_str());
                    Err(End::Gone)
                }
            },
            () = self.open.told_to_end(), if !self.is_ending => Err(going_away()),
        };
        let unheard = started.elapsed();
        self.heard += unheard;
        self.socket.get_mut().leave_out(unheard);
        sent
    }

    async fn take_leave(&mut self, code: u16, reason: Cow<'static, str>) {
        let frame = CloseFrame { code: code.into(), reason: reason.into_owned().into() };
        if self.socket.close(Some(frame)).await.is_err() {
            return;
        }
        let stream = self.socket.get_mut().stream();
        let _ = stream.shutdown().await;
        let mut rest = stream.take(MOST_PASSED_OVER);
        let mut buffer = vec![0; 2 * READ_BUFFER];
        while rest.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
    }
}

/// The frames of a text message. The message stays in memory until the last of them is made.
fn fragments(mut message: Bytes) -> impl Iterator<Item = Message> {
    let mut next = Some(Data::Text);
    std::iter::from_fn(move || {
        let kind = OpCode::Data(next.take()?);
        let payload = message.split_to(message.len().min(LONGEST_FRAME));
        next = (!message.is_empty()).then_some(Data::Continue);
        Some(Message::Frame(Frame::message(payload, kind, next.is_none())))
    })
}

fn going_away() -> End {
    End::Close(1001, "Going away".into())
}
