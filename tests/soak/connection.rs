//! A hand-written HTTP connection to the gateway. It records both directions, to decide whether a request
//! without a response had been accepted.

use std::{
    io,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::timeout,
};

use crate::documents::Document;

/// The time after which a response counts as lost. The gateway's own deadline is far below.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection.
pub struct Connection(BufReader<TcpStream>);

/// A prepared request.
pub struct Request {
    /// Request line and headers, each with its line break.
    pub head: String,
    pub body: String,
    /// Whether to send the body only after 100 Continue.
    pub asks_first: bool,
}

/// A complete response.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Value,
}

/// A missing or incomplete response.
#[derive(Debug)]
pub struct Lost {
    /// The time at which the request was completely written, or none.
    pub written: Option<Instant>,
    /// Whether the gateway had certainly read the request: it sent 100 Continue, or began to respond.
    pub was_taken_on: bool,
    pub why: String,
}

impl Connection {
    pub async fn open(port: u16) -> io::Result<Self> {
        Self::over(TcpStream::connect(("127.0.0.1", port)).await?)
    }

    pub fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends `request` and reads the response.
    pub async fn exchange(&mut self, request: &Request) -> Result<Reply, Lost> {
        let mut lost = Lost { written: None, was_taken_on: false, why: String::new() };
        match timeout(PATIENCE, self.try_exchange(request, &mut lost)).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => Err(Lost { why: error.to_string(), ..lost }),
            Err(_) => Err(Lost { why: "no answer".to_owned(), was_taken_on: true, ..lost }),
        }
    }

    async fn try_exchange(&mut self, request: &Request, lost: &mut Lost) -> io::Result<Reply> {
        self.0.write_all(request.head().as_bytes()).await?;
        if request.asks_first {
            let head = self.head(lost).await?;
            if head.0 != 100 {
                return self.body(head).await;
            }
        }
        self.0.write_all(request.body.as_bytes()).await?;
        lost.written = Some(Instant::now());
        let head = self.head(lost).await?;
        self.body(head).await
    }

    /// Sends `bytes` without reading a response.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        timeout(PATIENCE, self.0.write_all(bytes)).await?
    }

    /// The status and headers of the next response.
    pub async fn head(&mut self, lost: &mut Lost) -> io::Result<(u16, Vec<(String, String)>)> {
        let status_line = self.line().await?;
        lost.was_taken_on = true;
        let status = status_line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status line: {status_line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Ok((status, headers))
    }

    async fn body(&mut self, (status, headers): (u16, Vec<(String, String)>)) -> io::Result<Reply> {
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length = length.and_then(|(_, length)| length.parse().ok());
        let mut body = vec![0; length.ok_or_else(|| io::Error::other("the answer has no length"))?];
        self.0.read_exact(&mut body).await?;
        let body = serde_json::from_slice(&body)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
        Ok(Reply { status, headers, body })
    }

    /// The next chunk of a chunked body, or none at its end.
    pub async fn chunk(&mut self) -> io::Result<Option<String>> {
        let size = self.line().await?;
        let size = usize::from_str_radix(&size, 16).map_err(io::Error::other)?;
        let mut chunk = vec![0; size + 2];
        self.0.read_exact(&mut chunk).await?;
        chunk.truncate(size);
        Ok((size > 0).then(|| String::from_utf8_lossy(&chunk).into_owned()))
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line).await?;
        if !line.ends_with('\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Request {
    /// A POST of an operation as `token`.
    pub fn post(token: Option<&str>, query: &str, variables: &Value, asks_first: bool) -> Self {
        Self::naming(&Document::Text(query), token, variables, asks_first)
    }

    /// A POST of an operation of `document` as `token`.
    pub fn naming(document: &Document<'_>, token: Option<&str>, variables: &Value, asks_first: bool) -> Self {
        let (path, body) = (document.path(), document.parameters(variables).to_string());
        let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n\
             Accept: application/graphql-response+json\r\n{token}"
        );
        Self { head, body, asks_first }
    }

    /// The serialised head.
    pub fn head(&self) -> String {
        let expect = if self.asks_first { "Expect: 100-continue\r\n" } else { "" };
        format!("{}Content-Length: {}\r\n{expect}\r\n", self.head, self.body.len())
    }
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }

    /// Whether the connection stays open for another request.
    pub fn keeps_alive(&self) -> bool {
        self.header("connection") != Some("close")
    }

    /// The `extensions.code` of every error.
    pub fn codes(&self) -> Vec<&str> {
        let errors = self.body["errors"].as_array().map_or(&[][..], Vec::as_slice);
        errors.iter().map(|error| error["extensions"]["code"].as_str().unwrap_or("(none)")).collect()
    }
}
