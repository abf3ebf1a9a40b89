//! The soak of a fleet: three gateways behind HAProxy share one Redis, and clients reach another replica with every request.
//! Redis is killed, suspended, emptied, cut off and failed over, and gateways are stopped, killed and suspended.
//!
//! Outside outages, a read is never older than a change that a client was told about. Inside them, and for one lease after,
//! it is never older than its TTL.

mod faults;
mod outages;
mod redis;
mod replicas;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinSet, time::sleep};

use self::{
    faults::Fault,
    outages::{Outages, UnacknowledgedChanges},
    redis::SharedRedis,
    replicas::Replicas,
};
use crate::{
    CLIENTS, MEMORY, STALE_IF_ERROR, SUBSCRIBERS, UPSTREAM_TIMEOUT,
    documents::Documents,
    entrance::Entrance,
    grants,
    judge::Judge,
    lives::RECOVERY,
    load::{Client, Load},
    mode::Mode,
    moods, recovery,
    report::{self, Expectations},
    settings,
    subscribers::Subscriber,
    swaps,
    upstream::{Upstream, free_port},
    world::World,
};

/// The default of `shared.lease`.
pub const LEASE: Duration = Duration::from_secs(2);

/// Longer than replicas rely on a lease (nine tenths of it): a replica that has not acknowledged a change by then trusts no copy.
const PUBLISH_TIMEOUT: Duration = Duration::from_millis(1900);

/// The TTL of appointments and pages: long, so that a replica that misses a change serves old data for a long time.
pub const TTL: Duration = Duration::from_secs(6);

/// Healthy phases of the upstream are so many times longer than in the soak of a single gateway, whose subject it is.
const HEALTHY: u64 = 6;

/// How long the fleet stays undisturbed between two faults.
const REST: Duration = Duration::from_millis(1500);

/// The least share of reads that begin outside outages, in percent.
const STRICT_PERCENT: u64 = 10;

/// Whether all properties hold, first with a single Redis, then with sentinels.
pub async fn soak(duration: Duration, seed: u64) -> bool {
    let single = run(SharedRedis::single().await, duration.mul_f64(0.65), seed).await;
    let sentinels = run(SharedRedis::with_sentinels().await, duration.mul_f64(0.35), seed + 1).await;
    if !single || !sentinels {
        println!("Broken. SOAK_SEED={seed} repeats the script.");
    }
    single && sentinels
}

async fn run(redis: SharedRedis, duration: Duration, seed: u64) -> bool {
    println!("## A fleet with {}, for {duration:?}\n", redis.description());
    let world = Arc::new(World::new());
    let upstream = Upstream::start(world.clone(), seed).await;
    let judge = Judge::new(world.clone(), TTL + UPSTREAM_TIMEOUT, STALE_IF_ERROR).of_fleet(LEASE);
    let judge = Arc::new(judge);
    let entrance = Arc::new(Entrance::of_load_balancer(free_port()));
    let documents = Arc::new(Documents::new());
    let mut rng = fastrand::Rng::with_seed(seed);
    let settings = settings(&documents);
    let replicas = Replicas::start(entrance.clone(), judge.clone(), settings, &upstream.url(), &redis).await;
    replicas.until_joined().await;

    let (over, is_over) = watch::channel(false);
    let load = Arc::new(Load {
        entrance: entrance.clone(),
        judge: judge.clone(),
        documents: documents.clone(),
        over: is_over,
    });
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(Client::new(load.clone(), number, seed).run());
    }
    for number in 0..2 * SUBSCRIBERS {
        clients.spawn(Subscriber::new(load.clone(), number, seed).run(number % 2 == 0));
    }
    let moods = tokio::spawn(moods(upstream.clone(), rng.fork(), duration, HEALTHY));
    let grants = tokio::spawn(grants(world.clone(), rng.fork()));
    let swaps = tokio::spawn(swaps(documents.clone(), rng.fork()));

    let unacknowledged = UnacknowledgedChanges::watch(replicas.ports());
    let mut shared =
        Shared { redis, replicas, outages: Outages::new(), unacknowledged, faults: BTreeMap::new() };
    let began = Instant::now();
    let mut faults = Vec::new();
    while began.elapsed() < duration {
        let Some(fault) = faults.pop() else {
            faults = shared.redis.faults().to_vec();
            rng.shuffle(&mut faults);
            continue;
        };
        sleep(REST).await;
        shared.disturb(fault, &mut rng).await;
    }
    sleep(REST).await;

    moods.abort();
    grants.abort();
    swaps.abort();
    world.grant_all();
    upstream.behave(Mode::Healthy).await;
    let _ = over.send(true);
    while let Some(ended) = clients.join_next().await {
        judge.ensure(ended.is_ok(), || format!("a client of the soak failed: {ended:?}"));
    }
    let recovered = recovery(entrance.port(), &judge).await;
    judge.ensure(recovered, || format!("all is not well {RECOVERY:?} after the far side is"));
    shared.finish(&judge, &upstream).await
}

