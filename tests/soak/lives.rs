//! The lives of the gateway: it is started, terminated under load, and restarted on the same port.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::time::sleep;

use crate::{
    connection::Request,
    entrance::{DRAIN_DELAY, End, Entrance},
    gateway::Gateway,
    judge::Judge,
    upstream::Upstream,
    world::{Access, access, id, token},
};

/// Time limit of recovery, and of the return to rest, after misbehaviour and load end.
pub const RECOVERY: Duration = Duration::from_secs(30);

/// An appointment visible to the first caller.
const VISIBLE: usize = 1;
const _: () = assert!(matches!(access(0, VISIBLE), Access::Visible));

/// The gateway and its lives.
pub struct Lives {
    entrance: Arc<Entrance>,
    upstream: Arc<Upstream>,
    settings: Vec<(&'static str, String)>,
    gateway: tokio::sync::Mutex<Option<Gateway>>,
    /// The peak memory of all lives, in KiB.
    most_memory: Mutex<u64>,
}

/// The resources of a process at rest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Resources {
    pub tasks: f64,
    pub open_files: f64,
}

impl Lives {
    pub fn new(
        entrance: Arc<Entrance>,
        upstream: Arc<Upstream>,
        settings: Vec<(&'static str, String)>,
    ) -> Self {
        Self {
            entrance,
            upstream,
            settings,
            gateway: tokio::sync::Mutex::new(None),
            most_memory: Mutex::new(0),
        }
    }

    /// Starts a life that will end by `end`, and returns its resources before the first request.
    pub async fn begin(&self, end: End) -> Resources {
        self.entrance.begin(end);
        let delay = match end {
            End::Announced => format!("{}ms", DRAIN_DELAY.as_millis()),
            End::Blunt => "0".to_owned(),
        };
        // The circuit breaker soon stops calls to a misbehaving upstream, so half of the lives run without it.
        let breaker = if end == End::Announced { "50" } else { "0" };
        // Either mode serves texts and ids.
        let mode = if end == End::Announced { "log" } else { "off" };
        let of_this_life = [
            ("documents.mode", mode.to_owned()),
            ("upstream.url", self.upstream.url()),
            ("http.drain_delay", delay),
            ("upstream.breaker_percent", breaker.to_owned()),
        ];
        let gateway =
            Gateway::start(self.entrance.port(), &[&of_this_life[..], &self.settings].concat()).await;
        let holdings = self.warm(&gateway).await;
        *self.gateway.lock().await = Some(gateway);
        self.entrance.set_serving(true);
        holdings
    }

    /// Makes the gateway create everything that it creates on first use, such as the task for idle connections, and
    /// returns its resources at rest.
    async fn warm(&self, gateway: &Gateway) -> Resources {
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

    /// Makes the upstream hang up, since the gateway keeps idle connections to it. Waits until the gateway's resources
    /// equal `held`, or no longer change, or [`RECOVERY`] has passed, and returns them.
    async fn rest(&self, gateway: &Gateway, held: Option<Resources>) -> Resources {
        self.upstream.hang_up().await;
        let (began, mut last) = (Instant::now(), Vec::new());
        loop {
            let holdings = Resources::of(gateway).await;
            last.push(holdings);
            let is_steady = last.len() >= 5 && last.iter().rev().take(5).all(|it| *it == holdings);
            let is_so = held.map_or(is_steady, |held| held == holdings);
            if is_so || began.elapsed() > RECOVERY {
                return holdings;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// The resources of the current life at rest, compared with `held` at its start.
    pub async fn holdings(&self, held: Resources) -> Resources {
        let gateway = self.gateway.lock().await;
        self.rest(gateway.as_ref().expect("a life is on"), Some(held)).await
    }

    /// Terminates the gateway, waits for it to exit, and checks how it did.
    pub async fn end(&self, judge: &Judge) {
        let Some(gateway) = self.gateway.lock().await.take() else { return };
        self.note_memory(&gateway);
        let life = self.entrance.life();
        self.entrance.note_ending();
        gateway.terminate();
        if life.end == End::Announced {
            // Checked as a load balancer does.
            while !says_not_ready(&gateway).await {
                sleep(Duration::from_millis(20)).await;
            }
            self.entrance.set_serving(false);
        }
        let (status, log) = gateway.ended().await;
        self.entrance.set_serving(false);
        judge.ensure(status.code() == Some(0), || format!("life {} ended with {status}", life.number));
        judge.ensure(log.is_empty(), || format!("life {} logged an error: {log}", life.number));
    }

    /// The metrics of the current life.
    pub async fn metrics(&self) -> BTreeMap<String, f64> {
        let gateway = self.gateway.lock().await;
        self.note_memory(gateway.as_ref().expect("a life is on"));
        gateway.as_ref().expect("a life is on").metrics().await
    }

    /// The peak memory of all lives, in KiB.
    pub fn most_memory(&self) -> u64 {
        *self.most_memory.lock().unwrap()
    }

    fn note_memory(&self, gateway: &Gateway) {
        let mut most = self.most_memory.lock().unwrap();
        *most = (*most).max(gateway.peak_memory());
    }
}

impl Resources {
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
