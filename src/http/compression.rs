//! Response compression: negotiation of the content coding (RFC 9110, section 12.5.3), and encoding with brotli or
//! gzip.
//!
//! BREACH does not apply. A response contains no secret beside data chosen by its reader, and pages of other sites
//! cannot observe its length.

use std::{
    io::{self, Write as _},
    num::NonZero,
    sync::LazyLock,
    thread,
};

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderValue, header},
};
use brotli::{CompressorWriter, enc::BrotliEncoderParams};
use flate2::{Compression, write::GzEncoder};
use tokio::sync::Semaphore;

use super::quality_value;
use crate::response_memory::ResponseMemory;

/// A content coding. Brotli is preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Coding {
    Brotli,
    Gzip,
}

/// The trade-off between time and size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// For a response that is sent once, while its client waits.
    Quick,
    /// For a cached response, compressed once for all equal requests.
    Thorough,
}

/// The reason why a response is sent uncompressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CompressionSkipped {
    /// It is short, or compression does not make it shorter.
    NotSmaller,
    /// All threads for long responses are busy, or there is no response memory left. Nothing waits for either.
    NoCapacity,
}

/// The minimum length of a response to compress. Shorter ones mostly fit into one packet.
const MIN_LENGTH: usize = 256;

/// The minimum length of a response to compress that is sent only once.
const MIN_LENGTH_QUICK: usize = 1024;

/// The maximum length to compress on a worker thread of the runtime. Longer responses would block it for more than a
/// millisecond, so they are compressed on a blocking thread.
const MAX_INLINE: usize = 64 * 1024;

/// The concurrency limit of compression on blocking threads: more of them than processors would not be faster.
static BLOCKING_LIMIT: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(thread::available_parallelism().map_or(1, NonZero::get)));

/// The range of brotli window sizes, in bits. A larger window finds repetitions further apart, but is allocated whole
/// however short the response is.
const MIN_WINDOW_BITS: u32 = 16;
const MAX_WINDOW_BITS: u32 = 22;

/// The size of the buffer between brotli and its output.
const OUTPUT_BUFFER: usize = 4096;

impl Coding {
    /// The value of `Content-Encoding`.
    pub(crate) fn header_value(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        })
    }

    /// Compresses `plain`, and accounts for the result in `memory`.
    ///
    /// # Errors
    /// The reason to send `plain` uncompressed.
    pub(crate) async fn compress(
        self,
        plain: &Bytes,
        effort: Effort,
        memory: &ResponseMemory,
    ) -> Result<Bytes, CompressionSkipped> {
        let min_length = if effort == Effort::Quick { MIN_LENGTH_QUICK } else { MIN_LENGTH };
        if plain.len() < min_length {
            return Err(CompressionSkipped::NotSmaller);
        }
        // A result as long as `plain` or longer is dropped, so this suffices.
        let mut reservation = memory.reserve(plain.len()).map_err(|_| CompressionSkipped::NoCapacity)?;
        let compressed = match plain.len() {
            ..=MAX_INLINE => self.encode(plain, effort),
            _ => {
                let permit = BLOCKING_LIMIT.try_acquire().map_err(|_| CompressionSkipped::NoCapacity)?;
                let plain = plain.clone();
                let encode = move || {
                    // A blocking task cannot be cancelled, so it holds the permit even if the request is.
                    let _permit = permit;
                    self.encode(&plain, effort)
                };
                // After a panic there, the response is sent uncompressed.
                tokio::task::spawn_blocking(encode).await.map_err(|_| CompressionSkipped::NotSmaller)?
            }
        };
        let shorter = compressed.ok().filter(|compressed| compressed.len() < plain.len());
        let shorter = shorter.ok_or(CompressionSkipped::NotSmaller)?;
        reservation.shrink_to(shorter.len());
        Ok(reservation.into_bytes(shorter))
    }

    fn encode(self, plain: &[u8], effort: Effort) -> io::Result<Vec<u8>> {
        let mut compressed = Vec::with_capacity(plain.len() / 2);
        match self {
            Self::Brotli => {
                let quality = if effort == Effort::Quick { 1 } else { 5 };
                let (lgwin, size_hint) = (window_bits(plain.len()), plain.len());
                let parameters = BrotliEncoderParams { quality, lgwin, size_hint, ..Default::default() };
                let mut encoder = CompressorWriter::with_params(&mut compressed, OUTPUT_BUFFER, &parameters);
                // In one call, since each call starts a block of its own.
                encoder.write_all(plain)?;
                encoder.into_inner();
            }
            Self::Gzip => {
                let level = if effort == Effort::Quick { 1 } else { 6 };
                let mut encoder = GzEncoder::new(&mut compressed, Compression::new(level));
                encoder.write_all(plain)?;
                encoder.finish()?;
            }
        }
        // The cache may hold it for long.
        compressed.shrink_to_fit();
        Ok(compressed)
    }
}

