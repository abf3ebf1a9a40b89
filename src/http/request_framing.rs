//! The framing of requests as they come in, before hyper reads them.
//!
//! Two servers in a row that disagree on the length of a body take different bytes for the next request (request
//! smuggling). hyper settles a Content-Length beside a Transfer-Encoding, or equal Content-Lengths, by itself and removes
//! all trace of it. So [`Requests`] follows heads and bodies, and makes the second header that frames a body unreadable.
//! hyper refuses such a head and closes the connection.

/// The longest name of a header that frames a body.
const LONGEST_NAME: usize = "transfer-encoding".len();

/// Follows the requests on one connection. It reads as hyper does, byte for byte; where hyper gives up, so does the
/// connection, and it does not matter what this makes of the rest.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    at: At,
    name: Name,
    /// How the body of the current request is framed, as far as its head was read.
    framing: Option<Framing>,
    #[cfg(test)]
    heads: Vec<Option<Framing>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
}

/// The next byte.
#[derive(Debug, Clone, Copy)]
enum At {
    /// In the request line, or in empty lines before it.
    RequestLine { is_empty: bool },
    /// In the name of a header.
    Name,
    /// In the value of a Content-Length.
    Length(u64),
    /// In the value of any other header.
    Value,
    /// In a body, with so many bytes to come.
    Body(u64),
    /// In the size of a chunk.
    ChunkSize(u64),
    /// In the extension of a chunk of this size.
    ChunkExtension(u64),
    /// At the line feed before a chunk of this size.
    ChunkLine(u64),
    /// In a chunk, with so many bytes to come, its line break among them.
    Chunk(u64),
    /// In a trailer, or in the empty line at their end.
    Trailer { is_empty: bool },
    /// At the line feed of the same.
    TrailerLine { is_empty: bool },
}

impl Default for At {
    fn default() -> Self {
        Self::RequestLine { is_empty: true }
    }
}

/// The name of a header, as far as it may be one that frames a body.
#[derive(Debug, Default)]
struct Name {
    bytes: [u8; LONGEST_NAME + 1],
    length: usize,
}

