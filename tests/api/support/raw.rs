//! HTTP/1 by hand, for what no client library sends: the bytes that a test writes go out as they are, and what comes
//! back is taken apart just far enough to be asserted.

use std::io;

use serde_json::Value;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

use super::{Gateway, PATIENCE, Reply};

/// One connection.
pub struct Raw {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

/// One answer.
#[derive(Debug)]
pub struct RawReply {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Raw {
    pub async fn connect(gateway: &Gateway) -> Self {
        let (reader, writer) = TcpStream::connect(gateway.address()).await.unwrap().into_split();
        Self { reader: BufReader::new(reader), writer }
    }

    /// One request on a connection of its own, and its answer.
    pub async fn once(gateway: &Gateway, request: impl AsRef<[u8]>) -> RawReply {
        Self::connect(gateway).await.exchange(request).await
    }

    /// Writes `bytes`. Fails where the far side has closed.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        timeout(PATIENCE, self.writer.write_all(bytes.as_ref())).await.expect("the bytes are taken")
    }

    /// Writes `bytes` while reading one answer: the far side may answer before it has read everything, and may then
    /// stop reading.
    pub async fn exchange(&mut self, bytes: impl AsRef<[u8]>) -> RawReply {
        self.exchange_long(bytes, b"", 0, b"").await
    }

    /// The same for what is too long to be put together: `head`, `piece` so many `times`, and `tail`.
    pub async fn exchange_long(
        &mut self,
        head: impl AsRef<[u8]>,
        piece: &[u8],
        times: usize,
        tail: &[u8],
    ) -> RawReply {
        let Self { reader, writer } = self;
        let writing = async {
            // Refused halfway, the rest cannot be written. The answer says why.
            let _ = writer.write_all(head.as_ref()).await;
            for _ in 0..times {
                if writer.write_all(piece).await.is_err() {
                    break;
                }
            }
            let _ = writer.write_all(tail).await;
            std::future::pending().await
        };
        tokio::select! {
            reply = timeout(PATIENCE, read(reader)) => reply.expect("an answer in time").expect("an answer"),
            () = writing => unreachable!("it ends never"),
        }
    }

    /// The next answer.
    pub async fn reply(&mut self) -> RawReply {
        timeout(PATIENCE, read(&mut self.reader)).await.expect("an answer in time").expect("an answer")
    }

    /// Waits for the far side to close, and returns what it still sent.
    pub async fn closed(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A reset is an end too.
        let _ =
            timeout(PATIENCE, self.reader.read_to_end(&mut rest)).await.expect("the connection is closed");
        rest
    }
}

impl RawReply {
    /// The same answer as a client library would have read it.
    pub fn cooked(self) -> Reply {
        let headers =
            self.headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let body = serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&self.body).into_owned()));
        Reply { status: self.status, headers: headers.collect(), body }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }
}

/// A POST of `body` to `/graphql`, with `headers` besides those that it needs; each ends with a line break.
pub fn post(headers: &str, body: &str) -> String {
    format!(
        "POST /graphql HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n\
         Accept: application/graphql-response+json\r\nContent-Length: {}\r\n\
         Cookie: session=canary-cookie\r\n{headers}\r\n{body}",
        body.len()
    )
}

/// A query as the body of a POST.
pub fn query(text: &str) -> String {
    serde_json::json!({ "query": text }).to_string()
}

async fn read(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<RawReply> {
    let status_line = line(reader).await?;
    let status = status_line
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| io::Error::other(format!("no status line: {status_line:?}")))?;
    let mut headers = Vec::new();
    loop {
        let line = line(reader).await?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let header = |name: &str| headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str());
    let mut body = Vec::new();
    if matches!(status, 100 | 101) {
        // Nothing follows.
    } else if header("transfer-encoding") == Some("chunked") {
        loop {
            let size = usize::from_str_radix(&line(reader).await?, 16).map_err(io::Error::other)?;
            let start = body.len();
            body.resize(start + size, 0);
            reader.read_exact(&mut body[start..]).await?;
            line(reader).await?;
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = header("content-length") {
        body.resize(length.parse().map_err(io::Error::other)?, 0);
        reader.read_exact(&mut body).await?;
    } else {
        reader.read_to_end(&mut body).await?;
    }
    Ok(RawReply { status, headers, body })
}

async fn line(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<String> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}
