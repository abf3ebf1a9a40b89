//! Compressed answers: which coding a client takes (RFC 9110, section 12.5.3), and what is gained by it.
//!
//! An answer holds no secret of the gateway beside what its reader chose, and no page of another site can read how
//! long it is: so a length that depends on the contents (BREACH) tells nobody anything.

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

use crate::response_memory::ResponseMemory;

/// A way to compress that clients know, the one that is liked better first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Coding {
    Brotli,
    Gzip,
}

/// How much time it may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// It is done for this one answer, and its client waits for it.
    Quick,
    /// It is done once for all answers to equal requests.
    Thorough,
}

/// Why an answer is sent as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CompressionSkipped {
    /// It is too short, or does not get shorter.
    NotWorthIt,
    /// As many long ones as may be are being compressed, or there is no memory for it: this is not waited for.
    NoRoom,
}

/// Shorter answers are sent as they are: most fit into one packet, and little would be gained.
const LEAST: usize = 256;

/// Shorter ones are not worth it for one answer.
const LEAST_FOR_ONE: usize = 1024;

/// What is longer would keep its worker from others for more than a millisecond, so it is compressed apart from them.
const MOST_AT_ONCE: usize = 64 * 1024;

/// For those that are compressed apart, in all of the process: more at once than there are processors would not be done
/// sooner.
static ROOM: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(thread::available_parallelism().map_or(1, NonZero::get)));

/// The windows that brotli is given, as powers of two in bytes. What is behind the window is not seen any more; but
/// room for all of a window is made however short the answer is.
const LEAST_WINDOW: u32 = 16;
const LARGEST_WINDOW: u32 = 22;

/// Compressed bytes come out of brotli in pieces of at most so many.
const PIECE: usize = 4096;

impl Coding {
    /// As `Content-Encoding` has it.
    pub(crate) fn name(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        })
    }

    /// `plain` in this coding, which is shorter.
    ///
    /// # Errors
    /// Why it is to be sent as it is.
    pub(crate) async fn compressed(
        self,
        plain: &Bytes,
        effort: Effort,
        memory: &ResponseMemory,
    ) -> Result<Bytes, CompressionSkipped> {
        let least = if effort == Effort::Quick { LEAST_FOR_ONE } else { LEAST };
        if plain.len() < least {
            return Err(CompressionSkipped::NotWorthIt);
        }
        // What gets longer is not used.
        let mut reservation = memory.reserve(plain.len()).map_err(|_| CompressionSkipped::NoRoom)?;
        let compressed = match plain.len() {
            ..=MOST_AT_ONCE => self.compress(plain, effort),
            _ => {
                let permit = ROOM.try_acquire().map_err(|_| CompressionSkipped::NoRoom)?;
                let plain = plain.clone();
                let compress = move || {
                    // It goes on where nobody waits for it any more, and takes its room until then.
                    let _permit = permit;
                    self.compress(&plain, effort)
                };
                // What panics there is sent as it is.
                tokio::task::spawn_blocking(compress).await.map_err(|_| CompressionSkipped::NotWorthIt)?
            }
        };
        let shorter = compressed.ok().filter(|compressed| compressed.len() < plain.len());
        let shorter = shorter.ok_or(CompressionSkipped::NotWorthIt)?;
        reservation.shrink_to(shorter.len());
        Ok(reservation.into_bytes(shorter))
    }

    fn compress(self, plain: &[u8], effort: Effort) -> io::Result<Vec<u8>> {
        let mut compressed = Vec::with_capacity(plain.len() / 2);
        match self {
            Self::Brotli => {
                let quality = if effort == Effort::Quick { 1 } else { 5 };
                let (lgwin, size_hint) = (window(plain.len()), plain.len());
                let how = BrotliEncoderParams { quality, lgwin, size_hint, ..Default::default() };
                let mut encoder = CompressorWriter::with_params(&mut compressed, PIECE, &how);
                // All of it at once: each piece would be a block of its own.
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
        // It may be kept for long.
        compressed.shrink_to_fit();
        Ok(compressed)
    }
}

/// The smallest window of brotli that holds so many bytes, if one does.
fn window(length: usize) -> i32 {
    // RFC 7932, section 9.1: sixteen bytes less than the power of two.
    let bits = (length + 16).checked_next_power_of_two().map_or(LARGEST_WINDOW, usize::ilog2);
    bits.clamp(LEAST_WINDOW, LARGEST_WINDOW) as i32
}

/// Whether what is sent instead of so many bytes may depend on what the client takes.
pub(crate) fn may_matter(length: usize) -> bool {
    length >= LEAST
}

/// The coding that the client likes best, of equal ones brotli; none where it takes none of those that there are, or
/// would rather have an answer as it is. One that takes nothing at all, not even that, gets that.
pub(crate) fn coding(headers: &HeaderMap) -> Option<Coding> {
    let (mut brotli, mut gzip, mut identity, mut others) = (None, None, None, None);
    for value in headers.get_all(header::ACCEPT_ENCODING) {
        for item in value.as_bytes().split(|byte| *byte == b',') {
            let mut parts = item.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let weight = |parts: &mut dyn Iterator<Item = &[u8]>| parts.next().map_or(Some(1000), weight);
            let slot = match parts.next().unwrap_or_default() {
                name if name.eq_ignore_ascii_case(b"br") => &mut brotli,
                name if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") => {
                    &mut gzip
                }
                name if name.eq_ignore_ascii_case(b"identity") => &mut identity,
                b"*" => &mut others,
                _ => continue,
            };
            *slot = weight(&mut parts).or(*slot);
        }
    }
    let of = |named: Option<u16>| named.or(others).unwrap_or(0);
    let (best, weight) = [(Coding::Brotli, of(brotli)), (Coding::Gzip, of(gzip))]
        .into_iter()
        .rev()
        .max_by_key(|(_, weight)| *weight)?;
    (weight > 0 && weight >= identity.unwrap_or(0)).then_some(best)
}

