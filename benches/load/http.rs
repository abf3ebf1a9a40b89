//! As much of HTTP/1.1 as it takes to read the gateway's answers.

use crate::Result;

/// The head of an answer.
pub struct Head {
    pub status: u16,
    /// Of the head itself, the empty line included, in bytes.
    pub length: usize,
    /// Of the body, in bytes.
    pub body: usize,
    /// How the body is compressed; none where it is plain.
    pub encoding: Option<String>,
}

impl Head {
    /// The head that `bytes` begins with; none where it has not come whole.
    pub fn read(bytes: &[u8]) -> Result<Option<Self>> {
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
            body: header("content-length").ok_or_else(|| format!("no length: {text}"))?.parse()?,
            encoding: header("content-encoding").map(str::to_owned),
        }))
    }
}
