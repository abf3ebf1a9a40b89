//! Memory when idle, and after hot requests, distinct ids and distinct query texts.

use std::time::Duration;

use crate::{
    Result,
    baseline::Figure,
    bench::{Bench, CONNECTIONS},
    client::Client,
    exchange::{Exchange, IdSequence},
    load::{Load, StopCondition},
    queries::{FULL, MOBILE, MOBILE_TEXTS},
    report::Report,
    spread::Spread,
};

/// The first number of the ids for cold requests.
const FIRST_COLD: u32 = 0x3000_0000;

const IDS: usize = 200_000;
const TEXTS: usize = 1_000_000;

/// The share of these requests in a quick run, in percent.
const QUICK_PERCENT: usize = 5;

/// The time limit of a stage, for busy machines.
const STAGE_TIMEOUT: Duration = Duration::from_secs(120);

const MIB: f64 = (1 << 20) as f64;

/// The goal for memory outside of the caches, in MiB.
const OVERHEAD: f64 = 48.0;

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let gateway = bench.gateway(1, &[])?;
    let mebibytes = || gateway.memory().map(|(now, peak)| (now as f64 / MIB, peak as f64 / MIB));
    let (idle, _) = mebibytes()?;
    report.add_goal("memory, idle", "≤ 16 MiB", format!("{idle:.1} MiB"), idle <= 16.0);
    report.figures.push(Figure::lower_is_better("memory, idle, MiB".to_owned(), Spread::of([idle])));

    let scaled = |number: usize| if bench.is_quick { number * QUICK_PERCENT / 100 } else { number };
    let stages = [
        ("20 ids × all fields, hot", FULL, IdSequence::cycle(1), scaled(IDS) / 100),
        ("distinct ids", MOBILE, IdSequence::distinct(FIRST_COLD), scaled(IDS)),
        ("distinct query texts", MOBILE_TEXTS, IdSequence::distinct(FIRST_COLD), scaled(TEXTS)),
    ];
    for (stage, call, ids, requests) in stages {
        let mut exchange = Exchange::record(&mut Client::open(gateway.address())?, &call, ids)?;
        let sample = Load::open(gateway.address(), CONNECTIONS, &exchange)?
            .run(&mut exchange, StopCondition { requests, time: STAGE_TIMEOUT })?;
        let (now, _) = mebibytes()?;
        let rate = sample.requests as f64 / sample.elapsed.as_secs_f64();
        let reached = match sample.requests {
            reached if reached < requests => {
                format!("{reached} (of {requests}, time limit {STAGE_TIMEOUT:?})")
            }
            reached => reached.to_string(),
        };
        report.add_fact(&format!("memory after {reached} {stage}"), format!("{now:.1} MiB ({rate:.0}/s)"));
    }
    let (_, peak) = mebibytes()?;
    let caches = bench.gateway.cache_bytes as f64 / MIB;
    let text = format!("≤ {caches:.0} MiB of caches + {OVERHEAD:.0} MiB");
    report.add_goal("memory, at its peak", &text, format!("{peak:.1} MiB"), peak <= caches + OVERHEAD);
    report.figures.push(Figure::lower_is_better("memory, peak, MiB".to_owned(), Spread::of([peak])));
    Ok(())
}