impl Name {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte.to_ascii_lowercase();
            self.length += 1;
        }
    }

    fn text(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Requests {
    /// Reads on in `bytes`, and breaks heads that frame their body twice.
    pub(crate) fn follow(&mut self, mut bytes: &mut [u8]) {
        while let Some((byte, rest)) = std::mem::take(&mut bytes).split_first_mut() {
            bytes = rest;
            self.at = match self.at {
                At::RequestLine { is_empty } => match *byte {
                    b'\n' if !is_empty => self.line(),
                    b'\n' | b'\r' => At::RequestLine { is_empty },
                    _ => {
                        to_line_feed(&mut bytes);
                        At::RequestLine { is_empty: false }
                    }
                },
                At::Name => match *byte {
                    b':' => self.header(byte),
                    b'\n' if matches!(self.name.text(), b"" | b"\r") => self.body(),
                    b'\n' => self.line(),
                    _ => {
                        self.name.push(*byte);
                        At::Name
                    }
                },
                At::Length(length) => match *byte {
                    b'\n' => {
                        self.framing = Some(Framing::Length(length));
                        self.line()
                    }
                    digit @ b'0'..=b'9' => At::Length(append(length, 10, digit - b'0')),
                    // hyper takes nothing but spaces beside the digits.
                    _ => At::Length(length),
                },
                At::Value if *byte == b'\n' => self.line(),
                At::Value => {
                    to_line_feed(&mut bytes);
                    At::Value
                }
                At::Body(left) => skip(left, &mut bytes).map_or(At::default(), At::Body),
                At::ChunkSize(size) => match *byte {
                    digit @ b'0'..=b'9' => At::ChunkSize(append(size, 16, digit - b'0')),
                    digit @ b'a'..=b'f' => At::ChunkSize(append(size, 16, digit - b'a' + 10)),
                    digit @ b'A'..=b'F' => At::ChunkSize(append(size, 16, digit - b'A' + 10)),
                    b'\r' => At::ChunkLine(size),
                    _ => At::ChunkExtension(size),
                },
                At::ChunkExtension(size) if *byte == b'\r' => At::ChunkLine(size),
                At::ChunkExtension(size) => At::ChunkExtension(size),
                At::ChunkLine(0) => At::Trailer { is_empty: true },
                At::ChunkLine(size) => At::Chunk(size.saturating_add(2)),
                At::Chunk(left) => skip(left, &mut bytes).map_or(At::ChunkSize(0), At::Chunk),
                At::Trailer { is_empty } if *byte == b'\r' => At::TrailerLine { is_empty },
                At::Trailer { .. } => At::Trailer { is_empty: false },
                At::TrailerLine { is_empty: true } => At::default(),
                At::TrailerLine { is_empty: false } => At::Trailer { is_empty: true },
            };
        }
    }

    /// The beginning of another line of the head.
    fn line(&mut self) -> At {
        self.name.length = 0;
        At::Name
    }

    /// After the name of a header: `colon` becomes a byte that no head may have where this is the second header that
    /// frames the body.
    fn header(&mut self, colon: &mut u8) -> At {
        let (framing, at) = match self.name.text() {
            b"content-length" => (Framing::Length(0), At::Length(0)),
            b"transfer-encoding" => (Framing::Chunked, At::Value),
            _ => return At::Value,
        };
        if self.framing.replace(framing).is_some() {
            *colon = 0;
        }
        at
    }

    /// After a head.
    fn body(&mut self) -> At {
        let framing = self.framing.take();
        #[cfg(test)]
        self.heads.push(framing);
        match framing {
            None | Some(Framing::Length(0)) => At::default(),
            Some(Framing::Length(length)) => At::Body(length),
            Some(Framing::Chunked) => At::ChunkSize(0),
        }
    }
}

fn append(number: u64, radix: u64, digit: u8) -> u64 {
    number.saturating_mul(radix).saturating_add(digit.into())
}

fn to_line_feed(bytes: &mut &mut [u8]) {
    let skipped = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    *bytes = &mut std::mem::take(bytes)[skipped..];
}

/// How many bytes are left of `left`, without the one that was read and as many as there are of `bytes`; none at the end.
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

    /// `text` after it was followed, in parts of `cut` bytes.
    fn followed(text: &str, cut: usize) -> (Vec<u8>, Vec<Option<Framing>>) {
        let mut bytes = text.as_bytes().to_vec();
        let mut requests = Requests::default();
        bytes.chunks_mut(cut).for_each(|part| requests.follow(part));
        (bytes, requests.heads)
    }

    /// The framings of the requests in `bytes` that hyper serves.
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
        let asking = async {
            client.write_all(&bytes).await.unwrap();
            client.shutdown().await.unwrap();
            let _ = client.read_to_end(&mut Vec::new()).await;
        };
        let (_, ()) =
            tokio::join!(http1::Builder::new().serve_connection(TokioIo::new(server), service), asking);
        heads.lock().unwrap().clone()
    }

    const NASTY: &str =
        "\r\n\r\nGET / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";

    #[test]
    fn the_second_header_that_frames_a_body_is_broken() {
        let [length, coding] = ["Content-Length: 5\r\n", "tRANSFER-eNCODING:chunked\r\n"];
        for (first, second) in [(length, length), (length, coding), (coding, length), (coding, coding)] {
            for between in ["", "X-Y: z\r\n"] {
                let text = format!("\r\nPOST / HTTP/1.1\r\nHost: a\r\n{first}{between}{second}\r\n");
                for cut in [1, 2, 7, text.len()] {
                    let (bytes, _) = followed(&text, cut);
                    let colon = text.rfind(second).unwrap() + second.find(':').unwrap();
                    let changed: Vec<_> =
                        text.bytes().zip(bytes).enumerate().filter(|(_, (a, b))| a != b).collect();
                    assert_eq!(changed, [(colon, (b':', 0))], "{text}");
                }
            }
        }
    }

    #[test]
    fn bodies_are_passed_over_whatever_they_hold() {
        let size = NASTY.len();
        let with_length = format!("POST / HTTP/1.1\r\nContent-Length: {size}\r\n\r\n{NASTY}");
        let chunked = format!(
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{size:x};a=b\r\n{NASTY}\r\n1\r\n\n\r\n0\r\n\
             Content-Length: 1\r\nContent-Length: 1\r\n\r\n"
        );
        let bare = "GET / HTTP/1.1\r\nContent-Lengths: 1\r\nX-Content-Length: 1\r\n\r\n";
        let text = [with_length.as_str(), &chunked, bare, &chunked, &with_length, bare].concat();
        let length = Some(Framing::Length(size as u64));
        let chunks = Some(Framing::Chunked);
        for cut in [1, 3, 64, text.len()] {
            let (bytes, heads) = followed(&text, cut);
            assert_eq!(String::from_utf8(bytes).unwrap(), text);
            assert_eq!(heads, [length, chunks, None, chunks, length, None]);
        }
    }

    /// Pieces of which requests are made, and such as are none.
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
        fn every_request_that_hyper_serves_was_followed(text in requests(), cut in 1_usize..50) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (bytes, heads) = followed(&text, cut);
            let served = runtime.block_on(served(bytes));
            prop_assert!(heads.starts_with(&served), "{served:?} of {heads:?}");
        }

        #[test]
        fn any_bytes_are_followed_without_a_panic(bytes: Vec<u8>, cut in 1_usize..20) {
            let mut bytes = bytes;
            let mut requests = Requests::default();
            bytes.chunks_mut(cut).for_each(|part| requests.follow(part));
        }
    }
}