/// The size of the smallest brotli window that covers `length` bytes, or the maximum.
fn window_bits(length: usize) -> i32 {
    // A window covers 16 bytes less than its size (RFC 7932, section 9.1).
    let bits = (length + 16).checked_next_power_of_two().map_or(MAX_WINDOW_BITS, usize::ilog2);
    bits.clamp(MIN_WINDOW_BITS, MAX_WINDOW_BITS) as i32
}

/// Whether a response of this length may be compressed, so that it varies by `Accept-Encoding`.
pub(crate) fn is_compressible(length: usize) -> bool {
    length >= MIN_LENGTH
}

/// The parsed `Accept-Encoding` headers of a request: a weight for each known coding, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AcceptEncoding {
    brotli: u16,
    gzip: u16,
    identity: u16,
}

impl AcceptEncoding {
    pub(crate) fn from_headers(headers: &HeaderMap) -> Self {
        let (mut brotli, mut gzip, mut identity, mut others) = (None, None, None, None);
        for value in headers.get_all(header::ACCEPT_ENCODING) {
            for item in value.as_bytes().split(|byte| *byte == b',') {
                let mut parts = item.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
                let slot = match parts.next().unwrap_or_default() {
                    name if name.eq_ignore_ascii_case(b"br") => &mut brotli,
                    name if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") => {
                        &mut gzip
                    }
                    name if name.eq_ignore_ascii_case(b"identity") => &mut identity,
                    b"*" => &mut others,
                    _ => continue,
                };
                *slot = parts.next().map_or(Some(quality_value::MAX), parse_weight).or(*slot);
            }
        }
        let weight = |named: Option<u16>| named.or(others).unwrap_or(0);
        // `*` does not count for `identity`: an uncompressed response is the fallback in any case.
        Self { brotli: weight(brotli), gzip: weight(gzip), identity: identity.unwrap_or(0) }
    }

    /// The coding with the highest weight, or brotli if both have the same. None if the client accepts neither, or
    /// prefers `identity`. A client that rejects everything gets an uncompressed response.
    pub(crate) fn preferred(self) -> Option<Coding> {
        let preferred = if self.gzip > self.brotli { Coding::Gzip } else { Coding::Brotli };
        self.accepts(preferred).then_some(preferred)
    }

    /// Whether the client accepts `coding`, and does not prefer `identity`.
    pub(crate) fn accepts(self, coding: Coding) -> bool {
        let weight = match coding {
            Coding::Brotli => self.brotli,
            Coding::Gzip => self.gzip,
        };
        weight > 0 && weight >= self.identity
    }
}

