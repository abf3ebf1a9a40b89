//! Protection against request smuggling: requests that state the length of their body more than once are rejected.
//! Also records the `Accept` headers, for the rejection of a head that hyper cannot parse.
//!
//! If a proxy and the gateway disagree on the length of a body, they disagree on where the next request starts. hyper
//! resolves a Content-Length beside a Transfer-Encoding, or repeated equal Content-Lengths, without a trace for
//! handlers. So [`FramingGuard`] parses the bytes before hyper does, and corrupts the second framing header. hyper then
//! rejects the head and closes the connection.

use axum::http::{HeaderValue, header};

use super::graphql::accept;

/// The length of the longest name of a framing header.
const MAX_NAME: usize = "transfer-encoding".len();

/// A length that exceeds `limits.body` in every configuration. Further digits are removed: to hyper a length beyond 64
/// bits is an invalid head, although it is only a body that is too large.
const MAX_LENGTH: u64 = 1_000_000_000_000_000_000;

/// The maximum length of recorded `Accept` headers. Longer ones are cut off.
const MAX_ACCEPT: usize = 1024;

/// An incremental parser of the requests on one connection. It finds the same boundaries as hyper. After a syntax error
/// hyper closes the connection, so this parser need not detect one.
#[derive(Debug, Default)]
pub(crate) struct FramingGuard {
    state: ParserState,
    name: NameBuffer,
    /// The framing of the current body, from the headers parsed so far.
    framing: Option<Framing>,
    /// The values of the `Accept` headers in the current or last head, as a comma-separated list.
    accept: Vec<u8>,
    #[cfg(test)]
    heads: Vec<Option<Framing>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
}

/// The position of the next byte.
#[derive(Debug, Clone, Copy)]
enum ParserState {
    /// In the request line, or in an empty line before it.
    RequestLine { is_empty: bool },
    /// In the name of a header.
    Name,
    /// In the value of a Content-Length.
    Length(u64),
    /// In the value of an `Accept`.
    Accept,
    /// In the value of any other header.
    Value,
    /// In a body, with this number of bytes left.
    Body(u64),
    /// In the size of a chunk.
    ChunkSize(u64),
    /// In the extension of a chunk of this size.
    ChunkExtension(u64),
    /// At the line feed before a chunk of this size.
    ChunkLine(u64),
    /// In a chunk, with this number of bytes left, including its line break.
    Chunk(u64),
    /// In a trailer, or in the empty line after the trailers.
    Trailer { is_empty: bool },
    /// At the line feed of that line.
    TrailerLine { is_empty: bool },
}

impl Default for ParserState {
    fn default() -> Self {
        Self::RequestLine { is_empty: true }
    }
}

/// The name of the current header in lower case, cut off where it is longer than any framing header.
#[derive(Debug, Default)]
struct NameBuffer {
    bytes: [u8; MAX_NAME + 1],
    length: usize,
}

