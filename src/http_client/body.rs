//! Response bodies: their size limit and their `Content-Encoding`.
//!
//! Servers and the proxies before them may compress a response that nobody asked to be compressed. The limit applies to
//! the decoded body, and decoding stops at the limit.

use std::{io, pin::Pin};

use async_compression::tokio::bufread::{BrotliDecoder, DeflateDecoder, GzipDecoder, ZlibDecoder};
use futures_util::TryStreamExt as _;
use http_body_util::BodyDataStream;
use reqwest::{
    Body, Response,
    header::{CONTENT_ENCODING, HeaderMap},
};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio_util::io::StreamReader;

/// The maximum number of content codings of one body. Each has a buffer of its own.
const MAX_CODINGS: usize = 3;

/// The reason why a body cannot be read.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// The decoded body exceeds the limit.
    TooLarge,
    /// The body does not have the form that `Content-Encoding` states.
    Encoding,
    /// The connection broke.
    Broken(reqwest::Error),
}

/// Reads and decodes the body of `response` up to `limit` bytes. A larger `Content-Length` fails at once; a smaller one
/// is not trusted.
pub(crate) async fn read(mut response: Response, limit: usize) -> Result<Vec<u8>, BodyError> {
    let codings = codings(response.headers());
    if !codings.is_empty() {
        return decode(response, &codings, limit).await;
    }
    let stated = response.content_length().unwrap_or(0);
    if stated > limit as u64 {
        return Err(BodyError::TooLarge);
    }
    let mut body = Vec::with_capacity(stated as usize);
    while let Some(chunk) = response.chunk().await.map_err(BodyError::Broken)? {
        if body.len() + chunk.len() > limit {
            return Err(BodyError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// A content coding (RFC 9110, section 8.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
    Brotli,
}

/// The codings of a body, in the order in which they were applied. Other names are ignored: misconfigured servers name
/// character sets here.
fn codings(headers: &HeaderMap) -> Vec<Coding> {
    let values = headers.get_all(CONTENT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let names = values.flat_map(|value| value.split(',')).map(|name| name.trim().to_ascii_lowercase());
    names
        .filter_map(|name| match name.as_str() {
            "gzip" | "x-gzip" => Some(Coding::Gzip),
            "deflate" => Some(Coding::Deflate),
            "br" => Some(Coding::Brotli),
            _ => None,
        })
        .collect()
}

async fn decode(response: Response, codings: &[Coding], limit: usize) -> Result<Vec<u8>, BodyError> {
    if codings.len() > MAX_CODINGS {
        return Err(BodyError::Encoding);
    }
    let chunks = BodyDataStream::new(Body::from(response)).map_err(io::Error::other);
    let mut reader: Pin<Box<dyn AsyncBufRead + Send>> = Box::pin(StreamReader::new(chunks));
    let mut body = Vec::new();
    // An empty body needs no encoding.
    if reader.fill_buf().await.map_err(read_error)?.is_empty() {
        return Ok(body);
    }
    for coding in codings.iter().rev() {
        reader = match coding {
            Coding::Gzip => {
                let mut decoder = GzipDecoder::new(reader);
                decoder.multiple_members(true);
                Box::pin(BufReader::new(decoder))
            }
            // Some servers omit the zlib header, whose first four bits are the method 8.
            Coding::Deflate => match reader.fill_buf().await.map_err(read_error)? {
                [first, ..] if first & 0x0f == 8 => Box::pin(BufReader::new(ZlibDecoder::new(reader))),
                _ => Box::pin(BufReader::new(DeflateDecoder::new(reader))),
            },
            Coding::Brotli => Box::pin(BufReader::new(BrotliDecoder::new(reader))),
        };
    }
    reader.take(limit as u64 + 1).read_to_end(&mut body).await.map_err(read_error)?;
    if body.len() > limit { Err(BodyError::TooLarge) } else { Ok(body) }
}

fn read_error(error: io::Error) -> BodyError {
    error.downcast::<reqwest::Error>().map_or(BodyError::Encoding, BodyError::Broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codings_are_listed_in_the_order_of_encoding() {
        for (lines, expected) in [
            (&[][..], &[][..]),
            (&["identity"], &[]),
            (&["UTF-8"], &[]),
            (&["gzip"], &[Coding::Gzip]),
            (&["X-GZip"], &[Coding::Gzip]),
            (&["deflate , br"], &[Coding::Deflate, Coding::Brotli]),
            (&["br", "identity,gzip"], &[Coding::Brotli, Coding::Gzip]),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(CONTENT_ENCODING, line.parse().unwrap());
            }
            assert_eq!(codings(&headers), expected, "{lines:?}");
        }
    }
}