/// `q=` and a number from 0 to 1 with up to three digits behind the point (section 12.4.2), in thousandths.
fn weight(parameter: &[u8]) -> Option<u16> {
    let number = parameter.strip_prefix(b"q=").or_else(|| parameter.strip_prefix(b"Q="))?;
    let (whole, digits) = match number {
        [whole, b'.', digits @ ..] if digits.len() <= 3 => (whole, digits),
        [whole] => (whole, &[][..]),
        _ => return None,
    };
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u16::from(byte - b'0'));
    let mut thousandths = digit(whole)?;
    for n in 0..3 {
        thousandths = thousandths * 10 + digits.get(n).map_or(Some(0), digit)?;
    }
    (thousandths <= 1000).then_some(thousandths)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use bytesize::ByteSize;
    use flate2::read::GzDecoder;
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[&str]) -> Option<Coding> {
        let name = |value: &&str| Some((header::ACCEPT_ENCODING, HeaderValue::from_str(value).ok()?));
        let mut headers = HeaderMap::new();
        values.iter().filter_map(name).for_each(|(name, value)| {
            headers.append(name, value);
        });
        coding(&headers)
    }

    #[test]
    fn the_client_chooses_what_it_takes() {
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
            assert_eq!(of(accepts), expected, "{accepts:?}");
        }
    }

    #[test]
    fn weights_are_read_to_the_letter() {
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
            assert_eq!(weight(text.as_bytes()), expected, "{text}");
        }
    }

    fn again(coding: Coding, compressed: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        match coding {
            Coding::Brotli => brotli::BrotliDecompress(&mut &*compressed, &mut plain).unwrap(),
            Coding::Gzip => drop(GzDecoder::new(compressed).read_to_end(&mut plain).unwrap()),
        }
        plain
    }

    #[test]
    fn the_window_holds_all_of_it() {
        for (length, expected) in [
            (0, 16),
            ((1 << 16) - 16, 16),
            ((1 << 16) - 15, 17),
            ((1 << 20) - 16, 20),
            ((1 << 22) - 16, 22),
            ((1 << 22) - 15, 22),
            (usize::MAX / 2, 22),
        ] {
            assert_eq!(window(length), expected, "{length}");
        }
    }

    #[tokio::test]
    async fn what_is_compressed_is_shorter_and_the_same_and_what_is_long_needs_room() {
        let memory = ResponseMemory::new(ByteSize::mib(4), 100);
        for length in [0, LEAST - 1, LEAST, LEAST_FOR_ONE, MOST_AT_ONCE, MOST_AT_ONCE + 1, 1 << 20] {
            let plain = Bytes::from(b"appointment ".repeat(length / 12 + 1)[..length].to_vec());
            for coding in [Coding::Brotli, Coding::Gzip] {
                for (effort, least) in [(Effort::Quick, LEAST_FOR_ONE), (Effort::Thorough, LEAST)] {
                    let compressed = coding.compressed(&plain, effort, &memory).await;
                    assert_eq!(compressed.is_ok(), length >= least, "{length} {coding:?} {effort:?}");
                    if let Ok(compressed) = compressed {
                        assert!(compressed.len() < length);
                        assert_eq!(again(coding, &compressed), plain);
                    }
                }
            }
        }
        let all = ROOM.acquire_many(ROOM.available_permits() as u32).await.unwrap();
        let (long, short) =
            (Bytes::from(vec![b'a'; MOST_AT_ONCE + 1]), Bytes::from(vec![b'a'; MOST_AT_ONCE]));
        for coding in [Coding::Brotli, Coding::Gzip] {
            assert_eq!(
                coding.compressed(&long, Effort::Thorough, &memory).await,
                Err(CompressionSkipped::NoRoom)
            );
            assert!(coding.compressed(&short, Effort::Thorough, &memory).await.is_ok());
        }
        drop(all);
        assert!(Coding::Gzip.compressed(&long, Effort::Thorough, &memory).await.is_ok());
    }

    #[tokio::test]
    async fn without_memory_for_it_an_answer_is_sent_as_it_is() {
        let memory = ResponseMemory::new(ByteSize::kib(2), 100);
        let plain = Bytes::from(vec![b'a'; LEAST_FOR_ONE]);
        let first = Coding::Gzip.compressed(&plain, Effort::Quick, &memory).await;
        assert!(first.is_ok());
        let taken = memory.reserve(LEAST_FOR_ONE).unwrap();
        assert_eq!(
            Coding::Gzip.compressed(&plain, Effort::Quick, &memory).await,
            Err(CompressionSkipped::NoRoom)
        );
        drop((taken, first));
        assert!(Coding::Gzip.compressed(&plain, Effort::Quick, &memory).await.is_ok());
    }

    #[tokio::test]
    async fn what_does_not_get_shorter_is_not_compressed() {
        let memory = ResponseMemory::new(ByteSize::mib(4), 100);
        let noise = Bytes::from((0..2000).map(|_| fastrand::u8(..)).collect::<Vec<_>>());
        for coding in [Coding::Brotli, Coding::Gzip] {
            for effort in [Effort::Quick, Effort::Thorough] {
                assert_eq!(
                    coding.compressed(&noise, effort, &memory).await,
                    Err(CompressionSkipped::NotWorthIt)
                );
            }
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read_without_a_panic(value: String) {
            of(&[&value]);
            weight(value.as_bytes());
        }

        #[test]
        fn any_bytes_come_back(bytes: Vec<u8>) {
            for coding in [Coding::Brotli, Coding::Gzip] {
                for effort in [Effort::Quick, Effort::Thorough] {
                    prop_assert_eq!(&again(coding, &coding.compress(&bytes, effort).unwrap()), &bytes);
                }
            }
        }
    }
}
