//! As many requests as it takes to keep the server busy, beside the limit server.

use crate::{
    Result,
    chart::Bar,
    client::Client,
    exchange::{Asked, Exchange, Numbers},
    measure::{Series, Target, in_turn},
    queries,
    report::{Report, Throughput},
    workloads::{Bench, CONNECTIONS},
};

/// The numbers of the ids that nobody has asked for before.
const FRESH: u32 = 0x1000_0000;

/// With this the answer cache is off.
const NO_ANSWERS: (&str, &str) = ("CACHE_ANSWERS_SIZE", "0");

const MOBILE: Asked<'static> =
    Asked { request: &|id| queries::mobile(id, None), data: &|id| queries::mobile_data(id) };
const FULL: Asked<'static> = Asked { request: &|_| queries::full(None), data: &|_| queries::full_data() };

pub fn hot_one(bench: &Bench, report: &mut Report) -> Result<()> {
    let [own, limit] = &measure(bench, &MOBILE, Numbers::cycle(1), &[])?;
    of_limit("hot, one id", 0.65, own, limit, report);
    let p99 = own.spread(|it| it.p99).median;
    report.add_goal("hot, one id", "p99 ≤ 1 ms", format!("{p99:.0} µs"), p99 <= 1000.0);
    Ok(())
}

pub fn hot_1000(bench: &Bench, report: &mut Report) -> Result<()> {
    let [own, limit] = &measure(bench, &MOBILE, Numbers::cycle(1000), &[])?;
    of_limit("hot, 1,000 ids", 0.65, own, limit, report);
    Ok(())
}

pub fn full(bench: &Bench, report: &mut Report) -> Result<()> {
    let [own, limit] = &measure(bench, &FULL, Numbers::cycle(1), &[])?;
    of_limit("20 ids × all fields, hot", 0.6, own, limit, report);
    Ok(())
}

pub fn hot_one_executed(bench: &Bench, report: &mut Report) -> Result<()> {
    let [own, limit] = &measure(bench, &MOBILE, Numbers::cycle(1), without_answers(bench))?;
    of_processor("hot, one id, executed", 20.0, own, limit, report);
    Ok(())
}

pub fn full_executed(bench: &Bench, report: &mut Report) -> Result<()> {
    let [own, limit] = &measure(bench, &FULL, Numbers::cycle(1), without_answers(bench))?;
    of_processor("20 ids × all fields, executed", 150.0, own, limit, report);
    Ok(())
}

pub fn cold(bench: &Bench, report: &mut Report) -> Result<()> {
    let [own, limit] = &measure(bench, &MOBILE, Numbers::fresh(FRESH), &[])?;
    of_processor("cold", 42.0, own, limit, report);
    Ok(())
}

fn without_answers(bench: &Bench) -> &'static [(&'static str, &'static str)] {
    if bench.gateway.remembers_answers { &[NO_ANSWERS] } else { &[] }
}

/// A gateway and its limit server, in turn.
fn measure(bench: &Bench, asked: &Asked<'_>, numbers: Numbers, more: &[(&str, &str)]) -> Result<[Series; 2]> {
    let gateway = bench.gateway(1, more)?;
    let exchange = Exchange::learn(&mut Client::open(gateway.address())?, asked, numbers)?;
    let size = exchange.answer.len();
    let limit = bench.limit(1, size)?;
    println!("  the answer has {size} bytes");
    let mut targets = [
        Target { name: "limit".to_owned(), server: &limit, exchange: Exchange::with_limit(&exchange) },
        Target { name: "gateway".to_owned(), server: &gateway, exchange },
    ];
    let mut series = in_turn(&mut targets, CONNECTIONS, bench.plan)?.into_iter();
    match (series.next(), series.next()) {
        (Some(limit), Some(own)) => Ok([own, limit]),
        _ => Err("nothing was measured".into()),
    }
}

/// A goal that is a share of the limit server's requests.
fn of_limit(workload: &str, goal: f64, own: &Series, limit: &Series, report: &mut Report) {
    let throughput = Throughput::new(workload, own, limit);
    let share = throughput.of_limit_by_rate;
    report.add_throughput(throughput);
    let text = format!("≥ {goal} of the limit server");
    report.add_goal(workload, &text, format!("{share:.2}"), share.median >= goal);
    report.bars.push(Bar { label: workload.to_owned(), share: share.median, goal: Some(goal) });
}

/// A goal that is processor time for a request, in µs.
fn of_processor(workload: &str, goal: f64, own: &Series, limit: &Series, report: &mut Report) {
    let throughput = Throughput::new(workload, own, limit);
    let (cpu, share) = (throughput.cpu, throughput.of_limit_by_rate);
    report.add_throughput(throughput);
    report.add_goal(workload, &format!("≤ {goal} µs of CPU"), format!("{cpu:.1} µs"), cpu.median <= goal);
    report.bars.push(Bar { label: workload.to_owned(), share: share.median, goal: None });
}
