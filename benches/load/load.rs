//! The load: many connections, each with one request under way, and every answer looked at. It has to take far less of its
//! core than a server takes of its own, so it is one thread, one system call to read and one to write, and no allocation.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{self, SocketAddr},
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, net::TcpStream};

use crate::{
    Result,
    client::{Client, PATIENCE},
    exchange::Exchange,
    http::Head,
};

/// The head of an answer is smaller.
const HEAD: usize = 2048;

/// As many connections are opened in one go: fewer than a server lets wait at its door.
const WAVE: usize = 100;

/// When it is enough: after so many requests, or after that time, whichever is first.
#[derive(Clone, Copy)]
pub struct Until {
    pub requests: usize,
    pub time: Duration,
}

impl Until {
    pub const fn time(time: Duration) -> Self {
        Self { requests: usize::MAX, time }
    }
}

/// What came of it.
pub struct Sample {
    pub requests: usize,
    pub elapsed: Duration,
    /// Of each request, in nanoseconds, the shortest first.
    pub latencies: Vec<u64>,
}

/// Open connections.
pub struct Load {
    poll: Poll,
    connections: Vec<Connection>,
}

struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
    read: Vec<u8>,
    filled: usize,
    /// How long the head of the last answer was: the next one's is as long, as a rule.
    head: usize,
    sent: Instant,
}

impl Load {
    pub fn open(address: SocketAddr, connections: usize, exchange: &Exchange) -> Result<Self> {
        let poll = Poll::new()?;
        let connections = (0..connections).map(|number| {
            if number % WAVE == WAVE - 1 {
                // Its answer says that the server has let in all who came before.
                Client::open(address)?.ask(&exchange.request)?;
            }
            let mut stream = open(address)?;
            poll.registry().register(&mut stream, Token(number), Interest::READABLE)?;
            Ok(Connection {
                stream,
                request: exchange.request.clone(),
                answer: exchange.answer.clone(),
                read: vec![0; HEAD + exchange.answer.len()],
                filled: 0,
                head: 0,
                sent: Instant::now(),
            })
        });
        let connections = connections.collect::<Result<_>>()?;
        Ok(Self { poll, connections })
    }

    /// Asks over all connections until it is enough, and waits for the last answers.
    ///
    /// # Errors
    /// Where an answer is not, byte by byte, what it has to be, or where none comes.
    pub fn run(&mut self, exchange: &mut Exchange, until: Until) -> Result<Sample> {
        let begun = Instant::now();
        let mut events = Events::with_capacity(1024);
        let mut latencies = Vec::with_capacity(1 << 20);
        let mut under_way = 0;
        for connection in &mut self.connections {
            connection.send(exchange, begun)?;
            under_way += 1;
        }
        let mut last = begun;
        while under_way > 0 {
            match self.poll.poll(&mut events, Some(PATIENCE)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            if events.is_empty() {
                return Err(format!("no answer for {PATIENCE:?}").into());
            }
            for event in &events {
                let connection = &mut self.connections[event.token().0];
                if !connection.receive()? {
                    continue;
                }
                last = Instant::now();
                latencies.push(u64::try_from((last - connection.sent).as_nanos())?);
                if last - begun >= until.time || latencies.len() + under_way > until.requests {
                    under_way -= 1;
                } else {
                    connection.send(exchange, last)?;
                }
            }
        }
        latencies.sort_unstable();
        Ok(Sample { requests: latencies.len(), elapsed: last - begun, latencies })
    }
}

fn open(address: SocketAddr) -> Result<TcpStream> {
    let stream = net::TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(TcpStream::from_std(stream))
}

impl Connection {
    fn send(&mut self, exchange: &mut Exchange, now: Instant) -> Result<()> {
        exchange.turn(&mut self.request, &mut self.answer);
        self.filled = 0;
        self.sent = now;
        // A request fits what the system buffers, since the one before it was read.
        let written = self.stream.write(&self.request)?;
        if written == self.request.len() { Ok(()) } else { Err("a request did not fit".into()) }
    }

    /// Reads what there is. Whether the answer is whole, and right.
    fn receive(&mut self) -> Result<bool> {
        loop {
            match self.stream.read(&mut self.read[self.filled..]) {
                Ok(0) => return Err("the connection was closed without an answer".into()),
                Ok(size) => self.filled += size,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.into()),
            }
            if self.is_like_the_last() || self.is_whole()? {
                return Ok(true);
            }
            if self.filled == self.read.len() {
                return Err("an answer is longer than expected".into());
            }
        }
    }

    /// The short way: a right answer whose head is as long as that of the one before.
    fn is_like_the_last(&self) -> bool {
        let (head, body) = self.read[..self.filled].split_at(self.head.min(self.filled));
        head.starts_with(b"HTTP/1.1 200 ") && head.ends_with(b"\r\n\r\n") && body == self.answer
    }

    /// The long way, for all others.
    fn is_whole(&mut self) -> Result<bool> {
        let read = &self.read[..self.filled];
        let Some(head) = Head::read(read)? else { return Ok(false) };
        let body = &read[head.length..];
        if head.status != 200 || head.body != self.answer.len() || !self.answer.starts_with(body) {
            let (status, body) = (head.status, String::from_utf8_lossy(body));
            let answer = String::from_utf8_lossy(&self.answer);
            return Err(format!("a wrong answer: {status} {body}\nwhere this was expected: {answer}").into());
        }
        self.head = head.length;
        Ok(body.len() == self.answer.len())
    }
}
