//! Response bodies: their size limit and their `Content-Encoding`.
//!
//! Servers and the proxies in front of them may compress a response although compression was not requested. The limit
//! applies to the decoded body. Decoding stops there, and so does each layer of a body that is encoded more than once.

use std::io;

use async_compression::tokio::bufread::{BrotliDecoder, DeflateDecoder, GzipDecoder, ZlibDecoder};
use reqwest::{
    Response,
    header::{CONTENT_ENCODING, HeaderMap},
};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The maximum number of content codings of one body.
const MAX_CODINGS: usize = 3;

/// The number of bytes by which an encoded form may exceed the limit of the decoded body: compression makes random bytes
/// a little longer.
const MAX_ENCODING_OVERHEAD: usize = 4096;

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
pub(crate) async fn read(response: Response, limit: usize) -> Result<Vec<u8>, BodyError> {
    let codings = codings(response.headers());
    if codings.len() > MAX_CODINGS {
        return Err(BodyError::Encoding);
    }
    // The limits of the body and of its encoded forms, in the order of encoding.
    let limit_of = |form: usize| if form == 0 { limit } else { limit.saturating_add(MAX_ENCODING_OVERHEAD) };
    let mut body = receive(response, limit_of(codings.len())).await?;
    for (form, coding) in codings.iter().enumerate().rev() {
        // An empty body needs no encoding.
        if !body.is_empty() {
            body = decode(*coding, &body, limit_of(form)).await?;
        }
    }
    Ok(body)
}

/// The body as it was sent.
async fn receive(mut response: Response, limit: usize) -> Result<Vec<u8>, BodyError> {
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

async fn decode(coding: Coding, encoded: &[u8], limit: usize) -> Result<Vec<u8>, BodyError> {
    let decoded = match coding {
        Coding::Gzip => {
            let mut decoder = GzipDecoder::new(encoded);
            decoder.multiple_members(true);
            read_up_to(limit, decoder).await
        }
        // Some servers omit the zlib header, whose first four bits are the method 8.
        Coding::Deflate if encoded.first().is_some_and(|first| first & 0x0f == 8) => {
            read_up_to(limit, ZlibDecoder::new(encoded)).await
        }
        Coding::Deflate => read_up_to(limit, DeflateDecoder::new(encoded)).await,
        Coding::Brotli => read_up_to(limit, BrotliDecoder::new(encoded)).await,
    };
    let decoded = decoded.map_err(|_| BodyError::Encoding)?;
    if decoded.len() > limit { Err(BodyError::TooLarge) } else { Ok(decoded) }
}

/// Reads at most one byte more than `limit`.
async fn read_up_to(limit: usize, decoder: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
    let mut decoded = Vec::new();
    decoder.take((limit as u64).saturating_add(1)).read_to_end(&mut decoded).await?;
    Ok(decoded)
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