impl NameBuffer {
    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.length) {
            *slot = byte.to_ascii_lowercase();
            self.length += 1;
        }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl FramingGuard {
    /// Parses the next `bytes`, and corrupts heads with two framing headers.
    pub(crate) fn inspect(&mut self, mut bytes: &mut [u8]) {
        while let Some((byte, rest)) = std::mem::take(&mut bytes).split_first_mut() {
            bytes = rest;
            self.state = match self.state {
                ParserState::RequestLine { is_empty } => match *byte {
                    b'\n' if !is_empty => self.start_header(),
                    b'\n' | b'\r' => ParserState::RequestLine { is_empty },
                    _ => {
                        self.accept.clear();
                        skip_to_line_feed(&mut bytes);
                        ParserState::RequestLine { is_empty: false }
                    }
                },
                ParserState::Name => match *byte {
                    b':' => self.end_name(byte),
                    b'\n' if matches!(self.name.as_bytes(), b"" | b"\r") => self.end_head(),
                    b'\n' => self.start_header(),
                    _ => {
                        self.name.push(*byte);
                        ParserState::Name
                    }
                },
                ParserState::Length(length) => match *byte {
                    b'\n' => {
                        self.framing = Some(Framing::Length(length));
                        self.start_header()
                    }
                    b'0'..=b'9' if length >= MAX_LENGTH / 10 => {
                        *byte = b' ';
                        ParserState::Length(length)
                    }
                    digit @ b'0'..=b'9' => ParserState::Length(append_digit(length, 10, digit - b'0')),
                    // hyper accepts nothing but spaces around the digits.
                    _ => ParserState::Length(length),
                },
                ParserState::Accept if *byte == b'\n' => {
                    self.record_accept(b",");
                    self.start_header()
                }
                ParserState::Accept => {
                    self.record_accept(&[*byte]);
                    let value = skip_to_line_feed(&mut bytes);
                    self.record_accept(value);
                    ParserState::Accept
                }
                ParserState::Value if *byte == b'\n' => self.start_header(),
                ParserState::Value => {
                    skip_to_line_feed(&mut bytes);
                    ParserState::Value
                }
                ParserState::Body(left) => {
                    skip(left, &mut bytes).map_or(ParserState::default(), ParserState::Body)
                }
                ParserState::ChunkSize(size) => match *byte {
                    digit @ b'0'..=b'9' => ParserState::ChunkSize(append_digit(size, 16, digit - b'0')),
                    digit @ b'a'..=b'f' => ParserState::ChunkSize(append_digit(size, 16, digit - b'a' + 10)),
                    digit @ b'A'..=b'F' => ParserState::ChunkSize(append_digit(size, 16, digit - b'A' + 10)),
                    b'\r' => ParserState::ChunkLine(size),
                    _ => ParserState::ChunkExtension(size),
                },
                ParserState::ChunkExtension(size) if *byte == b'\r' => ParserState::ChunkLine(size),
                ParserState::ChunkExtension(size) => ParserState::ChunkExtension(size),
                ParserState::ChunkLine(0) => ParserState::Trailer { is_empty: true },
                ParserState::ChunkLine(size) => ParserState::Chunk(size.saturating_add(2)),
                ParserState::Chunk(left) => {
                    skip(left, &mut bytes).map_or(ParserState::ChunkSize(0), ParserState::Chunk)
                }
                ParserState::Trailer { is_empty } if *byte == b'\r' => ParserState::TrailerLine { is_empty },
                ParserState::Trailer { .. } => ParserState::Trailer { is_empty: false },
                ParserState::TrailerLine { is_empty: true } => ParserState::default(),
                ParserState::TrailerLine { is_empty: false } => ParserState::Trailer { is_empty: true },
            };
        }
    }

    /// The `Content-Type` of an error response, as the `Accept` headers of the current or last head prefer it.
    pub(crate) fn error_content_type(&self) -> &'static str {
        let accept =
            self.accept.iter().map(|byte| if *byte == b'\r' { b' ' } else { *byte }).collect::<Vec<_>>();
        let accept = HeaderValue::from_bytes(&accept).ok().map(|accept| (header::ACCEPT, accept));
        accept::negotiate(&accept.into_iter().collect()).errors.content_type()
    }

    /// Whether the next byte is in the head of a request that has begun.
    pub(crate) fn is_in_head(&self) -> bool {
        matches!(
            self.state,
            ParserState::RequestLine { is_empty: false }
                | ParserState::Name
                | ParserState::Length(_)
                | ParserState::Accept
                | ParserState::Value
        )
    }

    fn record_accept(&mut self, bytes: &[u8]) {
        let room = MAX_ACCEPT - self.accept.len();
        self.accept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// At the start of a header, or of the empty line after the headers.
    fn start_header(&mut self) -> ParserState {
        self.name.length = 0;
        ParserState::Name
    }

    /// After the name of a header. For a second framing header, replaces `colon` with a byte that is invalid in a head.
    fn end_name(&mut self, colon: &mut u8) -> ParserState {
        let (framing, state) = match self.name.as_bytes() {
            b"content-length" => (Framing::Length(0), ParserState::Length(0)),
            b"transfer-encoding" => (Framing::Chunked, ParserState::Value),
            b"accept" => return ParserState::Accept,
            _ => return ParserState::Value,
        };
        if self.framing.replace(framing).is_some() {
            *colon = 0;
        }
        state
    }

    /// After the empty line at the end of the head.
    fn end_head(&mut self) -> ParserState {
        let framing = self.framing.take();
        #[cfg(test)]
        self.heads.push(framing);
        match framing {
            None | Some(Framing::Length(0)) => ParserState::default(),
            Some(Framing::Length(length)) => ParserState::Body(length),
            Some(Framing::Chunked) => ParserState::ChunkSize(0),
        }
    }
}

