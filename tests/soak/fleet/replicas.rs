//! The gateways of the fleet, and HAProxy in front of them.

use std::{
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::sleep,
};

use super::{LEASE, PUBLISH_TIMEOUT, TTL, redis::SharedRedis};
use crate::{
    entrance::{DRAIN_DELAY, Entrance},
    gateway::Gateway,
    judge::Judge,
    lives::RECOVERY,
    support::{FleetKeys, Proxy},
    upstream::free_port,
};

/// The number of replicas.
pub const REPLICAS: usize = 3;

/// How long HAProxy may send requests to a replica that does not serve any more.
const NOTICED: Duration = Duration::from_secs(1);

/// The time between two looks at a state.
const LOOK: Duration = Duration::from_millis(50);

pub struct Replicas {
    entrance: Arc<Entrance>,
    judge: Arc<Judge>,
    settings: Vec<(&'static str, String)>,
    slots: Vec<Slot>,
    _keys: FleetKeys,
    _haproxy: Child,
    logs: Vec<String>,
    /// In KiB.
    most_memory: u64,
}

/// The place of a replica, which outlives its process.
struct Slot {
    port: u16,
    url: String,
    proxy: Option<Proxy>,
    gateway: Option<Gateway>,
}

impl Replicas {
    /// Starts all gateways in front of the upstream, and HAProxy in front of them.
    pub async fn start(
        entrance: Arc<Entrance>,
        judge: Arc<Judge>,
        settings: Vec<(&'static str, String)>,
        upstream: &str,
        redis: &SharedRedis,
    ) -> Self {
        let keys = FleetKeys::generate();
        let milliseconds = |duration: Duration| format!("{}ms", duration.as_millis());
        let of_fleet = vec![
            ("upstream.url", upstream.to_owned()),
            ("http.drain_delay", milliseconds(DRAIN_DELAY)),
            ("http.deadline", "6s".to_owned()),
            ("cache.ttl", milliseconds(TTL)),
            ("cache.list_ttl", milliseconds(TTL)),
            ("shared.key_file", keys.path().to_owned()),
            ("shared.lease", milliseconds(LEASE)),
            ("shared.publish_timeout", milliseconds(PUBLISH_TIMEOUT)),
            ("shared.cache", "true".to_owned()),
            ("log.level", "info".to_owned()),
        ];
        let mut slots = Vec::new();
        for _ in 0..REPLICAS {
            let (url, proxy) = match redis {
                SharedRedis::Single(redis) => {
                    let proxy = Proxy::before(redis.port()).await;
                    (proxy.url(), Some(proxy))
                }
                SharedRedis::Sentinels(sentinels) => (sentinels.url(), None),
            };
            slots.push(Slot { port: free_port(), url, proxy, gateway: None });
        }
        let haproxy = haproxy(entrance.port(), &slots).await;
        let settings = [settings, of_fleet].concat();
        let (_keys, _haproxy) = (keys, haproxy);
        let mut replicas =
            Self { entrance, judge, settings, slots, _keys, _haproxy, logs: Vec::new(), most_memory: 0 };
        for index in 0..REPLICAS {
            replicas.begin(index).await;
        }
        // HAProxy has to notice it.
        sleep(NOTICED).await;
        replicas
    }

    pub fn most_memory(&self) -> u64 {
        self.most_memory
    }

    /// The ports of the gateways.
    pub fn ports(&self) -> Vec<u16> {
        self.slots.iter().map(|slot| slot.port).collect()
    }

    /// The proxies between the gateways and a single Redis.
    pub fn proxies(&self) -> Vec<&Proxy> {
        self.slots.iter().filter_map(|slot| slot.proxy.as_ref()).collect()
    }

    /// Starts the gateway of a slot.
    async fn begin(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let url = [("shared.url", slot.url.clone())];
        slot.gateway = Some(Gateway::start(slot.port, &[&self.settings[..], &url].concat()).await);
    }

    /// Stops a gateway gracefully and starts it again. No request is lost.
    pub async fn restart(&mut self, index: usize) {
        self.entrance.note_ending();
        self.stop(index).await;
        self.begin(index).await;
    }

    async fn stop(&mut self, index: usize) {
        let Some(gateway) = self.slots[index].gateway.take() else { return };
        self.note_memory(&gateway).await;
        gateway.terminate();
        let (status, log) = gateway.ended().await;
        self.judge.ensure(status.code() == Some(0), || format!("replica {index} ended with {status}: {log}"));
        self.note_log(log);
    }

    /// Kills a gateway and starts it again. Requests that it has read are lost.
    pub async fn kill(&mut self, index: usize) {
        let Some(gateway) = self.slots[index].gateway.take() else { return };
        self.entrance.begin_loss();
        gateway.signal(Signal::SIGKILL);
        let (_, log) = gateway.ended().await;
        sleep(NOTICED).await;
        self.entrance.end_loss();
        self.note_log(log);
        self.begin(index).await;
    }

    /// Suspends a gateway. Requests that it has read are answered later, or HAProxy gives them up.
    pub async fn suspend(&mut self, index: usize, duration: Duration) {
        let Some(gateway) = &self.slots[index].gateway else { return };
        self.entrance.begin_loss();
        gateway.signal(Signal::SIGSTOP);
        sleep(duration).await;
        gateway.signal(Signal::SIGCONT);
        sleep(NOTICED).await;
        self.entrance.end_loss();
    }

    /// Waits until all replicas have joined the fleet. A violation if they do not.
    pub async fn until_joined(&self) {
        let began = Instant::now();
        for (index, slot) in self.slots.iter().enumerate() {
            while !slot.is_joined().await {
                if began.elapsed() > RECOVERY {
                    return self.judge.ensure(false, || format!("replica {index} does not join again"));
                }
                sleep(LOOK).await;
            }
        }
    }

    /// Waits until a replica knows that it is alone. A violation if it does not.
    pub async fn until_alone(&self, index: usize) {
        let began = Instant::now();
        while self.slots[index].is_joined().await {
            if began.elapsed() > RECOVERY {
                return self.judge.ensure(false, || format!("replica {index} does not notice an outage"));
            }
            sleep(LOOK).await;
        }
    }

    /// Stops all gateways, and returns the logs of all that there were.
    pub async fn stop_all(&mut self) -> Vec<String> {
        for index in 0..REPLICAS {
            self.stop(index).await;
        }
        std::mem::take(&mut self.logs)
    }

    async fn note_memory(&mut self, gateway: &Gateway) {
        self.most_memory = self.most_memory.max(gateway.peak_memory());
        let panics =
            gateway.try_metrics().await.and_then(|metrics| metrics.get("gateway_panics_total").copied());
        self.judge.ensure(panics == Some(0.0), || format!("{panics:?} panics"));
    }

    fn note_log(&mut self, log: String) {
        for line in log.lines().filter(|line| line.contains(" ERROR ")) {
            self.judge.ensure(false, || format!("an error in the log: {line}"));
        }
        self.logs.push(log);
    }
}

impl Slot {
    async fn is_joined(&self) -> bool {
        let Some(gateway) = &self.gateway else { return false };
        let metrics = gateway.try_metrics().await.unwrap_or_default();
        metrics.get("gateway_shared_joined") == Some(&1.0)
    }
}

/// HAProxy with the configuration of the example, except that it takes the replicas in turn and looks more often.
async fn haproxy(port: u16, slots: &[Slot]) -> Child {
    let text = include_str!("../../../examples/fleet/haproxy.cfg");
    let text = text
        .replace("balance leastconn", "balance roundrobin")
        .replace("check inter 500ms fall 2", "check inter 200ms fall 1");
    let path = std::env::temp_dir().join(format!("fleet-haproxy-{}-{port}.cfg", std::process::id()));
    std::fs::write(&path, text).expect("the temporary directory can be written");
    let mut command = Command::new("/usr/sbin/haproxy");
    command.arg("-db").arg("-f").arg(&path).env("FLEET_PORT", port.to_string());
    for (index, slot) in slots.iter().enumerate() {
        command.env(format!("FLEET_GATEWAY_{}", index + 1), slot.port.to_string());
    }
    let child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn();
    let child = child
        .unwrap_or_else(|error| panic!("HAProxy is missing ({error}). tests/run installs it where it can."));
    while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        sleep(LOOK).await;
    }
    let _ = std::fs::remove_file(&path);
    child
}
