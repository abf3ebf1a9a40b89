//! The soak test: clients of every kind load a gateway that is terminated and restarted, in front of an upstream that
//! misbehaves in every way. Every response is compared with the true state, and at the end no resource has leaked.
//!
//! `cargo test --test soak` takes half a minute, `SOAK=10m cargo test --release --test soak` ten minutes. `SOAK_SEED`
//! repeats the script of a run: the behaviour of the upstream over time, the requests of each client, and the restarts.
//! It does not repeat their interleaving.
//!
//! `cargo test --test soak -- fleet` does the same with a fleet ([`fleet`]). It needs Redis and HAProxy.

#![expect(unreachable_pub, reason = "a test binary has no outside")]
#![expect(clippy::unwrap_used, reason = "a lock that is poisoned ends the soak")]
#![expect(clippy::print_stdout, reason = "the report is what it is for")]

mod world;

mod misbehaviour;
mod mode;
mod upstream;

mod connection;
mod documents;
mod entrance;
mod load;
mod malformed;
mod subscribers;

mod gateway;
mod lives;

mod judge;
mod report;

mod fleet;
#[path = "../fleet/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the soak needs a part of it")]
mod support;

use std::{
    process::ExitCode,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{sync::watch, task::JoinSet, time::sleep};

use documents::Documents;
use entrance::{End, Entrance};
use judge::{Asked, Judge, Outcome, Selection};
use lives::{Lives, RECOVERY, Resources};
use load::{Client, Load};
use mode::Mode;
use report::Expectations;
use subscribers::{POLLED, Subscriber};
use upstream::{Upstream, free_port};
use world::{APPOINTMENTS, TOKENS, World, id, token};

/// The number of clients, and of subscribers per transport.
const CLIENTS: usize = 32;
const SUBSCRIBERS: usize = 8;

const MAX_CONCURRENT: usize = 16;
const RETRY_PERCENT: u64 = 20;
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(1);
const CACHE_TTL: Duration = Duration::from_secs(1);
const STALE_IF_ERROR: Duration = Duration::from_secs(3);

/// Maximum memory of a life, in MiB.
const MEMORY: u64 = 96;

/// The settings of the gateway: short times, so that much happens.
fn settings(documents: &Documents) -> Vec<(&'static str, String)> {
    let milliseconds = |duration: Duration| format!("{}ms", duration.as_millis());
    let mut settings = vec![
        ("upstream.timeout", milliseconds(UPSTREAM_TIMEOUT)),
        ("upstream.connect_timeout", "500ms".to_owned()),
        ("upstream.max_concurrent", MAX_CONCURRENT.to_string()),
        ("upstream.max_waiting", "256".to_owned()),
        ("upstream.max_response", "256KiB".to_owned()),
        ("upstream.retry_percent", RETRY_PERCENT.to_string()),
        ("upstream.breaker_window", "2s".to_owned()),
        ("upstream.breaker_pause", "300ms".to_owned()),
        ("cache.ttl", milliseconds(CACHE_TTL)),
        ("cache.absence_ttl", "500ms".to_owned()),
        ("cache.list_ttl", "500ms".to_owned()),
        ("cache.stale_if_error", milliseconds(STALE_IF_ERROR)),
        ("cache.stale_while_revalidate", "200ms".to_owned()),
        ("live.fast_interval", milliseconds(POLLED)),
        ("live.slow_interval", "1s".to_owned()),
        ("live.keep_alive", "5s".to_owned()),
        ("http.deadline", "3s".to_owned()),
        // Rate-limited requests would test nothing here.
        ("rate_limit.per_second", "0".to_owned()),
        ("log.level", "error".to_owned()),
    ];
    settings.extend(documents.settings());
    settings
}

#[tokio::main]
async fn main() -> ExitCode {
    let duration = match std::env::var("SOAK").map(|text| humantime::parse_duration(&text)) {
        Ok(Ok(duration)) => duration,
        Ok(Err(error)) => {
            println!("SOAK: {error}. Say how long to go on, as in SOAK=10m.");
            return ExitCode::from(2);
        }
        Err(_) => Duration::from_secs(25),
    };
    let seed = std::env::var("SOAK_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(0..1_000_000));
    println!("A soak of {duration:?}; SOAK_SEED={seed} repeats its script.\n");
    let is_fleet = std::env::args().any(|argument| argument == "fleet");
    let is_kept = if is_fleet { fleet::soak(duration, seed).await } else { soak(duration, seed).await };
    if is_kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether all properties hold.
async fn soak(duration: Duration, seed: u64) -> bool {
    let world = Arc::new(World::new());
    let upstream = Upstream::start(world.clone(), seed).await;
    let judge = Arc::new(Judge::new(world.clone(), CACHE_TTL + UPSTREAM_TIMEOUT, STALE_IF_ERROR));
    let documents = Arc::new(Documents::new());
    let entrance = Arc::new(Entrance::of_gateway(free_port()));
    let lives = Arc::new(Lives::new(entrance.clone(), upstream.clone(), settings(&documents)));
    let mut rng = fastrand::Rng::with_seed(seed);

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
    let moods = tokio::spawn(moods(upstream.clone(), rng.fork(), duration, 1));
    let grants = tokio::spawn(grants(world.clone(), rng.fork()));
    let swaps = tokio::spawn(swaps(documents.clone(), rng.fork()));

    // At least three lives, and time for every mode of the upstream in the shortest run.
    let (began, life) = (Instant::now(), (duration / 3).min(Duration::from_secs(20)));
    let mut at_rest = lives.begin(End::Announced).await;
    let mut end = End::Blunt;
    while began.elapsed() + life < duration {
        sleep(life.mul_f64(0.7 + 0.3 * rng.f64())).await;
        lives.end(&judge).await;
        at_rest = lives.begin(end).await;
        end = if end == End::Blunt { End::Announced } else { End::Blunt };
    }
    sleep(duration.saturating_sub(began.elapsed())).await;

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
    let left = lives.holdings(at_rest).await;
    let panics = lives.metrics().await["gateway_panics_total"];
    judge.ensure(panics == 0.0, || format!("{panics} panics"));

    let expectations = expectations(&judge, &upstream, &lives, entrance.ended(), at_rest, left);
    println!(
        "{}\n{}\n\n{}\n",
        report::requests(&judge),
        report::codes(&judge.codes()),
        report::modes(&upstream)
    );
    let [events, stale] =
        [&judge.counts.events, &judge.counts.stale].map(|count| count.load(Ordering::Relaxed));
    println!(
        "Events of subscriptions: {events}. Answers that were stale in some place and said so: {stale}.\n"
    );
    println!("The gateway was terminated and restarted {} times under load.\n", entrance.ended());
    println!("{}", expectations.table());
    for violation in judge.violations() {
        println!("- {violation}");
    }
    if !expectations.are_kept() {
        println!("Broken. SOAK_SEED={seed} repeats the script.");
    }
    expectations.are_kept()
}

/// Runs through the modes of the upstream in random order, repeatedly, with healthy phases in between, which last `rest`
/// times half as long.
async fn moods(upstream: Arc<Upstream>, mut rng: fastrand::Rng, duration: Duration, rest: u64) {
    // In a short run each mode still has to occur.
    let longest = (duration / 25).min(Duration::from_secs(3)).as_millis() as u64;
    loop {
        let mut modes = Mode::BAD;
        rng.shuffle(&mut modes);
        for mode in modes {
            upstream.behave(mode).await;
            sleep(Duration::from_millis(rng.u64(longest / 3..longest))).await;
            upstream.behave(Mode::Healthy).await;
            sleep(rest as u32 * Duration::from_millis(rng.u64(longest / 6..longest / 2))).await;
        }
    }
}

/// Revokes and restores the access of callers to some of their appointments, repeatedly.
async fn grants(world: Arc<World>, mut rng: fastrand::Rng) {
    loop {
        sleep(Duration::from_millis(100)).await;
        world.turn(&mut rng);
    }
}

/// Swaps a trusted document, repeatedly.
async fn swaps(documents: Arc<Documents>, mut rng: fastrand::Rng) {
    loop {
        sleep(Duration::from_millis(rng.u64(3500..6000))).await;
        documents.swap(&mut rng);
    }
}

/// Waits until every caller receives all its data; returns whether that happens.
async fn recovery(port: u16, judge: &Judge) -> bool {
    let began = Instant::now();
    let query = documents::several(Selection::Full);
    let all = (0..APPOINTMENTS).collect::<Vec<_>>();
    let variables = json!({ "ids": all.iter().map(|it| id(*it)).collect::<Vec<_>>() });
    while began.elapsed() < RECOVERY {
        let mut is_well = true;
        for number in 0..TOKENS {
            let asked = Asked::now(judge.world(), number);
            let request = connection::Request::post(Some(&token(number)), &query, &variables, false);
            judge.counts.reads_needed.fetch_add(APPOINTMENTS as u64, Ordering::Relaxed);
            let Ok(mut connection) = connection::Connection::open(port).await else { return false };
            let Ok(reply) = connection.exchange(&request).await else { return false };
            let verdict = judge.appointments(&asked, "appointmentsByIds", &all, Selection::Full, &reply);
            is_well &= verdict == Ok(Outcome::Right) && reply.body.get("extensions").is_none();
            judge.settle("after it all", &reply, verdict);
        }
        if is_well {
            return true;
        }
        sleep(Duration::from_millis(200)).await;
    }
    false
}

fn expectations(
    judge: &Judge,
    upstream: &Upstream,
    lives: &Lives,
    restarts: usize,
    start: Resources,
    end: Resources,
) -> Expectations {
    let (counts, found) = (&upstream.counts, &judge.counts);
    let load = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    let (asked_for, repeated) = judge.world().changes();
    let changes = load(&found.changes_needed);
    // A change may trigger a poll for every subscriber.
    let needed = load(&found.reads_needed) + changes * TOKENS as u64;
    // Each life begins with a budget of ten retries.
    let reads = needed + needed * RETRY_PERCENT / 100 + 10 * (restarts as u64 + 1);
    let mut expectations = Expectations::new();
    expectations.at_most("wrong answers", 0, load(&found.wrong));
    expectations.at_most("answers lost, while draining or ever", 0, load(&found.lost));
    expectations.at_most("other faults", 0, load(&found.other));
    expectations.at_most("GETs upstream, all repetitions among them", reads, load(&counts.reads));
    expectations.at_most("GETs after redirects", 3 * load(&counts.reads), load(&counts.hops));
    expectations.at_most("changes sent upstream", changes, asked_for as u64);
    expectations.at_most("changes sent more than once", 0, repeated as u64);
    expectations.at_most(
        "calls upstream in flight",
        MAX_CONCURRENT as u64,
        counts.most_in_flight.load(Ordering::Relaxed) as u64,
    );
    expectations.at_most("calls to where a redirect leads abroad", 0, load(&counts.strayed));
    expectations.at_most("calls to no endpoint", 0, load(&counts.unknown));
    expectations.at_most("peak memory of the gateway, MiB", MEMORY, lives.most_memory() / 1024);
    expectations.equal("tasks at the end", start.tasks, end.tasks);
    expectations.equal("open files at the end", start.open_files, end.open_files);
    expectations
}
