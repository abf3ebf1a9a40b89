//! The throughput of a saturated gateway, in comparison with its reference servers.

use std::time::Duration;

use crate::{
    Result,
    bench::{Bench, CONNECTIONS},
    chart::Bar,
    client::Client,
    exchange::{Call, Exchange, IdSequence},
    http::OK,
    ids::id,
    load::{Load, StopCondition},
    measure::{Plan, Series, Target, measure_interleaved},
    process::Process,
    queries::{self, BATCH, FULL, MOBILE, MOBILE_PERSISTED},
    report::{Comparison, Report, ServerSeries, Throughput, Verdict, share},
};

/// The first number of the ids for cold requests.
const FIRST_COLD: u32 = 0x1000_0000;

/// The time limit for the first request of each id.
const WARM_UP: Duration = Duration::from_secs(60);

/// The goals of other forms of a request, as a share of the throughput of a single POST: a GET costs about as much, and an
/// array of ten operations at most as much as two requests, or four without the response cache.
const GET_GOAL: f64 = 0.9;
const BATCH_GOAL: f64 = 0.5;
const BATCH_EXECUTED_GOAL: f64 = 0.25;

/// Disables the response cache.
const NO_RESPONSE_CACHE: (&str, &str) = ("CACHE_ANSWERS_SIZE", "0");

/// The conditions of one measurement.
pub struct Conditions<'a> {
    pub ids: IdSequence,
    pub cores: usize,
    pub connections: usize,
    pub settings: &'a [(&'a str, &'a str)],
    pub plan: Plan,
}

impl Conditions<'_> {
    /// One core, and the default number of connections.
    pub fn usual(bench: &Bench, ids: IdSequence) -> Self {
        Self { ids, cores: 1, connections: CONNECTIONS, settings: &[], plan: bench.plan }
    }
}

pub fn hot_one(bench: &Bench, report: &mut Report) -> Result<()> {
    let series = &measure_all(bench, &MOBILE, &Conditions::usual(bench, IdSequence::cycle(1)))?;
    add_with_share_goal("hot, one id", 0.65, &series.gateway, &series.limit, report);
    let p99 = series.gateway.spread(|it| it.p99).median;
    report.add_goal("hot, one id", "p99 ≤ 1 ms", format!("{p99:.0} µs"), p99 <= 1000.0);
    report.add_comparison(Comparison::new("hot, one id", series));
    Ok(())
}

pub fn hot_304(bench: &Bench, report: &mut Report) -> Result<()> {
    let gateway = bench.gateway(1, &[])?;
    let (request, data) = (queries::mobile_get(&id(1)), queries::mobile_data(&id(1)));
    let exchange = Exchange::record_validation(&mut Client::open(gateway.address())?, &request, &data)?;
    add_form(bench, "304 to a repeated GET, one id", GET_GOAL, &gateway, exchange, report)
}

pub fn hot_persisted(bench: &Bench, report: &mut Report) -> Result<()> {
    let gateway = bench.gateway(1, &[])?;
    let mut client = Client::open(gateway.address())?;
    let registration = client.send(&queries::mobile_registration(&id(1)))?;
    if registration.head.status != OK {
        return Err(format!("the text is not registered: {}", registration.head.status).into());
    }
    let exchange = Exchange::record(&mut client, &MOBILE_PERSISTED, IdSequence::cycle(1))?;
    println!(
        "  request: {} bytes, {} with the text",
        exchange.request.len(),
        queries::mobile_get(&id(1)).len()
    );
    add_form(bench, "persisted query by GET, hot, one id", GET_GOAL, &gateway, exchange, report)
}

pub fn batch(bench: &Bench, report: &mut Report) -> Result<()> {
    let conditions = Conditions::usual(bench, IdSequence::cycle(1));
    let (gateway, exchange) = start_gateway(bench, &BATCH, &conditions)?;
    add_form(bench, "batch of ten ids, hot", BATCH_GOAL, &gateway, exchange, report)
}

pub fn batch_executed(bench: &Bench, report: &mut Report) -> Result<()> {
    let (gateway, exchange) = start_gateway(bench, &BATCH, &without_response_cache(bench))?;
    add_form(bench, "batch of ten ids, executed", BATCH_EXECUTED_GOAL, &gateway, exchange, report)
}

pub fn hot_1000(bench: &Bench, report: &mut Report) -> Result<()> {
    let [gateway, limit] = &measure(bench, &MOBILE, &Conditions::usual(bench, IdSequence::cycle(1000)))?;
    add_with_share_goal("hot, 1,000 ids", 0.65, gateway, limit, report);
    Ok(())
}

pub fn full(bench: &Bench, report: &mut Report) -> Result<()> {
    let series = &measure_all(bench, &FULL, &Conditions::usual(bench, IdSequence::cycle(1)))?;
    add_with_share_goal("20 ids × all fields, hot", 0.6, &series.gateway, &series.limit, report);
    report.add_comparison(Comparison::new("20 ids × all fields, hot", series));
    Ok(())
}

pub fn hot_one_executed(bench: &Bench, report: &mut Report) -> Result<()> {
    let [gateway, limit] = &measure(bench, &MOBILE, &without_response_cache(bench))?;
    add_with_cpu_goal("hot, one id, executed", 20.0, gateway, limit, report);
    Ok(())
}

pub fn full_executed(bench: &Bench, report: &mut Report) -> Result<()> {
    let [gateway, limit] = &measure(bench, &FULL, &without_response_cache(bench))?;
    add_with_cpu_goal("20 ids × all fields, executed", 150.0, gateway, limit, report);
    Ok(())
}

