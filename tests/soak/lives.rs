//! The gateway's lives: it is started, terminated under load, and started again on the same port.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{net::TcpStream, sync::watch, time::sleep};

use crate::{
    connection::Request,
    far_side::FarSide,
    gateway::Gateway,
    judge::Judge,
    world::{Access, access, id, token},
};

/// For how long a life that ends with an announcement goes on being served after it.
pub const DRAIN_DELAY: Duration = Duration::from_secs(1);

/// What is written less than this before the gateway stops accepting may not have been read by then.
const MARGIN: Duration = Duration::from_millis(300);

/// What it may take until all is well again, or at rest, when the misbehaviour and the load are over.
pub const RECOVERY: Duration = Duration::from_secs(30);

/// An appointment that the first caller may see.
const VISIBLE: usize = 1;
const _: () = assert!(matches!(access(0, VISIBLE), Access::Visible));

/// How a life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// `/readyz` says so first, and who sees it asks nothing new.
    Announced,
    /// The load goes on as if nothing was.
    Blunt,
}

/// What clients know of the life that is on.
#[derive(Debug, Clone, Copy)]
pub struct Life {
    pub number: u32,
    pub is_serving: bool,
    end: End,
}

/// The gateway and its lives.
pub struct Lives {
    port: u16,
    far_side: Arc<FarSide>,
    settings: Vec<(&'static str, String)>,
    gateway: tokio::sync::Mutex<Option<Gateway>>,
    life: watch::Sender<Life>,
    /// When each life was asked to end.
    endings: Mutex<Vec<Instant>>,
    /// The most memory that any life took, in KiB.
    most_memory: Mutex<u64>,
}

/// What a process that is at rest holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Holdings {
    pub tasks: f64,
    pub open_files: f64,
}

