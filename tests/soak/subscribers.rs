//! Subscribers over WebSocket and server-sent events, which leave after a while, gracefully or not.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout_at},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

use crate::{
    connection::{Connection, Lost, Request},
    documents::{self, Document, WATCH},
    entrance::Life,
    judge::{Asked, Outcome, Selection},
    load::{Load, TURNED_AWAY},
    world::{APPOINTMENTS, TOKENS, id, is_revocable, token},
};

/// A client with one subscription after the other.
pub struct Subscriber {
    load: Arc<Load>,
    token: usize,
    rng: fastrand::Rng,
}

/// A current subscription.
struct Watched {
    asked: Asked,
    appointment: usize,
    seen: u64,
}

impl Subscriber {
    pub fn new(load: Arc<Load>, number: usize, seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed.wrapping_mul(999_983).wrapping_add(number as u64));
        Self { load, token: number % TOKENS, rng }
    }

    pub async fn run(mut self, over_websocket: bool) {
        while !self.load.is_over() {
            let life = self.load.entrance.serving().await;
            if over_websocket {
                self.over_websocket(life).await;
            } else {
                self.over_event_stream(life).await;
            }
            sleep(Duration::from_millis(self.rng.u64(0..100))).await;
        }
    }

    /// The end of the subscription.
    fn until(&mut self) -> tokio::time::Instant {
        tokio::time::Instant::now() + Duration::from_millis(self.rng.u64(100..4000))
    }

    async fn over_event_stream(&mut self, life: Life) {
        const KIND: &str = "watched over an event stream";
        let mut watched = self.watch();
        let document = Document::of(WATCH, &mut self.rng);
        let mut request = Request::naming(&document, Some(&token(self.token)), &watched.variables(), false);
        request.head = request.head.replace("application/graphql-response+json", "text/event-stream");
        let (judge, entrance) = (self.load.judge.clone(), self.load.entrance.clone());
        let mut lost = Lost { written: None, was_taken_on: false, why: String::new() };
        let opened = async {
            let mut connection = entrance.connect(life).await.and_then(Connection::over)?;
            connection.send(format!("{}{}", request.head(), request.body).as_bytes()).await?;
            lost.written = Some(Instant::now());
            let head = connection.head(&mut lost).await?;
            std::io::Result::Ok((connection, head.0))
        };
        let (mut connection, status) = match opened.await {
            Ok(opened) => opened,
            Err(error) => return self.answerless(KIND, life, &error, &lost).await,
        };
        let (until, began) = (self.until(), Instant::now());
        if status != 200 {
            let is_excused = entrance.has_lost_since(watched.asked.at());
            judge.ensure(is_excused, || format!("an event stream begins with {status}"));
            return judge.count(KIND, Outcome::TurnedAway);
        }
        let mut text = String::new();
        loop {
            match timeout_at(until, connection.chunk()).await {
                Err(_) => {
                    judge.count(KIND, Outcome::Left);
                    break;
                }
                Ok(Ok(Some(chunk))) => text.push_str(&chunk),
                Ok(Ok(None)) => {
                    // It ends by itself only when the gateway does, or with a definite error.
                    let is_complete = text == "event: complete\ndata:\n\n";
                    let may_end = watched.has_ended() || entrance.is_ending(life);
                    judge.ensure(is_complete && may_end, || format!("an event stream ends with {text:?}"));
                    judge.count(KIND, Outcome::Right);
                    break;
                }
                Ok(Err(_)) if entrance.has_lost_since(began) => {
                    judge.count(KIND, Outcome::TurnedAway);
                    break;
                }
                Ok(Err(error)) => {
                    judge.lost(format!("{KIND} in {life:?}: {error}"));
                    break;
                }
            }
            while let Some((event, rest)) = text.split_once("\n\n") {
                if event.starts_with("event: complete") {
                    break;
                }
                if let Some(data) = event.strip_prefix("event: next\ndata: ") {
                    self.judge_event(&mut watched, &serde_json::from_str(data).unwrap_or_default());
                }
                text = rest.to_owned();
            }
        }
        self.count_polls(began, 1);
    }

    async fn over_websocket(&mut self, life: Life) {
        const KIND: &str = "watched over a WebSocket";
        let (judge, entrance) = (self.load.judge.clone(), self.load.entrance.clone());
        let mut socket = match self.open(life).await {
            Ok(socket) => socket,
            Err(error) => {
                let lost = Lost { written: None, was_taken_on: false, why: String::new() };
                return self.answerless(KIND, life, &error, &lost).await;
            }
        };
        let (until, began) = (self.until(), Instant::now());
        let mut watched = BTreeMap::new();
        for number in 0..self.rng.usize(1..4) {
            let one = self.watch();
            let payload = Document::in_message(WATCH, &mut self.rng).parameters(&one.variables());
            let message = json!({ "type": "subscribe", "id": number.to_string(), "payload": payload });
            let _ = socket.send(Message::text(message.to_string())).await;
            watched.insert(number.to_string(), one);
        }
        let query = self.query(&mut socket).await;
        let mut answered = false;
        let (mut close, mut broken) = (None, None);
        let left = loop {
            match timeout_at(until, socket.next()).await {
                Err(_) => break true,
                Ok(Some(Ok(Message::Text(text)))) => {
                    let message: Value = serde_json::from_str(&text).unwrap_or_default();
                    let (kind, of) = (message["type"].as_str(), message["id"].as_str().unwrap_or_default());
                    match (kind, watched.get_mut(of)) {
                        (Some("next"), Some(watched)) => self.judge_event(watched, &message["payload"]),
                        (Some("next"), None) if of == "query" => {
                            answered = true;
                            self.judge_query(&query, &message["payload"]);
                        }
                        (Some("complete"), Some(watched)) => judge.ensure(watched.has_ended(), || {
                            "a subscription is completed that nothing has ended".to_owned()
                        }),
                        (Some("complete"), None) | (Some("connection_ack"), _) => {}
                        other => judge.ensure(false, || {
                            format!("a WebSocket says {other:?}: {message}", other = other.0)
                        }),
                    }
                }
                Ok(Some(Ok(Message::Close(frame)))) => close = frame.map(|frame| u16::from(frame.code)),
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(error))) => {
                    broken = Some(error.to_string());
                    break false;
                }
                Ok(None) => break false,
            }
        };
        if left {
            judge.count(KIND, Outcome::Left);
            if self.rng.bool() {
                let _ = socket.close(None).await;
            }
        } else if entrance.has_lost_since(began) {
            judge.count(KIND, Outcome::TurnedAway);
        } else {
            judge.ensure(close == Some(1001) && entrance.is_ending(life), || {
                format!("a WebSocket of {life:?} ends with {close:?} {broken:?} after {:?}", began.elapsed())
            });
            judge.count(KIND, Outcome::Right);
            let lost = Lost { written: Some(query.2), was_taken_on: false, why: String::new() };
            if !answered && !entrance.excuses(life, &lost) {
                judge.lost(format!("a query over a WebSocket in {life:?}"));
            }
        }
        self.count_polls(began, watched.len());
    }

    /// Opens a WebSocket and sends `connection_init`.
    async fn open(&self, life: Life) -> std::io::Result<WebSocketStream<TcpStream>> {
        let other = std::io::Error::other::<tokio_tungstenite::tungstenite::Error>;
        let mut request = "ws://gateway/graphql".into_client_request().map_err(other)?;
        request.headers_mut().insert(
            "sec-websocket-protocol",
            reqwest::header::HeaderValue::from_static("graphql-transport-ws"),
        );
        let stream = self.load.entrance.connect(life).await?;
        let (mut socket, _) = client_async(request, stream).await.map_err(other)?;
        let payload = json!({ "Authorization": format!("Bearer {}", token(self.token)) });
        let init = json!({ "type": "connection_init", "payload": payload });
        socket.send(Message::text(init.to_string())).await.map_err(other)?;
        Ok(socket)
    }

    /// Queries an appointment over the WebSocket.
    async fn query(&mut self, socket: &mut WebSocketStream<TcpStream>) -> (Asked, usize, Instant) {
        let appointment = self.rng.usize(0..APPOINTMENTS);
        let asked = Asked::now(self.load.judge.world(), self.token);
        let query = documents::one(Selection::Full);
        let payload =
            Document::in_message(&query, &mut self.rng).parameters(&json!({ "id": id(appointment) }));
        let message = json!({ "type": "subscribe", "id": "query", "payload": payload });
        self.load.judge.counts.reads_needed.fetch_add(1, Ordering::Relaxed);
        let _ = socket.send(Message::text(message.to_string())).await;
        (asked, appointment, Instant::now())
    }

    fn judge_query(&self, (asked, appointment, _): &(Asked, usize, Instant), payload: &Value) {
        // The status that the response would have over HTTP.
        let status = if payload.get("errors").is_some() { 294 } else { 200 };
        let reply = crate::connection::Reply { status, headers: Vec::new(), body: payload.clone() };
        let judge = &self.load.judge;
        let verdict = judge.appointments(asked, "appointment", &[*appointment], Selection::Full, &reply);
        judge.settle("asked over a WebSocket", &reply, verdict);
    }

    fn judge_event(&self, watched: &mut Watched, event: &Value) {
        match self.load.judge.event(&watched.asked, watched.appointment, watched.seen, event) {
            Ok(Some(version)) => watched.seen = version,
            Ok(None) => watched.seen = ENDED,
            Err(why) => self.load.judge.wrong(format!("an event: {why}: {event}")),
        }
    }

    fn watch(&mut self) -> Watched {
        // Half of all subscribers choose one of the few revocable appointments, so that many join existing
        // subscriptions.
        let revocable = |it: &usize| is_revocable(self.token, *it);
        let few = (0..APPOINTMENTS).filter(revocable).collect::<Vec<_>>();
        let appointment = match self.rng.bool() {
            true => few[self.rng.usize(0..few.len())],
            false => self.rng.usize(0..APPOINTMENTS),
        };
        Watched { asked: Asked::now(self.load.judge.world(), self.token), appointment, seen: 0 }
    }

    /// The maximum number of upstream calls of a subscription: one at its start, one per interval, one per change.
    fn count_polls(&self, began: Instant, watched: usize) {
        let ticks = began.elapsed().as_millis() / (POLLED.as_millis() * 9 / 10) + 2;
        self.load.judge.counts.reads_needed.fetch_add(ticks as u64 * watched as u64, Ordering::Relaxed);
    }

    async fn answerless(&self, kind: &'static str, life: Life, error: &std::io::Error, lost: &Lost) {
        if self.load.entrance.excuses(life, lost) {
            self.load.judge.count(kind, Outcome::TurnedAway);
            sleep(TURNED_AWAY).await;
        } else {
            self.load.judge.lost(format!("{kind} in {life:?}: {error}"));
        }
    }
}

impl Watched {
    fn variables(&self) -> Value {
        json!({ "id": id(self.appointment) })
    }

    fn has_ended(&self) -> bool {
        self.seen == ENDED
    }
}

/// The polling interval.
pub const POLLED: Duration = Duration::from_millis(300);

/// Stands for a version if an error has ended the subscription.
const ENDED: u64 = u64::MAX;
