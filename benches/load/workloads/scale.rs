//! The cost of a request by number of threads, connections and ids, and by length of a rejected token.

use serde_json::Value;

use crate::{
    Result,
    bench::Bench,
    client::Client,
    exchange::IdSequence,
    machine,
    measure::Plan,
    queries,
    queries::MOBILE,
    report::{Report, Throughput},
    workloads::throughput::{Conditions, is_warmed_up, measure},
};

/// The lengths of rejected tokens, in bytes, and the number of requests for each length.
const TOKENS: [usize; 2] = [10_000, 100_000];
const REJECTED: u32 = 1000;

/// Disables load shedding, since 10,000 simultaneous requests exceed the default queue.
const LONG_QUEUE: [(&str, &str); 2] =
    [("LIMITS_OPERATIONS_WAITING", "10000"), ("LIMITS_OPERATIONS_WAIT", "10s")];

pub fn threads(bench: &Bench, report: &mut Report) -> Result<()> {
    for cores in [1, 2] {
        let conditions =
            Conditions { cores, plan: shorter(bench), ..Conditions::usual(bench, IdSequence::cycle(1)) };
        let threads = if cores == 1 { "thread" } else { "threads" };
        let is_shared = cores == bench.cores.count();
        let note = if is_shared { ", one on the core of the load" } else { "" };
        add(&format!("hot, one id, {cores} {threads}{note}"), bench, &conditions, report)?;
    }
    Ok(())
}

pub fn connections(bench: &Bench, report: &mut Report) -> Result<()> {
    let settings = LONG_QUEUE.map(|(key, value)| format!("GATEWAY_{key}={value}")).join(", ");
    let line = format!("for the workloads by number of connections: {settings}");
    report.environment.push(line);
    for connections in [64, 1000, 10_000] {
        let workload = format!("hot, one id, {connections} connections");
        let maximum = machine::raise_open_files()?;
        // A process also has other files open.
        if maximum < connections as u64 + 100 {
            report.add_fact(&workload, format!("skipped: the limit of open files is {maximum}"));
            continue;
        }
        let usual = Conditions::usual(bench, IdSequence::cycle(1));
        let conditions = Conditions { connections, settings: &LONG_QUEUE, plan: shorter(bench), ..usual };
        add(&workload, bench, &conditions, report)?;
    }
    Ok(())
}

/// Measures one id up to more ids than fit into the cache.
pub fn ids(bench: &Bench, report: &mut Report) -> Result<()> {
    for count in [1, 1000, 100_000, 1_000_000] {
        let ids = IdSequence::cycle(count);
        let conditions = Conditions { plan: shorter(bench), ..Conditions::usual(bench, ids) };
        let order = if is_warmed_up(bench, ids) { "in turn" } else { "each for the first time" };
        add(&format!("{count} ids, {order}"), bench, &conditions, report)?;
    }
    Ok(())
}

/// Measures rejected tokens. Each request has a connection of its own, since some rejections close it.
pub fn tokens(bench: &Bench, report: &mut Report) -> Result<()> {
    let gateway = bench.gateway(1, &[])?;
    for size in TOKENS {
        let request = queries::with_token(&"x".repeat(size));
        let before = gateway.cpu()?;
        let mut status = 0;
        for _ in 0..REJECTED {
            let response = Client::open(gateway.address())?.send(&request)?;
            status = response.head.status;
            if serde_json::from_slice::<Value>(&response.body)?["errors"].is_null() {
                return Err(format!("a token of {size} bytes was not rejected: {status}").into());
            }
        }
        let cpu = (gateway.cpu()? - before).as_secs_f64() * 1e6 / f64::from(REJECTED);
        let name = format!("a token of {size} bytes, rejected over a connection of its own");
        report.add_fact(&name, format!("{status}, {cpu:.0} µs of CPU"));
    }
    Ok(())
}

/// Returns a shorter plan for the many measurements of this module.
fn shorter(bench: &Bench) -> Plan {
    Plan { repetitions: bench.plan.repetitions.min(2), ..bench.plan }
}

fn add(workload: &str, bench: &Bench, conditions: &Conditions<'_>, report: &mut Report) -> Result<()> {
    let [own, limit] = &measure(bench, &MOBILE, conditions)?;
    report.add_throughput(Throughput::new(workload, own, limit));
    Ok(())
}
