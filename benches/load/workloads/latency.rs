//! The latency of sequential requests over one connection.

use crate::{
    Result,
    baseline::Figure,
    bench::{Bench, stub},
    client::Client,
    exchange::{Exchange, IdSequence},
    measure::{Target, measure_interleaved},
    queries::{MOBILE, UPSTREAM},
    report::Report,
};

/// The first number of the ids for cold requests.
const FIRST_COLD: u32 = 0x2000_0000;

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let gateway = bench.gateway(1, &[])?;
    // A stub on the gateway's core has the same distance from the load generator.
    let upstream = stub(bench.cores.of_server(1))?;
    let mut client = Client::open(gateway.address())?;
    let hot = Exchange::record(&mut client, &MOBILE, IdSequence::cycle(1))?;
    let cold = Exchange::record(&mut client, &MOBILE, IdSequence::distinct(FIRST_COLD))?;
    let raw = Exchange::record(
        &mut Client::open(upstream.address())?,
        &UPSTREAM,
        IdSequence::distinct(FIRST_COLD),
    )?;
    let limit = bench.limit(1, hot.response.len())?;
    let targets = [
        Target::new("limit server", &limit, hot.with_constant_response()),
        Target::new("hot", &gateway, hot),
        Target::new("upstream", &upstream, raw),
        Target::new("cold", &gateway, cold),
    ];
    let names = targets.each_ref().map(|target| target.name);
    let series = measure_interleaved(targets, 1, bench.plan)?;
    for (name, series) in names.iter().zip(&series) {
        let (p50, p99) = (series.spread(|it| it.p50), series.spread(|it| it.p99).median);
        report.add_fact(&format!("one connection, {name}"), format!("p50 {p50:.1} µs, p99 {p99:.1} µs"));
    }
    let goals = [("hot", "limit server", 20.0, 1, 0), ("cold", "upstream", 100.0, 3, 2)];
    for (kind, other, goal, own, reference) in goals {
        let added = series[own].against(&series[reference], |own, other| own.p50 - other.p50);
        let workload = format!("{kind}, one connection");
        let text = format!("≤ {goal} µs above the {other}");
        report.add_goal(&workload, &text, format!("{added:.1} µs"), added.median <= goal);
        let times = series[own].against(&series[reference], |own, other| own.p50 / other.p50);
        report.figures.push(Figure::lower_is_better(format!("{workload}: times the {other}"), times));
    }
    Ok(())
}
