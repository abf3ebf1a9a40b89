//! The load generator: many connections with one request in flight each, and a check of every response.
//!
//! It must use far less of its core than a server of its own. Therefore it has one thread, one system call per read and
//! per write, and no allocation per request.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{self, SocketAddr},
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, net::TcpStream};

use crate::{
    Result,
    client::{Client, RESPONSE_TIMEOUT},
    exchange::Exchange,
    http::Head,
};

/// The size limit of a response head.
const HEAD: usize = 2048;

/// The number of connections opened in one batch: fewer than a listener's backlog.
const BATCH: usize = 100;

/// Ends a run after a number of requests or a time, whichever comes first.
#[derive(Clone, Copy)]
pub struct StopCondition {
    pub requests: usize,
    pub time: Duration,
}

impl StopCondition {
    pub const fn after(time: Duration) -> Self {
        Self { requests: usize::MAX, time }
    }
}

/// The result of a run.
pub struct Sample {
    pub requests: usize,
    pub elapsed: Duration,
    /// The latency of each request in nanoseconds, sorted.
    pub latencies: Vec<u64>,
}

/// Open connections to one server.
pub struct Load {
    poll: Poll,
    connections: Vec<Connection>,
}

struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    response: Vec<u8>,
    status: u16,
    /// The beginning of the head of a correct response.
    status_line: Vec<u8>,
    read: Vec<u8>,
    filled: usize,
    /// The length of the last response head. The next one usually has the same length.
    head: usize,
    sent: Instant,
}

impl Load {
    pub fn open(address: SocketAddr, connections: usize, exchange: &Exchange) -> Result<Self> {
        let poll = Poll::new()?;
        let connections = (0..connections).map(|number| {
            if number % BATCH == BATCH - 1 {
                // A response proves that the server has accepted all earlier connections.
                Client::open(address)?.send(&exchange.request)?;
            }
            let mut stream = connect(address)?;
            poll.registry().register(&mut stream, Token(number), Interest::READABLE)?;
            Ok(Connection {
                stream,
                request: exchange.request.clone(),
                response: exchange.response.clone(),
                status: exchange.status,
                status_line: format!("HTTP/1.1 {} ", exchange.status).into_bytes(),
                read: vec![0; HEAD + exchange.response.len()],
                filled: 0,
                head: 0,
                sent: Instant::now(),
            })
        });
        let connections = connections.collect::<Result<_>>()?;
        Ok(Self { poll, connections })
    }

    /// Sends requests over all connections until the stop condition, and waits for the last responses.
    ///
    /// # Errors
    /// A missing response, or one that differs from the expected bytes.
    pub fn run(&mut self, exchange: &mut Exchange, stop: StopCondition) -> Result<Sample> {
        let started = Instant::now();
        let mut events = Events::with_capacity(1024);
        let mut latencies = Vec::with_capacity(1 << 20);
        let mut in_flight = 0;
        for connection in &mut self.connections {
            connection.send(exchange, started)?;
            in_flight += 1;
        }
        let mut last = started;
        while in_flight > 0 {
            match self.poll.poll(&mut events, Some(RESPONSE_TIMEOUT)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            if events.is_empty() {
                return Err(format!("no response within {RESPONSE_TIMEOUT:?}").into());
            }
            for event in &events {
                let connection = &mut self.connections[event.token().0];
                if !connection.receive()? {
                    continue;
                }
                last = Instant::now();
                latencies.push(u64::try_from((last - connection.sent).as_nanos())?);
                if last - started >= stop.time || latencies.len() + in_flight > stop.requests {
                    in_flight -= 1;
                } else {
                    connection.send(exchange, last)?;
                }
            }
        }
        latencies.sort_unstable();
        Ok(Sample { requests: latencies.len(), elapsed: last - started, latencies })
    }
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = net::TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(TcpStream::from_std(stream))
}

impl Connection {
    fn send(&mut self, exchange: &mut Exchange, now: Instant) -> Result<()> {
        exchange.advance(&mut self.request, &mut self.response);
        self.filled = 0;
        self.sent = now;
        // The server has read the previous request, so a request fits into the socket's buffer.
        let written = self.stream.write(&self.request)?;
        if written == self.request.len() { Ok(()) } else { Err("a request exceeds the socket buffer".into()) }
    }

    /// Reads all available bytes. Returns whether the response is complete and correct.
    fn receive(&mut self) -> Result<bool> {
        loop {
            match self.stream.read(&mut self.read[self.filled..]) {
                Ok(0) => return Err("the connection was closed without a response".into()),
                Ok(size) => self.filled += size,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.into()),
            }
            if self.is_complete_like_the_last() || self.is_complete()? {
                return Ok(true);
            }
            if self.filled == self.read.len() {
                return Err("a response is longer than expected".into());
            }
        }
    }

    /// The fast path: whether a correct response has a head of the same length as the last one.
    fn is_complete_like_the_last(&self) -> bool {
        let (head, body) = self.read[..self.filled].split_at(self.head.min(self.filled));
        head.starts_with(&self.status_line) && head.ends_with(b"\r\n\r\n") && body == self.response
    }

    /// The slow path for all other responses.
    fn is_complete(&mut self) -> Result<bool> {
        let read = &self.read[..self.filled];
        let Some(head) = Head::parse(read)? else { return Ok(false) };
        let body = &read[head.length..];
        let is_expected = head.content_length == self.response.len() && self.response.starts_with(body);
        if head.status != self.status || !is_expected {
            let (status, body) = (head.status, String::from_utf8_lossy(body));
            let expected = String::from_utf8_lossy(&self.response);
            return Err(format!("wrong response: {status} {body}\nexpected: {expected}").into());
        }
        self.head = head.length;
        Ok(body.len() == self.response.len())
    }
}
