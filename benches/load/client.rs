//! One connection that waits for each answer: for what is looked at closely, and not measured by the thousand.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::{Result, http::Head};

/// How long an answer may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Client(TcpStream);

/// An answer, whole.
pub struct Answer {
    pub head: Head,
    pub body: Vec<u8>,
}

impl Client {
    pub fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(stream))
    }

    pub fn ask(&mut self, request: &[u8]) -> Result<Answer> {
        // A request that is refused for its length is answered before it is sent, and the connection closed.
        let sent = self.0.write_all(request);
        let answer = self.answer();
        if answer.is_err() {
            sent?;
        }
        answer
    }

    fn answer(&mut self) -> Result<Answer> {
        let (mut read, mut chunk) = (Vec::new(), [0; 16 * 1024]);
        loop {
            let size = self.0.read(&mut chunk)?;
            if size == 0 {
                return Err("the connection was closed without an answer".into());
            }
            read.extend_from_slice(&chunk[..size]);
            if let Some(head) = Head::read(&read)?
                && read.len() >= head.length + head.body
            {
                let body = read.split_off(head.length);
                return Ok(Answer { head, body });
            }
        }
    }
}
