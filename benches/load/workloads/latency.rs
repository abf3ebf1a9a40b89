//! How long one request takes where there is no other: over one connection, one after the other.

use crate::{
    Result,
    baseline::Figure,
    client::Client,
    exchange::{Exchange, Numbers},
    measure::{Target, in_turn},
    queries::{MOBILE, UPSTREAM},
    report::Report,
    workloads::{Bench, stub},
};

/// The numbers of the ids that nobody has asked for before.
const FRESH: u32 = 0x2000_0000;

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let gateway = bench.gateway(1, &[])?;
    // One of its own in the gateway's place: as far away as the gateway is.
    let upstream = stub(bench.cores.of_server(1))?;
    let mut client = Client::open(gateway.address())?;
    let hot = Exchange::learn(&mut client, &MOBILE, Numbers::cycle(1))?;
    let cold = Exchange::learn(&mut client, &MOBILE, Numbers::fresh(FRESH))?;
    let raw = Exchange::learn(&mut Client::open(upstream.address())?, &UPSTREAM, Numbers::fresh(FRESH))?;
    let limit = bench.limit(1, hot.answer.len())?;
    let targets = [
        Target::new("limit server", &limit, hot.to_limit()),
        Target::new("hot", &gateway, hot),
        Target::new("upstream", &upstream, raw),
        Target::new("cold", &gateway, cold),
    ];
    let names = targets.each_ref().map(|target| target.name);
    let series = in_turn(targets, 1, bench.plan)?;
    for (name, series) in names.iter().zip(&series) {
        let (p50, p99) = (series.spread(|it| it.p50), series.spread(|it| it.p99).median);
        report.add_fact(&format!("one connection, {name}"), format!("p50 {p50:.1} µs, p99 {p99:.1} µs"));
    }
    let goals = [("hot", "limit server", 20.0, 1, 0), ("cold", "upstream", 100.0, 3, 2)];
    for (what, other, goal, own, beside) in goals {
        let added = series[own].against(&series[beside], |own, other| own.p50 - other.p50);
        let workload = format!("{what}, one connection");
        let text = format!("≤ {goal} µs above the {other}");
        report.add_goal(&workload, &text, format!("{added:.1} µs"), added.median <= goal);
        let times = series[own].against(&series[beside], |own, other| own.p50 / other.p50);
        report.figures.push(Figure::lower_is_better(format!("{workload}: times the {other}"), times));
    }
    Ok(())
}
