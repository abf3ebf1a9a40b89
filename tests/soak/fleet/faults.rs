//! The faults of Redis and of the gateways.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::{LEASE, Shared, redis::SharedRedis, replicas::REPLICAS};

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Redis is killed, and starts with its data.
    KillRedis,
    /// Redis is killed, and starts without data.
    EmptyRedis,
    /// Redis is suspended for longer than a lease.
    SuspendRedis,
    /// Redis loses its data while it runs.
    FlushRedis,
    /// One replica cannot reach Redis.
    CutOffOne,
    /// No replica can reach Redis.
    CutOffAll,
    /// The connections of one replica break.
    Interrupt,
    /// A gateway stops gracefully, and starts again.
    StopGateway,
    /// A gateway is killed, and starts again.
    KillGateway,
    /// A gateway is suspended for longer than a lease.
    SuspendGateway,
    /// The sentinels choose another master, and both servers live.
    FailOver,
    /// The master is killed, and starts again as a replica.
    KillMaster,
    /// The master is suspended until the sentinels have chosen another one.
    SuspendMaster,
}

impl Fault {
    /// Whether Redis fails, for one replica at least. Gateways that stop, or stand still, suspend no promise.
    fn is_outage(self) -> bool {
        !matches!(self, Self::StopGateway | Self::KillGateway | Self::SuspendGateway)
    }
}

/// How long Redis fails.
const LENGTH: Duration = Duration::from_millis(1000);

impl Shared {
    /// Makes `fault` happen, and waits until the fleet is whole again.
    pub async fn disturb(&mut self, fault: Fault, rng: &mut fastrand::Rng) {
        *self.faults.entry(fault).or_default() += 1;
        let (begin, index) = (Instant::now(), rng.usize(0..REPLICAS));
        let pause = LENGTH.mul_f64(0.5 + rng.f64());
        let Self { redis, replicas, .. } = self;
        match (fault, redis) {
            (Fault::StopGateway, _) => replicas.restart(index).await,
            (Fault::KillGateway, _) => replicas.kill(index).await,
            (Fault::SuspendGateway, _) => replicas.suspend(index, LEASE + pause).await,
            (Fault::KillRedis, SharedRedis::Single(redis)) => {
                redis.save().await;
                redis.kill().await;
                sleep(pause).await;
                redis.run().await;
            }
            (Fault::EmptyRedis, SharedRedis::Single(redis)) => {
                redis.kill().await;
                sleep(pause).await;
                redis.run_empty().await;
            }
            (Fault::SuspendRedis, SharedRedis::Single(redis)) => {
                redis.suspend();
                replicas.until_alone(index).await;
                sleep(pause).await;
                redis.resume();
            }
            (Fault::FlushRedis, SharedRedis::Single(redis)) => {
                redis.flush().await;
                // Until all have noticed it.
                sleep(LEASE).await;
            }
            (Fault::CutOffOne, _) => {
                let proxy = replicas.proxies()[index];
                if rng.bool() {
                    proxy.cut()
                } else {
                    proxy.hold()
                }
                replicas.until_alone(index).await;
                sleep(pause).await;
                replicas.proxies()[index].mend();
            }
            (Fault::CutOffAll, _) => {
                replicas.proxies().iter().for_each(|proxy| proxy.hold());
                replicas.until_alone(index).await;
                sleep(pause).await;
                replicas.proxies().iter().for_each(|proxy| proxy.mend());
            }
            (Fault::Interrupt, _) => {
                for _ in 0..5 {
                    replicas.proxies()[index].interrupt();
                    sleep(pause / 5).await;
                }
            }
            (Fault::FailOver, SharedRedis::Sentinels(sentinels)) => {
                sentinels.fail_over().await;
                sleep(LEASE).await;
            }
            (Fault::KillMaster, SharedRedis::Sentinels(sentinels)) => {
                let port = sentinels.master_port().await;
                sentinels.master().await.kill().await;
                sentinels.until_master_is_not(port).await;
                sentinels.server(port).run().await;
                sleep(LEASE).await;
            }
            (Fault::SuspendMaster, SharedRedis::Sentinels(sentinels)) => {
                let port = sentinels.master_port().await;
                sentinels.server(port).suspend();
                sentinels.until_master_is_not(port).await;
                sleep(pause).await;
                sentinels.server(port).resume();
                sleep(LEASE).await;
            }
            (fault, _) => unreachable!("{fault:?} needs another Redis"),
        }
        self.replicas.until_joined().await;
        if let SharedRedis::Sentinels(sentinels) = &self.redis {
            sentinels.until_ready().await;
        }
        if fault.is_outage() {
            self.outages.note(begin);
        }
    }
}
