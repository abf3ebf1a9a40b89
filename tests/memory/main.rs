//! The memory test: while a million distinct pairs of token and id pass through the gateway, its memory stays below a
//! bound, and a caller with few appointments keeps its cache hits.
//!
//! `cargo test --release --test memory` runs it and prints the figures; `-- 100000` uses that many pairs. The environment
//! variable `PROGRAM` names another build of the gateway. The test is not
//! part of `cargo test`: it takes some minutes, and its figures apply to optimised builds only.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test that says what it has measured")]

mod client;
mod upstream;

use std::{
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use client::Connection;
use upstream::Upstream;

/// Maximum peak memory of the whole process.
const CEILING: u64 = 160 * 1024 * 1024;

/// Minimum cache hits of the quiet caller, per thousand.
const LEAST_HITS: usize = 990;

/// One caller requests half of them; the other half is split among callers with a hundred each.
const PAIRS: usize = 1_000_000;

/// The maximum number of ids per request.
const BATCH: usize = 100;

/// The number of concurrent connections.
const AT_ONCE: usize = 4;

/// The number of appointments that the quiet caller requests repeatedly, and the pause in between.
const LITTLE: usize = 50;
const PAUSE: Duration = Duration::from_millis(50);

/// Nothing expires, so that the cache fills up.
const SETTINGS: [(&str, &str); 4] =
    [("CACHE_SIZE", "64MiB"), ("CACHE_TTL", "10m"), ("LOG_LEVEL", "error"), ("GRAPHIQL_ENABLED", "false")];

/// The token of a batch.
type TokenOf = fn(usize) -> String;

#[tokio::main]
async fn main() {
    let pairs = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(PAIRS);
    let upstream = Upstream::start();
    let gateway = Gateway::start(upstream.address()).await;
    println!("memory at the start       {}", mebibytes(gateway.memory("VmRSS:")));

    let quiet = Quiet::start(&gateway, &upstream);
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Excludes the first round, when the cache is empty.
    quiet.take();
    tokio::time::sleep(Duration::from_secs(2)).await;
    report("quiet caller alone", quiet.take());

    let mut beside = Vec::new();
    let sources: [(&str, TokenOf); 2] =
        [("one caller", |_| "noisy".to_owned()), ("many callers", |batch| format!("one-of-many-{batch}"))];
    for (name, token) in sources {
        let started = Instant::now();
        ask(&gateway, pairs / 2, token).await;
        let took = started.elapsed();
        println!(
            "{} pairs of {name}: {took:.1?}, {:.0} a second; memory {}",
            pairs / 2,
            pairs as f64 / 2.0 / took.as_secs_f64(),
            mebibytes(gateway.memory("VmRSS:"))
        );
        beside.push((name, quiet.take()));
        report(&format!("quiet caller beside {name}"), beside.last().unwrap().1);
        let mut metrics = Connection::open(&gateway.address).await;
        let entries = metrics.metric("gateway_cache_entries{cache=\"appointments\"}").await;
        let size = metrics.metric("gateway_cache_size_bytes{cache=\"appointments\"}").await;
        println!("kept: {entries} appointments, which count for {}", mebibytes(size as u64));
    }
    println!("calls to the upstream     {}", upstream.calls());
    let peak = gateway.memory("VmHWM:");
    println!("peak of the memory        {}, of {} allowed", mebibytes(peak), mebibytes(CEILING));
    assert!(upstream.calls() >= pairs, "each pair is asked for");
    assert!(peak <= CEILING, "the peak of the memory is {peak} bytes");
    for (name, (asked, missed)) in beside {
        assert!(
            (asked - missed) * 1000 >= asked * LEAST_HITS,
            "beside {name} the quiet caller misses {missed} of {asked}"
        );
    }
}

fn report(what: &str, (asked, missed): (usize, usize)) {
    let hits = 100.0 * (asked - missed) as f64 / asked as f64;
    println!("{what}: {asked} asked for, {missed} fetched, {hits:.2} % found");
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / 1024.0 / 1024.0)
}

/// Requests `pairs` distinct pairs in batches of ids, each with the token given by `token`, and checks each response.
async fn ask(gateway: &Gateway, pairs: usize, token: TokenOf) {
    let next = Arc::new(AtomicUsize::new(0));
    let asking = (0..AT_ONCE).map(|_| {
        let (next, address) = (next.clone(), gateway.address.clone());
        tokio::spawn(async move {
            let mut connection = Connection::open(&address).await;
            loop {
                let batch = next.fetch_add(1, Ordering::Relaxed);
                if batch * BATCH >= pairs {
                    return;
                }
                connection.ask(&token(batch), (batch * BATCH)..((batch + 1) * BATCH)).await;
            }
        })
    });
    for asking in asking.collect::<Vec<_>>() {
        asking.await.unwrap();
    }
}

/// A caller that requests the same few appointments repeatedly, in the background.
struct Quiet {
    asked: Arc<AtomicUsize>,
    seen: AtomicUsize,
    upstream: Upstream,
    is_over: Arc<AtomicBool>,
}

impl Quiet {
    fn start(gateway: &Gateway, upstream: &Upstream) -> Self {
        let (asked, is_over) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        tokio::spawn({
            let (address, asked, is_over) = (gateway.address.clone(), asked.clone(), is_over.clone());
            async move {
                let mut connection = Connection::open(&address).await;
                while !is_over.load(Ordering::Relaxed) {
                    connection.ask(upstream::QUIET, 0..LITTLE).await;
                    asked.fetch_add(LITTLE, Ordering::Relaxed);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        });
        Self { asked, seen: AtomicUsize::new(0), upstream: upstream.clone(), is_over }
    }

    /// The number of requested and of fetched appointments since the last call.
    fn take(&self) -> (usize, usize) {
        let fetched = self.upstream.calls_of_quiet();
        let missed = fetched - self.seen.swap(fetched, Ordering::Relaxed);
        (self.asked.swap(0, Ordering::Relaxed), missed)
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// The gateway process. Dropping it kills it.
struct Gateway {
    child: Child,
    address: String,
}

impl Gateway {
    async fn start(upstream: &str) -> Self {
        let program = std::env::var_os("PROGRAM");
        let program = program.unwrap_or_else(|| env!("CARGO_BIN_EXE_appointments-gateway").into());
        let mut command = Command::new(program);
        command
            .arg("serve")
            .env_clear()
            .env("GATEWAY_LISTEN", "127.0.0.1:0")
            .env("GATEWAY_UPSTREAM_URL", format!("http://{upstream}"))
            .envs(SETTINGS.map(|(key, value)| (format!("GATEWAY_{key}"), value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while let Some(line) = lines.next_line().await.unwrap() {
            let address =
                line.trim().strip_prefix("GraphQL").and_then(|rest| rest.trim().strip_prefix("http://"));
            if let Some(address) = address.and_then(|rest| rest.strip_suffix("/graphql")) {
                let address = address.to_owned();
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return Self { child, address };
            }
        }
        panic!("the gateway says where it listens");
    }

    /// A value of the process status, in bytes.
    fn memory(&self, what: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
        line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
    }
}
