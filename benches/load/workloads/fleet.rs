//! Replicas that share a Redis: the cost beside a gateway that is alone, and the cost of a fleet of 100 for Redis.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    Result,
    bench::{Bench, CONNECTIONS},
    client::Client,
    exchange::{Exchange, IdSequence},
    http::OK,
    ids::id,
    measure::{Target, measure_interleaved},
    process::Process,
    queries::{self, MOBILE},
    redis::Redis,
    report::Report,
};

/// The first number of the ids for cold requests.
const FIRST_COLD: u32 = 0x3000_0000;

/// The changes of each measurement.
const CHANGES: u32 = 1000;

/// The replicas of the large fleet.
const LARGE: usize = 100;

/// The time limit for joining a fleet.
const JOIN: Duration = Duration::from_secs(60);

/// How long the large fleet is observed.
const OBSERVED: Duration = Duration::from_secs(10);

/// Small caches: only the shared state is measured.
const SMALL: [(&str, &str); 3] =
    [("CACHE_SIZE", "1MiB"), ("CACHE_LIST_SIZE", "1MiB"), ("CACHE_ANSWERS_SIZE", "1MiB")];

/// Hot and cold requests with and without `shared.url`, and the duration of a change.
pub fn replicas(bench: &Bench, report: &mut Report) -> Result<()> {
    let Some(redis) = start_redis()? else { return Ok(()) };
    let shared = redis.settings();
    let cached = [("SHARED_CACHE", "true".to_owned())];
    let alone = bench.gateway(1, &[])?;
    let replica = start(bench, &shared, &[])?;
    let caching = start(bench, &shared, &cached)?;
    wait_for_replicas(&redis, 2)?;
    for (name, ids) in [("hot, one id", IdSequence::cycle(1)), ("cold", IdSequence::distinct(FIRST_COLD))] {
        let exchange =
            |server: &Process| Exchange::record(&mut Client::open(server.address())?, &MOBILE, ids);
        let targets = [
            Target::new("alone", &alone, exchange(&alone)?),
            Target::new("replica", &replica, exchange(&replica)?),
            Target::new("replica with shared.cache", &caching, exchange(&caching)?),
        ];
        let [alone, replica, caching] = measure_interleaved(targets, CONNECTIONS, bench.plan)?;
        for (kind, series) in [("", &replica), (" and shared.cache", &caching)] {
            let cpu = series.against(&alone, |own, alone| own.cpu / alone.cpu);
            let rate = series.against(&alone, |own, alone| own.rate / alone.rate);
            let workload = format!("{name}, with shared.url{kind}");
            report.add_fact(&workload, format!("{cpu:.2} of the CPU alone, {rate:.2} of the rate"));
            if name.starts_with("hot") {
                let figure = format!("{cpu:.3}");
                report.add_goal(&workload, "≤ 1.02 of the CPU alone", figure, cpu.median <= 1.02);
            }
        }
    }
    drop((replica, caching));
    let (p50, p99) = changes(&alone)?;
    report.add_fact("a change, alone", format!("p50 {p50:.0} µs, p99 {p99:.0} µs"));
    wait_for_replicas(&redis, 0)?;
    let mut fleet = Vec::new();
    for count in [1, 3] {
        while fleet.len() < count {
            fleet.push(start(bench, &shared, &[])?);
        }
        wait_for_replicas(&redis, count)?;
        let (p50, p99) = changes(&fleet[0])?;
        let name = format!("a change, acknowledged by all of {count} replicas");
        report.add_fact(&name, format!("p50 {p50:.0} µs, p99 {p99:.0} µs"));
    }
    Ok(())
}

