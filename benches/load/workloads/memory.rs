//! How much memory it takes: idle, and after many hot, many distinct ids and many distinct query texts went through.

use std::time::Duration;

use crate::{
    Result,
    baseline::Figure,
    client::Client,
    exchange::{Exchange, Numbers},
    load::{Load, Until},
    queries::{FULL, MOBILE, MOBILE_TEXTS},
    report::Report,
    spread::Spread,
    workloads::{Bench, CONNECTIONS},
};

/// The numbers of the ids that nobody has asked for before.
const FRESH: u32 = 0x3000_0000;

const IDS: usize = 200_000;
const TEXTS: usize = 1_000_000;

/// What is asked for in the quick run, in a hundred of the above.
const QUICKLY: usize = 5;

/// How long each of them may take: a busy machine comes less far.
const STAGE: Duration = Duration::from_secs(120);

const MIB: f64 = (1 << 20) as f64;

/// What the gateway may take beside its caches, in MiB.
const BESIDE: f64 = 48.0;

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let gateway = bench.gateway(1, &[])?;
    let mebibytes = || gateway.memory().map(|(now, peak)| (now as f64 / MIB, peak as f64 / MIB));
    let (idle, _) = mebibytes()?;
    report.add_goal("memory, idle", "≤ 16 MiB", format!("{idle:.1} MiB"), idle <= 16.0);
    report.figures.push(Figure::lower_is_better("memory, idle, MiB".to_owned(), Spread::of([idle])));

    let times = |number: usize| if bench.is_quick { number * QUICKLY / 100 } else { number };
    let stages = [
        ("20 ids × all fields, hot", FULL, Numbers::cycle(1), times(IDS) / 100),
        ("distinct ids", MOBILE, Numbers::fresh(FRESH), times(IDS)),
        ("distinct query texts", MOBILE_TEXTS, Numbers::fresh(FRESH), times(TEXTS)),
    ];
    for (what, asked, numbers, requests) in stages {
        let mut exchange = Exchange::learn(&mut Client::open(gateway.address())?, &asked, numbers)?;
        let sample = Load::open(gateway.address(), CONNECTIONS, &exchange)?
            .run(&mut exchange, Until { requests, time: STAGE })?;
        let (now, _) = mebibytes()?;
        let rate = sample.requests as f64 / sample.elapsed.as_secs_f64();
        let reached = match sample.requests {
            reached if reached < requests => format!("{reached} (of {requests}: no more in {STAGE:?})"),
            reached => reached.to_string(),
        };
        report.add_fact(&format!("memory after {reached} {what}"), format!("{now:.1} MiB ({rate:.0}/s)"));
    }
    let (_, peak) = mebibytes()?;
    let caches = bench.gateway.caches as f64 / MIB;
    let text = format!("≤ {caches:.0} MiB of caches + {BESIDE:.0} MiB");
    report.add_goal("memory, at its peak", &text, format!("{peak:.1} MiB"), peak <= caches + BESIDE);
    report.figures.push(Figure::lower_is_better("memory, peak, MiB".to_owned(), Spread::of([peak])));
    Ok(())
}