fn append_digit(number: u64, radix: u64, digit: u8) -> u64 {
    number.saturating_mul(radix).saturating_add(digit.into())
}

/// Advances `bytes` to the next line feed, and returns the bytes before it.
fn skip_to_line_feed<'b>(bytes: &mut &'b mut [u8]) -> &'b [u8] {
    let skipped = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (before, rest) = std::mem::take(bytes).split_at_mut(skipped);
    *bytes = rest;
    before
}

/// Skips the rest of a body or chunk in `bytes`, of which `left` includes the byte just read. Returns the number of
/// bytes that are still to come, or none at its end.
fn skip(left: u64, bytes: &mut &mut [u8]) -> Option<u64> {
    let left = left - 1;
    let skipped = left.min(bytes.len() as u64);
    *bytes = &mut std::mem::take(bytes)[skipped as usize..];
    Some(left - skipped).filter(|left| *left > 0)
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{Arc, Mutex},
    };

    use http_body_util::{BodyExt as _, Empty};
    use hyper::{
        Request, Response,
        body::{Bytes, Incoming},
        header::{CONTENT_LENGTH, TRANSFER_ENCODING},
        server::conn::http1,
        service::service_fn,
    };
    use hyper_util::rt::TokioIo;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// `text` after its inspection in parts of `cut` bytes, and the framings found.
    fn inspect(text: &str, cut: usize) -> (Vec<u8>, Vec<Option<Framing>>) {
        let mut bytes = text.as_bytes().to_vec();
        let mut guard = FramingGuard::default();
        bytes.chunks_mut(cut).for_each(|part| guard.inspect(part));
        (bytes, guard.heads)
    }

    /// The framings of the requests in `bytes`, as parsed by hyper.
    async fn served(bytes: Vec<u8>) -> Vec<Option<Framing>> {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = heads.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let length = request.headers().get(CONTENT_LENGTH);
            let length = length.and_then(|length| length.to_str().ok()?.trim().parse().ok());
            let framing = match request.headers().contains_key(TRANSFER_ENCODING) {
                true => Some(Framing::Chunked),
                false => length.map(Framing::Length),
            };
            seen.lock().unwrap().push(framing);
            async {
                let _ = request.into_body().collect().await;
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            }
        });
        let exchange = async {
            client.write_all(&bytes).await.unwrap();
            client.shutdown().await.unwrap();
            let _ = client.read_to_end(&mut Vec::new()).await;
        };
        let (_, ()) =
            tokio::join!(http1::Builder::new().serve_connection(TokioIo::new(server), service), exchange);
        heads.lock().unwrap().clone()
    }

    /// A request with two framing headers, hidden in a body.
    const SMUGGLED: &str =
        "\r\n\r\nGET / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";

    #[test]
    fn a_second_framing_header_is_corrupted() {
        let [length, coding] = ["Content-Length: 5\r\n", "tRANSFER-eNCODING:chunked\r\n"];
        for (first, second) in [(length, length), (length, coding), (coding, length), (coding, coding)] {
            for between in ["", "X-Y: z\r\n"] {
                let text = format!("\r\nPOST / HTTP/1.1\r\nHost: a\r\n{first}{between}{second}\r\n");
                for cut in [1, 2, 7, text.len()] {
                    let (bytes, _) = inspect(&text, cut);
                    let colon = text.rfind(second).unwrap() + second.find(':').unwrap();
                    let changed: Vec<_> =
                        text.bytes().zip(bytes).enumerate().filter(|(_, (a, b))| a != b).collect();
                    assert_eq!(changed, [(colon, (b':', 0))], "{text}");
                }
            }
        }
    }

    #[test]
    fn bodies_are_skipped_whatever_they_contain() {
        let size = SMUGGLED.len();
        let with_length = format!("POST / HTTP/1.1\r\nContent-Length: {size}\r\n\r\n{SMUGGLED}");
        let chunked = format!(
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{size:x};a=b\r\n{SMUGGLED}\r\n1\r\n\n\r\n0\r\n\
             Content-Length: 1\r\nContent-Length: 1\r\n\r\n"
        );
        let bare = "GET / HTTP/1.1\r\nContent-Lengths: 1\r\nX-Content-Length: 1\r\n\r\n";
        let text = [with_length.as_str(), &chunked, bare, &chunked, &with_length, bare].concat();
        let length = Some(Framing::Length(size as u64));
        let chunks = Some(Framing::Chunked);
        for cut in [1, 3, 64, text.len()] {
            let (bytes, heads) = inspect(&text, cut);
            assert_eq!(String::from_utf8(bytes).unwrap(), text);
            assert_eq!(heads, [length, chunks, None, chunks, length, None]);
        }
    }

    #[test]
    fn the_accept_headers_of_the_last_head_are_recorded() {
        let head = |headers: &str| format!("GET / HTTP/1.1\r\n{headers}\r\n");
        let long = format!("Accept: {}\r\n", "a".repeat(2 * MAX_ACCEPT));
        for (text, expected) in [
            (head("Host: a\r\n"), String::new()),
            (head("aCCEPT: a/b;q=0.5\r\nHost: a\r\nAccept:c/d\r\n"), " a/b;q=0.5\r,c/d\r,".to_owned()),
            (head("Accept: a/b\r\n") + &head("Accept-Encoding: br\r\n"), String::new()),
            (head(&long) + "GET / HTTP/1.1\r\nAccept: a", " a".to_owned()),
            (head(&long), format!(" {}", "a".repeat(MAX_ACCEPT - 1))),
        ] {
            for cut in [1, 2, 7, text.len()] {
                let mut guard = FramingGuard::default();
                text.clone().into_bytes().chunks_mut(cut).for_each(|part| guard.inspect(part));
                assert_eq!(String::from_utf8_lossy(&guard.accept), expected, "{text:?}");
            }
        }
    }

    /// Fragments of valid and malformed requests.
    fn piece() -> impl Strategy<Value = String> {
        const PIECES: &[&str] = &[
            "POST / HTTP/1.1\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n",
            "POST / HTTP/1.0\r\n",
            "Content-Length: 3\r\n",
            "content-length:0\n",
            "Content-Length: 12 \r\n",
            "Transfer-Encoding: chunked\r\n",
            "transfer-encoding:gzip, chunked\r\n",
            "Transfer-Encoding: x\r\n",
            "X-Y: z\r\n",
            "Connection: close\r\n",
            "\r\n",
            "\n",
            "\r",
            "0\r\n",
            "3\r\nabc\r\n",
            "a;b=\"c\"\r\n0123456789\r\n",
            "00\r\n",
            "0 \r\n",
            "X: y\r\n\r\n",
            "X: a\n",
            " ",
            "abc",
            "\r\n\r\n",
        ];
        proptest::sample::select(PIECES).prop_map(str::to_owned)
    }

    fn requests() -> impl Strategy<Value = String> {
        let head = proptest::sample::select(
            &[
                "GET / HTTP/1.1\r\n\r\n",
                "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
            ][..],
        );
        let pieces = proptest::collection::vec(piece(), 0..8).prop_map(|pieces| pieces.concat());
        proptest::collection::vec((head, pieces), 1..4)
            .prop_map(|parts| parts.into_iter().map(|(head, pieces)| head.to_owned() + &pieces).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn the_guard_finds_every_request_that_hyper_serves(text in requests(), cut in 1_usize..50) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (bytes, heads) = inspect(&text, cut);
            let served = runtime.block_on(served(bytes));
            prop_assert!(heads.starts_with(&served), "{served:?} of {heads:?}");
        }

        #[test]
        fn inspection_never_panics(bytes: Vec<u8>, cut in 1_usize..20) {
            let mut bytes = bytes;
            let mut guard = FramingGuard::default();
            bytes.chunks_mut(cut).for_each(|part| guard.inspect(part));
        }
    }
}
