//! Single flight: many concurrent requests for an uncached id cause one upstream GET.

use crate::{
    Result,
    bench::Bench,
    client::{Client, RESPONSE_TIMEOUT},
    exchange::{Exchange, IdSequence},
    ids::SLOW,
    load::{Load, StopCondition},
    queries::MOBILE,
    report::Report,
    upstream,
};

const CONCURRENT: usize = 200;

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let gateway = bench.gateway(1, &[])?;
    // The upstream delays this id, so that all requests arrive during the first call.
    let mut exchange =
        Exchange::record(&mut Client::open(gateway.address())?, &MOBILE, IdSequence::cycle(2))?
            .for_number(SLOW);
    let mut load = Load::open(gateway.address(), CONCURRENT, &exchange)?;
    let before = upstream::calls(&mut bench.upstream_client()?)?;
    load.run(&mut exchange, StopCondition { requests: CONCURRENT, time: RESPONSE_TIMEOUT })?;
    let calls = upstream::calls(&mut bench.upstream_client()?)? - before;
    report.add_goal(
        "200 concurrent requests for one new id",
        "1 upstream GET",
        calls.to_string(),
        calls == 1,
    );
    Ok(())
}