/// The cost of many replicas for Redis.
pub fn large(bench: &Bench, report: &mut Report) -> Result<()> {
    let Some(redis) = start_redis()? else { return Ok(()) };
    let shared = redis.settings();
    let small = SMALL.map(|(key, value)| (key, value.to_owned()));
    let mut fleet = Vec::new();
    for _ in 0..LARGE {
        fleet.push(start(bench, &shared, &small)?);
    }
    wait_for_replicas(&redis, LARGE)?;
    sleep(OBSERVED / 5);
    let figures = || -> Result<[f64; 2]> { Ok([redis.figure("total_commands_processed")?, redis.cpu()?]) };
    let (before, started) = (figures()?, Instant::now());
    sleep(OBSERVED);
    let (after, seconds) = (figures()?, started.elapsed().as_secs_f64());
    let [commands, cpu] = [0, 1].map(|it| (after[it] - before[it]) / seconds);
    let memory = redis.figure("used_memory_rss")? / 1024.0 / 1024.0;
    let own: u64 = fleet.iter().map(|it| it.memory().map(|(now, _)| now)).sum::<Result<u64>>()?;
    let own = own as f64 / LARGE as f64 / 1024.0 / 1024.0;
    report.add_fact(
        &format!("{LARGE} idle replicas"),
        format!(
            "Redis: {commands:.0} commands/s, {:.1} % of a core, {memory:.1} MiB, {:.0} connections; \
             {own:.1} MiB for each replica",
            100.0 * cpu,
            redis.figure("connected_clients")? - 1.0
        ),
    );
    let (before, started) = (figures()?, Instant::now());
    let (p50, p99) = changes(&fleet[0])?;
    let (after, seconds) = (figures()?, started.elapsed().as_secs_f64());
    let per_change = |it: usize| (after[it] - before[it]) / f64::from(CHANGES);
    report.add_fact(
        &format!("a change, acknowledged by all of {LARGE} replicas"),
        format!(
            "p50 {p50:.0} µs, p99 {p99:.0} µs; {:.0} commands and {:.0} µs of CPU in Redis, {:.0}/s",
            per_change(0),
            per_change(1) * 1e6,
            f64::from(CHANGES) / seconds
        ),
    );
    Ok(())
}

fn start_redis() -> Result<Option<Redis>> {
    let redis = Redis::start()?;
    if redis.is_none() {
        println!("  skipped: this workload needs redis-server (on Debian: apt-get install redis-server)");
    }
    Ok(redis)
}

fn start(bench: &Bench, shared: &[(&str, String)], more: &[(&str, String)]) -> Result<Process> {
    let settings: Vec<_> = shared.iter().chain(more).map(|(key, value)| (*key, value.as_str())).collect();
    bench.gateway(1, &settings)
}

/// Waits until so many replicas have a lease.
fn wait_for_replicas(redis: &Redis, count: usize) -> Result<()> {
    let started = Instant::now();
    loop {
        let text = redis.call(&["EVAL", COUNT_REPLICAS, "0"])?;
        if text.trim() == format!(":{count}") {
            return Ok(());
        }
        if started.elapsed() > JOIN {
            return Err(format!("{} instead of {count} replicas joined within {JOIN:?}", text.trim()).into());
        }
        sleep(Duration::from_millis(50));
    }
}

/// Counts the live leases. In quotes, since it is sent on a single line.
const COUNT_REPLICAS: &str = "\"local time = redis.call('TIME') return redis.call('ZCOUNT', 'gateway:members', \
    time[1] * 1000 + math.floor(time[2] / 1000), '+inf')\"";

/// The median and the 99th percentile of the duration of a change, in microseconds.
fn changes(gateway: &Process) -> Result<(f64, f64)> {
    let mut client = Client::open(gateway.address())?;
    let mut durations = Vec::new();
    for number in 0..CHANGES {
        let request = queries::change(&id(number % 100));
        let sent = Instant::now();
        let response = client.send(&request)?;
        durations.push(sent.elapsed().as_secs_f64() * 1e6);
        if response.head.status != OK || response.body != queries::CHANGED.as_bytes() {
            let body = String::from_utf8_lossy(&response.body).into_owned();
            return Err(format!("wrong response to a change: {} {body}", response.head.status).into());
        }
    }
    durations.sort_by(f64::total_cmp);
    let percentile = |it: usize| durations[(durations.len() * it / 100).min(durations.len() - 1)];
    Ok((percentile(50), percentile(99)))
}
