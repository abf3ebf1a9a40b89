//! HTTP/1 without a client library: sends the bytes of a test unchanged, and parses only as much of the response as
//! assertions need.

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

use super::{Gateway, GatewayResponse, TIMEOUT};

/// A connection.
pub struct RawConnection {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

/// A response.
#[derive(Debug)]
pub struct RawResponse {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl RawConnection {
    pub async fn connect(gateway: &Gateway) -> Self {
        Self::of(TcpStream::connect(gateway.address()).await.unwrap())
    }

    pub fn of(stream: TcpStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self { reader: BufReader::new(reader), writer }
    }

    /// Sends a request on a connection of its own.
    pub async fn once(gateway: &Gateway, request: impl AsRef<[u8]>) -> RawResponse {
        Self::connect(gateway).await.exchange(request).await
    }

    /// Writes `bytes`. Fails if the gateway has closed the connection.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        timeout(TIMEOUT, self.writer.write_all(bytes.as_ref())).await.expect("the bytes are taken")
    }

    /// Writes `bytes` while reading one response: the gateway may respond before it has read everything, and then stop
    /// reading.
    pub async fn exchange(&mut self, bytes: impl AsRef<[u8]>) -> RawResponse {
        self.exchange_long(bytes, b"", 0, b"").await
    }

    /// The same for long requests: `head`, then `piece` repeated `times` times, then `tail`.
    pub async fn exchange_long(
        &mut self,
        head: impl AsRef<[u8]>,
        piece: &[u8],
        times: usize,
        tail: &[u8],
    ) -> RawResponse {
        let Self { reader, writer } = self;
        let writing = async {
            // After an early rejection the rest cannot be written. The response says why.
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
            reply = timeout(TIMEOUT, read(reader)) => reply.expect("a response in time").expect("a response"),
            () = writing => unreachable!("writing never completes"),
        }
    }

    /// The next response.
    pub async fn reply(&mut self) -> RawResponse {
        timeout(TIMEOUT, read(&mut self.reader)).await.expect("a response in time").expect("a response")
    }

    /// Waits for the gateway to close the connection, and returns the rest of its output.
    pub async fn closed(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A reset also counts as closed.
        let _ = timeout(TIMEOUT, self.reader.read_to_end(&mut rest)).await.expect("the connection is closed");
        rest
    }
}

impl RawResponse {
    /// The response in the form that a client library produces.
    pub fn parsed(self) -> GatewayResponse {
        let headers =
            self.headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let body = serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&self.body).into_owned()));
        GatewayResponse { status: self.status, headers: headers.collect(), body }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }
}

/// A POST of `body` to `/graphql`, with additional `headers`, each of which ends with a line break.
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

async fn read(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<RawResponse> {
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
    Ok(RawResponse { status, headers, body })
}

async fn line(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<String> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}
