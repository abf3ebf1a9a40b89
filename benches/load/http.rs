//! A minimal HTTP/1.1 response parser.

use crate::Result;

/// The head of a response.
pub struct Head {
    pub status: u16,
    /// The length of the head in bytes, including the empty line.
    pub length: usize,
    pub content_length: usize,
    /// The content coding; none for an uncompressed body.
    pub encoding: Option<String>,
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
        Ok(Some(Self {
            status: status.ok_or_else(|| format!("no status line: {text}"))?,
            length: end + 4,
            content_length: header("content-length")
                .ok_or_else(|| format!("no Content-Length: {text}"))?
                .parse()?,
            encoding: header("content-encoding").map(str::to_owned),
        }))
    }
}
