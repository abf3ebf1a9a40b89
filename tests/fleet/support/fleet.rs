//! Several gateways that share a Redis.

use std::ops::{Deref, Index};

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::time::timeout;

use super::{FleetKeys, Gateway, Proxy, Redis, TIMEOUT, Upstream, eventually, id, signal};

/// Generous times, so that a slow machine breaks no promise: a change answered without all acknowledgements promises
/// nothing. Tests of these times set their own.
const SETTINGS: [(&str, &str); 4] = [
    ("shared.timeout", "500ms"),
    ("shared.lease", "5s"),
    ("shared.publish_timeout", "3s"),
    ("cache.ttl", "10m"),
];

/// A Redis and the gateways that share it, each behind a proxy of its own. `fleet[0]` is the first replica.
pub struct Fleet {
    pub redis: Redis,
    pub keys: FleetKeys,
    replicas: Vec<Replica>,
    upstream: String,
    settings: Vec<(String, String)>,
}

/// A gateway of a fleet, and its way to Redis.
pub struct Replica {
    gateway: Gateway,
    pub proxy: Proxy,
}

impl Fleet {
    /// Starts `count` replicas in front of `upstream`, and waits until all have joined. `settings` apply to each.
    pub async fn before(upstream: &Upstream, count: usize, settings: &[(&str, &str)]) -> Self {
        let fleet = Self::sharing(Redis::start().await, upstream, count, settings).await;
        fleet.until_joined().await;
        fleet
    }

    /// Starts `count` replicas that share `redis`, which need not run, and does not wait until they have joined.
    pub async fn sharing(redis: Redis, upstream: &Upstream, count: usize, settings: &[(&str, &str)]) -> Self {
        let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let keys = FleetKeys::generate();
        let mut fleet =
            Self { redis, keys, replicas: Vec::new(), upstream: upstream.url().to_owned(), settings };
        fleet.replicas = join_all((0..count).map(|_| fleet.new_replica(&[]))).await;
        fleet
    }

    /// The settings of a replica whose Redis is at `url`.
    pub fn settings_with<'f>(&'f self, url: &'f str) -> Vec<(&'f str, &'f str)> {
        let own = self.settings.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let shared = [("shared.url", url), ("shared.key_file", self.keys.path())];
        SETTINGS.into_iter().chain(shared).chain(own).collect()
    }

    async fn new_replica(&self, settings: &[(&str, &str)]) -> Replica {
        let proxy = Proxy::before(self.redis.port()).await;
        let gateway = self.start_gateway(&proxy, settings).await;
        Replica { gateway, proxy }
    }

    async fn start_gateway(&self, proxy: &Proxy, settings: &[(&str, &str)]) -> Gateway {
        let url = proxy.url();
        Gateway::before(&self.upstream, &[&self.settings_with(&url), settings].concat()).await
    }

    /// The status of an appointment as `token` reads it through each replica at the same time.
    pub async fn statuses(&self, token: &str, id: &str) -> Vec<String> {
        join_all(self.replicas.iter().map(|replica| replica.status(token, id))).await
    }

    /// Each replica makes a change, and once all others have acknowledged one, it is read through all of them. An outage that
    /// has just ended may still keep a change from being acknowledged; then nothing is promised, and it makes another one.
    pub async fn assert_agreement(&self) {
        self.until_joined().await;
        let id = id(0xa9ee);
        for (author, replica) in self.replicas.iter().enumerate() {
            eventually("the replicas agree", async || {
                // All have a copy, so that a replica that missed the change would serve it.
                self.statuses("token", &id).await;
                let status = format!("agreement {}", fastrand::u32(..));
                let before = replica.changes("acknowledged").await;
                replica.set_status("token", &id, &status).await;
                let is_acknowledged = replica.changes("acknowledged").await > before;
                let read = self.statuses("token", &id).await;
                let is_read = read.iter().all(|it| *it == status);
                assert!(
                    is_read || !is_acknowledged,
                    "{status} of replica {author} was acknowledged: {read:?}"
                );
                is_acknowledged
            })
            .await;
        }
    }

    /// The Redis and the replicas, for disturbing one while using the others.
    pub fn parts(&mut self) -> (&mut Redis, &[Replica]) {
        (&mut self.redis, &self.replicas)
    }

    /// The replicas.
    pub fn replicas(&self) -> &[Replica] {
        &self.replicas
    }

    /// Adds a replica with further `settings`, and waits until it has joined. Returns its index.
    pub async fn add(&mut self, settings: &[(&str, &str)]) -> usize {
        let replica = self.new_replica(settings).await;
        replica.until_joined().await;
        self.replicas.push(replica);
        self.replicas.len() - 1
    }

    /// Removes a replica: kills it, as it is dropped.
    pub fn remove(&mut self, index: usize) {
        drop(self.replicas.remove(index));
    }

    /// Shuts a replica down gracefully, and removes it.
    pub async fn shut_down(&mut self, index: usize) {
        let mut replica = self.replicas.remove(index);
        replica.gateway.terminate();
        replica.gateway.ended().await;
    }

    /// Replaces the process of a replica by a new one with further `settings`, and waits until it has joined. The old one
    /// shuts down gracefully.
    pub async fn restart(&mut self, index: usize, settings: &[(&str, &str)]) {
        let replica = &mut self.replicas[index];
        replica.gateway.terminate();
        replica.gateway.ended().await;
        let gateway = self.start_gateway(&self.replicas[index].proxy, settings).await;
        self.replicas[index].gateway = gateway;
        self.replicas[index].until_joined().await;
    }

    /// Kills the process of a replica (SIGKILL) and starts a new one. Waits until it has joined.
    pub async fn kill_and_restart(&mut self, index: usize) {
        signal(&self.replicas[index], Signal::SIGKILL);
        self.replicas[index].gateway.ended().await;
        let gateway = self.start_gateway(&self.replicas[index].proxy, &[]).await;
        self.replicas[index].gateway = gateway;
        self.replicas[index].until_joined().await;
    }

    /// Waits until all replicas have joined.
    pub async fn until_joined(&self) {
        join_all(self.replicas.iter().map(Replica::until_joined)).await;
    }

    /// Waits until all replicas are without the fleet.
    pub async fn until_alone(&self) {
        join_all(self.replicas.iter().map(Replica::until_alone)).await;
    }
}

