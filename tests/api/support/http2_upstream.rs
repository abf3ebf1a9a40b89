//! An HTTP/2 upstream that a test controls frame by frame. It knows requests only by their number: each is an update of
//! `id(1)`, or a read of it.

use std::{io, sync::Arc};

use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::watch,
    task::JoinSet,
};

use super::{
    id,
    tls_upstream::{Authority, TlsListener},
};

/// The reaction to a request, once it is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaction {
    /// 200 with the appointment.
    Respond,
    /// `RST_STREAM` with this code.
    Reset(u32),
    /// The head of a 200, then `RST_STREAM` with this code.
    RespondAndReset(u32),
    /// The head of a 200, then `GOAWAY` below the request, because of an internal error, with this text as debug data.
    RespondAndGoAway(&'static str),
    /// `GOAWAY` with this code, then the end of the connection. The last stream is the one before the request.
    GoAwayBelow(u32),
    /// The same, with the request as the last stream.
    GoAwayWith(u32),
    /// The same, with the last possible stream: the first step of a graceful shutdown.
    GoAwayLater(u32),
    /// `GOAWAY` with the request as the last stream, then a response.
    GoAwayAndRespond,
    /// The end of the connection.
    Close,
}

pub struct Http2Upstream {
    url: String,
    authority: Authority,
    seen: watch::Receiver<Seen>,
    _serving: JoinSet<()>,
}

/// The numbers of connections and of requests so far.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub connections: usize,
    pub requests: usize,
}

type Script = Arc<dyn Fn(usize) -> Reaction + Send + Sync>;

impl Http2Upstream {
    /// An upstream that reacts to the request of each number, from 1, as `script` says.
    pub async fn reacting(script: impl Fn(usize) -> Reaction + Send + Sync + 'static) -> Self {
        let TlsListener { listener, acceptor, authority, url } = TlsListener::bind().await;
        let (counts, seen) = watch::channel(Seen::default());
        let (counts, script) = (Arc::new(counts), Arc::new(script) as Script);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            // Dropped with the task, which ends the connections.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, counts, script) = (acceptor.clone(), counts.clone(), script.clone());
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    counts.send_modify(|seen| seen.connections += 1);
                    // It ends when the gateway closes the connection.
                    let _ = serve(stream, &counts, &script).await;
                });
            }
        });
        Self { url, authority, seen, _serving: serving }
    }

    /// `https://127.0.0.1:PORT`
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The certificate to trust.
    pub fn ca_file(&self) -> &str {
        self.authority.path()
    }

    pub fn seen(&self) -> Seen {
        *self.seen.borrow()
    }
}

const PREFACE: usize = 24;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `:status: 200`, by its index in the static table of HPACK.
const STATUS_200: &[u8] = &[0x88];

const INTERNAL_ERROR: u32 = 2;

const LAST_STREAM: u32 = (1 << 31) - 1;

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    counts: &watch::Sender<Seen>,
    script: &Script,
) -> io::Result<()> {
    stream.read_exact(&mut [0; PREFACE]).await?;
    write(&mut stream, SETTINGS, 0, 0, &[]).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, number @ ..] = head;
        let number = u32::from_be_bytes(number);
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload).await?;
        match kind {
            SETTINGS if flags & ACK == 0 => write(&mut stream, SETTINGS, ACK, 0, &[]).await?,
            PING if flags & ACK == 0 => write(&mut stream, PING, ACK, 0, &payload).await?,
            HEADERS | DATA if flags & END_STREAM != 0 => {
                let mut nth = 0;
                counts.send_modify(|seen| {
                    seen.requests += 1;
                    nth = seen.requests;
                });
                if react(&mut stream, number, script(nth)).await?.is_break() {
                    return stream.shutdown().await;
                }
            }
            _ => {}
        }
    }
}

/// Returns `Break` if the connection ends.
async fn react(
    stream: &mut (impl AsyncWrite + Unpin),
    number: u32,
    reaction: Reaction,
) -> io::Result<std::ops::ControlFlow<()>> {
    let go_away = |last: u32, code: u32| [last.to_be_bytes(), code.to_be_bytes()].concat();
    let last = match reaction {
        Reaction::GoAwayBelow(_) | Reaction::RespondAndGoAway(_) => number.saturating_sub(2),
        Reaction::GoAwayLater(_) => LAST_STREAM,
        _ => number,
    };
    match reaction {
        Reaction::Respond => respond(stream, number).await?,
        Reaction::Reset(code) => write(stream, RST_STREAM, 0, number, &code.to_be_bytes()).await?,
        Reaction::RespondAndReset(code) => {
            write(stream, HEADERS, END_HEADERS, number, STATUS_200).await?;
            write(stream, RST_STREAM, 0, number, &code.to_be_bytes()).await?;
        }
        Reaction::RespondAndGoAway(text) => {
            write(stream, HEADERS, END_HEADERS, number, STATUS_200).await?;
            write(stream, GOAWAY, 0, 0, &[&go_away(last, INTERNAL_ERROR), text.as_bytes()].concat()).await?;
        }
        Reaction::GoAwayBelow(code) | Reaction::GoAwayWith(code) | Reaction::GoAwayLater(code) => {
            write(stream, GOAWAY, 0, 0, &go_away(last, code)).await?;
            return Ok(std::ops::ControlFlow::Break(()));
        }
        Reaction::GoAwayAndRespond => {
            write(stream, GOAWAY, 0, 0, &go_away(last, 0)).await?;
            respond(stream, number).await?;
        }
        Reaction::Close => return Ok(std::ops::ControlFlow::Break(())),
    }
    Ok(std::ops::ControlFlow::Continue(()))
}

async fn respond(stream: &mut (impl AsyncWrite + Unpin), number: u32) -> io::Result<()> {
    let body = json!({ "data": { "id": id(1), "reference": "h2", "status": "made" } }).to_string();
    write(stream, HEADERS, END_HEADERS, number, STATUS_200).await?;
    write(stream, DATA, END_STREAM, number, body.as_bytes()).await
}

/// Writes a frame (RFC 9113, section 4.1).
async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    kind: u8,
    flags: u8,
    number: u32,
    payload: &[u8],
) -> io::Result<()> {
    let length = (payload.len() as u32).to_be_bytes();
    let frame = [&length[1..], &[kind, flags], &number.to_be_bytes(), payload].concat();
    stream.write_all(&frame).await?;
    stream.flush().await
}