pub fn cold(bench: &Bench, report: &mut Report) -> Result<()> {
    let series = &measure_all(bench, &MOBILE, &Conditions::usual(bench, IdSequence::distinct(FIRST_COLD)))?;
    add_with_cpu_goal("cold", 42.0, &series.gateway, &series.limit, report);
    report.add_comparison(Comparison::new("cold", series));
    Ok(())
}

fn without_response_cache(bench: &Bench) -> Conditions<'static> {
    let settings: &[_] = if bench.gateway.has_response_cache { &[NO_RESPONSE_CACHE] } else { &[] };
    Conditions { settings, ..Conditions::usual(bench, IdSequence::cycle(1)) }
}

/// Whether each id is requested once before the measurement, so that the caches are warm. Longer sequences do not repeat
/// an id during a measurement.
pub fn is_warmed_up(bench: &Bench, ids: IdSequence) -> bool {
    ids.count() <= if bench.is_quick { 1000 } else { 100_000 }
}

/// Measures a gateway and its limit server.
pub fn measure(bench: &Bench, call: &Call<'_>, conditions: &Conditions<'_>) -> Result<[Series; 2]> {
    let Conditions { cores, connections, plan, .. } = *conditions;
    let (gateway, exchange) = start_gateway(bench, call, conditions)?;
    let limit = bench.limit(cores, exchange.response.len())?;
    let targets = [
        Target::new("limit server", &limit, exchange.with_constant_response()),
        Target::new("gateway", &gateway, exchange),
    ];
    let [limit, gateway] = measure_interleaved(targets, connections, plan)?;
    Ok([gateway, limit])
}

/// Measures a gateway and all of its reference servers.
fn measure_all(bench: &Bench, call: &Call<'_>, conditions: &Conditions<'_>) -> Result<ServerSeries> {
    let Conditions { ids, cores, connections, plan, .. } = *conditions;
    let (gateway, exchange) = start_gateway(bench, call, conditions)?;
    let size = exchange.response.len();
    let (limit, relay, plain) = (bench.limit(cores, size)?, bench.relay(cores, size)?, bench.plain(cores)?);
    let plain_exchange = Exchange::record(&mut Client::open(plain.address())?, call, ids)?;
    let targets = [
        Target::new("limit server", &limit, exchange.with_constant_response()),
        Target::new("relay", &relay, exchange.with_constant_response()),
        Target::new("plain server", &plain, plain_exchange),
        Target::new("gateway", &gateway, exchange),
    ];
    let [limit, relay, plain, gateway] = measure_interleaved(targets, connections, plan)?;
    Ok(ServerSeries { gateway, limit, relay, plain })
}

/// Starts a gateway, records its exchange and warms its caches.
fn start_gateway(bench: &Bench, call: &Call<'_>, conditions: &Conditions<'_>) -> Result<(Process, Exchange)> {
    let Conditions { ids, cores, settings, .. } = *conditions;
    let gateway = bench.gateway(cores, settings)?;
    let exchange = Exchange::record(&mut Client::open(gateway.address())?, call, ids)?;
    if is_warmed_up(bench, ids) {
        let requests = ids.count();
        let mut exchange = exchange.clone();
        let sample = Load::open(gateway.address(), CONNECTIONS, &exchange)?
            .run(&mut exchange, StopCondition { requests, time: WARM_UP })?;
        if sample.requests < requests {
            println!("  warm-up stopped after {} of {requests} ids, in {WARM_UP:?}", sample.requests);
        }
    }
    println!("  response size: {} bytes", exchange.response.len());
    Ok((gateway, exchange))
}

/// Adds a workload whose goal is a share of the limit server's throughput.
fn add_with_share_goal(workload: &str, goal: f64, gateway: &Series, limit: &Series, report: &mut Report) {
    let share = share(gateway, limit);
    report.add_throughput(Throughput::new(workload, gateway, limit));
    let text = format!("≥ {goal} of the limit server");
    report.add_goal(workload, &text, format!("{share:.2}"), Verdict::of_share(share, goal, limit));
    report.bars.push(Bar { label: workload.to_owned(), share: share.median, goal: Some(goal) });
}

/// Adds a workload whose goal is a CPU time per request, in µs.
fn add_with_cpu_goal(workload: &str, goal: f64, gateway: &Series, limit: &Series, report: &mut Report) {
    let throughput = Throughput::new(workload, gateway, limit);
    let (cpu, share) = (throughput.cpu, share(gateway, limit));
    report.add_throughput(throughput);
    report.add_goal(workload, &format!("≤ {goal} µs of CPU"), format!("{cpu:.1} µs"), cpu.median <= goal);
    report.bars.push(Bar { label: workload.to_owned(), share: share.median, goal: None });
}

/// Measures and adds another form of request than a single POST: its `exchange` with the `gateway`. The goal is a share
/// of the throughput of the same gateway with the mobile query for one id as a single POST, in turn with the other form.
fn add_form(
    bench: &Bench,
    workload: &str,
    goal: f64,
    gateway: &Process,
    exchange: Exchange,
    report: &mut Report,
) -> Result<()> {
    let post = Exchange::record(&mut Client::open(gateway.address())?, &MOBILE, IdSequence::cycle(1))?;
    let limit = bench.limit(1, exchange.response.len())?;
    let targets = [
        Target::new("limit server", &limit, exchange.with_constant_response()),
        Target::new("single POST", gateway, post),
        Target::new("gateway", gateway, exchange),
    ];
    let [limit, post, own] = &measure_interleaved(targets, CONNECTIONS, bench.plan)?;
    report.add_throughput(Throughput::new(workload, own, limit));
    let of_post = share(own, post);
    let text = format!("≥ {goal} of a single POST");
    report.add_goal(workload, &text, format!("{of_post:.2}"), Verdict::of_share(of_post, goal, post));
    report.bars.push(Bar { label: workload.to_owned(), share: share(own, limit).median, goal: None });
    Ok(())
}
