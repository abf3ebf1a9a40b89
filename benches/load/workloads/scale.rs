//! How the cost of a request grows with what is there: threads, connections, ids, and tokens that are too long.

use serde_json::Value;

use crate::{
    Result,
    client::Client,
    exchange::Numbers,
    machine,
    measure::Plan,
    queries,
    queries::MOBILE,
    report::{Report, Throughput},
    workloads::{
        Bench,
        throughput::{Conditions, is_asked_before, measure},
    },
};

/// How long the tokens are that are refused, in bytes, and how many of each.
const TOKENS: [usize; 2] = [10_000, 100_000];
const REFUSED: u32 = 1000;

/// So that nobody is refused where all of the connections ask at the same moment, which is more than what is let wait.
const PATIENT: [(&str, &str); 2] =
    [("LIMITS_OPERATIONS_WAITING", "10000"), ("LIMITS_OPERATIONS_WAIT", "10s")];

pub fn threads(bench: &Bench, report: &mut Report) -> Result<()> {
    for cores in [1, 2] {
        let conditions =
            Conditions { cores, plan: shorter(bench), ..Conditions::usual(bench, Numbers::cycle(1)) };
        let threads = if cores == 1 { "thread" } else { "threads" };
        let is_shared = cores == bench.cores.count();
        let note = if is_shared { ", one on the core of the load" } else { "" };
        add(&format!("hot, one id, {cores} {threads}{note}"), bench, &conditions, report)?;
    }
    Ok(())
}

pub fn connections(bench: &Bench, report: &mut Report) -> Result<()> {
    let settings = PATIENT.map(|(key, value)| format!("GATEWAY_{key}={value}")).join(", ");
    let line = format!("for the rows by connections, where all may ask at the same moment: {settings}");
    report.circumstances.push(line);
    for connections in [64, 1000, 10_000] {
        let workload = format!("hot, one id, {connections} connections");
        let most = machine::allow_connections()?;
        // Beside what else a process has open.
        if most < connections as u64 + 100 {
            report.add_fact(&workload, format!("not possible here: a process may hold {most} files open"));
            continue;
        }
        let usual = Conditions::usual(bench, Numbers::cycle(1));
        let conditions = Conditions { connections, settings: &PATIENT, plan: shorter(bench), ..usual };
        add(&workload, bench, &conditions, report)?;
    }
    Ok(())
}

/// Those that do not fit into the cache are asked for anew.
pub fn ids(bench: &Bench, report: &mut Report) -> Result<()> {
    for count in [1, 1000, 100_000, 1_000_000] {
        let numbers = Numbers::cycle(count);
        let conditions = Conditions { plan: shorter(bench), ..Conditions::usual(bench, numbers) };
        let way = if is_asked_before(bench, numbers) { "in turn" } else { "each for the first time" };
        add(&format!("{count} ids, {way}"), bench, &conditions, report)?;
    }
    Ok(())
}

/// Tokens that are refused before anything is done for them. Each has a connection of its own: some refusals end it.
pub fn tokens(bench: &Bench, report: &mut Report) -> Result<()> {
    let gateway = bench.gateway(1, &[])?;
    for size in TOKENS {
        let request = queries::with_token(&"x".repeat(size));
        let before = gateway.cpu()?;
        let mut status = 0;
        for _ in 0..REFUSED {
            let answer = Client::open(gateway.address())?.ask(&request)?;
            status = answer.head.status;
            if serde_json::from_slice::<Value>(&answer.body)?["errors"].is_null() {
                return Err(format!("a token of {size} bytes is not refused: {status}").into());
            }
        }
        let cpu = (gateway.cpu()? - before).as_secs_f64() * 1e6 / f64::from(REFUSED);
        let what = format!("a token of {size} bytes is refused, over a connection of its own");
        report.add_fact(&what, format!("{status}, {cpu:.0} µs of CPU"));
    }
    Ok(())
}

/// There are many of these.
fn shorter(bench: &Bench) -> Plan {
    Plan { repetitions: bench.plan.repetitions.min(2), ..bench.plan }
}

fn add(workload: &str, bench: &Bench, conditions: &Conditions<'_>, report: &mut Report) -> Result<()> {
    let [own, limit] = &measure(bench, &MOBILE, conditions)?;
    report.add_throughput(Throughput::new(workload, own, limit));
    Ok(())
}