impl Index<usize> for Fleet {
    type Output = Replica;

    fn index(&self, index: usize) -> &Replica {
        &self.replicas[index]
    }
}

impl Deref for Replica {
    type Target = Gateway;

    fn deref(&self) -> &Gateway {
        &self.gateway
    }
}

impl Replica {
    /// Waits until it has joined the fleet.
    pub async fn until_joined(&self) {
        self.until_gauge("gateway_shared_joined", 1.0).await;
    }

    /// Waits until it is without the fleet.
    pub async fn until_alone(&self) {
        self.until_gauge("gateway_shared_joined", 0.0).await;
    }

    /// Waits until the log has a line with `text`, `times` times in total.
    pub async fn until_logged(&self, text: &str, times: usize) {
        eventually(&format!("{text:?} is in the log {times} times"), async || self.logged(text) >= times)
            .await;
    }

    /// How many lines of the log contain `text`.
    pub fn logged(&self, text: &str) -> usize {
        self.stderr().lines().filter(|line| line.contains(text)).count()
    }

    /// Its changes with this outcome: `acknowledged`, `unacknowledged` or `unpublished`.
    pub async fn changes(&self, outcome: &str) -> f64 {
        self.metrics().await[&format!("gateway_shared_changes_total{{outcome=\"{outcome}\"}}")]
    }

    /// The status of an appointment, as `token` reads it.
    pub async fn status(&self, token: &str, id: &str) -> String {
        let reply = self.appointment(token, id).await;
        reply.appointment()["status"]
            .as_str()
            .unwrap_or_else(|| panic!("no appointment: {reply:?}"))
            .to_owned()
    }

    /// Gives an appointment a status as `token`, and waits for the response.
    pub async fn set_status(&self, token: &str, id: &str, status: &str) {
        let reply = self.update(token, id, json!({ "status": status })).await;
        assert_eq!(reply.changed()["status"], status);
    }

    /// Suspends the process (SIGSTOP).
    pub fn suspend(&self) {
        signal(self, Signal::SIGSTOP);
    }

    /// Resumes the process (SIGCONT).
    pub fn resume(&self) {
        signal(self, Signal::SIGCONT);
    }

    /// The status of `/readyz`.
    pub async fn readiness(&self) -> u16 {
        let response = self.request(reqwest::Method::GET, "/readyz").send();
        let response = timeout(TIMEOUT, response).await.expect("a response in time").unwrap();
        response.status().as_u16()
    }
}
