//! The misbehaviour of the upstream for a single call.

use std::{io, time::Duration};

use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, net::tcp::OwnedWriteHalf, time::sleep};

use crate::{mode::Mode, upstream::Answer, world};

/// The form that a mode takes for one call.
pub struct Misbehaviour {
    pub mode: Mode,
    pub rng: fastrand::Rng,
}

impl Answer {
    /// Sends the response unchanged.
    pub async fn send(self, writer: &mut OwnedWriteHalf) -> io::Result<()> {
        let body = self.body.to_string();
        send(writer, self.status, "content-type: application/json\r\n", &body).await
    }
}

impl Misbehaviour {
    /// Whether a change is applied although its response is lost.
    pub fn makes_changes(&self) -> bool {
        match self.mode {
            Mode::RateLimiting | Mode::Killed => false,
            // Undetermined.
            Mode::Failing | Mode::Hanging | Mode::Redirecting => self.rng.clone().bool(),
            _ => true,
        }
    }

    /// Sends something else than `answer` in response to a call of `target`.
    pub async fn send(
        mut self,
        answer: Answer,
        target: &str,
        decoy: &str,
        writer: &mut OwnedWriteHalf,
    ) -> io::Result<()> {
        let Answer { status, body } = &answer;
        let text = body.to_string();
        match self.mode {
            Mode::Healthy => answer.send(writer).await,
            Mode::Slow => {
                sleep(Duration::from_millis(self.rng.u64(30..900))).await;
                answer.send(writer).await
            }
            // A dead upstream does not get here.
            Mode::Hanging | Mode::Killed => std::future::pending().await,
            Mode::Garbage => {
                let (status, kind, body) = self.garbage(*status, body);
                send(writer, status, &format!("content-type: {kind}\r\n"), &body).await
            }
            Mode::Cut => {
                let part = &text.as_bytes()[..self.rng.usize(0..text.len())];
                let head = match self.rng.u8(0..3) {
                    0 => format!("HTTP/1.1 {status} OK\r\ncontent-length: {}\r\n\r\n", text.len()),
                    1 => {
                        format!(
                            "HTTP/1.1 {status} OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n",
                            text.len()
                        )
                    }
                    _ => format!("HTTP/1.1 {status} OK\r\ncontent-le"),
                };
                writer.write_all(head.as_bytes()).await?;
                if !head.ends_with("le") {
                    writer.write_all(part).await?;
                }
                Err(io::ErrorKind::BrokenPipe.into())
            }
            Mode::HeaderFlood => {
                let (name, value) = match self.rng.u8(0..2) {
                    0 => ("x-flood", "y".repeat(10)),
                    _ => ("x-long", "y".repeat(64 * 1024)),
                };
                writer.write_all(format!("HTTP/1.1 {status} OK\r\n").as_bytes()).await?;
                for number in 0..if name == "x-flood" { 5000 } else { 32 } {
                    writer.write_all(format!("{name}-{number}: {value}\r\n").as_bytes()).await?;
                }
                writer.write_all(format!("content-length: {}\r\n\r\n{text}", text.len()).as_bytes()).await
            }
            Mode::RateLimiting => {
                let after =
                    ["0", "1", "2", "Wed, 21 Oct 2015 07:28:00 GMT", "soon", ""][self.rng.usize(0..6)];
                let head = format!("content-type: application/json\r\nretry-after: {after}\r\n");
                send(writer, 429, &head, &json!({ "message": "Too Many Attempts." }).to_string()).await
            }
            Mode::Failing => {
                let status = [500, 502, 503, 504][self.rng.usize(0..4)];
                let body = if self.rng.bool() { "<html>Bad Gateway</html>" } else { "" };
                send(writer, status, "content-type: text/html\r\n", body).await
            }
            Mode::Redirecting => {
                let host = if self.rng.u8(0..4) == 0 { decoy } else { "" };
                let status = [301, 302, 303, 307, 308][self.rng.usize(0..5)];
                let head = format!("location: {host}{target}&hop={}\r\n", self.rng.u16(..));
                send(writer, status, &head, "").await
            }
            Mode::Dripping => {
                let head = format!("HTTP/1.1 {status} OK\r\ncontent-length: {}\r\n\r\n", text.len());
                for byte in head.bytes().chain(text.bytes()) {
                    writer.write_all(&[byte]).await?;
                    sleep(Duration::from_millis(10)).await;
                }
                Ok(())
            }
            Mode::Endless => {
                let head = format!("HTTP/1.1 {status} OK\r\ntransfer-encoding: chunked\r\n\r\n");
                writer.write_all(head.as_bytes()).await?;
                let chunk = format!("4000\r\n{}\r\n", " ".repeat(0x4000));
                loop {
                    writer.write_all(chunk.as_bytes()).await?;
                }
            }
        }
    }

    /// Status, media type and body of an undocumented response.
    fn garbage(&mut self, status: u16, body: &Value) -> (u16, &'static str, String) {
        let html = "<!doctype html><title>Welcome</title><p>Please sign in.".to_owned();
        let text = body.to_string();
        match self.rng.u8(0..8) {
            0 => (200, "text/html", html),
            1 => (200, "application/json", html),
            2 => (200, "application/json", "[".repeat(10_000)),
            // For a change these are valid responses: applied, without the appointment.
            3 => (status, "application/json", "{\"data\": 5}".to_owned()),
            4 => (status, "application/json", String::new()),
            5 => (418, "application/json", text),
            // Another appointment than the requested one, or than those of the page.
            6 => (200, "application/json", json!({ "data": { "id": world::id(1_000) } }).to_string()),
            // One field of invalid type, the others correct.
            _ => {
                let mut body = body.clone();
                if let Some(appointment) = body["data"].as_object_mut() {
                    let field = ["reference", "status", "interpreter_language"][self.rng.usize(0..3)];
                    appointment.insert(field.to_owned(), json!({ "is": ["not", "a", "text"] }));
                }
                (status, "application/json", body.to_string())
            }
        }
    }
}

async fn send(writer: &mut OwnedWriteHalf, status: u16, headers: &str, body: &str) -> io::Result<()> {
    let head = format!("HTTP/1.1 {status} Status\r\n{headers}content-length: {}\r\n\r\n", body.len());
    writer.write_all(format!("{head}{body}").as_bytes()).await
}
