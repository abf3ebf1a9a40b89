//! The address at which clients reach the gateway, directly or through a load balancer, and the requests that may be lost
//! there because a process ends.

use std::{
    io,
    sync::Mutex,
    time::{Duration, Instant},
};

use tokio::{net::TcpStream, sync::watch};

use crate::connection::{Lost, Reply};

/// The drain delay of announced shutdowns.
pub const DRAIN_DELAY: Duration = Duration::from_secs(1);

/// Requests written less than this before the gateway stops accepting may be unread.
const MARGIN: Duration = Duration::from_millis(300);

/// How long subscriptions may end after a replica was terminated.
const DRAINING: Duration = Duration::from_secs(10);

/// A header that a gateway's response has only behind the load balancer.
const REPLICA: &str = "x-replica";

/// The kind of a shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Announced by `/readyz`: clients that see it send no new requests.
    Announced,
    /// Unannounced: the load continues.
    Blunt,
}

/// The clients' knowledge of the current life.
#[derive(Debug, Clone, Copy)]
pub struct Life {
    pub number: u32,
    pub is_serving: bool,
    pub end: End,
}

/// A time in which a replica loses requests: its start, and its end once it is over.
type Loss = (Instant, Option<Instant>);

/// The address, and the life of the gateway or fleet behind it.
pub struct Entrance {
    port: u16,
    life: watch::Sender<Life>,
    /// The time at which each life was terminated; behind a load balancer, each replica.
    endings: Mutex<Vec<Instant>>,
    /// Behind a load balancer: the times in which a replica loses requests. The last one may not be over.
    losses: Option<Mutex<Vec<Loss>>>,
}

impl Entrance {
    /// The address of one gateway, which is not serving yet.
    pub fn of_gateway(port: u16) -> Self {
        let life = Life { number: 0, is_serving: false, end: End::Announced };
        Self { port, life: watch::Sender::new(life), endings: Mutex::default(), losses: None }
    }

    /// The address of a load balancer that always serves.
    pub fn of_load_balancer(port: u16) -> Self {
        let life = Life { number: 1, is_serving: true, end: End::Announced };
        let losses = Some(Mutex::default());
        Self { port, life: watch::Sender::new(life), endings: Mutex::default(), losses }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn is_balanced(&self) -> bool {
        self.losses.is_some()
    }

    pub fn life(&self) -> Life {
        *self.life.borrow()
    }

    /// Begins the next life, which does not serve yet.
    pub fn begin(&self, end: End) {
        self.life.send_modify(|life| *life = Life { number: life.number + 1, is_serving: false, end });
    }

    pub fn set_serving(&self, is_serving: bool) {
        self.life.send_modify(|life| life.is_serving = is_serving);
    }

    /// Records the termination of the current life, or of a replica.
    pub fn note_ending(&self) {
        self.endings.lock().unwrap().push(Instant::now());
    }

    /// Records that a replica loses requests from now on.
    pub fn begin_loss(&self) {
        if let Some(losses) = &self.losses {
            losses.lock().unwrap().push((Instant::now(), None));
        }
    }

    /// Records that no replica loses requests any more.
    pub fn end_loss(&self) {
        if let Some(losses) = &self.losses
            && let Some((_, end)) = losses.lock().unwrap().last_mut()
        {
            *end = Some(Instant::now());
        }
    }

    /// Waits for a serving gateway, and returns its life.
    pub async fn serving(&self) -> Life {
        let mut life = self.life.subscribe();
        // The sender is in `self`, so it outlives every waiter.
        life.wait_for(|life| life.is_serving).await.map(|life| *life).unwrap_or_else(|_| self.life())
    }

    /// A connection in `life`, or none if another has begun, so that late clients do not disturb its start.
    pub async fn connect(&self, life: Life) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        if self.life().number != life.number {
            return Err(io::Error::other("the life is over"));
        }
        Ok(stream)
    }

    /// Whether the load balancer has made the response itself.
    pub fn is_of_load_balancer(&self, reply: &Reply) -> bool {
        self.is_balanced() && reply.header(REPLICA).is_none()
    }

    /// Whether a request begun in `life` may lack a response: the process was ending when the request was completely
    /// written, or would have been, and need not have read it.
    pub fn excuses(&self, life: Life, lost: &Lost) -> bool {
        let written = lost.written.unwrap_or_else(Instant::now);
        if self.losses.is_some() {
            return self.has_lost_since(written);
        }
        let endings = self.endings.lock().unwrap();
        let Some(ending) = endings.get(life.number as usize - 1) else { return false };
        let may_be_unread = match life.end {
            // Until then it reads every request.
            End::Announced => written + MARGIN > *ending + DRAIN_DELAY,
            // It closes connections between two requests, even if another one is on its way.
            End::Blunt => true,
        };
        may_be_unread && !lost.was_taken_on
    }

    /// Whether a replica has lost requests since.
    pub fn has_lost_since(&self, since: Instant) -> bool {
        let Some(losses) = &self.losses else { return false };
        losses.lock().unwrap().iter().any(|(_, end)| end.is_none_or(|end| end >= since))
    }

    /// Whether `life`, or a replica, was terminated.
    pub fn is_ending(&self, life: Life) -> bool {
        let endings = self.endings.lock().unwrap();
        match self.losses {
            Some(_) => endings.last().is_some_and(|ending| ending.elapsed() < DRAINING),
            None => endings.len() >= life.number as usize,
        }
    }

    /// The number of terminations.
    pub fn ended(&self) -> usize {
        self.endings.lock().unwrap().len()
    }
}