/// Redis, the replicas, and their outages.
struct Shared {
    redis: SharedRedis,
    replicas: Replicas,
    outages: Outages,
    unacknowledged: UnacknowledgedChanges,
    faults: BTreeMap<Fault, u64>,
}

impl Shared {
    /// Ends all processes, judges the old data that clients were served, and prints the report.
    async fn finish(mut self, judge: &Judge, upstream: &Upstream) -> bool {
        let logs = self.replicas.stop_all().await;
        let left = self.outages.read_logs(&logs);
        let (unacknowledged, unprompted) = self.outages.read_changes(&self.unacknowledged);
        let doubts = judge.take_doubts();
        let (explained, wrong) =
            doubts.into_iter().partition::<Vec<_>, _>(|doubt| self.outages.explain(doubt.asked));
        for doubt in &wrong {
            judge.wrong(format!(
                "{} {:?} after the start",
                doubt.what,
                self.outages.since_start(doubt.asked)
            ));
        }
        let (found, counts) = (&judge.counts, &upstream.counts);
        let load = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        let (asked_for, repeated) = judge.world().changes();
        let mut expectations = Expectations::new();
        expectations.at_most("wrong answers", 0, load(&found.wrong));
        expectations.at_most(
            "reads older than an acknowledged change, outside outages",
            0,
            wrong.len() as u64,
        );
        expectations.at_least(
            "share of the time outside outages, %",
            STRICT_PERCENT,
            self.outages.strict_percent(),
        );
        expectations.at_most("answers lost", 0, load(&found.lost));
        expectations.at_most("other faults", 0, load(&found.other));
        expectations.at_most("changes sent upstream", load(&found.changes_needed), asked_for as u64);
        expectations.at_most("changes sent more than once", 0, repeated as u64);
        expectations.at_most("calls to no endpoint", 0, load(&counts.unknown));
        expectations.at_most("peak memory of a gateway, MiB", MEMORY, self.replicas.most_memory() / 1024);
        println!(
            "{}\n{}\n\n{}\n",
            report::requests(judge),
            report::codes(&judge.codes()),
            report::modes(upstream)
        );
        let faults = self.faults.iter().map(|(fault, count)| format!("{fault:?} {count}"));
        println!("Faults of Redis and of gateways: {}.\n", faults.collect::<Vec<_>>().join(", "));
        println!(
            "Replicas left the fleet {left} times. Changes answered without all acknowledgements: {unacknowledged}, \
             {unprompted} of them without an outage. Reads that may have missed one of them, or were served during an \
             outage, and are older than a change that a client was told about: {}.\n",
            explained.len()
        );
        println!("{}", expectations.table());
        for violation in judge.violations() {
            println!("- {violation}");
        }
        if !wrong.is_empty() {
            println!("Times that explain old data: {}.", self.outages.timeline());
        }
        expectations.are_kept()
    }
}
