//! How soon it answers, and how much there is to copy to a machine.

use std::{fs, time::Instant};

use serde_json::Value;

use crate::{
    Result, baseline::Figure, client::Client, process::Process, queries, report::Report, spread::Spread,
    workloads::Bench,
};

const TIMES: usize = 9;

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let request = queries::typename();
    let program = bench.gateway.command(None, &[]);
    let times = (0..TIMES).map(|_| {
        let begun = Instant::now();
        // With this program starting first, which then becomes the gateway.
        let gateway = Process::start(&program, bench.cores.of_server(1))?;
        let answer = Client::open(gateway.address())?.ask(&request)?;
        let time = begun.elapsed().as_secs_f64() * 1000.0;
        match serde_json::from_slice::<Value>(&answer.body)? {
            said if said == queries::typename_data() => Ok(time),
            said => Err(format!("a wrong answer: {} {said}", answer.head.status).into()),
        }
    });
    let time = Spread::of(times.collect::<Result<Vec<_>>>()?);
    report.add_goal(
        "start to the first answer, sandbox",
        "≤ 30 ms",
        format!("{time:.1} ms"),
        time.median <= 30.0,
    );

    let size = fs::metadata(&bench.gateway.program)?.len() as f64 / f64::from(1 << 20);
    report.add_goal("binary, stripped, with GraphiQL", "≤ 20 MiB", format!("{size:.1} MiB"), size <= 20.0);
    report.figures.push(Figure::lower_is_better("binary, MiB".to_owned(), Spread::of([size])));
    Ok(())
}
