//! Many requests at once for what nobody knows yet: the upstream is asked once.

use crate::{
    Result,
    client::{Client, PATIENCE},
    exchange::{Exchange, Numbers},
    ids::SLOW,
    load::{Load, Until},
    queries::MOBILE,
    report::Report,
    upstream,
    workloads::Bench,
};

const AT_ONCE: usize = 200;

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let gateway = bench.gateway(1, &[])?;
    // The upstream takes its time for the one that is asked for then.
    let mut exchange =
        Exchange::learn(&mut Client::open(gateway.address())?, &MOBILE, Numbers::cycle(2))?.only(SLOW);
    let mut load = Load::open(gateway.address(), AT_ONCE, &exchange)?;
    let before = upstream::calls(&mut bench.upstream()?)?;
    load.run(&mut exchange, Until { requests: AT_ONCE, time: PATIENCE })?;
    let calls = upstream::calls(&mut bench.upstream()?)? - before;
    report.add_goal("200 at once for one new id", "1 upstream GET", calls.to_string(), calls == 1);
    Ok(())
}