impl Lives {
    pub fn new(port: u16, far_side: Arc<FarSide>, settings: Vec<(&'static str, String)>) -> Self {
        let life = Life { number: 0, is_serving: false, end: End::Announced };
        Self {
            port,
            far_side,
            settings,
            gateway: tokio::sync::Mutex::new(None),
            life: watch::Sender::new(life),
            endings: Mutex::default(),
            most_memory: Mutex::new(0),
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn life(&self) -> Life {
        *self.life.borrow()
    }

    /// Waits until there is a gateway to ask, and returns its life.
    pub async fn serving(&self) -> Life {
        let mut life = self.life.subscribe();
        // The sender is here, so it does not go while somebody waits.
        life.wait_for(|life| life.is_serving).await.map(|life| *life).unwrap_or_else(|_| self.life())
    }

    /// A connection in `life`: none where another has begun, so that nobody who is late disturbs its beginning.
    pub async fn connect(&self, life: Life) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        if self.life().number != life.number {
            return Err(io::Error::other("the life is over"));
        }
        Ok(stream)
    }

    /// Starts a life that is to end like `end`, and returns what it holds before anybody asks for anything.
    pub async fn begin(&self, end: End) -> Holdings {
        self.life.send_modify(|life| *life = Life { number: life.number + 1, is_serving: false, end });
        let delay = match end {
            End::Announced => format!("{}ms", DRAIN_DELAY.as_millis()),
            End::Blunt => "0".to_owned(),
        };
        // With a breaker the far side is soon asked no more when it misbehaves, so half of the lives have none.
        let breaker = if end == End::Announced { "50" } else { "0" };
        let of_this_life = [
            ("upstream.url", self.far_side.url()),
            ("http.drain_delay", delay),
            ("upstream.breaker_percent", breaker.to_owned()),
        ];
        let gateway = Gateway::start(self.port, &[&of_this_life[..], &self.settings].concat()).await;
        let holdings = self.warm(&gateway).await;
        *self.gateway.lock().await = Some(gateway);
        self.life.send_modify(|life| life.is_serving = true);
        holdings
    }

    /// Has the gateway make what it makes when it is first needed, such as the task that minds its idle connections, and
    /// returns what it holds then, at rest.
    async fn warm(&self, gateway: &Gateway) -> Holdings {
        let query = format!("{{ appointment(id: \"{}\") {{ id status }} }}", id(VISIBLE));
        let request = Request::post(Some(&token(0)), &query, &json!({}), false);
        loop {
            let reply = gateway.ask(&request).await;
            if reply.is_some_and(|reply| reply.body["data"]["appointment"]["status"].is_string()) {
                return self.rest(gateway, None).await;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Has the far side hang up, since what the gateway keeps for its next calls are connections to it, and waits until
    /// it holds what it `held`, or else until that changes no more. Returns what it holds, which is something else if it
    /// takes longer than [`RECOVERY`].
    async fn rest(&self, gateway: &Gateway, held: Option<Holdings>) -> Holdings {
        self.far_side.hang_up().await;
        let (began, mut last) = (Instant::now(), Vec::new());
        loop {
            let holdings = Holdings::of(gateway).await;
            last.push(holdings);
            let is_steady = last.len() >= 5 && last.iter().rev().take(5).all(|it| *it == holdings);
            let is_so = held.map_or(is_steady, |held| held == holdings);
            if is_so || began.elapsed() > RECOVERY {
                return holdings;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// What the life that is on holds at rest, where it `held` as much when it began.
    pub async fn holdings(&self, held: Holdings) -> Holdings {
        let gateway = self.gateway.lock().await;
        self.rest(gateway.as_ref().expect("a life is on"), Some(held)).await
    }

    /// Asks the gateway to end, waits until it has, and looks at how it did.
    pub async fn end(&self, judge: &Judge) {
        let Some(gateway) = self.gateway.lock().await.take() else { return };
        self.note_memory(&gateway);
        let life = self.life();
        self.endings.lock().unwrap().push(Instant::now());
        gateway.terminate();
        if life.end == End::Announced {
            // As a load balancer does.
            while !says_not_ready(&gateway).await {
                sleep(Duration::from_millis(20)).await;
            }
            self.life.send_modify(|life| life.is_serving = false);
        }
        let (status, log) = gateway.ended().await;
        self.life.send_modify(|life| life.is_serving = false);
        judge.ensure(status.code() == Some(0), || format!("life {} ended with {status}", life.number));
        judge.ensure(log.is_empty(), || format!("life {} logged an error: {log}", life.number));
    }

    /// Whether what was begun in `life` may have got no answer: the gateway was ending when all of it was `written`, or
    /// would have been, and could not be expected to read it.
    pub fn excuse(&self, life: Life, written: Instant) -> bool {
        let endings = self.endings.lock().unwrap();
        let Some(ending) = endings.get(life.number as usize - 1) else { return false };
        match life.end {
            // Until then it reads whatever comes.
            End::Announced => written + MARGIN > *ending + DRAIN_DELAY,
            // It closes connections between two requests, whatever is on its way.
            End::Blunt => true,
        }
    }

    /// Whether `life` was asked to end.
    pub fn is_ending(&self, life: Life) -> bool {
        self.endings.lock().unwrap().len() >= life.number as usize
    }

    /// How many lives have ended.
    pub fn ended(&self) -> usize {
        self.endings.lock().unwrap().len()
    }

    /// The metrics of the life that is on.
    pub async fn metrics(&self) -> BTreeMap<String, f64> {
        let gateway = self.gateway.lock().await;
        self.note_memory(gateway.as_ref().expect("a life is on"));
        gateway.as_ref().expect("a life is on").metrics().await
    }

    /// The most memory that any life took, in KiB.
    pub fn most_memory(&self) -> u64 {
        *self.most_memory.lock().unwrap()
    }

    fn note_memory(&self, gateway: &Gateway) {
        let mut most = self.most_memory.lock().unwrap();
        *most = (*most).max(gateway.peak_memory());
    }
}

impl Holdings {
    async fn of(gateway: &Gateway) -> Self {
        Self::in_metrics(&gateway.metrics().await)
    }

    fn in_metrics(metrics: &BTreeMap<String, f64>) -> Self {
        Self { tasks: metrics["gateway_tasks"], open_files: metrics["gateway_open_files"] }
    }
}

async fn says_not_ready(gateway: &Gateway) -> bool {
    gateway.get("/readyz").await.is_none_or(|reply| reply.status == 503)
}
