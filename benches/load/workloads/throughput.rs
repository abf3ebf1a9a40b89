//! As many requests as it takes to keep the server busy, beside the limit server.

use std::time::Duration;

use crate::{
    Result,
    chart::Bar,
    client::Client,
    exchange::{Asked, Exchange, Numbers},
    load::{Load, Until},
    measure::{Plan, Series, Target, in_turn},
    queries::{FULL, MOBILE},
    report::{Report, Throughput, Verdict, share},
    workloads::{Bench, CONNECTIONS},
};

/// The numbers of the ids that nobody has asked for before.
const FRESH: u32 = 0x1000_0000;

/// How long it may take to ask for each id before.
const WARM_UP: Duration = Duration::from_secs(60);

/// With this the answer cache is off.
const NO_ANSWERS: (&str, &str) = ("CACHE_ANSWERS_SIZE", "0");

/// Under which conditions the gateway and the limit server are measured.
pub struct Conditions<'a> {
    pub numbers: Numbers,
    pub cores: usize,
    pub connections: usize,
    pub settings: &'a [(&'a str, &'a str)],
    pub plan: Plan,
}

impl Conditions<'_> {
    /// One core, and as many connections as usual.
    pub fn usual(bench: &Bench, numbers: Numbers) -> Self {
        Self { numbers, cores: 1, connections: CONNECTIONS, settings: &[], plan: bench.plan }
    }
}

pub fn hot_one(bench: &Bench, report: &mut Report) -> Result<()> {
    let [own, limit] = &measure(bench, &MOBILE, &Conditions::usual(bench, Numbers::cycle(1)))?;
    of_limit("hot, one id", 0.65, own, limit, report);
    let p99 = own.spread(|it| it.p99).median;
    report.add_goal("hot, one id", "p99 ≤ 1 ms", format!("{p99:.0} µs"), p99 <= 1000.0);
    Ok(())
}

pub fn hot_1000(bench: &Bench, report: &mut Report) -> Result<()> {
    let [own, limit] = &measure(bench, &MOBILE, &Conditions::usual(bench, Numbers::cycle(1000)))?;
    of_limit("hot, 1,000 ids", 0.65, own, limit, report);
    Ok(())
}

pub fn full(bench: &Bench, report: &mut Report) -> Result<()> {
    let [own, limit] = &measure(bench, &FULL, &Conditions::usual(bench, Numbers::cycle(1)))?;
    of_limit("20 ids × all fields, hot", 0.6, own, limit, report);
    Ok(())
}

pub fn hot_one_executed(bench: &Bench, report: &mut Report) -> Result<()> {
    let [own, limit] = &measure(bench, &MOBILE, &without_answers(bench))?;
    of_processor("hot, one id, executed", 20.0, own, limit, report);
    Ok(())
}

pub fn full_executed(bench: &Bench, report: &mut Report) -> Result<()> {
    let [own, limit] = &measure(bench, &FULL, &without_answers(bench))?;
    of_processor("20 ids × all fields, executed", 150.0, own, limit, report);
    Ok(())
}

pub fn cold(bench: &Bench, report: &mut Report) -> Result<()> {
    let [own, limit] = &measure(bench, &MOBILE, &Conditions::usual(bench, Numbers::fresh(FRESH)))?;
    of_processor("cold", 42.0, own, limit, report);
    Ok(())
}

fn without_answers(bench: &Bench) -> Conditions<'static> {
    let settings: &[_] = if bench.gateway.remembers_answers { &[NO_ANSWERS] } else { &[] };
    Conditions { settings, ..Conditions::usual(bench, Numbers::cycle(1)) }
}

/// Whether each id is asked for before it is measured, so that what is measured is as warm as it gets. Of more than these,
/// none comes twice while it is.
pub fn is_asked_before(bench: &Bench, numbers: Numbers) -> bool {
    numbers.count() <= if bench.is_quick { 1000 } else { 100_000 }
}

/// A gateway and its limit server, in turn.
pub fn measure(bench: &Bench, asked: &Asked<'_>, conditions: &Conditions<'_>) -> Result<[Series; 2]> {
    let Conditions { numbers, cores, connections, settings, plan } = *conditions;
    let gateway = bench.gateway(cores, settings)?;
    let exchange = Exchange::learn(&mut Client::open(gateway.address())?, asked, numbers)?;
    let size = exchange.answer.len();
    let limit = bench.limit(cores, size)?;
    if is_asked_before(bench, numbers) {
        let requests = numbers.count();
        let mut exchange = exchange.clone();
        let asked = Load::open(gateway.address(), CONNECTIONS, &exchange)?
            .run(&mut exchange, Until { requests, time: WARM_UP })?;
        if asked.requests < requests {
            println!("  only {} of {requests} ids were asked for before, in {WARM_UP:?}", asked.requests);
        }
    }
    println!("  the answer has {size} bytes");
    let targets =
        [Target::new("limit", &limit, exchange.to_limit()), Target::new("gateway", &gateway, exchange)];
    let [limit, own] = in_turn(targets, connections, plan)?;
    Ok([own, limit])
}

/// A goal that is a share of the limit server's requests.
fn of_limit(workload: &str, goal: f64, own: &Series, limit: &Series, report: &mut Report) {
    let share = share(own, limit);
    report.add_throughput(Throughput::new(workload, own, limit));
    let text = format!("≥ {goal} of the limit server");
    report.add_goal(workload, &text, format!("{share:.2}"), Verdict::of_share(share, goal, limit));
    report.bars.push(Bar { label: workload.to_owned(), share: share.median, goal: Some(goal) });
}

/// A goal that is processor time for a request, in µs.
fn of_processor(workload: &str, goal: f64, own: &Series, limit: &Series, report: &mut Report) {
    let throughput = Throughput::new(workload, own, limit);
    let (cpu, share) = (throughput.cpu, share(own, limit));
    report.add_throughput(throughput);
    report.add_goal(workload, &format!("≤ {goal} µs of CPU"), format!("{cpu:.1} µs"), cpu.median <= goal);
    report.bars.push(Bar { label: workload.to_owned(), share: share.median, goal: None });
}
