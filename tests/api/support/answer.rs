//! What a scripted upstream sends, when, and how it ends.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::canary::{REASON, UPSTREAM_HEADERS, UPSTREAM_TEXT, planted};

/// An answer, byte by byte.
#[derive(Clone)]
pub struct Answer {
    pub(super) bytes: Vec<u8>,
    pub(super) then: Then,
    delay: Duration,
    gate: Option<Gate>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// Waits for the next request.
    KeepAlive,
    Close,
    /// Says nothing more until the client closes.
    Silence,
}

/// Holds answers back until it is opened.
#[derive(Clone)]
pub struct Gate(watch::Sender<bool>);

impl Gate {
    pub fn shut() -> Self {
        Self(watch::Sender::new(false))
    }

    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Whether an answer waits behind it: not yet sent, and not given up by the client.
    pub fn is_awaited(&self) -> bool {
        self.0.sender_count() > 1
    }

    async fn passed(&self) {
        // The gate itself is a sender, so there is always one.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

impl Answer {
    /// A status with a JSON body.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::text(status, "application/json", &planted(body).to_string())
    }

    /// A status with the body that the upstream's framework sends with it.
    pub fn status(status: u16) -> Self {
        Self::json(status, &json!({ "message": UPSTREAM_TEXT }))
    }

    /// A status with a body of any kind.
    pub fn text(status: u16, content_type: &str, body: &str) -> Self {
        let length = body.len();
        Self::raw(format!(
            "HTTP/1.1 {status} {REASON}\r\n{UPSTREAM_HEADERS}\r\nContent-Type: {content_type}\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        ))
        .then(Then::KeepAlive)
    }

    /// 200 with a body whose length is not said beforehand.
    pub fn chunked(body: &str) -> Self {
        let length = body.len();
        Self::raw(format!(
            "HTTP/1.1 200 {REASON}\r\n{UPSTREAM_HEADERS}\r\nContent-Type: application/json\r\n\
             Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
        ))
        .then(Then::KeepAlive)
    }

    /// Any bytes, and the connection is closed.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), then: Then::Close, delay: Duration::ZERO, gate: None }
    }

    /// Never anything: the connection stays open until the client gives it up.
    pub fn never() -> Self {
        // A gate that nobody else holds is never opened.
        Self::raw("").once(&Gate::shut())
    }

    /// The connection is closed before anything is sent.
    pub fn cut() -> Self {
        Self::raw("")
    }

    /// With one header more.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        let end = self.bytes.windows(2).position(|it| it == b"\r\n").expect("an answer with a status line");
        self.bytes.splice(end..end, format!("\r\n{name}: {value}").into_bytes());
        self
    }

    /// The connection is closed with the last `bytes` bytes unsent.
    pub fn short_of(mut self, bytes: usize) -> Self {
        self.bytes.truncate(self.bytes.len() - bytes);
        self.then(Then::Close)
    }

    /// The last `bytes` bytes never come, and the connection stays open.
    pub fn stalled_at(self, bytes: usize) -> Self {
        self.short_of(bytes).then(Then::Silence)
    }

    /// Not before `delay`.
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Not before the gate is open.
    pub fn once(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.clone());
        self
    }

    fn then(mut self, then: Then) -> Self {
        self.then = then;
        self
    }

    pub(super) async fn is_due(&self) {
        if let Some(gate) = &self.gate {
            gate.passed().await;
        }
        tokio::time::sleep(self.delay).await;
    }
}
