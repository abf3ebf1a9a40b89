//! Responses of a scripted upstream: their bytes, their timing, and the end of the connection.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::canary::{REASON, UPSTREAM_HEADERS, UPSTREAM_TEXT, planted};

/// A response, byte by byte.
#[derive(Clone)]
pub struct UpstreamResponse {
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
    /// Sends nothing more until the client closes.
    Silence,
}

/// Holds responses back until it is opened.
#[derive(Clone)]
pub struct Gate(watch::Sender<bool>);

impl Gate {
    pub fn shut() -> Self {
        Self(watch::Sender::new(false))
    }

    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Whether a response is held back: not yet sent, and not abandoned by the client.
    pub fn is_awaited(&self) -> bool {
        self.0.sender_count() > 1
    }

    async fn passed(&self) {
        // The gate itself is a sender, so there is always one.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

impl UpstreamResponse {
    /// A status with a JSON body.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::text(status, "application/json", &planted(body).to_string())
    }

    /// A status with the typical error body of the upstream's framework.
    pub fn status(status: u16) -> Self {
        Self::json(status, &json!({ "message": UPSTREAM_TEXT }))
    }

    /// 304: the client's copy is still current.
    pub fn not_modified() -> Self {
        Self::text(304, "application/json", "")
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

    /// 200 with a chunked body.
    pub fn chunked(body: &str) -> Self {
        let length = body.len();
        Self::raw(format!(
            "HTTP/1.1 200 {REASON}\r\n{UPSTREAM_HEADERS}\r\nContent-Type: application/json\r\n\
             Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
        ))
        .then(Then::KeepAlive)
    }

    /// 200 with a body that was encoded as `coding` states.
    pub fn encoded(coding: &str, body: &[u8]) -> Self {
        let head = format!(
            "HTTP/1.1 200 {REASON}\r\n{UPSTREAM_HEADERS}\r\nContent-Type: application/json\r\n\
             Content-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        Self::raw([head.as_bytes(), body].concat()).then(Then::KeepAlive)
    }

    /// Any bytes, after which the connection is closed.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), then: Then::Close, delay: Duration::ZERO, gate: None }
    }

    /// No response at all: the connection stays open until the client closes it.
    pub fn never() -> Self {
        // Nobody else holds this gate, so it never opens.
        Self::raw("").once(&Gate::shut())
    }

    /// Closes the connection without sending anything.
    pub fn cut() -> Self {
        Self::raw("")
    }

    /// Adds a header.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        let end = self.bytes.windows(2).position(|it| it == b"\r\n").expect("a response with a status line");
        self.bytes.splice(end..end, format!("\r\n{name}: {value}").into_bytes());
        self
    }

    /// Closes the connection before the last `bytes` bytes.
    pub fn short_of(mut self, bytes: usize) -> Self {
        self.bytes.truncate(self.bytes.len() - bytes);
        self.then(Then::Close)
    }

    /// Stalls before the last `bytes` bytes, with the connection open.
    pub fn stalled_at(self, bytes: usize) -> Self {
        self.short_of(bytes).then(Then::Silence)
    }

    /// Sends the response after `delay`.
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Sends the response once the gate is open.
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
