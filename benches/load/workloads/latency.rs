//! How long one request takes where there is no other: over one connection, one after the other.

use crate::{
    Result,
    baseline::Figure,
    client::Client,
    exchange::{Asked, Exchange, Numbers},
    measure::{Target, in_turn},
    queries,
    report::Report,
    workloads::Bench,
};

/// The numbers of the ids that nobody has asked for before.
const FRESH: u32 = 0x2000_0000;

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let gateway = bench.gateway(1, &[])?;
    let mobile = Asked { request: &|id| queries::mobile(id, None), data: &|id| queries::mobile_data(id) };
    let raw = Asked { request: &queries::upstream, data: &queries::upstream_data };
    let mut client = Client::open(gateway.address())?;
    let hot = Exchange::learn(&mut client, &mobile, Numbers::cycle(1))?;
    let cold = Exchange::learn(&mut client, &mobile, Numbers::fresh(FRESH))?;
    let limit = bench.limit(1, hot.answer.len())?;
    let target = |name: &str, server, exchange| Target { name: name.to_owned(), server, exchange };
    let mut targets = [
        target("limit", &limit, Exchange::with_limit(&hot)),
        target("hot", &gateway, hot),
        target(
            "upstream",
            &bench.upstream,
            Exchange::learn(&mut bench.upstream()?, &raw, Numbers::fresh(FRESH))?,
        ),
        target("cold", &gateway, cold),
    ];
    let series = in_turn(&mut targets, 1, bench.plan)?;
    for (target, series) in targets.iter().zip(&series) {
        let (p50, p99) = (series.spread(|it| it.p50), series.spread(|it| it.p99).median);
        report.add_fact(
            &format!("one connection, {}", target.name),
            format!("p50 {p50:.1} µs, p99 {p99:.1} µs"),
        );
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
