//! A minimal HTTP/1.1 response parser.

use crate::Result;

/// The status of a response with a body.
pub const OK: u16 = 200;

/// The status of a response without a body, to a client that has it already.
pub const NOT_MODIFIED: u16 = 304;

/// The head of a response.
pub struct Head {
    pub status: u16,
    /// The length of the head in bytes, including the empty line.
    pub length: usize,
    /// 0 for a response that has no body by its status.
    pub content_length: usize,
    /// The content coding; none for an uncompressed body.
    pub encoding: Option<String>,
    /// The entity tag.
    pub etag: Option<String>,
}

impl Head {
    /// Parses the head at the start of `bytes`. Returns none while it is incomplete.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>> {
        let Some(end) = bytes.windows(4).position(|it| it == b"\r\n\r\n") else { return Ok(None) };
        let text = std::str::from_utf8(&bytes[..end])?;
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        let header = |wanted: &str| {
            text.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case(wanted).then(|| value.trim())
            })
        };
        let status = status.ok_or_else(|| format!("no status line: {text}"))?;
        let content_length = match header("content-length") {
            Some(length) => length.parse()?,
            None if status == NOT_MODIFIED => 0,
            None => return Err(format!("no Content-Length: {text}").into()),
        };
        let (encoding, etag) = (header("content-encoding"), header("etag"));
        Ok(Some(Self {
            status,
            length: end + 4,
            content_length,
            encoding: encoding.map(str::to_owned),
            etag: etag.map(str::to_owned),
        }))
    }
}
