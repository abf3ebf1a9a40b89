//! A blocking HTTP client with one connection and one request in flight, for single requests outside of the load.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::{Result, http::Head};

/// The timeout of a response.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(20);

pub struct Client(TcpStream);

pub struct Response {
    pub head: Head,
    pub body: Vec<u8>,
}

impl Client {
    pub fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
        Ok(Self(stream))
    }

    pub fn send(&mut self, request: &[u8]) -> Result<Response> {
        // A server that rejects an oversized request may respond and close the connection before the request is written.
        let sent = self.0.write_all(request);
        let response = self.receive();
        if response.is_err() {
            sent?;
        }
        response
    }

    fn receive(&mut self) -> Result<Response> {
        let (mut read, mut chunk) = (Vec::new(), [0; 16 * 1024]);
        loop {
            let size = self.0.read(&mut chunk)?;
            if size == 0 {
                return Err("the connection was closed without a response".into());
            }
            read.extend_from_slice(&chunk[..size]);
            if let Some(head) = Head::parse(&read)?
                && read.len() >= head.length + head.content_length
            {
                let body = read.split_off(head.length);
                return Ok(Response { head, body });
            }
        }
    }
}
