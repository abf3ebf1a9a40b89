//! A request received by a scripted upstream.

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::{canary, response::UpstreamResponse};

/// One request.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: String,
    /// Includes the query string.
    pub path: String,
    /// In order, with duplicates; names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// The last segment of the path, without the query string: `appointments` for the list and for creations.
    pub id: String,
    /// The number of this call among those with the same method and path, from 1.
    pub nth: usize,
    /// The number of its connection, from 1.
    pub connection: usize,
}

impl Call {
    /// The requested appointment. Its `reference` is the token and its `status` the number of the call, so every copy
    /// shows which credential fetched it, and when.
    pub fn appointment(&self) -> UpstreamResponse {
        UpstreamResponse::json(
            200,
            &json!({ "data": { "id": self.id, "reference": self.token(), "status": format!("call {}", self.nth) } }),
        )
    }

    /// The bearer token, or an empty string.
    pub fn token(&self) -> &str {
        let token = self.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        canary::unmarked(token.unwrap_or_default())
    }

    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }

    /// `If-None-Match` and `If-Modified-Since`.
    pub fn conditions(&self) -> [Option<&str>; 2] {
        ["if-none-match", "if-modified-since"].map(|name| self.header(name))
    }

    /// Whether the call is conditional.
    pub fn is_conditional(&self) -> bool {
        self.conditions() != [None; 2]
    }

    /// The body as JSON; null without a body.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// A number in the query string.
    pub fn number(&self, name: &str) -> Option<usize> {
        let query = self.path.split_once('?')?.1;
        query.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
    }

    /// Reads the next request on the connection. The gateway does not pipeline.
    pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin), connection: usize) -> Option<Self> {
        let mut bytes = Vec::new();
        let head = loop {
            if let Some(end) = position(&bytes, b"\r\n\r\n") {
                break bytes.drain(..end + 4).collect::<Vec<_>>();
            }
            more(stream, &mut bytes).await?;
        };
        let mut call = Self::from_head(&String::from_utf8_lossy(&head), connection);
        let length = call.header("content-length").map(|length| length.parse::<usize>());
        let body = match length {
            Some(length) => {
                let length = length.ok()?;
                while bytes.len() < length {
                    more(stream, &mut bytes).await?;
                }
                bytes
            }
            None if call.header("transfer-encoding").is_some() => chunks(stream, bytes).await?,
            None => bytes,
        };
        call.body = String::from_utf8_lossy(&body).into_owned();
        Some(call)
    }

    fn from_head(head: &str, connection: usize) -> Self {
        let mut lines = head.split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let id = path.split('?').next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            headers,
            body: String::new(),
            id: id.to_owned(),
            nth: 0,
            connection,
        }
    }
}

/// Reads a chunked body.
async fn chunks(stream: &mut (impl AsyncRead + Unpin), mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let Some(end) = position(&bytes, b"\r\n") else {
            more(stream, &mut bytes).await?;
            continue;
        };
        let length = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).ok()?, 16).ok()?;
        while bytes.len() < end + 2 + length + 2 {
            more(stream, &mut bytes).await?;
        }
        body.extend_from_slice(&bytes[end + 2..end + 2 + length]);
        bytes.drain(..end + 2 + length + 2);
        if length == 0 {
            return Some(body);
        }
    }
}

async fn more(stream: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> Option<()> {
    match stream.read_buf(bytes).await {
        Ok(1..) => Some(()),
        Ok(0) | Err(_) => None,
    }
}

fn position(bytes: &[u8], sought: &[u8]) -> Option<usize> {
    bytes.windows(sought.len()).position(|it| it == sought)
}