/// Parses `q=` and a quality value, in thousandths.
fn parse_weight(parameter: &[u8]) -> Option<u16> {
    let number = parameter.strip_prefix(b"q=").or_else(|| parameter.strip_prefix(b"Q="))?;
    quality_value::parse(number)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use bytesize::ByteSize;
    use flate2::read::GzDecoder;
    use proptest::prelude::*;

    use super::*;

    fn parse(values: &[&str]) -> AcceptEncoding {
        let name = |value: &&str| Some((header::ACCEPT_ENCODING, HeaderValue::from_str(value).ok()?));
        let mut headers = HeaderMap::new();
        values.iter().filter_map(name).for_each(|(name, value)| {
            headers.append(name, value);
        });
        AcceptEncoding::from_headers(&headers)
    }

    #[test]
    fn the_accepted_coding_with_the_highest_weight_is_preferred() {
        let (brotli, gzip) = (Some(Coding::Brotli), Some(Coding::Gzip));
        for (accepts, expected) in [
            (&[][..], None),
            (&[""], None),
            (&["gzip, deflate, br, zstd"], brotli),
            (&["gzip, deflate"], gzip),
            (&["gzip", "br"], brotli),
            (&["GZIP"], gzip),
            (&["x-gzip"], gzip),
            (&["br;q=0.5, gzip;q=0.8"], gzip),
            (&["br; q=0.8 , gzip ;q=0.8"], brotli),
            (&["br;q=0, gzip"], gzip),
            (&["br;q=0"], None),
            (&["*"], brotli),
            (&["*;q=0.5, br;q=0.1"], gzip),
            (&["*, br;q=0"], gzip),
            (&["gzip, *;q=0"], gzip),
            (&["*;q=0"], None),
            (&["identity"], None),
            (&["identity, gzip"], gzip),
            (&["identity, gzip;q=0.9"], None),
            (&["identity;q=0.5, gzip;q=0.9"], gzip),
            (&["identity;q=0"], None),
            (&["identity;q=0, br"], brotli),
            (&["deflate, zstd"], None),
            (&["br;q=2, gzip;q=0.1"], gzip),
            (&["br;q=x, gzip;q=1.001, identity;q="], None),
            (&["brotli, gzipped"], None),
        ] {
            assert_eq!(parse(accepts).preferred(), expected, "{accepts:?}");
        }
    }

    #[test]
    fn gzip_is_accepted_beside_a_preferred_coding() {
        for (accepts, expected) in [
            ("br, gzip", true),
            ("br, gzip;q=0.1", true),
            ("*", true),
            ("br, gzip;q=0", false),
            ("identity, gzip;q=0.5", false),
            ("br", false),
        ] {
            assert_eq!(parse(&[accepts]).accepts(Coding::Gzip), expected, "{accepts}");
        }
    }

    #[test]
    fn weights_are_parsed_strictly() {
        for (text, expected) in [
            ("q=1", Some(1000)),
            ("Q=0.5", Some(500)),
            ("q=0.", Some(0)),
            ("q=0.001", Some(1)),
            ("q=1.000", Some(1000)),
            ("q=1.001", None),
            ("q=0.0001", None),
            ("q=-1", None),
            ("q=", None),
            ("q", None),
            ("v=1", None),
        ] {
            assert_eq!(parse_weight(text.as_bytes()), expected, "{text}");
        }
    }

    fn decompress(coding: Coding, compressed: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        match coding {
            Coding::Brotli => brotli::BrotliDecompress(&mut &*compressed, &mut plain).unwrap(),
            Coding::Gzip => drop(GzDecoder::new(compressed).read_to_end(&mut plain).unwrap()),
        }
        plain
    }

    #[test]
    fn the_window_covers_the_whole_response() {
        for (length, expected) in [
            (0, 16),
            ((1 << 16) - 16, 16),
            ((1 << 16) - 15, 17),
            ((1 << 20) - 16, 20),
            ((1 << 22) - 16, 22),
            ((1 << 22) - 15, 22),
            (usize::MAX / 2, 22),
        ] {
            assert_eq!(window_bits(length), expected, "{length}");
        }
    }

    #[tokio::test]
    async fn compression_is_lossless_and_long_responses_need_a_permit() {
        let memory = ResponseMemory::new(ByteSize::mib(4), 100);
        for length in [0, MIN_LENGTH - 1, MIN_LENGTH, MIN_LENGTH_QUICK, MAX_INLINE, MAX_INLINE + 1, 1 << 20] {
            let plain = Bytes::from(b"appointment ".repeat(length / 12 + 1)[..length].to_vec());
            for coding in [Coding::Brotli, Coding::Gzip] {
                for (effort, min_length) in
                    [(Effort::Quick, MIN_LENGTH_QUICK), (Effort::Thorough, MIN_LENGTH)]
                {
                    let compressed = coding.compress(&plain, effort, &memory).await;
                    assert_eq!(compressed.is_ok(), length >= min_length, "{length} {coding:?} {effort:?}");
                    if let Ok(compressed) = compressed {
                        assert!(compressed.len() < length);
                        assert_eq!(decompress(coding, &compressed), plain);
                    }
                }
            }
        }
        let permits = BLOCKING_LIMIT.acquire_many(BLOCKING_LIMIT.available_permits() as u32).await.unwrap();
        let (long, short) = (Bytes::from(vec![b'a'; MAX_INLINE + 1]), Bytes::from(vec![b'a'; MAX_INLINE]));
        for coding in [Coding::Brotli, Coding::Gzip] {
            assert_eq!(
                coding.compress(&long, Effort::Thorough, &memory).await,
                Err(CompressionSkipped::NoCapacity)
            );
            assert!(coding.compress(&short, Effort::Thorough, &memory).await.is_ok());
        }
        drop(permits);
        assert!(Coding::Gzip.compress(&long, Effort::Thorough, &memory).await.is_ok());
    }

    #[tokio::test]
    async fn without_response_memory_nothing_is_compressed() {
        let memory = ResponseMemory::new(ByteSize::kib(2), 100);
        let plain = Bytes::from(vec![b'a'; MIN_LENGTH_QUICK]);
        let first = Coding::Gzip.compress(&plain, Effort::Quick, &memory).await;
        assert!(first.is_ok());
        let taken = memory.reserve(MIN_LENGTH_QUICK).unwrap();
        assert_eq!(
            Coding::Gzip.compress(&plain, Effort::Quick, &memory).await,
            Err(CompressionSkipped::NoCapacity)
        );
        drop((taken, first));
        assert!(Coding::Gzip.compress(&plain, Effort::Quick, &memory).await.is_ok());
    }

    #[tokio::test]
    async fn incompressible_responses_are_sent_uncompressed() {
        let memory = ResponseMemory::new(ByteSize::mib(4), 100);
        let noise = Bytes::from((0..2000).map(|_| fastrand::u8(..)).collect::<Vec<_>>());
        for coding in [Coding::Brotli, Coding::Gzip] {
            for effort in [Effort::Quick, Effort::Thorough] {
                assert_eq!(
                    coding.compress(&noise, effort, &memory).await,
                    Err(CompressionSkipped::NotSmaller)
                );
            }
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(value: String) {
            parse(&[&value]);
            parse_weight(value.as_bytes());
        }

        #[test]
        fn any_bytes_survive_a_round_trip(bytes: Vec<u8>) {
            for coding in [Coding::Brotli, Coding::Gzip] {
                for effort in [Effort::Quick, Effort::Thorough] {
                    prop_assert_eq!(&decompress(coding, &coding.encode(&bytes, effort).unwrap()), &bytes);
                }
            }
        }
    }
}
